"""Everything by keyboard alone: each journey's verbs, a visible focus, no trap, and a place after each change."""

import pytest

from tests.browser.keyboard import Keyboard
from tests.browser.visitor import PHONE

# What the verbs do is tried on every database in `tests/admin` and `tests/contract`; here it is how keys reach them.
pytestmark = pytest.mark.own_servers

PAGES = (
    "/admin/",
    "/admin/registry/classifier/",
    "/admin/registry/classifier/{emotion.pk}/change/",
    "/admin/registry/modelversion/{second.pk}/change/",
    "/admin/training/dataset/upload/",
    "/admin/training/dataset/{dataset.pk}/change/",
    "/admin/core/alert/{alert.pk}/change/",
    "/admin/training/trainingdataitem/{items[0].pk}/review/",
    "/admin/training/trainingrun/{run.pk}/change/",
    "/admin/core/apikey/add/",
)


@pytest.fixture
def desk(office):
    """Somebody at the keyboard: the visitor and the keys."""

    def sit(name="olga", path="/admin/"):
        visitor = office(name)
        visitor.page.goto(path)
        return visitor.page, Keyboard(visitor.page)

    return sit


@pytest.mark.parametrize("path", PAGES)
def test_tab_passes_through_the_page_showing_where_it_is_and_comes_out(desk, world, path):
    _, keys = desk(path=path.format(**vars(world)))
    passed = keys.walk()
    assert passed[0]["what"] == "a Skip to the content"
    assert [place["what"] for place in passed if not place["marked"]] == []


def test_the_first_link_skips_the_navigation(desk, world):
    page, keys = desk(path=f"/admin/registry/modelversion/{world.second.pk}/change/")
    keys.press("Tab", "Enter", "Tab")
    assert page.evaluate("document.activeElement.closest('#content') !== null")


def test_olga_uploads_a_file(desk, tmp_path):
    from training.models import Dataset

    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "".join(f"text number {n},joy\n" for n in range(12)))
    page, keys = desk(path="/admin/training/dataset/")
    keys.choose(page.get_by_role("link", name="Load a data set"))
    page.wait_for_url("**/upload/")
    with page.expect_file_chooser() as chooser:
        keys.choose(page.locator("input[type=file]"), "Space")
    chooser.value.set_files(path)
    keys.tab_to(page.get_by_label("Classifier"))
    keys.type("emo")
    keys.choose(page.get_by_role("button", name="Load a data set"))
    page.get_by_role("heading", name="Its first rows").wait_for()
    keys.choose(page.get_by_role("button", name="Load it"))
    page.get_by_text("The file waits to be loaded.").wait_for()
    assert Dataset.objects.filter(name="texts.csv", classifier__slug="emotion").exists()


def test_rami_reviews_with_single_keys(desk, world):
    page, keys = desk("rami", "/admin/training/trainingdataitem/")
    first, second, third, fourth = world.items[:4]
    keys.choose(page.get_by_role("link", name="Review what waits"))
    for item, key in ((first, "a"), (second, "r"), (third, "1"), (fourth, "s")):
        page.wait_for_url(f"**/{item.pk}/review/")
        keys.press(key)
    page.wait_for_url(f"**/{world.items[4].pk}/review/")
    page.get_by_text("Skipped.").wait_for()
    for item, status in ((first, "approved"), (second, "rejected"), (third, "rejected"), (fourth, "review")):
        item.refresh_from_db()
        assert item.status == status
    assert type(third).objects.filter(fields=third.fields, label="joy", status="approved").exists()  # its right label


def test_rami_reviews_with_tab_and_space(desk, world):
    page, keys = desk("rami", f"/admin/training/trainingdataitem/{world.items[1].pk}/review/")
    keys.choose(page.get_by_role("button", name="Reject"), "Space")
    page.wait_for_url(f"**/{world.items[0].pk}/review/")  # the first that waits
    page.get_by_text("Rejected.").wait_for()
    world.items[1].refresh_from_db()
    assert world.items[1].status == "rejected"


def test_tala_trains_and_the_focus_stays_where_it_is_while_progress_moves(desk, world):
    from kalimtak.core.models import Job

    page, keys = desk("tala", f"/admin/registry/classifier/{world.emotion.pk}/change/")
    keys.choose(page.get_by_role("link", name="Train now"))
    keys.choose(page.get_by_role("button", name="Train now"))
    page.get_by_text("The run waits for a worker.").wait_for()
    keys.tab_to(page.get_by_role("link", name="Cancel"))
    job = Job.objects.filter(kind="train", state="queued")
    job.update(progress=0.4)
    page.locator("#panel-progress", has_text="40 %").wait_for()
    assert page.evaluate("document.activeElement.innerText").endswith("Cancel")
    job.update(state="failed", error="The disk is full.")
    page.get_by_role("alert").get_by_text("The disk is full.").wait_for()
    page.wait_for_function("document.activeElement.id === 'panel-progress'")


def test_dina_deploys_and_rolls_back(desk, world):
    page, keys = desk("dina", f"/admin/registry/modelversion/{world.second.pk}/change/")
    keys.choose(page.get_by_role("link", name="Deploy", exact=True))
    keys.tab_to(page.get_by_label("Reason"))
    keys.type("it is better")
    keys.press("Enter")
    page.get_by_text("emotion/2 answers now.").wait_for()
    page.goto(f"/admin/registry/classifier/{world.emotion.pk}/change/")
    keys.choose(page.get_by_role("link", name="Roll back"))
    keys.tab_to(page.get_by_label("Reason"))
    keys.type("it is not")
    keys.choose(page.get_by_role("button", name="Roll back"), "Space")
    page.get_by_text("emotion/1 answers now.").wait_for()


def test_olga_makes_an_api_key(desk):
    page, keys = desk(path="/admin/core/apikey/add/")
    keys.tab_to(page.get_by_label("Name"))
    keys.type("Carla's shop")
    keys.choose(page.get_by_label("read"), "Space")
    keys.choose(page.get_by_role("button", name="Make the key"))
    page.locator("#k-secret").wait_for()
    keys.tab_to(page.get_by_role("button", name="Copy"))


def test_a_guest_asks_rates_and_corrects(playground):
    from interactions.models import Feedback

    guest = playground()
    page, keys = guest.page, Keyboard(guest.page)
    keys.tab_to(page.get_by_label("Text", exact=True))
    keys.type("so much joy")
    keys.press("Control+Enter")
    page.locator("#asked", has_text="so much joy").wait_for()
    assert page.evaluate("document.activeElement.name") == "text"
    keys.tab_to(page.get_by_label("1 star: wrong"))
    keys.press("Space", "ArrowRight")
    keys.tab_to(page.get_by_label("It should have been"))
    keys.type("ang")
    keys.choose(page.get_by_role("button", name="Send feedback"))
    page.locator("#thanks").wait_for()
    assert Feedback.objects.values_list("rating", "correct_label").get() == (2, "anger")
    keys.choose(page.get_by_role("button", name="Rate or correct"))
    assert page.evaluate("document.activeElement.name") == "rating"
    assert [place["what"] for place in keys.walk() if not place["marked"]] == []


def test_the_sidebar_opens_on_a_phone(office):
    visitor = office("olga", viewport=PHONE)
    visitor.page.goto("/admin/")
    keys = Keyboard(visitor.page)
    keys.choose(visitor.page.get_by_role("button", name="Show or hide the navigation"))
    visitor.page.get_by_role("link", name="Classifiers").wait_for()
    keys.choose(visitor.page.get_by_role("link", name="Classifiers"))
    visitor.page.wait_for_url("**/classifier/")
