"""The review desk as `review.js` talks to it: what comes at once, who has what, what is hidden."""

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from tests.admin.conftest import HOSTILE
from training.models import Review, ReviewLease, ReviewSkip, TrainingDataItem

SCRIPT = {"x-desk": "1"}


def url(page, *args):
    return reverse(f"admin:training_trainingdataitem_{page}", args=args)


@pytest.fixture
def press(sign_in):
    """Press a button as the script does; the parts of the answer: {name: HTML}."""

    def press(name, page, *args, status=200, **data):
        response = sign_in(name).post(url(page, *args), data, headers=SCRIPT)
        assert response.status_code == status
        found = re.split(r'<div data-part="(\w+)">', response.text)
        return dict(zip(found[1::2], found[2::2], strict=True))

    return press


def shown(part):
    """The key of the item that a part shows."""
    return int(re.search(r'data-item="(\d+)"', part)[1])


def holders():
    return dict(ReviewLease.objects.values_list("item", "reviewer__username"))


def test_taking_an_item_brings_the_one_after_it(world, press):
    first, second = world.items[:2]
    parts = press("rami", "hold", first.pk)
    assert set(parts) == {"progress", "ahead"}
    assert shown(parts["ahead"]) == second.pk
    assert holders() == {first.pk: "rami", second.pk: "rami"}
    again = press("rami", "hold", first.pk, ahead=second.pk)
    assert set(again) == {"progress"}


def test_a_verdict_brings_the_next_and_the_one_after_or_only_that(world, press):
    first, second, third, fourth = world.items[:4]
    parts = press("rami", "verdict", first.pk, verdict="approve")
    assert "Approved." in parts["said"]
    assert (shown(parts["now"]), shown(parts["ahead"])) == (second.pk, third.pk)
    parts = press("rami", "verdict", second.pk, verdict="reject", ahead=third.pk)
    assert "now" not in parts
    assert shown(parts["ahead"]) == fourth.pk
    assert "2 judged by you today" in parts["progress"]


def test_the_last_verdict_ends_at_the_empty_desk(world, press, sign_in):
    for item in world.items[:4]:
        parts = press("rami", "verdict", item.pk, verdict="reject")
    assert shown(parts["now"]) == world.items[4].pk
    assert "ahead" not in parts
    assert "done" in press("rami", "verdict", world.items[4].pk, verdict="reject")
    assert "Nothing waits for review." in sign_in("rami").get(url("desk")).text


def test_two_reviewers_work_side_by_side(world, press, sign_in):
    first, _, third = world.items[:3]
    press("rami", "hold", first.pk)  # and the second lies ahead of rami
    assert sign_in("tala").get(url("desk")).url == url("review", third.pk)
    parts = press("tala", "hold", first.pk)
    assert "rami has this item before them as well." in parts["said"]


def test_a_second_verdict_is_a_conflict_that_leads_back_to_the_item(world, press, sign_in):
    item, ahead = world.items[1:3]
    text = sign_in("rami").get(url("review", item.pk)).text
    seen = re.search(r'name="seen" value="([^"]*)"', text)[1]
    press("tala", "verdict", item.pk, verdict="reject", seen=seen)
    parts = press("rami", "verdict", item.pk, status=409, verdict="approve", seen=seen, ahead=ahead.pk)
    assert "Somebody decided item" in parts["said"]
    assert url("review", item.pk) in parts["said"]
    assert shown(parts["ahead"]) not in (item.pk, ahead.pk)
    item.refresh_from_db()
    assert item.status == "rejected"
    plain = sign_in("rami").post(url("verdict", item.pk), {"verdict": "approve", "seen": seen}, follow=True)
    assert "Somebody decided item" in plain.text


def test_a_refused_verdict_leaves_the_item_on_the_screen(world, press):
    parts = press("rami", "verdict", world.items[1].pk, status=400, verdict="relabel", label="boredom")
    assert "is not a label of emotion" in parts["said"]
    assert {"now", "ahead"}.isdisjoint(parts)


def test_undo_shows_the_item_again_as_it_was(world, press, sign_in):
    first, second = world.items[:2]
    press("rami", "verdict", first.pk, verdict="relabel", label="fear")
    parts = press("rami", "undo", item=second.pk)
    assert shown(parts["now"]) == first.pk
    assert "taken back" in parts["said"]
    first.refresh_from_db()
    assert first.status == "review"
    assert not Review.objects.filter(reviewer__username="rami").exists()
    assert "no verdict" in press("rami", "undo", status=409, item=second.pk)["said"]
    sign_in("rami").post(url("verdict", first.pk), {"verdict": "approve"})
    assert sign_in("rami").post(url("undo")).url == url("review", first.pk)


def test_what_was_skipped_comes_back_when_asked_for(world, press, sign_in):
    for item in world.items:
        parts = press("rami", "verdict", item.pk, verdict="skip")
    assert "done" in parts
    text = sign_in("rami").get(url("desk")).text
    assert "Look at the 5 that you skipped" in text
    assert TrainingDataItem.objects.filter(status="review").count() == 5
    response = sign_in("rami").post(url("again"), follow=True)
    assert "5 items come to you again." in response.text
    assert response.redirect_chain[-1][0] == url("review", world.items[0].pk)
    assert not ReviewSkip.objects.exists()


def test_without_the_script_the_forms_lead_from_page_to_page(world, sign_in):
    first, second = world.items[:2]
    response = sign_in("rami").post(url("verdict", first.pk), {"verdict": "skip"})
    assert response.url == url("review", second.pk)
    assert holders()[second.pk] == "rami"


def test_it_says_why_it_is_here_and_what_the_model_was_torn_between(world, sign_in):
    item = world.items[0]
    item.interaction.scores = {"joy": 0.41, "sadness": 0.38, "anger": 0.21}
    item.interaction.save()
    near = TrainingDataItem.objects.filter(status="approved").first()
    item.why, item.queue_facts = "unsure", {"near": [near.pk, 10**9, "x"]}
    item.save()
    text = sign_in("rami").get(url("review", item.pk)).text
    assert "The model was torn between joy and sadness." in text
    assert "41%" in text
    assert near.fields["text"] in text
    item.why, item.queue_facts = "doubtful", {"likely": "fear"}
    item.save()
    text = sign_in("rami").get(url("review", item.pk)).text
    assert "Its words speak for another label: fear." in text
    assert text.count("likely") >= 1


def test_a_random_item_shows_neither_the_answer_nor_what_others_say(world, sign_in):
    item = world.items[0]
    rival = TrainingDataItem.objects.create(
        classifier=world.emotion, fields=item.fields, label="fear", content_hash=item.content_hash, status="rejected"
    )
    text = sign_in("rami").get(url("review", item.pk)).text
    assert "What the model answered" in text
    assert "The same text" in text
    TrainingDataItem.objects.filter(pk=item.pk).update(label="", why="audit", origin="audit")
    text = sign_in("rami").get(url("review", item.pk)).text
    assert "What the model answered" not in text
    assert "70%" not in text
    assert "The same text" not in text
    assert 'data-key="a"' not in text
    assert "No label yet" in text
    assert rival.pk


def test_a_second_opinion_does_not_see_the_first_and_a_third_sees_both(world, sign_in, people, press):
    world.emotion.policy = {**world.emotion.policy, "review": {"second_share": 1.0}}
    world.emotion.save()
    item = world.items[1]
    assert "waits for another reviewer" in press("rami", "verdict", item.pk, verdict="approve")["said"]
    text = sign_in("tala").get(url("review", item.pk)).text
    assert "A second opinion is wanted" in text
    assert "What others said" not in text
    press("tala", "verdict", item.pk, verdict="reject")
    text = sign_in("olga").get(url("review", item.pk)).text
    assert "your word decides" in text
    assert "rami: approve" in text
    assert "tala: reject" in text
    assert "a third reviewer decides" in press("rami", "verdict", item.pk, status=409, verdict="reject")["said"]


@pytest.mark.parametrize("ahead", ["x", "-1", "9" * 40, "٣", "1 OR 1=1"])
def test_a_made_up_item_ahead_is_none(world, press, ahead):
    parts = press("rami", "verdict", world.items[0].pk, verdict="approve", ahead=ahead)
    assert "now" in parts


@pytest.mark.parametrize("page", ["hold", "undo", "again"])
def test_only_reviewers_may_press_and_only_by_post(world, sign_in, page):
    address = url(page, *([world.items[0].pk] if page == "hold" else []))
    assert sign_in("rami").get(address).status_code == 405
    for name in ("vera", "dina", "nadia"):
        assert sign_in(name).post(address).status_code == 403
    assert not ReviewLease.objects.exists()


def test_texts_and_names_of_people_are_escaped_in_the_parts(world, press):
    User.objects.filter(username="rami").update(username="<b>rami")
    people = press("tala", "hold", world.items[1].pk)
    assert HOSTILE.split(" ")[0] not in people["ahead"]


def test_a_page_takes_few_queries_however_much_waits(world, sign_in, django_assert_max_num_queries):
    client = sign_in("rami")
    client.get(url("review", world.items[0].pk))
    with django_assert_max_num_queries(20):
        client.get(url("review", world.items[0].pk))
    with django_assert_max_num_queries(45):
        client.post(url("verdict", world.items[0].pk), {"verdict": "approve"}, headers=SCRIPT)
