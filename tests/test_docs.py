"""The documentation names what exists and nothing else: variables, commands, endpoints, kinds of jobs, links."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands
from django.urls import resolve

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OURS = ("kalimtak", "kalimtak.core", "registry", "interactions", "training", "inference")
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))])
UNDESCRIBED = {"/api/schema", "/api/docs", "/livez", "/readyz", "/metrics"}  # addresses that OpenAPI does not tell of
HOUSEHOLD = {"HOST", "PORT"}  # read by the web server's own configuration


def variables_in_settings() -> set[str]:
    """The first argument of every `env.<reader>("NAME", …)`."""
    tree = ast.parse((ROOT / "kalimtak" / "settings.py").read_text(encoding="utf-8"))
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("env.")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def variables_in_example() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))


def first_column(page: str) -> list[str]:
    """The first cell of every table row of a page below docs/."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [re.split(r"(?<!\\)\|", line)[1] for line in lines if line.startswith("| ") and "---" not in line]


def words_in_code(cells: list[str]) -> set[str]:
    """The first word of everything in backquotes."""
    return {code.split()[0] for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def our_commands() -> set[str]:
    return {name for name, app in get_commands().items() if app in OURS}


def test_the_settings_are_read_as_expected() -> None:
    assert {"DEBUG", "SECRET_KEY", "KALIMTAK_VAR", "DATABASE_URL"} <= variables_in_settings()


def test_env_example_lists_exactly_what_is_read() -> None:
    assert variables_in_example() == variables_in_settings() | HOUSEHOLD


def test_configuration_page_explains_exactly_what_is_read() -> None:
    explained = {word.strip(",") for word in words_in_code(first_column("configuration.md"))}
    assert {word for word in explained if word.isupper()} == variables_in_settings() | HOUSEHOLD


def test_commands_page_lists_exactly_our_commands() -> None:
    assert words_in_code(first_column("commands.md")) == our_commands()


def test_api_page_lists_exactly_the_endpoints() -> None:
    described = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    documented = {path for cell in first_column("api.md") for path in re.findall(r"(?:GET|POST) (/[^`\s]*)", cell)}
    assert documented >= UNDESCRIBED
    assert {unnamed(path) for path in documented - UNDESCRIBED} == {unnamed(path) for path in described} - UNDESCRIBED


@pytest.mark.parametrize("path", sorted(UNDESCRIBED))
def test_the_addresses_beside_the_api_exist(path: str) -> None:
    assert resolve(path)


def unnamed(path: str) -> str:
    """Placeholders without their names, no slash at the end."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def test_operations_page_tells_what_each_kind_of_job_does() -> None:
    assert set(settings.KALIMTAK_JOBS) <= words_in_code(first_column("operations.md"))


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_the_site_lists_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = {path for entry in site["nav"] for path in entry.values()}
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_the_commands_that_the_readme_shows_exist() -> None:
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"manage\.py ([a-z_]+)", page.read_text(encoding="utf-8")))
    assert shown - set(get_commands()) == set()


def test_every_claim_of_speed_names_the_command_that_measured_it() -> None:
    for page in PAGES:
        for paragraph in page.read_text(encoding="utf-8").split("\n\n"):
            if re.search(r"\d (?:texts|requests|answers|rows) ?(?:/|per )s", paragraph):
                assert "bench/" in paragraph, f"{page.name}: {paragraph[:120]}"
