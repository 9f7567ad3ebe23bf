"""Code of the installation's own: found, checked, hashed, and believed only where its answers make sense."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry import families
from registry.families.base import FamilyError, Stopped
from registry.families.custom import fit
from tests.registry.families.material import LABELS, OWN_CODE, Built, Listener, build, request_for


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of one's own whose `load` returns an object with this `predict`; the loader's name."""
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    (tmp_path / "own").mkdir()

    def write(predict: str) -> str:
        name = f"own_model_{len(list((tmp_path / 'own').iterdir()))}_{tmp_path.name.replace('-', '_')}"
        source = (
            f"class Model:\n    def predict(self, rows):\n        {predict}\n\ndef load(config):\n    return Model()\n"
        )
        (tmp_path / "own" / f"{name}.py").write_text(source)
        return f"{name}:load"

    return write


def always(answer: str) -> str:
    return f"return [{answer} for row in rows]"


def test_the_artefact_names_the_code_and_its_hash(built: Callable[..., Built]) -> None:
    folder, request, result = built("custom")
    described = json.loads((folder / "package" / "loader.json").read_text(encoding="utf-8"))
    assert described["loader"] == OWN_CODE
    assert described["config"]["labels"] == list(LABELS)
    assert described["config"]["training_config"]["seed"] == request.recipe.training.seed
    assert families.read_manifest(folder).base_model == {"id": OWN_CODE, "sha256": described["sha256"]}
    assert result.notes[0] == "Type custom is not trained; its code was checked and evaluated."
    assert not any("divided" in note for note in result.notes)


def test_code_that_changed_is_refused_with_the_remedy(code: Callable[[str], str], tmp_path: Path) -> None:
    loader = code(always("{'fruit': 1.0}"))
    folder = build("custom", tmp_path, loader=loader)[0]
    assert families.load(folder).predict([("x",)])[0].probabilities[0] == 1
    source = tmp_path / "own" / f"{loader.partition(':')[0]}.py"
    source.write_text(source.read_text() + "# a remark\n")
    with pytest.raises(FamilyError, match=r"changed; run `manage.py train things` to make a new version of it\."):
        families.load(folder)
    again = build("custom", tmp_path / "again", loader=loader)[0]
    assert families.load(again).labels == LABELS, "the newer file is loaded though the older one was imported before"
    source.unlink()
    with pytest.raises(FamilyError, match="There is no Python file for own_model"):
        families.load(folder)


def test_scores_that_do_not_sum_to_one_are_divided_by_their_sum_and_noted(
    code: Callable[[str], str], tmp_path: Path
) -> None:
    folder, _, result = build("custom", tmp_path, loader=code(always("{'fruit': 3, 'weather': 1}")))
    assert families.load(folder).predict([("x",)])[0].probabilities.tolist() == [0.75, 0, 0.25]
    assert "Its scores do not sum to 1; they are divided by their sum." in result.notes


def test_scores_of_many_labels_stay_as_they_are(code: Callable[[str], str], tmp_path: Path) -> None:
    loader = code(always("{'fruit': 0.9, 'weather': 0.8}"))
    folder = build("custom", tmp_path, loader=loader, multi_label=True)[0]
    np.testing.assert_allclose(families.load(folder).predict([("x",)])[0].probabilities, [0.9, 0, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("predict", "says"),
    [
        (always("{'stone': 1.0}"), "knows no label 'stone'; the labels are fruit, vehicle, weather"),
        (always("{'fruit': float('nan')}"), "the score of 'fruit' is nan"),
        (always("{'fruit': float('inf')}"), "the score of 'fruit' is inf"),
        (always("{'fruit': -0.5, 'weather': 1}"), "the score of 'fruit' is -0.5"),
        (always("{'fruit': 'much'}"), "the score of 'fruit' is a str, not a number"),
        (always("{}"), "no label has a score over 0"),
        (always("'fruit'"), "it is a str, not {label: score}"),
        ("return []", "gave 0 answers to"),
        ("return None", "failed: TypeError"),
        ("raise RuntimeError('out\\nof order')", "failed: RuntimeError: out of order"),
        (always("{'fruit': len(rows), 'weather': 1}"), "answers a text otherwise when it is asked alone"),
        ("import itertools; return [{'fruit': next(self.__dict__.setdefault('n', itertools.count(1))), 'weather': 50} "
         "for row in rows]", "answers a text otherwise when it is asked twice"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused_in_one_line(
    predict: str, says: str, code: Callable[[str], str], tmp_path: Path
) -> None:
    with pytest.raises(FamilyError) as refused:
        fit(request_for(tmp_path, loader=code(predict)))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_score_over_one_is_refused_where_labels_are_independent(code: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"a score of 1\.5; those of a multi-label classifier"):
        fit(request_for(tmp_path, loader=code(always("{'fruit': 1.5}")), multi_label=True))


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (None, "needs a loader"),
        ("os:system", "os is part of Python"),
        ("os.path:join", "os.path is part of Python"),
        ("no_such_module_here:load", "There is no Python file for no_such_module_here"),
        ("no.such.module:load", "failed: ModuleNotFoundError"),
        ("tests.registry.families.own_code:lood", "has no function lood"),
        ("tests.registry.families.own_code:TELLING", "has no function TELLING"),
        ("tests.registry.families.own_code:Keywords.answer", "has no function"),
        ("tests.registry.families.material:Listener", "without a method `predict`"),
        ("numpy.random._mt19937:MT19937", "There is no Python file for"),
    ],
)
def test_a_loader_that_cannot_be_is_refused(loader: str | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(FamilyError) as refused:
        fit(request_for(tmp_path, loader=loader))
    assert says in str(refused.value)


def test_a_hostile_package_names_no_code_of_python(built: Callable[..., Built], tmp_path: Path) -> None:
    copy: Any = shutil.copytree(built("custom")[0], tmp_path / "copy")
    path = copy / "package" / "loader.json"
    described = json.loads(path.read_text(encoding="utf-8")) | {"loader": "os:system"}
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(FamilyError, match="os is part of Python"):
        families.family("custom").load(copy, families.read_manifest(copy))


def test_a_check_stops_when_asked(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(request_for(tmp_path, loader=OWN_CODE, reporter=Listener(stop_after=0)))
    assert OWN_CODE.partition(":")[0] in sys.modules
