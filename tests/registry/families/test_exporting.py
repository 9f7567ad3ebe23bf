"""A version that was given away answers in a process without Kalimtak as it did in one with it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import families
from registry.exporting import export_artefact
from registry.families import combination, ensemble
from registry.families.base import FamilyError
from registry.families.onnx_predictor import FP32_NAME, Graph
from registry.manifest import ArtefactCorrupt, verify_manifest
from tests.registry.families.material import LABELS, Built, build, member, sentences

Builder = Callable[..., Built]
EXPORTED = sorted(families.FAMILIES.keys() - {"custom"})
ODD = ("", "🍎🍌 تفاح", "a  \x00b", "apple " * 400)


def ask(folder: Path, inputs: list[list[str]], script: str = "predict") -> list[dict[str, float]]:
    """Run the README's own lines in a process that knows nothing of this repository, then ask for `inputs`."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    code = code.replace("from predict import", f"from {script} import")
    code += "import json, sys\nprint(json.dumps(model.predict(json.loads(sys.argv[1]))))\n"
    code += "assert not {'registry', 'kalimtak', 'django'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(inputs)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "text") for name in EXPORTED), ("classic", "pair"), ("encoder", "pair")]
)
def test_an_exported_version_answers_the_same_without_kalimtak(
    name: str, kind: str, built: Builder, tmp_path: Path
) -> None:
    artefact = built(name, kind)[0]
    export_artefact(artefact, tmp_path / "mine")
    width = 2 if kind == "pair" else 1
    inputs = [list(example.fields) for example in sentences(6, seed=9, fields=width)] + [[odd] * width for odd in ODD]
    predictor = families.load(artefact)
    expected = predictor.predict([tuple(fields) for fields in inputs])
    for given, answer in zip(ask(tmp_path / "mine", inputs), expected, strict=True):
        assert list(given) == list(predictor.labels)
        assert list(given.values()) == pytest.approx(answer.probabilities.tolist(), abs=1e-5)
    assert verify_manifest(tmp_path / "mine" / "model").family == name


@pytest.mark.parametrize("method", [combination.VOTE, combination.STACK])
def test_an_exported_ensemble_asks_members_of_both_kinds(
    method: str, built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(opinions: combination.Opinions, truth: Any, **_: Any) -> combination.Choice:
        kind = combination._Vote(False) if method == combination.VOTE else combination._Stack(False, 1.0)
        combiner = kind.fit(opinions, truth)
        return combination.Choice(combiner, combiner.logits(opinions), {combination.VOTE: 1.0, combination.STACK: 1.0})

    monkeypatch.setattr(ensemble, "choose", chosen)
    members = {"one": member("one", LABELS[::-1], ("text",)), "three": built("embedding")[0]}
    artefact = build("ensemble", tmp_path, "model_config.members=[one, three]", members=members)[0]
    export_artefact(artefact, tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").glob("*.py")} == {
        *("predict.py", "member_sklearn.py", "member_onnx.py", "preparation.py")
    }
    commands = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "python predict.py" in commands and "python member" not in commands
    needed = {line.partition("==")[0] for line in (tmp_path / "mine" / "requirements.txt").read_text().splitlines()}
    assert needed == {"numpy", "safetensors", "scipy", "scikit-learn", "emoji", "onnxruntime", "tokenizers"}
    inputs = [*([text] for text in ODD), *(list(example.fields) for example in sentences(6, seed=9))]
    expected = families.load(artefact).predict([tuple(fields) for fields in inputs])
    for given, answer in zip(ask(tmp_path / "mine", inputs), expected, strict=True):
        assert list(given.values()) == pytest.approx(answer.probabilities.tolist(), abs=1e-5)


@pytest.mark.slow
def test_an_exported_encoder_is_an_ordinary_transformers_folder(built: Builder, tmp_path: Path) -> None:
    artefact = built("encoder")[0]
    export_artefact(artefact, tmp_path / "mine")
    inputs = [list(example.fields) for example in sentences(12, seed=9)]
    given = ask(tmp_path / "mine", inputs, script="predict_transformers")
    served = families.load(artefact)
    served._graph = Graph(artefact / "serving" / FP32_NAME)  # int8 rounds, in so small a model by a lot
    expected = served.predict([tuple(fields) for fields in inputs])
    for one, other in zip(given, expected, strict=True):
        assert list(one.values()) == pytest.approx(other.probabilities.tolist(), abs=1e-3)


def test_the_script_is_a_command_of_its_own(built: Builder, tmp_path: Path) -> None:
    export_artefact(built("classic", "pair")[0], tmp_path / "mine")
    command = [sys.executable, "predict.py"]
    right = [*command, "what is it?", "an apple"]
    done = subprocess.run(right, cwd=tmp_path / "mine", capture_output=True, text=True, check=True)
    assert max(json.loads(done.stdout).items(), key=lambda item: item[1])[0] == "fruit"
    wrong = subprocess.run([*command, "one"], cwd=tmp_path / "mine", capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.strip()) == (1, "Give one text for each of: question, context")


def test_a_folder_in_use_a_damaged_artefact_and_code_are_refused_and_nothing_is_left(
    built: Builder, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty; name a new folder"):
        export_artefact(built("classic")[0], tmp_path / "used")
    copy = shutil.copytree(built("classic")[0], tmp_path / "copy")
    (copy / "package" / "README.md").write_text("altered")
    with pytest.raises(ArtefactCorrupt):
        export_artefact(copy, tmp_path / "mine")
    with pytest.raises(FamilyError, match="A version of type custom does not answer from its own artefact"):
        export_artefact(built("custom")[0], tmp_path / "mine")
    assert {path.name for path in tmp_path.iterdir()} == {"used", "copy"}
    (tmp_path / "empty").mkdir()
    export_artefact(built("classic")[0], tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()
