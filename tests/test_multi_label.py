"""Several labels once around: a file, a version, an answer, a person's word on it, the next snapshot."""

import io
import json
from pathlib import Path

import pytest
from django.core.management import call_command

pytestmark = pytest.mark.django_db(transaction=True)
WORDS = {"money": "bank cash budget loan", "politics": "vote party minister law", "sport": "match goal team race"}
FILLERS = ["today", "again", "then", "with", "my", "old", "friend", "neighbour", "home", "too", "some", "more"]
SETS = [(), ("money",), ("politics",), ("sport",), ("money", "politics"), ("money", "sport"), ("politics", "sport")]


def sentence(labels: tuple[str, ...], number: int) -> str:
    """A sentence of its own for each number, with a word or two for every label."""
    telling = [WORDS[label].split()[(number + step) % 4] for label in labels for step in (0, 1)]
    return " ".join([*telling, *(FILLERS[number * step % len(FILLERS)] for step in (1, 5, 7)), str(number)])


def output_of(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_sets_of_labels_go_once_around_the_loop(settings, tmp_path: Path, monkeypatch) -> None:
    from inference.classifier import PYTHON, LocalClassifier
    from interactions.services import feedback_give
    from kalimtak.core import jobs
    from kalimtak.fsck import find
    from registry.models import Classifier, ModelVersion
    from training import services
    from training.models import TrainingDataItem

    settings.KALIMTAK_MODELS_STORE, settings.KALIMTAK_VAR = tmp_path / "store", tmp_path / "var"
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    topics = Classifier.objects.create(
        slug="topics",
        name="Topics",
        family="classic",
        labels=list(WORDS),
        input_fields=["text"],
        label_config={"multi_label": True},
    )
    rows = [{"text": sentence(labels, number), "label": labels} for labels in SETS for number in range(60)]
    (tmp_path / "topics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    printed = output_of("import_dataset", str(tmp_path / "topics.jsonl"), "--classifier", "topics")
    assert "A text has 1.29 labels on average; 60 have none of them." in printed

    printed = output_of("train", "topics", "--deploy")
    assert "Exact match" in printed and "Micro-F1" in printed
    version = ModelVersion.objects.get()
    assert version.calibration["multi_label"] and version.metrics["macro_f1"] > 0.9
    folder = tmp_path / "store" / "topics" / "1"
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "| Micro-F1 |" in card and "| none of them |" in card
    assert (folder / "confusion_matrix.png").stat().st_size > 1_000
    assert "Exact match" in output_of("evaluate", "topics")
    assert "micro f1" in output_of("compare", "topics/1", "topics/1")

    text = "The minister saw the match for cash at the bank and the party vote on the goal of the team."
    result = LocalClassifier("topics").classify(text)
    assert set(result["labels"]) == set(WORDS)
    feedback_give(result["interaction_id"], caller=PYTHON, correct_labels=["sport", "politics"])
    stats = services.examples_curate(classifier=topics)
    assert (stats.extracted, stats.approved) == (1, 1)
    learnt = TrainingDataItem.objects.get(interaction=result["interaction_id"])
    assert (learnt.label, learnt.origin) == ("politics|sport", "corrected")
    snapshot = services.snapshot_freeze(topics, seed=2)
    assert snapshot.rows.get(item=learnt).label == "politics|sport"
    assert not [str(finding) for finding in find() if finding.severity == "error"]
