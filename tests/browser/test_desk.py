"""The review desk by keyboard: the next item at once, taking back, what others did, an item from the right."""

import pytest

from tests.browser.keyboard import Keyboard
from tests.browser.visitor import PHONE

# What the verdicts do is tried on every database in `tests/admin` and `tests/training`; here it is what the page does.
pytestmark = pytest.mark.own_servers

SOURCE = f"subject:{'4f' * 32}"
ARABIC = "أنا سعيد جدا اليوم، شكرا لكم على كل شيء!"


@pytest.fixture
def arabic(world):
    """The first item is one that is read from the right, and the model was torn over it."""
    item = world.items[0]
    item.interaction.scores = {"joy": 0.47, "sadness": 0.43, "anger": 0.06, "fear": 0.04}
    item.interaction.save()
    near = list(type(item).objects.filter(status="approved").values_list("pk", flat=True)[:3])
    item.fields, item.why, item.queue_facts = {"text": ARABIC}, "unsure", {"near": near}
    item.reason, item.priority = "two sources disagree", 1.0
    item.save()
    return item


def sit(office, item, **context):
    """At the desk, with the next item ahead."""
    visitor = office("rami", **context)
    visitor.page.goto(f"/admin/training/trainingdataitem/{item.pk}/review/")
    visitor.page.wait_for_function("document.getElementById('k-ahead').content.firstElementChild")
    return visitor


def text_of(page):
    return page.locator("#k-desk blockquote").inner_text()


def test_the_next_item_is_there_before_the_server_has_answered(office, arabic, world):
    page = sit(office, arabic).page
    held = []
    page.route("**/verdict/", lambda route: held.append(route))  # the server is slow
    page.keyboard.press("a")
    page.wait_for_url(f"**/{world.items[1].pk}/review/")
    assert text_of(page) == "waiting text 1"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    arabic.refresh_from_db()
    assert arabic.status == "review"
    held[0].continue_()
    page.get_by_text("Approved.").wait_for()
    page.wait_for_function("document.getElementById('k-ahead').content.firstElementChild")
    arabic.refresh_from_db()
    assert arabic.status == "approved"


def test_undo_brings_the_item_back_and_what_was_pressed_next_counts_for_it(office, arabic, world):
    page = sit(office, arabic).page
    page.keyboard.press("r")
    page.get_by_text("Rejected.").wait_for()
    page.keyboard.press("u")
    page.get_by_text("taken back").wait_for()
    assert text_of(page) == ARABIC
    page.keyboard.press("1")
    page.get_by_text("Relabelled.").wait_for()
    assert type(arabic).objects.filter(fields=arabic.fields, label="joy", status="approved").exists()
    world.items[1].refresh_from_db()
    assert world.items[1].status == "review"


# One right after the other: pressed from here, each key would come as late as a busy machine lets it.
PRESS_QUICKLY = """async keys => {
    for (const key of keys) {
        const pressed = { key, code: `Key${key.toUpperCase()}`, bubbles: true, cancelable: true };
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", pressed));
        await new Promise(done => setTimeout(done));
    }
}"""


def test_keys_pressed_faster_than_the_server_answers_count_one_after_the_other(office, arabic, world):
    page = sit(office, arabic).page
    page.evaluate(PRESS_QUICKLY, ["a", "a", "r"])  # the second one so soon that it was meant once
    page.wait_for_url(f"**/{world.items[2].pk}/review/")
    page.get_by_text("Rejected.").wait_for()
    for item, status in ((arabic, "approved"), (world.items[1], "rejected"), (world.items[2], "review")):
        item.refresh_from_db()
        assert item.status == status


def test_a_conflict_is_told_on_the_next_item_and_leads_back(office, arabic, people, world):
    from training import services

    visitor = sit(office, arabic)
    services.item_review(arabic, reviewer=people.tala, verdict="reject")
    visitor.refusals.add(409)
    visitor.page.keyboard.press("a")
    visitor.page.get_by_text("Somebody decided item").wait_for()
    assert text_of(visitor.page) == "waiting text 1"
    visitor.look()
    visitor.page.get_by_role("link", name="Back to that item").click()
    visitor.page.get_by_text("Rejected by tala.").wait_for()


def test_a_server_that_is_gone_takes_nothing_from_the_screen(office, arabic):
    visitor = sit(office, arabic)
    visitor.page.route("**/verdict/", lambda route: route.abort())
    visitor.page.keyboard.press("a")
    visitor.page.get_by_text("The server did not answer.").wait_for()
    assert text_of(visitor.page) == ARABIC
    visitor.faults.clear()  # the request that failed is what this is about
    arabic.refresh_from_db()
    assert arabic.status == "review"


def test_all_that_waits_is_gone_through_by_keys_alone(office, arabic, world):
    visitor = sit(office, arabic)
    page = visitor.page
    for number, key in enumerate(("a", "r", "2", "s", "r")):
        page.wait_for_function(f"document.querySelector('.k-item').dataset.item == {world.items[number].pk}")
        page.keyboard.press(key)
    page.get_by_text("Nothing waits for review.").wait_for()
    visitor.look_all_over()
    Keyboard(page).choose(page.get_by_role("button", name="Look at the one that you skipped"))
    page.wait_for_url(f"**/{world.items[3].pk}/review/")


def press(page, key, code, **more):
    """What a keyboard of another layout sends: Playwright knows the American one alone."""
    init = {"key": key, "code": code, "bubbles": True, **more}
    page.evaluate("(init) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', init))", init)


def test_keys_of_other_layouts_mean_what_they_do_on_a_latin_one(office, arabic, world):
    page = sit(office, arabic).page
    judged = [
        (("ش", "KeyA"), "approved"),  # Arabic
        (("к", "KeyR"), "rejected"),  # Russian
        (("٣", ""), "rejected"),  # relabelled by an Arabic digit on a screen's keyboard, which tells no place
        (("σ", "KeyS"), "review"),  # Greek
        (('"', "Digit3"), "rejected"),  # relabelled in French, whose digits want shift
    ]
    for item, (pressed, _) in zip(world.items, judged, strict=True):
        page.wait_for_function(f"document.querySelector('.k-item').dataset.item == {item.pk}")
        press(page, *pressed)
    page.get_by_text("Nothing waits for review.").wait_for()
    for item, (_, status) in zip(world.items, judged, strict=True):
        item.refresh_from_db()
        assert item.status == status
    assert type(arabic).objects.filter(label="anger", fields__text__startswith="waiting").count() == 2


def test_latin_letters_and_named_keys_are_not_taken_for_their_places(office, arabic, world):
    page = sit(office, arabic).page
    page.evaluate("addEventListener('keydown', (event) => { window.meant = event.defaultPrevented; })")
    for key, code, more in (
        ("q", "KeyA", {}),  # AZERTY
        ("o", "KeyS", {}),  # Dvorak
        ("End", "Numpad1", {}),
        ("!", "Digit1", {"shiftKey": True}),
        ("ф", "KeyA", {"ctrlKey": True}),
    ):
        press(page, key, code, **more)
        assert not page.evaluate("window.meant"), key
    assert text_of(page) == ARABIC
    press(page, "a", "KeyQ")  # AZERTY
    page.get_by_text("Approved.").wait_for()


def test_long_words_and_sources_do_not_stick_out_of_a_phone(office, arabic, world):
    texts = [{"text": "w" * 300}, {"text": "ث" * 300}]
    for item, fields in zip(world.items[:2], texts, strict=True):
        type(item).objects.filter(pk=item.pk).update(fields=fields, source=SOURCE, reason="r" * 300)
    type(arabic).objects.filter(queue_facts={}, status="approved").update(fields=texts[0])
    arabic.interaction.comment = "c" * 300
    arabic.interaction.save()
    page = sit(office, arabic, viewport=PHONE).page
    fits = "document.scrollingElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    source = page.locator("#k-desk code")
    assert (source.inner_text(), source.get_attribute("title")) == (SOURCE[:20] + "…", SOURCE)
    page.goto(f"/admin/training/trainingdataitem/{arabic.pk}/change/")
    assert page.evaluate(fits)


ROWS = "[...document.querySelectorAll('.k-table tbody tr, #result_list .data-row')].map((row) => row.offsetHeight)"
COLUMN = "(cell) => cell.offsetWidth"


@pytest.mark.parametrize("look", [{}, {"viewport": PHONE, "color_scheme": "dark"}, {"locale": "ar"}])
def test_columns_of_sentences_have_room_and_long_cells_are_cut(office, arabic, world, look):
    rows = type(arabic).objects.filter(status="review")
    reason = f"500 labels came within an hour from sources that were new, {'499 of them for the same label, ' * 5}."
    rows.update(source=SOURCE, reason=reason, why="doubtful", queue_facts={"likely": "anger"})
    rows.filter(pk=world.items[1].pk).update(fields={"text": "w" * 300})
    visitor = office("rami", **look)
    page = visitor.page
    page.goto("/admin/training/trainingdataitem/waiting/?classifier=emotion")
    assert max(page.evaluate(ROWS)) < 110
    why = page.locator("td.k-why").first
    assert why.evaluate(COLUMN) > 200
    assert reason in why.locator("span").get_attribute("title")
    source = page.locator("td code").first
    assert (source.inner_text(), source.get_attribute("title")) == (SOURCE[:20] + "…", SOURCE)
    visitor.look_all_over()
    page.goto("/admin/training/trainingdataitem/?status__exact=review")
    if "viewport" not in look:  # on a phone each row is a card
        assert max(page.evaluate(ROWS)) < 120
        assert page.locator("#result_list td.field-reason_shown").first.evaluate(COLUMN) > 200
    assert page.locator("td.field-reason_shown span").first.get_attribute("title") == reason
    visitor.look_all_over()
    cell = page.locator("td.field-reason_shown").first
    assert cell.locator("span").evaluate("(span) => span.offsetHeight") <= cell.evaluate("(cell) => cell.offsetHeight")


def test_from_the_right_icons_keep_off_their_words_and_arrows_point_on(office, arabic):
    page = sit(office, arabic, locale="ar").page
    gap = """() => {
        const icon = document.querySelector("#nav-sidebar-apps li .material-symbols-outlined");
        return icon.getBoundingClientRect().left - icon.nextElementSibling.getBoundingClientRect().right;
    }"""
    assert page.evaluate(gap) >= 10
    page.goto(f"/admin/training/trainingdataitem/{arabic.pk}/change/")
    turned = "(all) => all.map((icon) => [icon.innerText.trim(), getComputedStyle(icon).scale])"
    arrows = page.locator("#header-inner").get_by_text("chevron_right").or_(page.get_by_text("arrow_back"))
    assert dict(arrows.evaluate_all(turned)) == {"chevron_right": "-1 1", "arrow_back": "-1 1"}


@pytest.mark.parametrize("look", [{}, {"viewport": PHONE, "color_scheme": "dark"}, {"locale": "ar"}])
def test_the_desk_is_accessible_in_every_look(office, arabic, tmp_path, look):
    visitor = sit(office, arabic, **look)
    assert visitor.page.locator("#k-desk blockquote").evaluate("(el) => getComputedStyle(el).direction") == "rtl"
    visitor.page.screenshot(path=tmp_path / "desk.png", full_page=True)
    visitor.look_all_over()


@pytest.mark.parametrize("look", [{}, {"viewport": PHONE, "color_scheme": "dark"}, {"locale": "ar"}])
def test_many_are_judged_at_once_by_keyboard(office, arabic, world, tmp_path, look):
    visitor = office("rami", **look)
    page, keys = visitor.page, Keyboard(visitor.page)
    page.goto("/admin/training/trainingdataitem/waiting/?classifier=emotion")
    page.screenshot(path=tmp_path / "waiting.png", full_page=True)
    visitor.look_all_over()
    keys.choose(page.get_by_label("Tick all on this page"), "Space")
    keys.choose(page.get_by_label(f"Item {arabic.pk}"), "Space")
    page.get_by_role("button", name="Reject…").press("Enter")
    page.get_by_role("heading", name="Reject 4 items?").wait_for()
    page.screenshot(path=tmp_path / "confirm.png", full_page=True)
    visitor.look_all_over()
    keys.choose(page.get_by_role("button", name="Reject"))
    page.get_by_text("4 items were judged.").wait_for()
    arabic.refresh_from_db()
    assert arabic.status == "review"


@pytest.mark.parametrize("look", [{}, {"viewport": PHONE, "color_scheme": "dark"}, {"locale": "ar"}])
def test_the_figures_of_agreement_are_accessible(office, world, people, tmp_path, look):
    from training import services

    world.emotion.policy = {**world.emotion.policy, "review": {"second_share": 1.0}}
    world.emotion.save()
    for number, item in enumerate(world.items):
        services.item_review(item, reviewer=people.rami, verdict="approve")
        services.item_review(item, reviewer=people.tala, verdict="relabel" if number % 2 else "approve", label="fear")
    visitor = office("rami", **look)
    visitor.page.goto("/admin/training/trainingdataitem/agreement/")
    visitor.page.screenshot(path=tmp_path / "agreement.png", full_page=True)
    visitor.look_all_over()
