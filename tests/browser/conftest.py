"""Browsers, visitors whose faults fail the test, an office where everything has happened once, a whole installation."""

from contextlib import suppress

import pytest

from tests.admin.conftest import jsonl, people, world  # noqa: F401  (fixtures)
from tests.browser.visitor import CHROMIUM, Visitor, chromium
from tests.inference.conftest import emotion, go_live, make_classifier, publish, serving  # noqa: F401  (fixtures)
from tests.installation import PASSWORD, Installation


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)
            item.add_marker(
                pytest.mark.skipif(not CHROMIUM.exists(), reason=f"Chromium is not installed at {CHROMIUM}")
            )


@pytest.fixture(scope="module")
def browser_of_module():
    """One for each module: while it is open, Playwright keeps an event loop in the tests' thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visitor_at(browser_of_module, tmp_path):
    """Somebody's window at an address: `visitor_at(url, color_scheme="dark")`. Whatever it met fails the test."""
    visitors = []

    def visitor_at(url, **context):
        visitors.append(Visitor(browser_of_module, url, **context))
        return visitors[-1]

    yield visitor_at
    faults = [fault for visitor in visitors for fault in visitor.faults]
    for number, visitor in enumerate(visitors):
        if faults:
            with suppress(Exception):
                visitor.page.screenshot(path=tmp_path / f"visitor-{number}.png", full_page=True)
        visitor.close()
    assert not faults, "\n".join([f"pictures are in {tmp_path}", *faults])


@pytest.fixture
def office(live_server, serving, world, people, client, visitor_at):  # noqa: F811
    """Let somebody of the cast in, already signed in: `office("dina")`."""

    def enter(name="olga", **context):
        visitor = visitor_at(live_server.url, **context)
        client.force_login(getattr(people, name))
        session = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}
        visitor.context.add_cookies([session])
        return visitor

    return enter


@pytest.fixture
def playground(live_server, emotion, settings, visitor_at):  # noqa: F811
    """An anonymous visitor of the playground, with a classifier that answers."""
    settings.KALIMTAK_ANONYMOUS = True

    def enter(**context):
        visitor = visitor_at(live_server.url, **context)
        visitor.page.goto("/")
        visitor.page.locator("#loading").wait_for(state="hidden")
        return visitor

    return enter


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A real installation with its web server; the tests start the workers."""
    installation = Installation(tmp_path_factory.mktemp("installation"))
    try:
        installation.set_up().start_web(WEB_CONCURRENCY="1")
        yield installation
    finally:
        installation.close()


@pytest.fixture
def olga(installed, visitor_at):
    visitor = visitor_at(installed.url)
    visitor.sign_in("olga", PASSWORD)
    return visitor
