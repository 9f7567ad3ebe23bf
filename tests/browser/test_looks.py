"""How the pages look: light and dark, on a desk and on a phone, from the left and from the right."""

import os
from io import BytesIO

import pytest

from tests.browser.visitor import DESK, PHONE

pytestmark = pytest.mark.own_servers  # or rather none: what is drawn does not depend on the database

PAGES = (
    "/admin/",
    "/admin/registry/classifier/",
    "/admin/registry/classifier/{emotion.pk}/change/",
    "/admin/registry/classifier/{emotion.pk}/train/",
    "/admin/registry/modelversion/{second.pk}/change/",
    "/admin/registry/modelversion/{second.pk}/deploy/",
    "/admin/training/dataset/{dataset.pk}/change/",
    "/admin/training/dataset/upload/",
    "/admin/training/dataset/{loadable.pk}/load/",
    "/admin/training/dataset/{examined.pk}/change/",
    "/admin/training/dataset/{examined.pk}/role/",
    "/admin/training/datasetsnapshot/{newer.pk}/change/",
    "/admin/training/datasetsnapshot/{newer.pk}/compare/",
    "/admin/training/datasetsnapshot/{newer.pk}/download/",
    "/admin/training/snapshotitem/?snapshot__id__exact={newer.pk}",
    "/admin/training/trainingdataitem/",
    "/admin/training/trainingdataitem/{items[0].pk}/review/",
    "/admin/training/trainingdataitem/review/?classifier=none",
    "/admin/training/trainingdataitem/waiting/",
    "/admin/training/trainingdataitem/agreement/",
    "/admin/training/trainingrun/{run.pk}/change/",
    "/admin/interactions/userinteraction/{interaction.pk}/change/",
    "/admin/core/job/{waiting_job.pk}/change/",
    "/admin/core/alert/",
    "/admin/core/apikey/add/",
)
# Each window is opened at one size and then drawn to the other.
LOOKS = {
    "light": {"viewport": DESK},
    "dark": {"viewport": PHONE, "color_scheme": "dark"},
    "from the right": {"viewport": DESK, "locale": "ar"},
}
ARABIC = "أنا سعيد جدا اليوم، شكرا لكم!"

# Words and controls whose middle something else covers once they are scrolled away from what sticks to the edges.
COVERED = """() => {
    const covered = [];
    const parts = ":is(main, #content) :is(a, button, select, textarea, h1, h2, h3, dt, dd, th, td, label, p, kbd)";
    const shown = (el) => el.innerText?.trim() && !el.closest(".unseen")
        && el.checkVisibility({opacityProperty: true, visibilityProperty: true});
    for (const el of [...document.querySelectorAll(parts)].filter(shown)) {
        el.scrollIntoView({block: "center", inline: "center"});
        const box = el.getBoundingClientRect();
        if (box.height > innerHeight / 2) continue;
        const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        if (top && !el.contains(top) && !top.contains(el)) {
            covered.push(`${el.outerHTML.slice(0, 90)} by ${top.outerHTML.slice(0, 90)}`);
        }
    }
    scrollTo(0, 0);
    return covered;
}"""


def check_layout(visitor):
    wide, window = visitor.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{visitor.page.url} is {wide} wide in a window of {window}"
    assert visitor.page.evaluate(COVERED) == [], visitor.page.url


def check_both_sizes(visitor, look, picture):
    """As the page is, then on the other kind of device; `KALIMTAK_TEST_PICTURES=1` keeps pictures."""
    opened_at = LOOKS[look]["viewport"]
    for size in (opened_at, PHONE if opened_at == DESK else DESK):
        visitor.page.set_viewport_size(size)
        visitor.look()
        check_layout(visitor)
        if os.environ.get("KALIMTAK_TEST_PICTURES") == "1":
            visitor.page.screenshot(path=picture.with_stem(f"{picture.stem}-{size['width']}"), full_page=True)
    visitor.page.set_viewport_size(opened_at)


@pytest.fixture
def shelves(world):
    """A data set to look at before it is loaded, one that was examined, and two snapshots that differ."""
    from training import services
    from training.models import TrainingDataItem

    def add(name, rows):
        body = "text;label\n" + "".join(f"{text};{label}\n" for text, label in rows)
        return services.dataset_add(world.emotion, source=BytesIO(body.encode()), name=name, actor="tala")

    rows = [(f"number {n} of many {'joyful' if n % 2 else 'fearful'} days", ("fear", "joy")[n % 2]) for n in range(60)]
    TrainingDataItem.objects.filter(status="review").update(split="test", status="approved")
    services.snapshot_freeze(world.emotion, seed=1)
    examined = services.dataset_load(add("days.csv", [*rows, (ARABIC, "joy"), (f"{rows[0][0]}!", "joy")]))
    services.dataset_examine(examined, progress=lambda share, note: None)
    world.examined, world.newer = examined, services.snapshot_freeze(world.emotion, seed=1)
    world.loadable = add("more.csv", [(ARABIC, "فرح"), ("<script>alert(1)</script> " * 20, "joy"), ("x" * 300, "odd")])
    return world


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_the_admin(office, shelves, world, tmp_path, look):
    olga = office("olga", **LOOKS[look])
    for number, path in enumerate(PAGES):
        olga.page.goto(path.format(**vars(world)))
        direction = "rtl" if LOOKS[look].get("locale") == "ar" else "ltr"
        assert olga.page.evaluate("document.documentElement.dir") == direction
        check_both_sizes(olga, look, tmp_path / f"{number:02}.png")


@pytest.mark.parametrize("look", LOOKS)
def test_the_playground_with_arabic_text(playground, tmp_path, look):
    guest = playground(**LOOKS[look])
    page = guest.page
    check_both_sizes(guest, look, tmp_path / "empty.png")
    page.locator("#fields textarea").fill(f"{ARABIC} joy")
    page.locator("#ask button[type=submit]").click()
    page.locator("#asked", has_text=ARABIC).wait_for()
    assert page.evaluate("getComputedStyle(document.querySelector('#asked')).direction") == "rtl"
    page.locator("#feedback button[type=submit]").click()
    page.locator("#feedback-error").wait_for()
    check_both_sizes(guest, look, tmp_path / "answered.png")
