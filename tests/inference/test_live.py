"""Deploying under load, versions that cannot be loaded, and what the health checks say of it."""

import threading
import time

import pytest

from inference.live import LIVE
from interactions.models import UserInteraction
from kalimtak.core.alerts import alerts_open
from registry import store
from registry.models import Deployment
from tests.inference.conftest import in_threads


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def spoil(version):
    path = store.version_folder(version.classifier.slug, version.number) / "serving" / "settings.json"
    path.write_bytes(path.read_bytes().replace(b"0.", b"1."))


def test_a_deployment_is_noticed_without_being_told(carla, emotion, publish, go_live):
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/1"
    go_live(publish(emotion, confidence=0.7), refresh=False)
    wait_until(lambda: carla.predict({"text": "joy"}).json()["model_version"] == "emotion/2")


def test_deploying_under_load_fails_no_request_and_every_answer_is_of_one_version(carla, emotion, publish, go_live):
    confidence_of = {"emotion/1": 0.9, "emotion/2": 0.8, "emotion/3": 0.7}
    versions = [publish(emotion, confidence=value) for value in (0.8, 0.7)]
    responses, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            responses.append(carla.predict({"texts": ["joy", "joy", "joy"]}))

    threads = in_threads(*[ask] * 4)
    for version in versions:
        time.sleep(0.3)
        go_live(version)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    seen = set()
    for response in responses:
        assert response.status_code == 200
        answered = {(result["model_version"], result["confidence"]) for result in response.json()["results"]}
        assert len(answered) == 1
        version, confidence = answered.pop()
        assert confidence == pytest.approx(confidence_of[version])
        seen.add(version)
    assert seen == set(confidence_of)
    assert UserInteraction.objects.count() == 3 * len(responses)


def test_a_spoiled_artefact_is_not_served_and_the_version_before_goes_on(carla, emotion, publish, go_live):
    carla.predict({"text": "joy"})
    bad = publish(emotion, confidence=0.7)
    spoil(bad)
    deployment = go_live(bad)
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/1"
    deployment.refresh_from_db()
    assert deployment.health == "degraded"
    assert carla.get("/readyz").status_code == 200
    alert = alerts_open().get()
    assert (alert.kind, alert.target) == ("version_load", "emotion")
    assert "manage.py rollback emotion" in alert.message
    assert "goes on answering" in alert.message
    go_live(publish(emotion, confidence=0.8))
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/3"
    assert not alerts_open().exists()


def test_a_version_that_answers_otherwise_than_it_was_built_to_is_not_served(carla, emotion, publish, go_live):
    carla.predict({"text": "joy"})
    go_live(publish(emotion, confidence=0.7, probed_confidence=0.9))
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/1"
    assert "does not answer here as it was built to" in alerts_open().get().message
    go_live(publish(emotion, confidence=0.8, probed_confidence=0.81))  # another processor rounds otherwise
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/3"


def test_a_version_that_breaks_its_library_costs_no_other_classifier_an_answer(
    carla, emotion, clarity, publish, go_live
):
    carla.predict({"text": "joy"})
    go_live(publish(emotion, confidence="high"))  # whole files, and arithmetic that fails with a TypeError
    asked = {"classifier": "clarity", "question": "Will you?", "context": "I will."}
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/1"
    assert carla.predict(asked).status_code == 200
    LIVE.stop()  # as in a process that starts now
    assert carla.predict({"text": "joy"}).status_code == 503
    assert carla.predict(asked).status_code == 200


def test_another_artefact_under_the_same_number_is_not_served(carla, emotion, publish):
    version = publish(emotion)
    version.artefact_digest = "0" * 64
    version.save()
    Deployment.objects.live().update(version=version)
    LIVE.stop()
    assert carla.predict({"text": "joy"}).status_code == 503


def test_a_version_that_loads_again_is_served(carla, emotion, publish, go_live, monkeypatch):
    good = publish(emotion, confidence=0.7)
    path = store.version_folder("emotion", 2) / "serving" / "settings.json"
    content = path.read_bytes()
    spoil(good)
    deployment = go_live(good)
    path.write_bytes(content)
    monkeypatch.setattr(LIVE, "_retry_at", 0.0)
    LIVE.refresh()
    assert carla.predict({"text": "joy"}).json()["model_version"] == "emotion/2"
    deployment.refresh_from_db()
    assert deployment.health == "ok"


def test_an_edited_policy_is_noticed(carla, emotion):
    assert not carla.predict({"text": "joy"}).json()["abstained"]
    emotion.policy = {"confidence_floor": 0.95}
    emotion.save()
    wait_until(lambda: carla.predict({"text": "joy"}).json()["abstained"])


def test_while_the_database_is_away_what_is_loaded_stays(carla, emotion, monkeypatch):
    carla.predict({"text": "joy"})

    def away():
        raise OSError("the database is away")

    monkeypatch.setattr("inference.live._fingerprint", away)
    time.sleep(0.7)
    assert carla.predict({"text": "joy"}).status_code == 200


def test_models_lists_what_can_be_asked(carla, emotion, clarity):
    listed = {entry["classifier"]: entry for entry in carla.get("/api/models").json()["models"]}
    assert listed["clarity"] == {
        "classifier": "clarity",
        "name": "clarity",
        "description": "",
        "route": "/api/classify/clarity",
        "default": False,
        "labels": ["Clear Reply", "Clear Non-Reply", "Ambivalent"],
        "descriptions": {"Ambivalent": "Leaves it open"},
        "input_fields": ["question", "context"],
        "label_field": "clarity_label",
        "multi_label": False,
        "threshold": 0.5,
        "live": [{"model_version": "clarity/1", "role": "production", "share": 100}],
    }
    assert listed["emotion"]["default"] is True


# Health ------------------------------------------------------------------------------------------------------------


def test_alive_asks_nothing_of_the_database(carla, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert carla.get("/livez").json() == {"status": "alive"}


def test_ready_with_everything_deployed_loaded(carla, emotion):
    response = carla.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "problems": []})


@pytest.mark.parametrize("path", ["/livez/", "/readyz/"])
def test_a_trailing_slash_makes_no_difference_to_health(carla, emotion, path):
    assert carla.get(path).status_code == 200


def test_not_ready_while_the_only_version_cannot_be_loaded(carla, emotion):
    LIVE.stop()
    spoil(emotion.versions.get())
    response = carla.get("/readyz")
    assert response.status_code == 503
    assert response.json()["problems"] == ["models: the live version of emotion cannot be loaded"]


def test_not_ready_without_a_database(carla, emotion, monkeypatch):
    from django.db import OperationalError

    def away(self):
        raise OperationalError("secret-host:5432 refused the password")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.ensure_connection", away)
        response = carla.get("/readyz")
    assert response.status_code == 503
    assert response.json()["problems"] == ["database: cannot be reached"]


def test_not_ready_before_the_migrations_ran(carla, emotion, monkeypatch):
    monkeypatch.setattr("inference.health.unapplied_migrations", lambda: True)
    assert "migrations" in carla.get("/readyz").json()["problems"][0]


def test_details_need_the_scope_read(carla, make_client, emotion):
    details = carla.get("/healthz").json()
    assert details["status"] == "ready"
    assert details["waiting_texts"] == 0
    assert details["models"][0]["live"][0]["model_version"] == "emotion/1"
    assert make_client("Nadia", ["predict"]).get("/healthz").status_code == 403
