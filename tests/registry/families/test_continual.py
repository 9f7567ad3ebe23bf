"""Continual learning: going on from the live version, with a label added and little of the old texts shown again."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from registry.calibration import Calibration
from registry.families import adapters
from registry.families.base import Example, FitRequest
from registry.families.base_models import BaseModel, find_base_model
from registry.families.finetune import Tuned
from registry.families.parents import find_parent
from registry.families.tokenisation import Tokenisation
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


# ---- adapters --------------------------------------------------------------------------------------------------------


def tune_adapters(request: FitRequest) -> Tuned:
    base = find_base_model(request.recipe.model.model_name)
    adapt = partial(adapters.adapt, settings=request.recipe.model.lora, base=base)
    return tune(request, adapt=adapt, write=adapters.write_package)


@pytest.fixture(scope="module")
def live_adapters(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A version of the lora family that knows three labels."""
    request = request_for(tmp_path_factory.mktemp("lora"), *settings_of("lora", tiny_encoder), valid=[])
    tune_adapters(request)
    return as_version(request, family="lora")


def adapted_recall(package: Path, tiny_encoder: Path, labels: Sequence[str], examples: Sequence[Example]) -> float:
    model = adapters.load_merged(package, BaseModel("tiny", tiny_encoder, "0" * 64))
    tokenisation = Tokenisation.read(package / "tokenizer.json", 32, PREPROCESSING_VERSION)
    with torch.inference_mode():
        rows = [model(torch.from_numpy(tokenisation.encode(each.fields).ids)[None]).logits[0] for each in examples]
    answers = torch.stack(rows).argmax(dim=1).tolist()
    return float(np.mean([labels[answer] == each.label for answer, each in zip(answers, examples, strict=True)]))


def test_a_label_is_added_to_adapters_without_forgetting_the_others(
    live_adapters: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    old, train = sentences(90, seed=8), [*ANIMALS, *sentences(9, seed=30)]
    gentle = ("training_config.learning_rate=1e-4", "training_config.num_epochs=25")
    found = {}
    for start in ("parent", "base"):
        settings = (*gentle, f"training_config.start_from={start}")
        parent = live_adapters if start == "parent" else None
        request = going_on(
            tmp_path / start, tiny_encoder, *settings, labels=GROWN, train=train, valid=[], parent=parent
        )
        tuned = tune_adapters(request)
        package = request.out / "package"
        found[start] = [adapted_recall(package, tiny_encoder, GROWN, each) for each in (old, ANIMALS)]
        assert any("new labels: animal" in note for note in tuned.notes) == (start == "parent")
    before = adapted_recall(live_adapters / "package", tiny_encoder, LABELS, old)
    assert before > 0.8
    assert round(90 * found["parent"][0]) >= round(90 * before) - 9  # of 90 texts
    assert found["parent"][1] >= 0.9
    assert found["base"][0] < found["parent"][0] - 0.2


@pytest.mark.parametrize("labels", [("weather", "animal", "vehicle", "fruit"), LABELS])
def test_adapters_and_labels_go_on_as_they_were(
    labels: tuple[str, ...], live_adapters: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    still = ("training_config.learning_rate=1e-8", "training_config.num_epochs=1")
    data = {"train": sentences(32), "valid": [], "labels": labels, "parent": live_adapters}
    request = going_on(tmp_path, tiny_encoder, *still, **data)
    tune_adapters(request)
    before, after = (load_file(folder / "package" / adapters.WEIGHTS_NAME) for folder in (live_adapters, request.out))
    assert before.keys() == after.keys()
    assert before["base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight"].abs().max() > 1e-3
    for name, values in before.items():
        if "classifier" not in name:
            torch.testing.assert_close(after[name], values, atol=1e-4, rtol=0)
            continue
        for row, label in enumerate(labels):
            if label in LABELS:
                torch.testing.assert_close(after[name][row], values[LABELS.index(label)], atol=1e-4, rtol=0)


def test_adapters_of_another_form_are_left_aside(live_adapters: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    base = find_base_model(str(tiny_encoder))
    for assignment, told in (
        (
            "model_config.lora.r=4",
            ["The live version has adapters of another form (model_config.lora): started from the "],
        ),
        ("model_config.lora.lora_dropout=0.2", ["Started from the live version."]),
    ):
        notes: list[str] = []
        find_parent(going_on(tmp_path, tiny_encoder, assignment, parent=live_adapters), base, "lora", notes)
        assert [note[: len(told[0])] for note in notes] == told
