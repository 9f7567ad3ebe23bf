"""The review desk and the bulk verdicts, as Rami uses them."""

import pytest
from django.urls import reverse

from training.models import Review, TrainingDataItem


def url(page, *args):
    return reverse(f"admin:training_trainingdataitem_{page}", args=args)


def test_the_desk_begins_with_the_first_item_that_waits(world, sign_in):
    response = sign_in("rami").get(url("desk"), {"classifier": "emotion"})
    assert response.url == url("review", world.items[0].pk)


def test_an_empty_desk_says_so(world, sign_in):
    response = sign_in("rami").get(url("desk"), {"classifier": "other"}, follow=True)
    assert "Nothing waits for review." in response.text


def test_the_page_shows_the_answer_the_descriptions_and_the_keys(world, sign_in):
    text = sign_in("rami").get(url("review", world.items[0].pk)).text
    assert "😊 gladness" in text
    assert "70.0%" in text
    assert 'data-key="4"' in text
    assert '<script>alert("x")' not in text


def test_approving_leads_to_the_next_item(world, sign_in):
    item, following = world.items[:2]
    response = sign_in("rami").post(url("verdict", item.pk), {"verdict": "approve"})
    assert response.url == url("review", following.pk)
    item.refresh_from_db()
    assert item.status == "approved"
    assert Review.objects.filter(item=item, reviewer__username="rami", verdict="approve").exists()


def test_rejecting_works_the_same(world, sign_in):
    sign_in("rami").post(url("verdict", world.items[1].pk), {"verdict": "reject"})
    world.items[1].refresh_from_db()
    assert world.items[1].status == "rejected"


def test_another_label_makes_another_item(world, sign_in):
    item = world.items[1]
    sign_in("rami").post(url("verdict", item.pk), {"verdict": "relabel", "label": "fear"})
    new = TrainingDataItem.objects.get(content_hash=item.content_hash, label="fear")
    assert (new.status, new.fields) == ("approved", item.fields)


def test_choosing_the_label_it_has_approves_it(world, sign_in):
    item = world.items[1]
    sign_in("rami").post(url("verdict", item.pk), {"verdict": "relabel", "label": item.label})
    item.refresh_from_db()
    assert item.status == "approved"


def test_a_label_outside_the_set_is_refused_and_nothing_changes(world, sign_in):
    item = world.items[1]
    response = sign_in("rami").post(url("verdict", item.pk), {"verdict": "relabel", "label": "boredom"}, follow=True)
    assert "is not a label of emotion" in response.text
    item.refresh_from_db()
    assert item.status == "review"


@pytest.mark.parametrize("page", ["verdict", "relabel"])
def test_verdicts_by_get_are_refused(world, sign_in, page):
    item = world.items[1]
    address = url(page, *([item.pk] if page == "verdict" else []))
    assert sign_in("rami").get(address, {"verdict": "approve"}).status_code == 405
    item.refresh_from_db()
    assert item.status == "review"


@pytest.mark.parametrize("name", ["dina", "vera", "nadia"])
def test_only_reviewers_may_judge(world, sign_in, name):
    client, item = sign_in(name), world.items[1]
    assert client.get(url("review", item.pk)).status_code == 403
    assert client.post(url("verdict", item.pk), {"verdict": "approve"}).status_code == 403
    response = client.post(url("relabel"), {"_selected_action": item.pk, "label": "joy"})
    assert response.status_code == 403


def bulk(client, action, items):
    data = {"action": action, "_selected_action": [item.pk for item in items]}
    return client.post(url("changelist"), data, follow=True)


def test_selected_items_are_approved_together(world, sign_in):
    response = bulk(sign_in("rami"), "approve_selected", world.items[1:4])
    assert "3 items were judged." in response.text
    assert TrainingDataItem.objects.filter(pk__in=[i.pk for i in world.items[1:4]], status="approved").count() == 3


def test_relabelling_asks_for_the_label_first(world, sign_in):
    client = sign_in("rami")
    response = bulk(client, "relabel_selected", world.items[1:3])
    assert "2 items get another label." in response.text
    assert TrainingDataItem.objects.filter(label="fear", status="approved").count() == 10
    data = {"_selected_action": [item.pk for item in world.items[1:3]], "label": "fear"}
    assert client.post(url("relabel"), data).status_code == 302
    assert TrainingDataItem.objects.filter(label="fear", status="approved").count() == 12


def test_a_viewer_has_no_bulk_verdicts(world, sign_in):
    assert "approve_selected" not in sign_in("vera").get(url("changelist")).text


def test_where_two_must_agree_an_item_comes_to_each_reviewer_once(world, sign_in, people):
    world.emotion.policy = {**world.emotion.policy, "review": {"approve": "agree:2"}}
    world.emotion.save()
    item = world.items[0]
    sign_in("rami").post(url("verdict", item.pk), {"verdict": "approve"})
    item.refresh_from_db()
    assert item.status == "review"
    assert sign_in("rami").get(url("desk")).url == url("review", world.items[1].pk)
    assert sign_in("tala").get(url("desk")).url == url("review", item.pk)
