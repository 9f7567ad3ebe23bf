"""A visitor in Chromium who notices what nobody should have to: errors, strangers' addresses, inaccessible markup."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

CHROMIUM = Path("/usr/bin/chromium")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CLOSING_SECONDS = 20.0  # a window takes a tenth of a second
SERIOUS = ("serious", "critical")
# What axe may find in other people's markup, as (path, rule) → why it stays.
ACCEPTED = {
    ("/api/docs", rule): "Swagger UI draws this page; everything on it is in openapi.yaml and docs/api.md as well."
    for rule in ("color-contrast", "html-has-lang", "nested-interactive")
}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Django lets the tests use the database beside the event loop that Playwright keeps in their thread."""
    import pytest
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
    with pytest.MonkeyPatch.context() as environment, sync_playwright() as playwright:
        environment.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@cache
def axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


class Visitor:
    """One person's browser window at `url`; `faults` gathers what went wrong on any page it was on.

    `refusals` are the HTTP statuses that a test means to meet (429 on the sign-in page, say).
    """

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.url = url.rstrip("/")
        self.context = browser.new_context(base_url=self.url, **{"viewport": DESK, "locale": "en-GB"} | context)
        self.context.set_default_timeout(30_000)  # a busy machine is no fault of the page
        self.context.add_init_script(axe())
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.refusals: set[int] = set()
        self._listen()

    def _listen(self) -> None:
        self.page.on("crash", lambda page: self.faults.append(f"the tab with {page.url} crashed"))
        self.context.on("console", self._console)
        self.context.on("weberror", lambda error: self.faults.append(f"page error: {error.error}"))
        self.context.on("request", self._request)
        self.context.on("response", self._response)
        self.context.on("requestfailed", self._failed)

    def _console(self, message: Any) -> None:
        meant = any(f"status of {status} " in message.text for status in self.refusals)
        if message.type in ("error", "warning") and not meant:
            self.faults.append(f"console {message.type} on {self.page.url}: {message.text}")

    def _request(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != urlsplit(self.url).netloc:
            self.faults.append(f"request to another host: {request.url}")

    def _response(self, response: Any) -> None:
        if response.status >= 400 and response.status not in self.refusals:
            self.faults.append(f"{response.status} for {response.request.method} {response.url}")

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # a page that was left behind, a download
            self.faults.append(f"{request.failure} for {request.url}")

    def open(self, path: str) -> Any:
        """Go to `path` and look the page over."""
        self.page.goto(path)
        self.look()
        return self.page

    def look(self) -> None:
        """Let axe look at the page as it is now; serious findings become faults."""
        self.settle()
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)")
        for violation in found:
            for node in violation["nodes"]:
                selector = " ".join(map(str, node["target"]))
                if violation["impact"] in SERIOUS and (urlsplit(self.page.url).path, violation["id"]) not in ACCEPTED:
                    self.faults.append(f"axe on {self.page.url}: {violation['id']} ({violation['impact']}) {selector}")

    def look_all_over(self) -> None:
        """`look`, then once more with the same page dark and in a phone's window, where nothing may stick out."""
        self.look()
        self.page.emulate_media(color_scheme="dark")
        self.page.evaluate("document.documentElement.classList.add('dark')")  # the admin asks for it at load only
        self.page.set_viewport_size(PHONE)
        self.look()
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if wide > window:
            self.faults.append(f"{self.page.url} is {wide} wide in a window of {window}")
        self.page.emulate_media(color_scheme="light")
        self.page.evaluate("document.documentElement.classList.remove('dark')")
        self.page.set_viewport_size(DESK)
        self.settle()

    def settle(self) -> None:
        """Until styles and scripts have run and nothing moves any more."""
        self.page.wait_for_load_state("load")
        finished = "document.getAnimations().map((each) => each.finished.catch(() => 0))"
        self.page.evaluate(f"Promise.all([document.fonts.ready, ...{finished}])")

    def sign_in(self, name: str, password: str) -> None:
        self.page.goto("/admin/login/?next=/admin/")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url("**/admin/")

    def close(self) -> None:
        """Chromium has hung over this for minutes, once; Playwright knows no limit here, so the browser is ended."""
        ended: list[int] = []
        limit = threading.Timer(CLOSING_SECONDS, lambda: ended.extend(end_browsers()))
        limit.start()
        try:
            self.context.close()
        except Exception:
            if not ended:
                raise
        finally:
            limit.cancel()
        if ended:
            address = self.page.url
            raise AssertionError(f"Chromium did not close {address} in {CLOSING_SECONDS:.0f} s; {ended} were ended.")


def end_browsers() -> Iterator[int]:
    """End every Chromium below this process; their process ids."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                process.kill()
                yield process.pid
