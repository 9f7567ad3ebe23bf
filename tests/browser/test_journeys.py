"""The journeys of the admin by mouse: from a file to a version that answers and back; keys, jobs, signing in."""

import re
import uuid

import pytest

from tests.installation import LABELS
from tests.services import wait_until

TRAINED = 90_000  # milliseconds that a run may take on a busy machine


def swapped_rows():
    """Rows whose labels are the wrong way round, so that what learns from them answers worse."""
    food, weather = LABELS["food"].split(), LABELS["weather"].split()
    rows = ["text,label"]
    for label, words in (("food", weather), ("weather", food)):
        rows += [f"{a} and {b} {n} {m},{label}" for n in range(4) for m in range(4) for a in words for b in words]
    return "\n".join(rows) + "\n"


def upload(page, path, *, then="only load it"):
    page.get_by_role("link", name="Data sets").click()
    page.get_by_role("link", name="Load a data set").click()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_label("Classifier").select_option(label="topic")
    page.get_by_label("Afterwards").select_option(label=then)
    page.get_by_role("button", name="Load a data set").click()
    page.get_by_role("heading", name="Its first rows").wait_for()
    page.get_by_role("button", name="Load it").click()
    page.get_by_text("The file waits to be loaded.").wait_for()


def notice_progress(page):
    """What the progress panel says, change by change, and “loaded” for each time the page is loaded."""
    said = []
    listener = f"progressSays{uuid.uuid4().hex}"
    page.expose_function(listener, lambda words: said.append(words))
    page.on("load", lambda _: said.append("loaded"))
    page.evaluate(
        """(listener) => {
            const say = () => window[listener](document.querySelector("#panel-progress").innerText);
            say();
            new MutationObserver(say).observe(document.querySelector("#content"), {childList: true, subtree: true});
        }""",
        listener,
    )
    return said


def finish_run(page):
    page.locator("#panel-outcome").wait_for(timeout=TRAINED)
    page.locator("#panel-progress", has_text="succeeded").wait_for()
    page.wait_for_load_state("load")  # the panels stand before it is told


def ask(page, text):
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Ask").click()
    page.locator("#asked", has_text=text).wait_for()


def answered_by(page):
    ask(page, "rain and snow")
    return page.locator("#facts").inner_text().split(" ")[0]


def correct(page, label):
    page.get_by_label("It should have been").select_option(label)
    page.get_by_role("button", name="Send feedback").click()
    page.locator("#thanks").wait_for()


@pytest.mark.slow
def test_from_a_file_over_two_versions_and_a_refusal_back_to_the_first(installed, olga, visitor_at):
    load_and_analyse(installed, olga)
    train_and_watch(installed, olga)
    deploy(olga)
    ask_and_correct(visitor_at(installed.url))
    installed.manage("curate")
    review(olga)
    train_a_worse_version(installed, olga)
    deploy_against_the_gate(olga)
    roll_back(olga)


def load_and_analyse(installed, olga):
    page = olga.page
    olga.look_all_over()
    upload(page, installed.folder / "items.csv")
    assert "waits for a worker" in page.locator("#panel-progress").inner_text()
    olga.look_all_over()
    said = notice_progress(page)
    installed.start_worker()
    page.get_by_role("heading", name="Labels").wait_for()
    page.wait_for_load_state("load")
    assert "loaded" in said  # by itself, once the file was read
    report = page.locator("#panel-report").inner_text()
    assert re.search(r"Rows\s+240", report) and re.search(r"weather\s+120", report)
    olga.look_all_over()


def train_and_watch(installed, olga):
    page = olga.page
    page.get_by_role("link", name="Classifiers").click()
    page.get_by_role("link", name="topic").first.click()
    olga.look_all_over()
    page.get_by_role("link", name="Train now").click()
    olga.look_all_over()
    page.get_by_role("button", name="Train now").click()
    page.get_by_text("The run waits for a worker.").wait_for()
    olga.look_all_over()
    said = notice_progress(page)
    installed.start_worker("training")
    finish_run(page)
    moved = said[: said.index("loaded")]
    assert len(set(moved)) >= 2, f"nothing moved before the page was loaded again: {said}"
    assert any("running" in words for words in moved), said
    olga.look_all_over()


def deploy(olga):
    page = olga.page
    page.locator("#panel-outcome").get_by_role("link", name="topic/1").click()
    olga.look_all_over()
    page.get_by_role("link", name="Deploy", exact=True).click()
    olga.look_all_over()
    page.get_by_role("button", name="Deploy").click()
    page.get_by_text("topic/1 answers now.").wait_for()
    olga.look_all_over()


def ask_and_correct(guest):
    page = guest.page
    guest.open("/")
    ask(page, "rain and snow")
    assert page.locator("#label").inner_text() == "weather"
    assert "topic/1" in page.locator("#facts").inner_text()
    for text in ("a plum in the sun", "a cloud like an apple", "bread, cheese and soup"):
        ask(page, text)
        correct(page, "food" if page.locator("#label").inner_text() == "weather" else "weather")
    guest.look()


def review(olga):
    """What a guest corrected: the first is approved, the second rejected, the third gets its label back."""
    page = olga.page
    page.get_by_role("link", name="Training items").click()
    page.get_by_role("link", name="Review what waits").click()
    assert "3 wait" in page.locator("#k-progress").inner_text()
    olga.look_all_over()
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("2 wait").wait_for()
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("1 waits").wait_for()
    assert "bread, cheese and soup" in page.locator("blockquote").inner_text()
    page.locator(".k-labels").get_by_role("button", name="food").click()
    page.get_by_text("Nothing waits for review.").wait_for()
    olga.look_all_over()


def train_a_worse_version(installed, olga):
    page = olga.page
    page.goto("/admin/")
    path = installed.folder / "swapped.csv"
    path.write_text(swapped_rows())
    upload(page, path, then="train")
    page.get_by_role("heading", name="Labels").wait_for(timeout=TRAINED)
    page.get_by_role("link", name="Training runs").click()
    run = page.get_by_role("link", name="#2")
    wait_until(lambda: run.count() or (page.reload() and run.count()), what="the run that follows the import")
    run.click()
    finish_run(page)
    assert "refused" in page.locator("#panel-outcome").inner_text()
    olga.look_all_over()


def deploy_against_the_gate(olga):
    page = olga.page
    page.locator("#panel-outcome").get_by_role("link", name="topic/2").click()
    compared = page.locator("#panel-compare").inner_text()
    assert "topic/1 (live)" in compared and "macro-F1" in compared
    olga.look_all_over()
    page.get_by_role("link", name="Deploy", exact=True).click()
    page.get_by_role("button", name="Deploy").click()
    refusal = page.get_by_role("alert")
    refusal.wait_for()
    assert refusal.inner_text().count("Macro-F1 fell from 100.0 %") == 1
    olga.look_all_over()
    page.get_by_label("Deploy against the gate").check(force=True)
    page.get_by_role("button", name="Deploy").click()
    page.get_by_text("Say why, to deploy against the gate.").wait_for()
    page.get_by_label("Reason").fill("to see it fail")
    page.get_by_role("button", name="Deploy").click()
    page.get_by_text("topic/2 answers now.").wait_for()


def roll_back(olga):
    page = olga.page
    page.get_by_role("link", name="Classifiers").click()
    page.get_by_role("link", name="topic").first.click()
    page.get_by_role("link", name="Roll back").click()
    olga.look_all_over()
    page.get_by_label("Reason").fill("it failed")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("topic/1 answers now.").wait_for()
    assert "rolled back from" in page.locator("#panel-live").inner_text()
    olga.look_all_over()
    page.goto("/")
    wait_until(lambda: answered_by(page) == "topic/1", 10, what="an answer of the version before")


def test_an_api_key_is_shown_once(office, live_server):
    import requests

    olga = office("olga")
    page = olga.open("/admin/core/apikey/")
    page.get_by_role("link", name="Add API key").first.click()
    page.get_by_label("Name").fill("Carla's shop")
    page.get_by_label("Rate").fill("many")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_text("Use a rate such as 600/m").wait_for()
    olga.look_all_over()
    page.get_by_label("Rate").fill("600/m")
    page.get_by_role("button", name="Make the key").click()
    plain = page.locator("#k-secret").inner_text()
    olga.look_all_over()
    models = requests.get(f"{live_server.url}/api/models", headers={"Authorization": f"Bearer {plain}"}, timeout=10)
    assert models.status_code == 200
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Carla's shop").click()
    secret = plain.partition(".")[2]
    assert plain.partition(".")[0] in page.content() and secret not in page.content()
    olga.look_all_over()


def test_a_job_that_waits_is_cancelled(office, world):
    olga = office("olga")
    page = olga.open("/admin/core/job/")
    page.get_by_role("link", name="import").click()
    page.get_by_role("link", name="Cancel").click()
    olga.look_all_over()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job was cancelled.").wait_for()
    assert page.get_by_role("link", name="Cancel").count() == 0
    olga.look_all_over()
    world.waiting_job.refresh_from_db()
    assert world.waiting_job.state == "cancelled"


def test_signing_in_is_refused_politely_and_then_too_often(live_server, serving, people, settings, visitor_at):
    settings.KALIMTAK_RATELIMIT_LOGIN = "2/d"  # no window ends between the tries
    visitor = visitor_at(live_server.url)
    page = visitor.open("/admin/")
    visitor.refusals.add(429)
    for words in ("Please enter the correct username and password", "Please enter the correct", "Too many attempts"):
        page.get_by_label("Username").fill("olga")
        page.get_by_label("Password").fill("not her password")
        page.get_by_role("button", name="Log in").click()
        page.get_by_text(words).wait_for()
        visitor.look()


def test_nadia_without_a_role_is_told_so(office):
    nadia = office("nadia")
    page = nadia.open("/admin/")
    assert "You have no role yet" in page.locator("#content").inner_text()
    nadia.refusals.add(403)
    nadia.open("/admin/core/apikey/")
    assert page.get_by_role("heading").inner_text() == "This is not open to you"
    nadia.refusals.add(404)
    nadia.open("/nowhere")
    assert page.get_by_role("heading").inner_text() == "There is nothing here"
