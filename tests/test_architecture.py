"""The rules of docs/architecture.md, read off the source: who may import whom, what stays pure, what is never used."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kalimtak", "registry", "interactions", "training", "inference")

# Which layers each layer may import. `roof` is kalimtak/ without kalimtak/core.
ARROW = {
    "kalimtak.core": {"kalimtak.core"},
    "registry": {"kalimtak.core", "registry"},
    "interactions": {"kalimtak.core", "registry", "interactions"},
    "training": {"kalimtak.core", "registry", "interactions", "training"},
    "inference": {"kalimtak.core", "registry", "interactions", "inference"},
    "roof": {"kalimtak.core", "registry", "interactions", "training", "inference", "roof"},
}

# Modules without Django, as globs below the repository.
PURE = (
    "registry/families/*.py",
    "registry/recipe/*.py",
    "registry/labels.py",
    "registry/text.py",
    "registry/metrics.py",
    "registry/calibration.py",
    "registry/gate.py",
    "registry/manifest.py",
    "registry/card.py",
    "kalimtak/core/crashpoints.py",
    "kalimtak/core/env.py",
    "kalimtak/core/errors.py",
    "kalimtak/core/logs.py",
    "kalimtak/core/birth_dates.py",
    "kalimtak/core/national_numbers.py",
    "kalimtak/core/pii.py",
    "kalimtak/core/words.py",
    "kalimtak/core/uuid7.py",
    "interactions/spool.py",
    "training/etl/*.py",
    "training/samples/*.py",
    "training/runner.py",
    "training/selection.py",
    "inference/engine.py",
    "inference/guard.py",
    "inference/routing.py",
)
TOUCHES_ROWS = {"training/etl/extract.py", "training/etl/load.py"}
DJANGO = ("django", "rest_framework", "unfold", "django_q", "drf_spectacular")

TORCH = {"torch", "transformers", "accelerate", "peft", "sentence_transformers"}
# Run in the trainer's own process only; `encoder.fit` imports them when it is called.
TRAINERS = tuple(
    f"registry/families/{name}.py"
    for name in (
        *("adapters", "architecture", "batching", "crew", "devices", "dropout", "encoder_conversion", "export"),
        *(
            "finetune",
            "first_token",
            "graph_cache",
            "graph_export",
            "half_states",
            "learner",
            "memory",
            "parents",
            "replays",
        ),
        *("watch", "weights"),
    )
)

TOP_LEVEL = {
    *(".ci", ".dockerignore", ".env.example", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE"),
    *("Makefile", "NOTICE", "Procfile", "README.md", "bench", "compose.yaml", "docs", "inference", "interactions"),
    *("kalimtak", "logging.yaml", "manage.py", "mkdocs.yml", "models.yaml", "models_store", "notebooks"),
    *("openapi.yaml", "pyproject.toml", "registry", "requirements-bench.txt", "requirements-dev.txt"),
    *("requirements-gpu.txt", "requirements.txt", "templates", "tests", "training"),
}

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "skops"}
SIGNAL_MODULES = {"django.dispatch", "django.core.signals", "django.db.models.signals", "django.db.backends.signals"}
BANNED_CALLS = {
    *("eval", "exec", "os.system", "os.popen", "mark_safe", "yaml.load", "yaml.load_all", "yaml.unsafe_load"),
    *("yaml.full_load", "torch.load", "torch.export.load", "subprocess.getoutput"),
}
BANNED_ARGUMENTS = {"shell": True, "trust_remote_code": True, "allow_pickle": True}
ALLOWED: dict[tuple[str, str], str] = {
    # (file, what): why it is safe there
    ("registry/recipe/file.py", "yaml.load"): "with a SafeLoader that also refuses repeated keys and counts aliases",
}


def python_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    if module == "kalimtak.core" or module.startswith("kalimtak.core."):
        return "kalimtak.core"
    top = module.partition(".")[0]
    return "roof" if top == "kalimtak" else top


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def absolute_base(path: Path, node: ast.ImportFrom) -> str:
    """The module that `from … import` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)


def imports_in(path: Path, root: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted module of every import below `root`, those inside functions included."""
    for node in ast.walk(root):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(path, node)
            for alias in node.names:
                inner = ROOT.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield node.lineno, f"{base}.{alias.name}" if is_module else base


def imports_at_start(path: Path) -> Iterator[tuple[int, str]]:
    """Those that importing the module runs: outside functions and outside `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [*tree_of(path).body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports_in(path, node)
        waiting.extend(ast.iter_child_nodes(node))


def is_pure(path: Path) -> bool:
    return relative(path) not in TOUCHES_ROWS and any(path.match(pattern) for pattern in PURE)


def is_trainer(path: Path) -> bool:
    return any(path.match(pattern) for pattern in TRAINERS)


def in_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=120
    )


def test_imports_follow_the_arrow() -> None:
    wrong = []
    for path in python_files():
        if path.match("*/migrations/*.py"):
            continue
        allowed = ARROW[layer_of(module_name(path))]
        wrong += [
            f"{relative(path)}:{line} imports {module}"
            for line, module in imports_in(path, tree_of(path))
            if module.partition(".")[0] in PACKAGES and layer_of(module) not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_pure_modules_name_no_django_even_inside_functions() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for path in python_files()
        if is_pure(path)
        for line, module in imports_in(path, tree_of(path))
        if module.partition(".")[0] in DJANGO
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_modules_load_where_django_cannot_be_imported() -> None:
    modules = [module_name(path) for path in python_files() if is_pure(path) and not is_trainer(path)]
    assert "registry.gate" in modules
    blocked = in_fresh_process(
        "import importlib, sys\n"
        f"for name in {DJANGO!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except Exception as error: sys.exit(f'{name}: {error!r}')\n"
        f"loaded = {sorted(TORCH)!r}\n"
        "assert not [name for name in loaded if name in sys.modules], 'torch came along'\n"
    )
    assert blocked.returncode == 0, blocked.stderr


def test_torch_is_imported_late_but_by_the_trainers() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for path in python_files()
        if not is_trainer(path)
        for line, module in imports_at_start(path)
        if module.partition(".")[0] in TORCH
    ]
    assert not wrong, "\n".join(wrong)


def test_a_process_with_every_module_loaded_has_no_torch() -> None:
    skipped = {"manage", "kalimtak.gunicorn", "kalimtak.wsgi", "kalimtak.settings"}
    modules = [
        module_name(path)
        for path in python_files()
        if not is_trainer(path) and path.stem != "__main__" and module_name(path) not in skipped
    ]
    loaded = in_fresh_process(
        "import django, importlib, os, sys\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'kalimtak.settings'\n"
        "django.setup()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"found = [name for name in {sorted(TORCH)!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {found}' if found else 0)\n"
    )
    assert loaded.returncode == 0, loaded.stderr


def test_there_are_no_signals() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for path in python_files()
        for line, module in imports_in(path, tree_of(path))
        if module in SIGNAL_MODULES or module.endswith(".signals")
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_unpickles() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for path in python_files()
        for line, module in imports_in(path, tree_of(path))
        if module.partition(".")[0] in BANNED_MODULES
    ]
    assert not wrong, "\n".join(wrong)


def dangers_in(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in BANNED_CALLS or name.endswith(".mark_safe"):
            yield node.lineno, name
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg in BANNED_ARGUMENTS and not (
                isinstance(value, ast.Constant) and value.value is not BANNED_ARGUMENTS[keyword.arg]
            ):
                yield node.lineno, f"{keyword.arg}={ast.unparse(value)}"


def test_nothing_runs_what_it_was_given() -> None:
    wrong = [
        f"{relative(path)}:{line}: {what}"
        for path in python_files()
        for line, what in dangers_in(path)
        if (relative(path), what) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "danger"),
    [
        ("eval(text)", "eval"),
        ("yaml.load(text)", "yaml.load"),
        ("run(command, shell=True)", "shell=True"),
        ("AutoModel.from_pretrained(name, trust_remote_code=flag)", "trust_remote_code=flag"),
        ("safestring.mark_safe(text)", "safestring.mark_safe"),
    ],
)
def test_the_gate_itself_sees_a_danger(tmp_path: Path, code: str, danger: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert [what for _, what in dangers_in(path)] == [danger]


def test_what_is_harmless_passes_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("model.eval()\nrun(command, shell=False)\nyaml.safe_load(text)\nload(trust_remote_code=False)\n")
    assert not list(dangers_in(path))


def test_the_top_level_is_fixed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    unknown = {name.partition("/")[0] for name in listed} - TOP_LEVEL
    assert not unknown, f"Not part of the layout: {sorted(unknown)}"


def test_packages_say_what_they_own() -> None:
    for package in PACKAGES[1:]:
        docstring = ast.get_docstring(tree_of(ROOT / package / "__init__.py"))
        assert docstring and len(docstring.splitlines()) >= 3, f"{package}/__init__.py says too little"
    assert not (ROOT / "kalimtak" / "__init__.py").read_text(encoding="utf-8").strip()
