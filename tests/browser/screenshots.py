"""The pictures of the documentation, taken anew from a demo installation:

    python -m tests.browser.screenshots docs/img [--installation FOLDER]

Without a folder a new demo is made, which takes a few minutes; a folder that holds one already is used as it is. The
script trains a second version of one classifier and asks a few questions, so that every page has something to show.
"""

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.visitor import PHONE, Visitor, chromium
from tests.installation import ROOT, Installation
from tests.services import wait_until

SMALL = 200_000  # bytes a picture may have
COMPARED = "sentiment"
TEXTS = (
    "I can't believe you remembered my birthday!",
    "The train left without me and nobody said a word.",
    "Three hours in the queue, and then they closed the counter.",
    "My hands were shaking before the exam.",
)
JUDGED = {TEXTS[1]: "sadness", TEXTS[3]: "fear"}


class Photographer:
    """Takes a page at a time into `folder`, no picture larger than `SMALL`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, visitor: Visitor, name: str, height: int, top: str = "") -> None:
        """`height` pixels of the page as it is, from `top` (a selector) or from its beginning."""
        size = visitor.page.viewport_size
        visitor.page.set_viewport_size({"width": size["width"], "height": height})
        visitor.page.evaluate("document.activeElement.blur()")
        visitor.page.evaluate("(top) => scrollTo(0, top ? document.querySelector(top).offsetTop - 16 : 0)", top)
        visitor.settle()
        visitor.page.mouse.move(0, 0)
        path = self.folder / f"{name}.png"
        visitor.page.screenshot(path=path)
        visitor.page.set_viewport_size(size)
        Image.open(path).convert("RGB").save(path, optimize=True)
        assert path.stat().st_size <= SMALL, f"{path} has {path.stat().st_size} bytes"


def ask(visitor: Visitor, text: str) -> None:
    visitor.page.get_by_label("Text", exact=True).fill(text)
    visitor.page.get_by_role("button", name="Ask").click()
    visitor.page.locator("#asked", has_text=text).wait_for()


def use_the_playground(visitor: Visitor, camera: Photographer) -> None:
    page = visitor.page
    page.goto("/")
    for text in reversed(TEXTS):
        ask(visitor, text)
        if label := JUDGED.get(text):
            is_right = page.locator("#label").inner_text() == label
            page.get_by_label("5 stars" if is_right else "2 stars").check(force=True)
            if not is_right:
                page.get_by_label("It should have been").select_option(label)
            page.get_by_role("button", name="Send feedback").click()
            page.locator("#thanks").wait_for()
    page.get_by_label("5 stars").check(force=True)
    camera.take(visitor, "playground", 830)


def second_version(installation: Installation) -> None:
    """More rows and another run for one classifier, so that its versions can be compared."""
    if f"{COMPARED}/2" in installation.manage("list_models"):
        return
    output = installation.folder / "more"
    options = ("--classifier", COMPARED, "--rows", "3000", "--seed", "11", "--output", str(output))
    installation.manage("make_sample_data", *options)
    installation.manage("import_dataset", str(output / COMPARED / "train.csv"), "--classifier", COMPARED)
    installation.manage("train", COMPARED)


def version_page(visitor: Visitor) -> str:
    """The address of the newest version's page."""
    visitor.page.goto("/admin/registry/modelversion/")
    return visitor.page.get_by_role("link", name=f"{COMPARED}/2").get_attribute("href")


def walk_the_admin(visitor: Visitor, camera: Photographer) -> None:
    version = version_page(visitor)
    for name, path, top, height in (
        ("dashboard", "/admin/", "", 1000),
        ("analysis", "/admin/training/dataset/1/change/", "", 900),
        ("review", "/admin/training/trainingdataitem/review/?classifier=emotion", "", 900),
        ("training", "/admin/training/trainingrun/1/change/", "", 800),
        ("version", version, "", 900),
        ("compare", version, "#panel-compare", 620),
        ("deploy", version.replace("change", "deploy"), "", 620),
    ):
        visitor.page.goto(path)
        camera.take(visitor, name, height, top)


def take_all(installation: Installation, camera: Photographer) -> None:
    second_version(installation)
    installation.start_worker()
    installation.start_web(WEB_CONCURRENCY="1")
    password = json.loads((installation.folder / "var" / "demo.json").read_text())["admin"]["password"]
    with chromium() as browser:
        guest = Visitor(browser, installation.url)
        wait_until(lambda: guest.open("/").locator("#fields textarea").is_visible(), what="a playground that answers")
        use_the_playground(guest, camera)
        phone = Visitor(browser, installation.url, viewport=PHONE)
        phone.page.goto("/")
        ask(phone, TEXTS[0])
        camera.take(phone, "playground-phone", PHONE["height"], "#answer")
        installation.manage("curate")
        olga = Visitor(browser, installation.url)
        olga.sign_in("olga", password)
        wait_until(lambda: olga.open("/admin/").get_by_role("alert").count() == 0, 120, what="a worker's first sign")
        walk_the_admin(olga, camera)
        olga.page.emulate_media(color_scheme="dark")
        olga.page.goto("/admin/registry/classifier/")
        olga.page.goto("/admin/")
        camera.take(olga, "dashboard-dark", 1000)
        assert not (faults := guest.faults + phone.faults + olga.faults), faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the pictures of the documentation.")
    parser.add_argument("folder", type=Path, help="where the pictures go, such as docs/img")
    parser.add_argument(
        "--installation", type=Path, help="a folder that is or becomes the demo (default: a temporary one)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.installation or Path(scratch) / "demo"
        installation = Installation(home, models=(ROOT / "models.yaml").read_text(encoding="utf-8"))
        try:
            installation.manage("quickstart")
            take_all(installation, Photographer(arguments.folder))
        finally:
            installation.kill_all()


if __name__ == "__main__":
    main()
