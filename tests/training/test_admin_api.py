"""The endpoints by which staff load data, curate, and watch jobs."""

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from kalimtak.core import jobs
from kalimtak.core.auth import cache_clear, key_create
from kalimtak.core.models import Job
from training import views
from training.models import Dataset, TrainingDataItem

pytestmark = pytest.mark.django_db
LOAD, CURATE = "/api/admin/load-dataset", "/api/admin/curate-training-data"


@pytest.fixture
def admin():
    cache_clear()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key_create('ops', ['admin'], actor='olga')[1]}")
    return client


def rows(name="rows.csv", content=b"text,label\nsunny,glad\nrain,sad\n"):
    return SimpleUploadedFile(name, content)


def test_an_upload_is_queued_and_its_job_loads_it(admin, mood):
    response = admin.post(LOAD, {"classifier": "mood", "file": rows()}, format="multipart")
    assert response.status_code == 202
    dataset = Dataset.objects.get()
    assert response.json() == {"job": str(dataset.job_id), "dataset": dataset.pk}
    assert jobs.run(dataset.job_id) == "succeeded"
    admin.cookies["tz"] = "Asia/Riyadh"  # is for pages: the API speaks UTC
    seen = admin.get(f"/api/admin/jobs/{dataset.job_id}/").json()
    assert all(seen[moment].endswith("Z") for moment in ("created_at", "started_at", "finished_at"))
    assert (seen["state"], seen["kind"], seen["result"]["loaded"]) == ("succeeded", "import", 2)
    assert TrainingDataItem.objects.filter(status="approved").count() == 2


def test_a_file_that_cannot_be_loaded_fails_its_job_with_one_line(admin, mood):
    job = admin.post(LOAD, {"classifier": "mood", "file": rows(content=b"PK\x03\x04")}, format="multipart").json()[
        "job"
    ]
    assert jobs.run(job) == "failed"
    assert "by its content" in admin.get(f"/api/admin/jobs/{job}").json()["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"classifier": "mood"}, 400),
        ({"classifier": "mood", "url": "https://x.example/a.csv", "then": "dance"}, 400),
        ({"url": "https://x.example/a.csv"}, 400),
        ({"classifier": "nope", "url": "https://x.example/a.csv"}, 404),
        ({"classifier": "mood", "url": "http://x.example/a.csv"}, 400),
        ([], 400),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(admin, mood, body, status):
    assert admin.post(LOAD, body, format="json").status_code == status
    assert not Dataset.objects.exists()
    assert not Job.objects.exists()


def test_no_host_is_allowed_by_default(admin, mood):
    response = admin.post(LOAD, {"classifier": "mood", "url": "https://x.example/a.csv"}, format="json")
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"


def test_a_url_of_an_allowed_host_is_queued(admin, mood, settings):
    settings.KALIMTAK_DATASET_HOSTS = ["x.example"]
    response = admin.post(LOAD, {"classifier": "mood", "url": "https://x.example/a.csv"}, format="json")
    assert response.status_code == 202
    assert Dataset.objects.get().origin == "url"


def test_an_upload_over_the_limit_is_a_413(admin, mood, settings):
    settings.KALIMTAK_MAX_UPLOAD = 1_000
    big = rows(content=b"x" * 2_000)
    assert admin.post(LOAD, {"classifier": "mood", "file": big}, format="multipart").status_code == 413


def test_curation_answers_with_its_statistics(admin, ask, judge):
    judge(ask("a sunny day"), rating=5)
    assert admin.post(CURATE, {"dry_run": True}, format="json").json()["approved"] == 1
    assert not TrainingDataItem.objects.exists()
    response = admin.post(CURATE, {"classifier": "mood"}, format="json")
    assert (response.status_code, response.json()["loaded"]) == (200, 1)
    assert admin.post(CURATE, {}, format="json").json()["extracted"] == 0
    assert admin.post(CURATE, {"classifier": "nope"}, format="json").status_code == 404


def test_much_evidence_is_left_to_a_job(admin, ask, judge, monkeypatch):
    monkeypatch.setattr(views, "INLINE_EVIDENCE", 0)
    judge(ask("a sunny day"), rating=5)
    response = admin.post(CURATE, {}, format="json")
    assert response.status_code == 202
    assert jobs.run(response.json()["job"]) == "succeeded"
    assert Job.objects.get(kind="curate").result["loaded"] == 1


def test_a_waiting_job_is_cancelled_and_a_finished_one_not(admin, mood):
    job = jobs.enqueue("curate", {}, ring=False)
    response = admin.post(f"/api/admin/jobs/{job.pk}/cancel")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert admin.post(f"/api/admin/jobs/{job.pk}/cancel").status_code == 409
    assert admin.get("/api/admin/jobs/0199a0a0-0000-7000-8000-000000000000").status_code == 404


def test_nadia_and_a_key_without_the_scope_see_nothing(mood):
    cache_clear()
    nadia = APIClient()
    nadia.force_login(User.objects.create_user("nadia", is_staff=True))
    reader = APIClient()
    reader.credentials(HTTP_AUTHORIZATION=f"Bearer {key_create('r', ['predict'], actor='olga')[1]}")
    job = jobs.enqueue("curate", {}, ring=False)
    for client in (nadia, reader):
        assert client.post(CURATE, {}, format="json").status_code == 403
        assert client.get(f"/api/admin/jobs/{job.pk}").status_code == 403
    assert APIClient().post(CURATE, {}, format="json").status_code == 401
