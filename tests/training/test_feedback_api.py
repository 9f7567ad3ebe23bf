"""POST /api/feedback as the contract has it."""

import pytest
from rest_framework.test import APIClient

from interactions.models import Feedback
from kalimtak.core.auth import cache_clear, key_create
from training.models import TrainingDataItem

pytestmark = pytest.mark.django_db
URL = "/api/feedback"


def client_with(*scopes):
    key, plain = key_create("carla", scopes, actor="olga")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {plain}")
    return key, client


@pytest.fixture(autouse=True)
def fresh_keys():
    cache_clear()


@pytest.fixture
def carla():
    return client_with("predict", "feedback")


@pytest.fixture
def asked(ask, carla):
    return ask("a sunny day", api_key=carla[0])


@pytest.fixture
def post(carla):
    return lambda body, url=URL: carla[1].post(url, body, format="json")


def test_the_first_word_is_recorded_and_a_later_one_updates_it(post, asked):
    first = post({"interaction_id": str(asked.pk), "rating": 5})
    assert first.status_code == 201
    assert first.json() == {
        "feedback_id": Feedback.objects.get().pk,
        "interaction_id": str(asked.pk),
        "status": "recorded",
    }
    second = post({"interaction_id": str(asked.pk), "correct_label": "sad"}, url=URL + "/")
    assert (second.status_code, second.json()["status"]) == (200, "updated")
    assert Feedback.objects.get().correct_label == "sad"


def test_each_subject_has_its_own_word(post, asked):
    for subject in ("amal", "bea"):
        assert post({"interaction_id": str(asked.pk), "rating": 4, "subject": subject}).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "rating"),
        ({"comment": "hm"}, "rating"),
        ({"rating": 0}, "rating"),
        ({"rating": 6}, "rating"),
        ({"rating": True}, "rating"),
        ({"rating": "5"}, "rating"),
        ({"rating": 4.5}, "rating"),
        ({"correct_label": "weird"}, "correct_label"),
        ({"correct_label": 3}, "correct_label"),
        ({"correct_labels": ["sad", "calm"]}, "correct_labels"),
        ({"correct_label": "sad", "correct_labels": ["calm"]}, "correct_labels"),
        ({"rating": 5, "comment": "x" * 5_001}, "comment"),
        ({"rating": 5, "correct_lable": "sad"}, "correct_lable"),
        ({"rating": 5, "classifier": "mood", "text": "an example"}, "text"),
    ],
)
def test_what_cannot_be_meant_is_a_400_naming_the_place(post, asked, body, field):
    response = post({"interaction_id": str(asked.pk), **body})
    assert response.status_code == 400
    assert field in response.json()["error"]["fields"]
    assert not Feedback.objects.exists()


def test_one_label_in_correct_labels_is_a_correction(post, asked):
    assert post({"interaction_id": str(asked.pk), "correct_labels": ["sad"]}).status_code == 201
    assert Feedback.objects.get().correct_label == "sad"


@pytest.mark.parametrize("unknown", ["0199a0a0-0000-7000-8000-000000000000", "nonsense"])
def test_an_unknown_interaction_is_a_404(post, mood, unknown):
    assert post({"interaction_id": unknown, "rating": 5}).status_code == 404


def test_another_keys_interaction_is_a_404(asked):
    _, other = client_with("feedback")
    assert other.post(URL, {"interaction_id": str(asked.pk), "rating": 5}, format="json").status_code == 404


@pytest.mark.parametrize("body", [[], "x", 3, None])
def test_a_body_that_is_no_object_is_a_400(post, body):
    assert post(body).status_code == 400


def test_an_example_without_an_interaction_is_a_candidate(post, mood):
    response = post({"classifier": "mood", "text": "quiet lake", "correct_label": "calm"})
    assert response.status_code == 201
    item = TrainingDataItem.objects.get()
    assert response.json() == {"item_id": item.pk, "status": "candidate"}
    assert (item.label, item.fields, item.origin) == ("calm", {"text": "quiet lake"}, "example")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "x"}, 400),
        ({"correct_label": "calm"}, 400),
        ({"text": " ", "correct_label": "calm"}, 400),
        ({"text": 3, "correct_label": "calm"}, 400),
        ({"text": "x", "correct_label": "weird"}, 400),
        ({"text": "x" * 20_001, "correct_label": "calm"}, 413),
        ({"text": "x", "correct_label": "calm", "rating": 5}, 400),
        ({"classifier": "nope", "text": "x", "correct_label": "calm"}, 404),
    ],
)
def test_an_example_that_cannot_be_used_is_refused(post, mood, body, status):
    assert post({"classifier": "mood", **body}).status_code == status
    assert not TrainingDataItem.objects.exists()


def test_a_key_without_the_scope_may_not(asked):
    _, reader = client_with("predict")
    assert reader.post(URL, {"interaction_id": str(asked.pk), "rating": 5}, format="json").status_code == 403


def test_nobody_is_turned_away_unless_anonymous_use_is_on(ask, settings):
    body = {"interaction_id": str(ask("a sunny day").pk), "rating": 5, "subject": "amal"}
    assert APIClient().post(URL, body, format="json").status_code == 401
    settings.KALIMTAK_ANONYMOUS = True
    assert APIClient().post(URL, body, format="json").status_code == 201
    assert not Feedback.objects.get().trusted
    example = {"classifier": "mood", "text": "x", "correct_label": "calm", "subject": "amal"}
    assert APIClient().post(URL, example, format="json").status_code == 201
    assert TrainingDataItem.objects.get().source.startswith("anonymous:")
