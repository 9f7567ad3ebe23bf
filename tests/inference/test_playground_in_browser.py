"""The playground in Chromium, against the real API: ask, look, rate, correct, and what a visitor sees when it fails."""

from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "joy <img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.own_servers,  # or rather none: the API's answers are tried on every database elsewhere
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed at /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def chromium():
    """A browser for this module only: while it is open, Playwright keeps an event loop in the tests' thread."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with pytest.MonkeyPatch.context() as environment, sync_playwright() as playwright:
        environment.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def visit(page, live_server, settings):
    """Open the playground as an anonymous visitor; a fault in the page's script fails the test."""
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": static}
    settings.KALIMTAK_ANONYMOUS = True
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    def visit():
        page.goto(live_server.url)
        page.locator("#loading").wait_for(state="hidden")
        return page

    yield visit
    assert faults == []


def ask(page, text):
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Ask").click()
    page.locator("#asked", has_text=text).wait_for()


def test_a_question_gets_its_answer_with_scores_in_order(emotion, visit):
    page = visit()
    ask(page, "so much sadness")
    assert page.locator("#label").inner_text() == "sadness"
    assert page.locator("#confidence").inner_text() == "90%"
    rows = page.locator("#scores li").all_inner_texts()
    assert len(rows) == 3 and rows[0].startswith("sadness")
    assert "emotion/1" in page.locator("#facts").inner_text()


def test_an_unsure_answer_says_so(emotion, visit):
    page = visit()
    ask(page, "perhaps anger")
    assert "not sure" in page.locator("#unsure").inner_text()
    assert "low confidence" in page.locator("#flags").inner_text()


def test_a_correction_reaches_the_database(emotion, visit):
    from interactions.models import Feedback

    page = visit()
    ask(page, "so much joy")
    page.get_by_label("2 stars").check(force=True)
    page.get_by_label("It should have been").select_option("anger")
    page.get_by_role("button", name="Send feedback").click()
    page.locator("#thanks").wait_for()
    assert "next training" in page.locator("#thanks").inner_text()
    feedback = Feedback.objects.get()
    assert (feedback.rating, feedback.correct_label) == (2, "anger")
    assert "rated 2 of 5, corrected to anger" in page.locator("#recent").inner_text()


def test_feedback_needs_stars_or_a_correction(emotion, visit):
    page = visit()
    ask(page, "so much joy")
    page.get_by_role("button", name="Send feedback").click()
    assert "Choose a number of stars" in page.locator("#feedback-error").inner_text()


def test_stars_can_be_set_with_the_keyboard(emotion, visit):
    page = visit()
    ask(page, "so much joy")
    page.get_by_label("1 star: wrong").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.get_by_label("4 stars: right").is_checked()


def test_an_earlier_answer_can_be_taken_up_again_after_a_reload(emotion, visit):
    page = visit()
    ask(page, "so much joy")
    ask(page, "so much anger")
    page = visit()
    page.locator("#recent li").nth(1).get_by_role("button").click()
    assert page.locator("#label").inner_text() == "joy"
    assert page.locator("#asked").inner_text() == "so much joy"


def test_several_labels_are_drawn_and_several_can_be_corrected(topics, visit):
    from interactions.models import Feedback

    page = visit()
    page.get_by_label("topics").check(force=True)
    ask(page, "the sport of money")
    assert page.locator("#label bdi").all_inner_texts() == ["money", "sport"]
    assert page.locator("#scores .top").count() == 2
    assert page.get_by_label("It should have been").is_hidden()
    page.get_by_label("money", exact=True).uncheck()
    page.get_by_label("politics", exact=True).check()
    page.get_by_role("button", name="Send feedback").click()
    page.locator("#thanks").wait_for()
    assert Feedback.objects.get().correct_label == "politics|sport"
    assert "corrected to politics, sport" in page.locator("#recent").inner_text()
    ask(page, "nothing of that")
    assert page.locator("#label").inner_text() == "none of the labels"
    assert "No label reaches its threshold" in page.locator("#unsure").inner_text()


def test_hostile_text_stays_text(emotion, visit):
    page = visit()
    ask(page, HOSTILE)
    assert page.locator("#asked").inner_text() == HOSTILE
    assert page.locator("main img").count() == 0
    assert "owned" not in page.title()


def test_a_classifier_with_two_fields_gets_two_text_areas(emotion, make_classifier, publish, go_live, visit):
    clarity = make_classifier("clarity", input_fields=["question", "context"], labels=["clear", "vague"])
    go_live(publish(clarity))
    page = visit()
    page.get_by_label("clarity").check(force=True)
    page.get_by_label("Question").fill("Will you come?")
    page.get_by_label("Context").fill("That is vague to me.")
    page.get_by_role("button", name="Ask").click()
    page.locator("#result").wait_for()
    assert page.locator("#label").inner_text() == "vague"


def test_a_refusal_is_shown_in_the_words_of_the_api(emotion, visit):
    page = visit()
    page.get_by_label("Text", exact=True).fill("   ")
    page.get_by_role("button", name="Ask").click()
    page.locator("#ask-error").wait_for()
    assert "Text:" in page.locator("#ask-error").inner_text()


def test_without_a_live_model_the_page_says_how_to_get_one(serving, visit):
    page = visit()
    assert "No model answers yet" in page.locator("#empty").inner_text()
    assert page.locator("#ask").is_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(emotion, visit, page, width):
    page.set_viewport_size({"width": width, "height": 800})
    ask(visit(), "joy " + "unbreakable" * 40)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
