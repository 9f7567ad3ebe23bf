"""Many at once: filters, ticks, the page that asks how many, and what is judged after it."""

import re

import pytest
from django.urls import reverse

from tests.admin.conftest import HOSTILE
from training.models import Review, TrainingDataItem
from training.services import waiting as services_waiting


def url(page):
    return reverse(f"admin:training_trainingdataitem_{page}")


def shown(response):
    return [int(key) for key in re.findall(r'name="_selected_action" value="(\d+)"', response.text)]


@pytest.fixture
def look(world, sign_in):
    """The keys that the list shows to Rami."""

    def look(**given):
        response = sign_in("rami").get(url("waiting"), {"classifier": "emotion", **given})
        assert response.status_code == 200
        return shown(response)

    return look


def keys(items):
    return [item.pk for item in items]


def change(item, **values):
    TrainingDataItem.objects.filter(pk=item.pk).update(**values)


def test_it_shows_what_waits_in_the_order_of_the_queue(world, look):
    change(world.items[3], priority=0.9)
    assert look() == keys([world.items[3], *world.items[:3], world.items[4]])


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"label": "fear"}, {"label": "fear"}),
        ({"why": "rare"}, {"why": "rare"}),
        ({"source": "key:other"}, {"source": "key:other"}),
        ({"script": "Arabic"}, {"script": "Arabic"}),
        ({"domain": "shop"}, {"domain": "shop"}),
    ],
)
def test_each_filter_finds_its_items(world, look, given, values):
    change(world.items[2], **values)
    assert look(**given) == [world.items[2].pk]


def test_by_the_confidence_of_the_answer(world, look):
    assert look(confidence="middling") == [world.items[0].pk]
    assert look(confidence="high") == []


def test_by_what_is_like_an_item(world, look):
    change(world.items[4], content_hash=world.items[1].content_hash, label="fear")
    assert look(like=world.items[1].pk) == keys([world.items[1], world.items[4]])
    assert look(like=10**12) == []


@pytest.mark.parametrize(
    "given", [{"label": "boredom"}, {"like": "x"}, {"why": "\x00"}, {"page": "x"}, {"nonsense": "1"}]
)
def test_what_cannot_be_meant_is_left_out(world, look, given):
    assert look(**given) == keys(world.items)


def test_filters_look_no_further_than_the_window(world, look, monkeypatch):
    monkeypatch.setattr(services_waiting, "WINDOW", 3)
    assert look() == keys(world.items[:3])
    change(world.items[4], priority=0.5)
    assert look() == keys([world.items[4], *world.items[:2]])
    change(world.items[3], why="rare")
    assert look(why="rare") == []


def test_judging_asks_first_and_says_how_many(world, sign_in):
    client, chosen = sign_in("rami"), keys(world.items[1:4])
    data = {"classifier": "emotion", "verdict": "approve", "_selected_action": chosen, "query": "label=sadness"}
    page = client.post(url("waiting"), data)
    assert "Approve 3 items?" in page.text
    assert "waiting text 2" in page.text
    assert not Review.objects.filter(reviewer__username="rami").exists()
    response = client.post(url("judge"), data)
    assert response.url == f"{url('waiting')}?classifier=emotion&label=sadness"
    assert "3 items were judged." in client.get(response.url).text
    assert TrainingDataItem.objects.filter(pk__in=chosen, status="approved").count() == 3


def test_rejecting_and_relabelling(world, sign_in):
    client = sign_in("rami")
    data = {"classifier": "emotion", "verdict": "relabel", "_selected_action": keys(world.items[1:3])}
    assert "Give 2 items another label?" in client.post(url("waiting"), data).text
    client.post(url("judge"), data | {"label": "fear"})
    assert TrainingDataItem.objects.filter(label="fear", status="approved").count() == 12
    data = {"classifier": "emotion", "verdict": "reject", "_selected_action": [world.items[3].pk]}
    assert "Reject 1 item?" in client.post(url("waiting"), data).text
    client.post(url("judge"), data)
    world.items[3].refresh_from_db()
    assert world.items[3].status == "rejected"


@pytest.mark.parametrize(
    "broken", [{"verdict": "nod"}, {"_selected_action": []}, {"_selected_action": ["x", "9" * 30]}]
)
def test_nothing_ticked_or_an_unknown_verdict_asks_nothing(world, sign_in, broken):
    data = {"classifier": "emotion", "verdict": "approve", "_selected_action": keys(world.items), **broken}
    client = sign_in("rami")
    response = client.post(url("waiting"), data, follow=True)
    assert "Tick what you want to judge first." in response.text
    client.post(url("judge"), data)
    assert TrainingDataItem.objects.filter(status="review").count() == 5


def test_what_was_decided_meanwhile_and_what_is_another_classifier_s_is_left_alone(world, sign_in):
    change(world.items[1], status="rejected")
    other = type(world.emotion).objects.create(slug="other", name="Other", labels=["a", "b"], input_fields=["text"])
    change(world.items[2], classifier=other)
    data = {"classifier": "emotion", "verdict": "approve", "_selected_action": keys(world.items[1:4])}
    sign_in("rami").post(url("judge"), data)
    found = dict(TrainingDataItem.objects.filter(pk__in=keys(world.items[1:4])).values_list("pk", "status"))
    assert list(found.values()) == ["rejected", "review", "approved"]


def test_a_drawn_item_shows_no_answer_and_a_hostile_text_no_script(world, sign_in):
    change(world.items[0], label="", why="audit")
    text = sign_in("rami").get(url("waiting"), {"classifier": "emotion"}).text
    assert HOSTILE.split(" ")[0] not in text
    assert "0.70" not in text
    assert "Drawn at random" in text


def test_where_nothing_waits_it_says_so(world, sign_in):
    TrainingDataItem.objects.filter(status="review").delete()
    assert "Nothing like that waits." in sign_in("rami").get(url("waiting")).text


@pytest.mark.parametrize("name", ["vera", "dina", "nadia"])
def test_only_reviewers_see_and_judge(world, sign_in, name):
    client, data = sign_in(name), {"verdict": "approve", "_selected_action": keys(world.items)}
    assert client.get(url("waiting")).status_code == 403
    assert client.post(url("waiting"), data).status_code == 403
    assert client.post(url("judge"), data).status_code == 403
    assert sign_in("rami").get(url("judge")).status_code == 405


def test_the_list_takes_at_most_twelve_queries(world, sign_in, django_assert_max_num_queries):
    client = sign_in("rami")
    with django_assert_max_num_queries(12):
        client.get(url("waiting"), {"classifier": "emotion", "confidence": "middling", "like": world.items[0].pk})
    with django_assert_max_num_queries(12):
        client.get(url("waiting"))
