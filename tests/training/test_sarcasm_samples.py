"""The sample set of the sarcasm classifier, and how well what learns from it judges sentences that people wrote."""

import json
from collections import Counter
from pathlib import Path

import pytest

from registry import families
from registry.families.base import Example, FitRequest, Silent, manifest_of
from registry.recipe import Recipe
from tests.training.test_samples import words
from training.samples import generate
from training.samples.sarcasm import LABELS, SARCASTIC

DATA = Path(__file__).resolve().parents[1] / "data" / "sarcasm"


def handwritten(name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def test_both_labels_are_drawn_evenly_from_both_sources() -> None:
    drawn = generate("sarcasm", 4_000, seed=7)
    assert Counter(sample.label for sample in drawn) == dict.fromkeys(LABELS, 2_000)
    assert all((sample.kind == "sarcasm") == (sample.label == SARCASTIC) for sample in drawn)
    assert {sample.kind for sample in drawn} == {"plain", "emoji", "mixed", "sarcasm"}


def test_the_backup_learns_from_other_texts_than_the_classifier_it_helps() -> None:
    own, theirs = (
        {sample.fields for sample in generate(slug, 2_000, seed=7)} for slug in ("emotion", "emotion-backup")
    )
    assert len(own & theirs) < 200  # emoji alone are few


def test_the_held_out_sentences_are_sixty_of_each_and_apart_from_those_for_development() -> None:
    held_out, development = handwritten("test"), handwritten("dev")
    assert Counter(label for _, label in held_out) == dict.fromkeys(LABELS, 60)
    assert not {text for text, _ in held_out} & {text for text, _ in development}


def test_no_held_out_sentence_shares_a_phrase_with_generated_texts() -> None:
    generated: set[tuple[str, ...]] = set()
    for sample in generate("sarcasm", 12_000, seed=5):
        text = words(sample.fields[0])
        generated.update(tuple(text[at : at + 5]) for at in range(len(text) - 4))
    shared = [
        text
        for text, _ in handwritten("test")
        if any(tuple(words(text)[at : at + 5]) in generated for at in range(len(words(text)) - 4))
    ]
    assert shared == []


@pytest.mark.slow
def test_sarcasm_is_found_in_sentences_that_people_wrote(tmp_path: Path) -> None:
    """The detector alone. Measured with four seeds: precision 0.85 to 0.92, recall 0.55 to 0.62."""
    examples = [Example(sample.fields, sample.label) for sample in generate("sarcasm", 4_000, seed=7)]
    request = FitRequest(
        labels=LABELS,
        input_fields=("text",),
        recipe=Recipe(),
        train=examples[:3_600],
        valid=examples[3_600:],
        out=tmp_path / "out",
        checkpoints=tmp_path / "checkpoints",
        reporter=Silent(),
    )
    classic = families.family("classic")
    predictor = classic.load(request.out, manifest_of(request, classic.fit(request), classifier="s", family="classic"))
    answers = predictor.predict([(text,) for text, _ in handwritten("test")])
    found = Counter(
        (label == SARCASTIC, bool(answer.probabilities[LABELS.index(SARCASTIC)] >= 0.5))
        for answer, (_, label) in zip(answers, handwritten("test"), strict=True)
    )
    precision = found[True, True] / (found[True, True] + found[False, True])
    recall = found[True, True] / 60
    assert precision >= 0.82 and recall >= 0.5, found
