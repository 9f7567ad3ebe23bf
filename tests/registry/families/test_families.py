"""What every family promises, asked of each of them."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry import families
from registry.families.base import Answer, Example, FamilyError, Predictor, Stopped
from registry.families.onnx_predictor import FP32_NAME
from registry.families.probes import PROBES_NAME, check_probes
from registry.labels import label_set
from registry.manifest import ArtefactCorrupt, write_manifest
from tests.registry.families.material import (
    LABELS,
    Built,
    Listener,
    build,
    request_for,
    sentences,
    settings_of,
    several,
)

ROOT = Path(__file__).parents[3]
ALL = pytest.mark.parametrize("name", sorted(families.FAMILIES))
LEARNING = pytest.mark.parametrize("name", sorted(families.FAMILIES.keys() - {"custom"}))  # code of one's own does not
Builder = Callable[..., Built]

_ASK = """
import json, sys
from pathlib import Path
from registry import families
predictor = families.load(Path(sys.argv[1]))
answers = predictor.predict([tuple(fields) for fields in json.loads(sys.argv[2])])
print(json.dumps({
    "labels": predictor.labels,
    "probabilities": [answer.probabilities.tolist() for answer in answers],
    "loaded": [name for name in ("torch", "transformers", "django") if name in sys.modules],
}))
"""


def ask_afresh(folder: Path, inputs: list[tuple[str, ...]]) -> dict:
    command = [sys.executable, "-c", _ASK, str(folder), json.dumps(inputs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def best(predictor: Predictor, answer: Answer) -> str:
    return predictor.labels[int(answer.probabilities.argmax())]


@ALL
def test_a_family_learns_and_answers_in_the_order_of_its_labels(name: str, built: Builder) -> None:
    predictor = families.load(built(name)[0])
    assert predictor.labels == LABELS
    examples = sentences(60, seed=3)
    answers = predictor.predict([example.fields for example in examples])
    right = sum(best(predictor, answer) == example.label for answer, example in zip(answers, examples, strict=True))
    assert right >= 54
    for answer in answers:
        assert answer.probabilities.dtype == np.float32
        assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)


@ALL
def test_a_fresh_process_gives_the_same_answers_without_torch_or_transformers(name: str, built: Builder) -> None:
    folder = built(name)[0]
    inputs = [example.fields for example in sentences(12, seed=4)]
    here = np.array([answer.probabilities for answer in families.load(folder).predict(inputs)])
    there = ask_afresh(folder, inputs)
    assert there["labels"] == list(LABELS)
    np.testing.assert_allclose(here, there["probabilities"], atol=1e-6)
    assert there["loaded"] == []


@ALL
def test_the_same_seed_gives_the_same_probabilities(
    name: str, built: Builder, tmp_path: Path, tiny_encoder: Path
) -> None:
    first = families.load(built(name)[0])
    again = families.load(build(name, tmp_path, *settings_of(name, tiny_encoder))[0])
    inputs = [example.fields for example in sentences(9, seed=5)]
    for one, other in zip(first.predict(inputs), again.predict(inputs), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


@ALL
def test_an_answer_depends_on_its_text_alone(name: str, built: Builder) -> None:
    predictor = families.load(built(name)[0])
    inputs = [example.fields for example in sentences(8, seed=6)]
    together = predictor.predict(inputs)
    # Texts that share a pass in 32 bits differ in the last bits: processors add up in an order that suits the size.
    graphs = {path.name for path in (built(name)[0] / "serving").glob("*.onnx")}
    tolerance = 1e-6 if graphs == {FP32_NAME} else 0
    for fields, answer in zip(inputs, together, strict=True):
        alone = predictor.predict([fields])[0].probabilities
        np.testing.assert_allclose(alone, answer.probabilities, rtol=0, atol=tolerance)


@ALL
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00\u200b",
        "تفاح وموز في السوق",
        "🍎🍌",
        "👩‍👩‍👧‍👦",
        "\ud800",
        "apple " * 4000,
        "x" * 20_000,
        "<script>",
    ],
    ids=["empty", "blank", "noise", "arabic", "emoji", "family", "surrogate", "long", "one-long-word", "markup"],
)
def test_any_text_is_answered(name: str, text: str, built: Builder) -> None:
    answer = families.load(built(name)[0]).predict([(text,)])[0]
    assert np.isfinite(answer.probabilities).all()
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)


@ALL
def test_no_input_gives_no_answer(name: str, built: Builder) -> None:
    assert families.load(built(name)[0]).predict([]) == []


@ALL
def test_a_question_and_its_context_are_read_together(name: str, built: Builder) -> None:
    folder = built(name, "pair")[0]
    predictor = families.load(folder)
    assert predictor.input_fields == ("question", "context")
    examples = sentences(30, seed=7, fields=2)
    answers = predictor.predict([example.fields for example in examples])
    right = sum(best(predictor, answer) == example.label for answer, example in zip(answers, examples, strict=True))
    assert right >= 27
    long = predictor.predict([("what is it? " * 50, "a mango " * 50), ("", "")])
    assert all(np.isfinite(answer.probabilities).all() for answer in long)
    assert check_probes(folder) == []


@LEARNING
def test_several_labels_are_learnt_converted_and_answered_independently(name: str, built: Builder) -> None:
    folder, _, result = built(name, "several")
    predictor = families.load(folder)
    thresholds = np.array([result.calibration["thresholds"][label] for label in LABELS])
    examples = several(60, seed=3)
    answers = predictor.predict([example.fields for example in examples])
    given = np.array([answer.probabilities >= thresholds for answer in answers])
    shown = np.array([[label in label_set(example.label) for label in LABELS] for example in examples])
    assert (given == shown).mean() >= 0.8  # of all decisions
    assert set(given.sum(axis=1)) >= {0, 1, 2}
    sums = [answer.probabilities.sum() for answer in answers]
    assert min(sums) < 0.9 and max(sums) > 1.5
    inputs = [example.fields for example in examples[:8]]
    for fields, answer in zip(inputs, answers, strict=False):
        alone = predictor.predict([fields])[0].probabilities
        rounding = 0 if name == "classic" else 1e-6  # in fp32 texts share a pass
        np.testing.assert_allclose(alone, answer.probabilities, rtol=0, atol=rounding)
    there = ask_afresh(folder, inputs)
    np.testing.assert_allclose([each.probabilities for each in answers[:8]], there["probabilities"], atol=1e-6)
    assert there["loaded"] == []
    assert check_probes(folder) == []


@ALL
def test_the_probes_are_reproduced_by_a_process_of_its_own(name: str, built: Builder) -> None:
    command = [sys.executable, "-m", "registry.families.verify", str(built(name)[0])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"ok": True, "problems": []}


@ALL
def test_a_probe_answered_differently_is_noticed(name: str, built: Builder, tmp_path: Path) -> None:
    copy = shutil.copytree(built(name)[0], tmp_path / "copy")
    probes = json.loads((copy / PROBES_NAME).read_text(encoding="utf-8"))
    probes["probes"][0]["probabilities"] = [0.0, 0.0, 1.0]
    (copy / PROBES_NAME).write_text(json.dumps(probes), encoding="utf-8")
    assert ["probe 1 is answered differently" in problem for problem in check_probes(copy)] == [True]


@LEARNING
def test_one_altered_byte_is_refused(name: str, built: Builder, tmp_path: Path) -> None:
    copy = shutil.copytree(built(name)[0], tmp_path / "copy")
    weights = next((copy / "package").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtefactCorrupt, match="altered"):
        families.load(copy)
    command = [sys.executable, "-m", "registry.families.verify", str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False


@ALL
def test_an_artefact_holds_no_pickle(name: str, built: Builder) -> None:
    folder = built(name)[0]
    for path in folder.rglob("*"):
        assert path.suffix not in {".pkl", ".joblib", ".pt", ".pth", ".bin"}
        if path.is_file():
            assert path.read_bytes()[:2] not in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"}
    assert (folder / "package").is_dir()
    assert (folder / "serving").is_dir() or name == "custom"


@LEARNING
def test_progress_never_falls_and_figures_are_told(name: str, built: Builder) -> None:
    listener = built(name)[1].reporter
    assert isinstance(listener, Listener)
    assert listener.fractions == sorted(listener.fractions)
    assert listener.fractions[-1] == 1
    told = [figures for figures in listener.figures if "eval_accuracy" in figures]
    assert told[-1]["eval_macro_f1"] > 0.8


@LEARNING
def test_a_fit_stops_when_asked(name: str, tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(tmp_path, *settings_of(name, tiny_encoder), reporter=Listener(stop_after=3))
    with pytest.raises(Stopped):
        families.family(name).fit(request)


@LEARNING
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": []}, "at least two labels, found none"),
        ({"train": [Example(("apple",), "fruit")] * 5}, "only 'fruit'"),
        ({"train": [*sentences(5), Example(("x",), "stone")]}, "'stone' is not one of"),
        ({"train": [*sentences(5), Example(("x", "y"), "fruit")]}, "has 2 fields, the classifier reads 1"),
        ({"train": [*sentences(5), Example(("x",), "fruit", weight=float("nan"))]}, "weight nan"),
        ({"labels": ("fruit",)}, "needs at least two labels"),
    ],
)
def test_data_that_teach_nothing_are_refused_in_one_line(
    name: str, changes: dict, told: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    with pytest.raises(FamilyError, match=told) as caught:
        families.family(name).fit(request_for(tmp_path, *settings_of(name, tiny_encoder), **changes))
    assert "\n" not in str(caught.value)


@LEARNING
def test_without_validation_texts_nothing_is_calibrated_and_the_notes_say_so(
    name: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    folder, _, result = build(name, tmp_path, *settings_of(name, tiny_encoder), valid=[])
    assert result.calibration == {"temperature": 1.0}
    assert any("validation" in note.lower() for note in result.notes)
    assert check_probes(folder) == []


@LEARNING
def test_a_label_without_examples_keeps_its_place_and_is_rarely_answered(
    name: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    labels = ("animal", *LABELS)
    folder, _, result = build(name, tmp_path, *settings_of(name, tiny_encoder), labels=labels)
    predictor = families.load(folder)
    assert predictor.labels == labels
    answers = predictor.predict([example.fields for example in sentences(30, seed=8)])
    assert all(answer.probabilities[0] < 0.3 for answer in answers)
    assert "No training text shows: animal; the model will hardly ever answer so. Import examples." in result.notes


def test_a_label_of_one_example_is_learnt_and_noted(tmp_path: Path) -> None:
    train = [*sentences(60, seed=1), Example(("a lion",), "animal")]
    _, _, result = build("classic", tmp_path, labels=("animal", *LABELS, "tool"), train=train)
    told = [note for note in result.notes if "training text shows" in note]
    assert told == [
        "No training text shows: tool; the model will hardly ever answer so. Import examples.",
        "Only one training text shows: animal; little is learnt from it. Import more examples.",
    ]


def test_a_family_outside_the_table_is_refused_by_name(built: Builder, tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"Unknown model family 'oracle'.*classic.*encoder"):
        families.family("oracle")
    folder = built("classic")[0]
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("manifest.json"))
    write_manifest(copy, dataclasses.replace(families.read_manifest(folder), family="oracle"))
    with pytest.raises(FamilyError, match="oracle"):
        families.load(copy)


def test_the_table_names_modules_that_exist() -> None:
    for name in families.FAMILIES:
        module = families.family(name)
        assert callable(module.fit)
        assert callable(module.load)
