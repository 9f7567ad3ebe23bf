"""The playground: who may see it, that it loads nothing foreign, and, in a browser, that one can ask and correct."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from kalimtak.roles import roles_ensure

CHROMIUM = Path("/usr/bin/chromium")
STATIC = Path(__file__).resolve().parent.parent / "kalimtak" / "static" / "kalimtak"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> I am glad"


@pytest.fixture(autouse=True)
def unhashed_static_files(settings: Any) -> None:
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


def staff(name: str, *roles: str) -> User:
    user = User.objects.create_user(name, password="correct horse battery", is_staff=True)
    roles_ensure()
    user.groups.set(Group.objects.filter(name__in=roles))
    return user


def page_for(user: User | None = None) -> str:
    client = Client()
    if user is not None:
        client.force_login(user)
    response = client.get("/")
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.django_db
def test_a_visitor_is_asked_to_sign_in_where_anonymous_use_is_off(settings: Any) -> None:
    settings.KALIMTAK_ANONYMOUS = False
    page = page_for()
    assert "/admin/login/?next=/" in page
    assert 'id="ask"' not in page and "playground.js" not in page


@pytest.mark.django_db
def test_a_visitor_may_ask_where_anonymous_use_is_on(settings: Any) -> None:
    settings.KALIMTAK_ANONYMOUS = True
    page = page_for()
    assert 'id="ask"' in page and "playground.js" in page


@pytest.mark.django_db
def test_rami_may_ask_with_his_role(settings: Any) -> None:
    settings.KALIMTAK_ANONYMOUS = False
    page = page_for(staff("rami", "annotator"))
    assert 'id="ask"' in page
    assert ">rami<" in page


@pytest.mark.django_db
def test_nadia_is_told_that_she_needs_a_role(settings: Any) -> None:
    settings.KALIMTAK_ANONYMOUS = True
    page = page_for(staff("nadia"))
    assert "no role yet" in page
    assert 'id="ask"' not in page


@pytest.mark.django_db
def test_the_page_forbids_foreign_and_inline_code() -> None:
    policy = Client().get("/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy


@pytest.mark.django_db
def test_the_page_is_only_for_looking() -> None:
    assert Client().post("/").status_code == 405


class Assets(HTMLParser):
    """Collects what a page loads, and what it runs inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "link"}:
            self.loaded.append(given.get("src") or given.get("href") or "")
        if tag == "script" and "src" not in given:
            self.inline.append(tag)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]


@pytest.mark.django_db
def test_everything_the_page_loads_is_its_own(settings: Any) -> None:
    settings.KALIMTAK_ANONYMOUS = True
    assets = Assets()
    assets.feed(page_for())
    assert assets.loaded and all(re.match(r"/(?!/)", address) for address in assets.loaded)
    assert assets.inline == []
    for name in ("playground.css", "playground.js", "mark.svg"):
        assert (STATIC / name).is_file()


def test_the_script_writes_text_never_markup() -> None:
    script = (STATIC / "playground.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script)


def test_the_script_says_only_what_the_page_can_translate() -> None:
    templates = STATIC.parents[2] / "templates" / "playground"
    worded = set(re.findall(r"<dt>(\w+)</dt>", (templates / "wording.html").read_text(encoding="utf-8")))
    said = set(re.findall(r"""say\(["'](\w+)["']""", (STATIC / "playground.js").read_text(encoding="utf-8")))
    assert said and said <= worded


def test_every_flag_and_source_has_a_name() -> None:
    from inference.guard import FLAGS

    wording = (STATIC.parents[2] / "templates" / "playground" / "wording.html").read_text(encoding="utf-8")
    assert [flag for flag in FLAGS if f"<dt>flag_{flag}</dt>" not in wording] == []
