"""POST /api/predict and /api/classify/<route> as the contract has them."""

import json
from functools import partial

import pytest
from django.db import connection

from interactions.models import PersonalRecord, RequestMemo, UserInteraction
from tests.contract.endpoints import RESULT
from tests.inference.conftest import Client, in_threads


def error_of(response):
    return response.status_code, response.json()["error"]["code"]


def test_a_text_gets_a_result_with_every_key_of_the_contract(carla, emotion):
    response = carla.predict({"text": "what a joy"})
    result = response.json()
    assert response.status_code == 200
    assert set(result) == RESULT
    assert (result["classifier"], result["label"], result["source"]) == ("emotion", "joy", "model")
    assert (result["model_version"], result["deployment"]) == ("emotion/1", "production")
    assert result["confidence"] == result["scores"]["joy"] == pytest.approx(0.9)
    assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-3)
    assert (result["abstained"], result["flags"], result["threshold"]) == (False, [], 0.5)


def test_the_answer_is_in_the_table_when_it_arrives(carla, emotion):
    result = carla.predict({"text": "what a joy"}).json()
    row = UserInteraction.objects.get(pk=result["interaction_id"])
    assert (row.fields, row.label, row.scores) == ({"text": "what a joy"}, "joy", result["scores"])
    assert (row.version.ref, row.deployment.role, row.api_key.name) == ("emotion/1", "production", "Carla")


def test_who_asked_is_kept_apart_from_what_was_asked(carla, emotion):
    result = carla.predict({"text": "joy", "subject": "user-17"}).json()
    row = UserInteraction.objects.get(pk=result["interaction_id"])
    assert PersonalRecord.objects.get(pk=row.pk).address == "127.0.0.1"
    assert len(row.subject.pseudonym) == 64
    stored = json.dumps(list(UserInteraction.objects.values()), default=str)
    assert "user-17" not in stored and "127.0.0.1" not in stored


def test_one_person_is_one_subject_whatever_they_ask(carla, emotion):
    body = {"items": [{"text": "joy", "subject": "a"}, {"text": "anger", "subject": "b"}, {"text": "sadness"}]}
    carla.predict(body)
    carla.predict({"text": "perhaps", "subject": "a"})
    subject_of = {row.fields["text"]: row.subject_id for row in UserInteraction.objects.all()}
    assert subject_of["joy"] == subject_of["perhaps"] != subject_of["anger"]
    assert subject_of["sadness"] is None


def test_a_batch_is_answered_in_order(carla, emotion):
    results = carla.predict({"texts": ["sadness", "anger", "joy"] * 20}).json()["results"]
    assert [result["label"] for result in results] == ["sadness", "anger", "joy"] * 20
    assert UserInteraction.objects.count() == 60


def test_one_bad_text_refuses_the_batch_and_names_its_index(carla, emotion):
    response = carla.predict({"texts": ["joy", "joy", "joy", " "]})
    assert error_of(response) == (400, "invalid_input")
    assert list(response.json()["error"]["fields"]) == ["texts.3"]
    assert not UserInteraction.objects.exists()


def test_an_unsure_answer_abstains_and_still_names_the_top_label(carla, emotion):
    result = carla.predict({"text": "perhaps anger"}).json()
    assert (result["label"], result["abstained"], result["flags"]) == ("anger", True, ["low_confidence"])
    assert result["alternatives"] == ["joy", "sadness"]


def test_top_k_keeps_that_many_scores_and_the_table_keeps_all(carla, emotion):
    result = carla.predict({"text": "sadness", "top_k": 1}).json()
    assert list(result["scores"]) == ["sadness"]
    assert len(UserInteraction.objects.get().scores) == 3


def test_a_long_text_is_cut_and_says_so(carla, emotion):
    assert "long_prompt" in carla.predict({"text": "joy and word " * 40}).json()["flags"]


def test_a_route_answers_under_the_classifiers_own_label_field(carla, clarity):
    body = {"question": "Will you?", "context": "That is a Clear Reply"}
    result = carla.predict(body, "/api/classify/clarity/").json()
    assert result["clarity_label"] == result["label"] == "Clear Reply"
    assert set(result) == RESULT | {"clarity_label"}
    assert UserInteraction.objects.get().fields == body
    assert "clarity_label" not in carla.predict(body | {"classifier": "clarity"}).json()


def test_wrong_fields_are_told_the_right_ones(carla, clarity):
    response = carla.predict({"text": "hello"}, "/api/classify/clarity")
    assert error_of(response) == (400, "invalid_input")
    assert "question and context" in response.json()["error"]["message"]


def test_another_classifier_than_the_routes_is_refused(carla, emotion, clarity):
    response = carla.predict({"text": "x", "classifier": "clarity"}, "/api/classify/emotion")
    assert list(response.json()["error"]["fields"]) == ["classifier"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "x", "classifier": "nothing"}, 404, "not_found"),
        ({"text": "x" * 20_001}, 413, "too_long"),
        ({"text": 5}, 400, "invalid_input"),
        ({"text": ""}, 400, "invalid_input"),
        ({"text": "x", "colour": "red"}, 400, "invalid_input"),
        ({}, 400, "invalid_input"),
        ([], 400, "invalid_input"),
        ('{"text": "\\ud800"}', 400, "invalid_input"),
        ('{"\\ud800": "x"}', 400, "invalid_input"),
        (b'{"text": "\xff"}', 400, "malformed_json"),
        ("{", 400, "malformed_json"),
        ('{"text": NaN}', 400, "malformed_json"),
        ("[" * 100_000, 400, "malformed_json"),
        ({"texts": ["x" * 20_000] * 51}, 413, "too_long"),
        (b'{"text": "' + b"x" * 9_000_000 + b'"}', 413, "too_long"),
    ],
)
def test_bad_input_is_refused_in_the_one_error_shape(carla, emotion, body, status, code):
    assert error_of(carla.predict(body)) == (status, code)
    assert not UserInteraction.objects.exists()


def test_an_unknown_route_is_not_found(carla, emotion):
    assert error_of(carla.predict({"text": "x"}, "/api/classify/nothing")) == (404, "not_found")


def test_a_disabled_classifier_is_not_found(carla, make_classifier, emotion):
    make_classifier("hidden", enabled=False)
    assert error_of(carla.predict({"text": "x"}, "/api/classify/hidden")) == (404, "not_found")


def test_a_classifier_without_a_live_version_says_so_and_when_to_come_back(carla, make_classifier):
    make_classifier("fresh", is_default=True)
    response = carla.predict({"text": "x"})
    assert error_of(response) == (503, "no_model")
    assert int(response["Retry-After"]) > 0


def test_a_caller_without_a_key_or_scope_is_turned_away(emotion, make_client, serving):
    assert error_of(Client().predict({"text": "x"})) == (401, "not_authenticated")
    assert error_of(make_client("Nadia", ["read"]).predict({"text": "x"})) == (403, "permission_denied")


def test_a_text_the_model_fails_on_is_not_recorded(carla, emotion):
    assert error_of(carla.predict({"text": "boom"})) == (503, "model_failed")
    assert not UserInteraction.objects.exists()


def test_nothing_is_answered_that_could_not_be_recorded(carla, emotion, serving, monkeypatch):
    def gone(drafts):
        raise OSError("no space left on device")

    monkeypatch.setattr(serving.engine()._committer, "_record", gone)
    response = carla.predict({"text": "joy"})
    assert error_of(response) == (503, "unavailable")
    assert "label" not in response.json()
    assert response["Retry-After"] == "1"


def test_a_full_queue_refuses_and_says_when_to_come_back(carla, emotion, serving, monkeypatch):
    from inference.engine import Overloaded

    def full(*_):
        raise Overloaded("256 texts are waiting already")

    monkeypatch.setattr(serving.engine(), "submit", full)
    response = carla.predict({"text": "joy"})
    assert error_of(response) == (503, "overloaded")
    assert response["Retry-After"] == "1"


def test_a_request_costs_the_request_thread_no_query(carla, emotion, django_assert_num_queries):
    carla.predict({"text": "joy"})
    with django_assert_num_queries(0):  # the batcher's one transaction runs in its own thread
        carla.predict({"text": "joy", "subject": "u"})


@pytest.mark.postgres
def test_connections_that_died_cost_no_answer(carla, emotion):
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    carla.predict({"text": "joy"})
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert carla.predict({"text": "anger"}).status_code == 200
    assert UserInteraction.objects.count() == 2


# request_id --------------------------------------------------------------------------------------------------------


def test_the_same_request_again_gets_its_first_answer_and_no_second_row(carla, emotion):
    first = carla.predict({"text": "joy", "request_id": "r1"}).json()
    again = carla.post("/api/predict", '{"request_id": "r1",   "text": "joy"}').json()
    assert first == again
    assert UserInteraction.objects.count() == 1


def test_another_request_under_a_used_id_is_a_conflict(carla, emotion):
    carla.predict({"text": "joy", "request_id": "r1"})
    assert error_of(carla.predict({"text": "anger", "request_id": "r1"})) == (409, "request_id_reused")
    assert UserInteraction.objects.count() == 1


def test_a_batch_is_remembered_as_a_whole(carla, emotion):
    body = {"texts": ["joy", "anger"], "request_id": "r1"}
    assert carla.predict(body).json() == carla.predict(body).json()
    assert UserInteraction.objects.count() == 2


def test_another_keys_request_ids_are_its_own(carla, make_client, emotion):
    body = {"text": "joy", "request_id": "r1"}
    assert carla.predict(body).json() != make_client("Carl").predict(body).json()
    assert UserInteraction.objects.count() == 2


def test_after_a_day_a_request_id_is_free_again(carla, emotion):
    from datetime import timedelta

    from django.utils import timezone

    first = carla.predict({"text": "joy", "request_id": "r1"}).json()
    RequestMemo.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert carla.predict({"text": "anger", "request_id": "r1"}).json()["label"] == "anger"
    assert RequestMemo.objects.count() == 1
    assert first["label"] == "joy"


def test_a_race_for_one_request_id_has_one_answer_and_one_row(carla, emotion, publish, go_live):
    go_live(publish(emotion, seconds=0.02))
    answers, conflicts = [], []

    def ask(text):
        response = carla.predict({"text": text, "request_id": "race"})
        (answers if response.status_code == 200 else conflicts).append(response)

    for thread in in_threads(*(partial(ask, text) for text in ["joy"] * 6 + ["anger"] * 2)):
        thread.join()
    assert len({json.dumps(answer.json(), sort_keys=True) for answer in answers}) == 1
    assert all(error_of(conflict) == (409, "request_id_reused") for conflict in conflicts)
    assert len(answers) in (2, 6)
    assert UserInteraction.objects.count() == RequestMemo.objects.count() == 1
