"""Continual learning: going on from the live version, with a label added and little of the old texts shown again."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from registry.calibration import Calibration
from registry.families.base import Example, FitRequest
from registry.families.base_models import find_base_model
from registry.families.parents import find_parent
from registry.manifest import Manifest, write_manifest
from registry.text import PREPROCESSING_VERSION
from tests.registry.families.material import LABELS, request_for, sentences, settings_of
from tests.registry.families.tuning import logits_of, tune

GROWN = (*LABELS, "animal")
ANIMALS = [
    Example((f"{told} {name}",), "animal")
    for told in ("I saw", "there was", "we like", "tell me about", "they say", "it is")
    for name in ("cat", "dog", "cat dog", "dog cat dog", "cat cat", "dog dog dog")
]


def as_version(request: FitRequest, **changes: object) -> Path:
    """What `request` left behind, sealed as a version of the encoder family."""
    base = find_base_model(request.recipe.model.model_name)
    values: dict[str, object] = {
        "classifier": "things",
        "family": "encoder",
        "labels": request.labels,
        "input_fields": request.input_fields,
        "preprocessing": PREPROCESSING_VERSION,
        "max_length": 32,
        "recipe": request.recipe.to_dict(),
        "calibration": Calibration(multi_label=request.multi_label).to_dict(),
        "metrics": {},
        "seed": 0,
        "snapshot_digest": None,
        "libraries": {},
        "parameters": {"total": 1, "trainable": 1},
        "base_model": base.to_dict(),
        "created": "2026-01-01T00:00:00+00:00",
    }
    write_manifest(request.out, Manifest(**(values | changes)))  # type: ignore[arg-type]
    return request.out


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A version that knows three labels."""
    request = request_for(tmp_path_factory.mktemp("live"), *settings_of("encoder", tiny_encoder), valid=[])
    tune(request)
    return as_version(request)


def going_on(folder: Path, tiny_encoder: Path, *assignments: str, **changes: object) -> FitRequest:
    settings = settings_of("encoder", tiny_encoder)
    return request_for(folder, *settings, "training_config.start_from=parent", *assignments, **changes)


def recall(package: Path, labels: Sequence[str], examples: Sequence[Example]) -> float:
    answers = logits_of(package, [example.fields for example in examples]).argmax(axis=1)
    return float(np.mean([labels[answer] == each.label for answer, each in zip(answers, examples, strict=True)]))


def test_a_label_is_added_without_forgetting_the_others(live: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    """Three ways to learn a fourth label, the same number of texts per epoch and the same settings each."""
    old, gentle = sentences(90, seed=8), ("training_config.learning_rate=5e-4", "training_config.num_epochs=10")
    replay = sentences(9, seed=30)  # three texts of each old label beside 36 new ones: a share of 20 %
    found = {}
    for name, start, train in (
        ("parent and replay", "parent", [*ANIMALS, *replay]),
        ("parent alone", "parent", [*ANIMALS, Example(("i saw apple",), "fruit")]),
        ("base and replay", "base", [*ANIMALS, *replay]),
    ):
        request = going_on(
            tmp_path / name,
            tiny_encoder,
            *(*gentle, f"training_config.start_from={start}"),
            labels=GROWN,
            train=train,
            valid=[],
            parent=live if start == "parent" else None,
        )
        tune(request)
        package = request.out / "package"
        found[name] = (recall(package, GROWN, old), recall(package, GROWN, ANIMALS))
    before = recall(live / "package", LABELS, old)
    kept, learnt = found["parent and replay"]
    assert learnt == 1
    assert kept >= before - 0.05
    assert found["parent alone"][0] < kept - 0.3
    assert found["base and replay"][0] < kept - 0.3


@pytest.mark.parametrize("labels", [GROWN, ("weather", "animal", "vehicle", "fruit"), ("vehicle", "fruit", "weather")])
def test_labels_keep_their_weights_wherever_they_stand(
    labels: tuple[str, ...], live: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    still = ("training_config.learning_rate=1e-8", "training_config.num_epochs=1")
    data = {"train": sentences(32), "valid": [], "labels": labels, "parent": live}
    request = going_on(tmp_path, tiny_encoder, *still, **data)
    tuned = tune(request)
    before, after = (load_file(folder / "package" / "model.safetensors") for folder in (live, request.out))
    for name in ("classifier.weight", "classifier.bias"):
        for row, label in enumerate(labels):
            if label in LABELS:
                torch.testing.assert_close(after[name][row], before[name][LABELS.index(label)], atol=1e-4, rtol=0)
    assert any(note.startswith("Started from the live version") for note in tuned.notes)
    assert any("new labels: animal" in note for note in tuned.notes) == ("animal" in labels)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"family": "lora"}, "is of the family lora, not encoder"),
        ({"base_model": {"id": "minilm", "sha256": "0" * 64}}, "has another base model"),
        ({"input_fields": ("question", "context")}, r"reads other fields \(question, context\)"),
        ({"calibration": Calibration(multi_label=True).to_dict()}, "gives several labels"),
    ],
)
def test_a_version_of_another_kind_is_left_aside_and_a_note_says_why(
    changes: dict[str, object], told: str, live: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder))
    (request.out).mkdir()
    version = as_version(request, **changes)
    notes: list[str] = []
    asking = going_on(tmp_path / "asking", tiny_encoder, parent=version)
    assert find_parent(asking, find_base_model(str(tiny_encoder)), "encoder", notes) is None
    assert len(notes) == 1
    assert re.match(f"The live version {told}", notes[0])


def test_without_a_live_version_the_base_is_taken_and_a_note_says_so(tmp_path: Path, tiny_encoder: Path) -> None:
    notes: list[str] = []
    base = find_base_model(str(tiny_encoder))
    assert find_parent(going_on(tmp_path, tiny_encoder), base, "encoder", notes) is None
    assert notes == ["No version is live yet: started from the base model."]
    unasked = request_for(tmp_path, *settings_of("encoder", tiny_encoder), parent=tmp_path)
    assert find_parent(unasked, base, "encoder", notes) is None
    assert len(notes) == 1
