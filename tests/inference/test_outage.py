"""Asking while the database cannot be written: answered out of the spool, recorded once it can, refused when full."""

import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from inference import create_classifier
from inference.live import LIVE
from interactions import spool, spooling
from interactions.models import UserInteraction
from interactions.services import spool_folder
from kalimtak.core import auth
from kalimtak.core.errors import Unavailable
from kalimtak.core.models import ApiKey
from kalimtak.core.sqlite import Database
from tests.services import wait_until

pytestmark = pytest.mark.postgres


@pytest.fixture(autouse=True)
def folder(settings, tmp_path, serving):
    settings.KALIMTAK_VAR = tmp_path / "var"
    settings.KALIMTAK_VAR.mkdir()
    yield spool_folder()
    serving.shut_down()


@pytest.fixture
def outage(monkeypatch):
    """Whoever records is told that the database is away, until `over()`."""
    real = spooling.answers_record

    def away(answers):
        raise OperationalError("the server closed the connection")

    def over():
        monkeypatch.setattr(spooling, "answers_record", real)

    monkeypatch.setattr(spooling, "answers_record", away)
    return over


def rows():
    return sorted(str(key) for key in UserInteraction.objects.values_list("pk", flat=True))


def test_answers_are_given_told_of_and_recorded_later(carla, emotion, outage):
    given = [carla.predict({"text": "joy"}).json()["interaction_id"] for _ in range(3)]
    assert rows() == []
    refused = carla.post("/api/feedback", {"interaction_id": given[0], "rating": 5})
    assert (refused.status_code, refused["Retry-After"]) == (503, "2")
    assert carla.get("/readyz").status_code == 200
    spooled = carla.get("/healthz").json()["spooled"]
    assert (spooled["active"], spooled["answers"], spooled["set_aside"]) == (True, 3, 0)
    assert spooled["bytes"] > 0
    assert spooled["since"] <= timezone.now().isoformat()
    outage()
    wait_until(lambda: rows() == sorted(given), what="the rows")
    wait_until(lambda: not carla.get("/healthz").json()["spooled"]["active"], what="the end of spooling")
    assert carla.post("/api/feedback", {"interaction_id": given[0], "rating": 5}).status_code == 201


def test_a_repeated_request_gets_its_first_answer_out_of_the_spool(carla, emotion, outage):
    first = carla.predict({"text": "joy", "request_id": "r1"}).json()
    assert carla.predict({"text": "joy", "request_id": "r1"}).json() == first
    assert carla.predict({"text": "anger", "request_id": "r1"}).status_code == 409
    outage()
    wait_until(lambda: rows() == [first["interaction_id"]], what="the row")
    assert carla.predict({"text": "joy", "request_id": "r1"}).json() == first


def test_a_request_that_may_have_been_answered_is_refused_while_that_cannot_be_told(
    carla, emotion, outage, monkeypatch
):
    def away(owner, request_id):
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(spooling, "memo_find", away)
    refused = carla.predict({"text": "joy", "request_id": "r1"})
    assert refused.status_code == 503
    assert refused["Retry-After"]
    assert carla.predict({"text": "joy"}).status_code == 200


def test_a_full_spool_is_a_503_and_no_longer_ready(carla, emotion, outage, settings):
    given = [carla.predict({"text": "joy"}).json()["interaction_id"] for _ in range(3)]
    settings.KALIMTAK_SPOOL_BYTES = spool.bytes_in(spool_folder()) + 100
    refused = carla.predict({"text": "joy"})
    assert refused.status_code == 503
    assert refused["Retry-After"]
    assert carla.get("/readyz").json()["problems"] == ["database: cannot be reached, and the spool is nearly full"]
    outage()
    wait_until(lambda: rows() == sorted(given), what="the rows")
    assert carla.predict({"text": "joy"}).status_code == 200


def test_python_is_answered_out_of_the_spool_too(emotion, outage, settings):
    classifier = create_classifier("emotion")
    given = [result["interaction_id"] for result in classifier.classify_many(["joy", "anger"])]
    assert rows() == []
    settings.KALIMTAK_SPOOL_BYTES = spool.bytes_in(spool_folder()) + 100
    with pytest.raises(Unavailable, match="nothing can be spooled"):
        classifier.classify("joy")
    outage()
    wait_until(lambda: rows() == sorted(given), what="the rows")


def test_a_database_that_went_away_unnoticed_leaves_a_process_with_models_ready(carla, emotion, monkeypatch):
    LIVE.current()

    def away(self):
        raise OperationalError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.ensure_connection", away)
        assert carla.get("/readyz").json() == {"status": "ready", "problems": []}


@pytest.mark.clock
def test_a_locked_sqlite_file_holds_an_answer_up_for_two_seconds_at_most(carla, emotion):
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL locks tables; tried in tests/platform/test_postgres.py")
    carla.predict({"text": "joy"})
    auth.cache_clear()  # the key has to be looked up
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(hours=1))  # and its use noted, which is a write
    other = Database.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    given = [carla.predict({"text": "joy", "request_id": "r1"}).json()["interaction_id"]]
    assert time.monotonic() - started < 2.5
    started = time.monotonic()
    given += [carla.predict({"text": "joy"}).json()["interaction_id"] for _ in range(10)]
    assert time.monotonic() - started < 1
    assert carla.predict({"text": "joy", "request_id": "r1"}).json()["interaction_id"] == given[0]
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: set(given) <= set(rows()), what="the rows")
