"""The ensemble family: members that differ, the better way to combine them, an artefact that needs nobody else."""

import dataclasses
import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry import families
from registry.families import combination, ensemble
from registry.families.base import Example, FamilyError
from registry.families.combination import STACK, VOTE, choose, log_loss
from registry.families.probes import check_probes
from registry.labels import label_text_of
from registry.manifest import ArtefactCorrupt, manifest_digest
from tests.registry.families.material import LABELS, Built, build, member, request_for, sentences

Builder = Callable[..., Built]
MEMBERS = ("model_config.members=[one, three]",)

# ---- combining -------------------------------------------------------------------------------------------------------


def opinions_of(truth: np.ndarray, *kinds: str, seed: int = 0) -> np.ndarray:
    """What members of these kinds say: `good`, `poor`, and `turned`, who is sure and always one label too far."""
    chooser = np.random.default_rng(seed)
    texts, labels = truth.shape
    said = []
    for kind in kinds:
        heard = np.roll(truth, 1, axis=1) if kind == "turned" else truth
        noise = chooser.normal(size=(texts, labels)) * (3.0 if kind == "poor" else 1.0)
        scores = np.exp(2 * heard + noise)
        said.append(scores / scores.sum(axis=1, keepdims=True))
    return np.stack(said, axis=1)


def truth_of(texts: int, labels: int = 3) -> np.ndarray:
    return np.eye(labels, dtype=np.float32)[np.random.default_rng(1).integers(labels, size=texts)]


def test_a_vote_believes_the_better_member_more_and_no_weights_do_better() -> None:
    truth = truth_of(400)
    opinions = opinions_of(truth, "good", "poor")
    vote = combination._Vote(multi_label=False).fit(opinions, truth)
    weights = vote.arrays()["weights"]
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights[0] > 0.6
    losses = {
        share: log_loss(
            combination.Vote(np.array([share, 1 - share], dtype=np.float32), False).logits(opinions),
            truth,
            multi_label=False,
        )
        for share in np.linspace(0, 1, 101)
    }
    assert min(losses, key=losses.__getitem__) == pytest.approx(weights[0], abs=0.011)


def test_members_that_err_alike_are_put_right_by_stacking() -> None:
    truth = truth_of(400)
    choice = choose(opinions_of(truth, "turned", "poor"), truth, multi_label=False, seed=1)
    assert choice.combiner.method == STACK
    assert choice.losses[STACK] < choice.losses[VOTE] / 2
    assert (choice.held_out.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.85


def test_what_is_better_on_texts_it_has_seen_is_not_believed() -> None:
    """With 20 labels and few texts stacking can learn its texts by heart; held out it is no better than the vote."""
    truth = truth_of(60, labels=20)
    opinions = opinions_of(truth, "good", "good", "good")
    choice = choose(opinions, truth, multi_label=False, seed=1)
    learnt = combination._Stack(multi_label=False, strength=1.0).fit(opinions, truth).logits(opinions)
    assert log_loss(learnt, truth, multi_label=False) < choice.losses[VOTE]
    assert choice.combiner.method == VOTE


@pytest.mark.parametrize("kinds", [("good", "poor"), ("turned", "good")])
def test_what_was_chosen_reads_back(kinds: tuple[str, str]) -> None:
    truth = truth_of(200)
    opinions = opinions_of(truth, *kinds)
    for multi_label in (False, True):
        combiner = choose(opinions, truth, multi_label=multi_label, seed=1).combiner
        again = combination.combiner_of(combiner.method, combiner.arrays(), multi_label=multi_label)
        np.testing.assert_array_equal(again.logits(opinions), combiner.logits(opinions))
        assert np.isfinite(again.logits(np.round(opinions))).all()  # members that are altogether sure


def test_independent_labels_are_weighed_by_their_decisions() -> None:
    truth = (np.random.default_rng(3).random((300, 4)) < 0.3).astype(np.float32)
    sure = np.clip(0.8 * truth + 0.1, 0, 1)
    opinions = np.stack([sure, np.random.default_rng(4).random((300, 4))], axis=1)
    choice = choose(opinions, truth, multi_label=True, seed=1)
    assert ((choice.held_out > 0) == (truth > 0)).mean() > 0.98
    assert choice.losses[VOTE] < 0.3


# ---- the family ------------------------------------------------------------------------------------------------------


def test_the_artefact_needs_no_member_any_more(tmp_path: Path) -> None:
    copies = {
        name: shutil.copytree(member(name, LABELS, ("text",)), tmp_path / name / "7") for name in ("one", "three")
    }
    digests = {name: manifest_digest(folder) for name, folder in copies.items()}
    folder, _, result = build("ensemble", tmp_path, *MEMBERS, members=copies)
    for copy in copies.values():
        shutil.rmtree(copy)
    assert check_probes(folder) == []
    described = json.loads((folder / "serving" / "ensemble.json").read_text())
    assert {each["classifier"]: each["artefact_digest"] for each in described["members"]} == digests
    assert "Made of one/7, three/7." in result.notes
    assert any("Log loss on 60 validation texts, held out: vote" in note for note in result.notes)
    assert families.load(folder).batches  # as its members do


def test_the_weights_of_the_members_count(built: Builder) -> None:
    _, request, result = built("ensemble")
    members = [families.read_manifest(folder).parameters["total"] for folder in request.members.values()]
    assert result.parameters["total"] == sum(members) + result.parameters["trainable"]
    assert 0 < result.parameters["trainable"] < 100


def test_labels_are_brought_into_order_by_name(tmp_path: Path) -> None:
    turned = {"one": member("one", LABELS[::-1], ("text",)), "three": member("three", LABELS, ("text",))}
    folder = build("ensemble", tmp_path, *MEMBERS, members=turned)[0]
    predictor = families.load(folder)
    assert predictor.labels == LABELS
    answers = predictor.predict([("a mango",), ("a tractor",), ("the storm",)])
    assert [LABELS[int(answer.probabilities.argmax())] for answer in answers] == list(LABELS)


def test_with_few_validation_texts_all_members_count_alike(tmp_path: Path) -> None:
    folder, _, result = build("ensemble", tmp_path, *MEMBERS, valid=sentences(20, seed=2))
    assert any("All members count alike" in note for note in result.notes)
    one, three = (families.load(member(name, LABELS, ("text",))) for name in ("one", "three"))
    asked = [("a plum and a car",)]
    mixed = (one.predict(asked)[0].probabilities + three.predict(asked)[0].probabilities) / 2
    powered = mixed ** (1 / result.calibration["temperature"])
    np.testing.assert_allclose(
        families.load(folder).predict(asked)[0].probabilities, powered / powered.sum(), atol=1e-5
    )


@pytest.mark.parametrize("others", [0, 1])
def test_validation_texts_of_one_label_choose_between_votes_alone(tmp_path: Path, others: int) -> None:
    told = sentences(300, seed=3)
    fruit = [example for example in told if example.label == "fruit"][: 60 - others]
    valid = [*fruit, *[example for example in told if example.label == "weather"][:others]]
    assert len(valid) == 60
    folder, _, result = build("ensemble", tmp_path, *MEMBERS, valid=valid)
    assert any("Stacking was not tried" in note for note in result.notes)
    assert any("held out: vote 0." in note and "stacking" not in note for note in result.notes)
    answers = families.load(folder).predict([("a mango",), ("a tractor",), ("the storm",)])
    assert [LABELS[int(answer.probabilities.argmax())] for answer in answers] == list(LABELS)


def test_several_labels_of_a_text_are_answered_together(tmp_path: Path) -> None:
    plain = sentences(400, seed=11)
    examples = [
        Example((f"{one.fields[0]} and {other.fields[0]}",), label_text_of({one.label, other.label}, LABELS))
        for one, other in itertools.pairwise(plain[:201])
    ] + plain[200:]
    random.Random(5).shuffle(examples)
    data = {"train": examples[100:], "valid": examples[:100], "multi_label": True}
    members = {
        name: build("classic", tmp_path / name, f"training_config.seed={len(name)}", **data)[0]
        for name in ("one", "three")
    }
    folder, _, result = build("ensemble", tmp_path, *MEMBERS, members=members, **data)
    assert set(result.calibration["thresholds"]) == set(LABELS)
    (answer,) = families.load(folder).predict([("an apple and a car",)])
    assert answer.probabilities[0] > 0.5 < answer.probabilities[1]
    assert answer.probabilities.sum() > 1.5


def test_an_altered_member_is_refused(tmp_path: Path, built: Builder) -> None:
    copy = shutil.copytree(built("ensemble")[0], tmp_path / "copy")
    weights = copy / "serving" / "members" / "three" / "serving" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtefactCorrupt, match=r"members/three/serving/model\.safetensors was altered"):
        families.load(copy)


def test_a_member_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(member("one", LABELS, ("text",)), tmp_path / "one")
    (copy / "serving" / "features.json").write_text("{}")
    with pytest.raises(ArtefactCorrupt, match=r"features\.json"):
        ensemble.fit(
            request_for(tmp_path, *MEMBERS, members={"one": copy, "three": member("three", LABELS, ("text",))})
        )


def test_members_that_do_not_fit_are_refused_by_name(tmp_path: Path, built: Builder) -> None:
    fit = member("one", LABELS, ("text",))
    unfit = {
        "answers animal, fruit, vehicle, weather, the ensemble fruit": member("one", ("animal", *LABELS), ("text",)),
        "reads question, context, the ensemble text": member("one", LABELS, ("question", "context")),
        "gives a text several labels, unlike the ensemble": member("one", LABELS, ("text",), multi_label=True),
        "is of type ensemble, which cannot be a member": built("ensemble")[0],
    }
    for message, folder in unfit.items():
        with pytest.raises(FamilyError, match=message) as refused:
            ensemble.fit(request_for(tmp_path, *MEMBERS, members={"one": fit, "other": folder}))
        assert "\n" not in str(refused.value)
    with pytest.raises(FamilyError, match="needs at least two members"):
        ensemble.fit(dataclasses.replace(request_for(tmp_path, *MEMBERS), members={"one": fit}))
