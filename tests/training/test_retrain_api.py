"""`POST /api/admin/retrain`: Carla's key starts a run; who may not, or has nothing to learn from, starts none."""

import pytest
from django.test import Client

from kalimtak.core.auth import cache_clear, key_create
from kalimtak.core.models import Job
from registry.models import Classifier
from training.models import TrainingRun

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_keys() -> None:
    cache_clear()


def post(body: object, *, scope: str = "admin"):
    _, plain = key_create("carla", [scope], actor="olga")
    headers = {"Authorization": f"Bearer {plain}"}
    return Client().post("/api/admin/retrain", body, content_type="application/json", headers=headers)


def test_a_run_is_queued_in_the_callers_name(taught_mood: Classifier) -> None:
    answer = post({"classifier": "mood", "then": "deploy"})
    assert answer.status_code == 202
    run = TrainingRun.objects.select_related("job").get()
    assert answer.json() == {"job": str(run.job_id)}
    assert (run.then, run.job.state) == ("deploy", "queued")
    assert run.job.actor.startswith("key:")


def test_without_then_nothing_is_deployed_afterwards(taught_mood: Classifier) -> None:
    post({"classifier": "mood"})
    assert TrainingRun.objects.get().then == "none"


def test_without_data_the_answer_says_how_to_get_some(mood: Classifier) -> None:
    answer = post({"classifier": "mood"})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "no_data"
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"classifier": "nobody"}, 404),
        ({"classifier": "mood", "then": "celebrate"}, 400),
        ({"classifier": 7}, 400),
        ({}, 400),
        ([], 400),
    ],
)
def test_a_body_that_cannot_be_meant_starts_nothing(taught_mood: Classifier, body: object, status: int) -> None:
    assert post(body).status_code == status
    assert not Job.objects.exists()


def test_other_scopes_start_nothing(taught_mood: Classifier) -> None:
    assert post({"classifier": "mood"}, scope="deploy").status_code == 403
    assert Client().post("/api/admin/retrain", {}, content_type="application/json").status_code == 401
    assert not Job.objects.exists()


def test_no_request_names_code_to_run(taught_mood: Classifier) -> None:
    for body in ({"loader": "os:system"}, {"type": "custom", "loader": "os:system"}):
        answer = post({"classifier": "mood", **body})
        assert answer.status_code == 400
    assert not TrainingRun.objects.exists()
    taught_mood.refresh_from_db()
    assert taught_mood.loader == ""
