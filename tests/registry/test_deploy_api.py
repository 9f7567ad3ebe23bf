"""`/api/admin/deploy` and `/api/admin/rollback`: who may, what comes back, and what is refused."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client

from kalimtak.core import auth
from kalimtak.core.models import AuditEvent
from registry.models import Classifier, Deployment, ModelVersion

pytestmark = pytest.mark.django_db
MakeVersion = Callable[..., ModelVersion]
DEPLOY, ROLLBACK = "/api/admin/deploy", "/api/admin/rollback"


@pytest.fixture(autouse=True)
def _forget_keys_and_counts() -> None:
    auth.cache_clear()
    cache.clear()


def carla(*scopes: str) -> Client:
    """Carla's client, with a key that holds `scopes`."""
    _, plain = auth.key_create("Carla", scopes, actor="system")
    return Client(headers={"Authorization": f"Bearer {plain}"})


def signed_in(name: str, *permissions: str, **options: Any) -> Client:
    """A signed-in member of staff who holds `permissions` of the registry."""
    user = User.objects.create_user(name, is_staff=True, **options)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, path: str, **body: Any) -> Any:
    return client.post(path, body, content_type="application/json")


def error_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_deployment_comes_back_in_full(make_version: MakeVersion) -> None:
    make_version(90)
    response = post(carla("deploy"), DEPLOY, version="emotion/1", reason="the first")
    assert response.status_code == 201
    body = response.json()
    assert [*body][:6] == ["deployment", "version", "classifier", "role", "share", "started_at"]
    assert [*body][6:] == ["actor", "reason", "forced"]
    assert (body["version"], body["classifier"], body["role"], body["share"]) == (
        "emotion/1",
        "emotion",
        "production",
        100,
    )
    assert body["actor"].startswith("key:") and body["reason"] == "the first" and body["forced"] is False
    assert body["deployment"] == Deployment.objects.get().pk
    assert body["started_at"].endswith("Z") and datetime.fromisoformat(body["started_at"])
    assert AuditEvent.objects.get(action="version.deploy").actor == body["actor"]


def test_times_are_utc_wherever_the_browser_is(make_version: MakeVersion) -> None:
    make_version(90)
    client = carla("deploy")
    client.cookies["tz"] = "Asia/Riyadh"
    assert post(client, DEPLOY, version="emotion/1").json()["started_at"].endswith("Z")


def test_a_trailing_slash_makes_no_difference(make_version: MakeVersion) -> None:
    make_version(90)
    assert post(carla("deploy"), DEPLOY + "/", version="emotion/1").status_code == 201


def test_the_gates_reasons_come_with_the_refusal(make_version: MakeVersion) -> None:
    client = carla("deploy")
    make_version(90)
    make_version(70)
    post(client, DEPLOY, version="emotion/1")
    response = post(client, DEPLOY, version="emotion/2")
    assert error_of(response) == (409, "gate_refused")
    assert response.json()["error"]["fields"]["gate"][0].startswith("Macro-F1 fell from 90.0 % to 70.0 %")


def test_without_the_scope_nothing_is_deployed(make_version: MakeVersion) -> None:
    make_version(90)
    assert error_of(post(Client(), DEPLOY, version="emotion/1")) == (401, "not_authenticated")
    assert error_of(post(carla("predict", "admin"), DEPLOY, version="emotion/1")) == (403, "permission_denied")
    assert post(signed_in("nadia"), DEPLOY, version="emotion/1").status_code == 403
    for path in (DEPLOY, ROLLBACK):
        assert post(signed_in(f"rami{path[-1]}", "view_classifier"), path, classifier="emotion").status_code == 403
    assert not Deployment.objects.exists()


def test_staff_with_the_permission_deploy_from_their_session(make_version: MakeVersion) -> None:
    make_version(90)
    response = post(signed_in("dina", "deploy_modelversion"), DEPLOY, version="emotion/1")
    assert (response.status_code, response.json()["actor"]) == (201, "dina")


def test_a_session_without_csrf_token_is_refused(make_version: MakeVersion) -> None:
    make_version(90)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("olga"))
    assert post(strict, DEPLOY, version="emotion/1").status_code == 403
    assert not Deployment.objects.exists()


def test_forcing_takes_more_than_deploying(make_version: MakeVersion) -> None:
    make_version(90)
    make_version(70)
    assert post(carla("deploy"), DEPLOY, version="emotion/1").status_code == 201
    against = {"version": "emotion/2", "force": True, "reason": "the golden set is wrong"}
    assert error_of(post(carla("deploy"), DEPLOY, **against)) == (403, "permission_denied")
    assert error_of(post(signed_in("dina", "deploy_modelversion"), DEPLOY, **against)) == (403, "permission_denied")
    without_reason = post(carla("deploy", "admin"), DEPLOY, **against | {"reason": " "})
    assert error_of(without_reason) == (400, "invalid_input")
    assert list(without_reason.json()["error"]["fields"]) == ["reason"]
    assert post(carla("deploy", "admin"), DEPLOY, **against).json()["forced"] is True


def test_staff_force_with_the_permission_for_it(make_version: MakeVersion) -> None:
    make_version(90)
    make_version(70)
    client = signed_in("dina", "deploy_modelversion", "force_deploy_modelversion")
    post(client, DEPLOY, version="emotion/1")
    response = post(client, DEPLOY, version="emotion/2", force=True, reason="the golden set is wrong")
    assert (response.status_code, response.json()["forced"]) == (201, True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"version": 3}, 400),
        ({"version": None}, 400),
        ({"version": "emotion"}, 400),
        ({"version": "../../etc/1"}, 400),
        ({"version": "emotion/99"}, 404),
        ({"version": "emotion/1", "strategy": "bold"}, 400),
        ({"version": "emotion/1", "strategy": "canary", "share": 5}, 409),
        ({"version": "emotion/1", "share": 0}, 400),
        ({"version": "emotion/1", "share": 50}, 400),
        ({"version": "emotion/1", "share": "100"}, 400),
        ({"version": "emotion/1", "force": "perhaps"}, 400),
        ({"version": "emotion/1", "reason": "x" * 301}, 400),
        ({"version": "emotion/1\x00"}, 201),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(make_version: MakeVersion, body: dict[str, Any], status: int) -> None:
    make_version(90)
    response = post(carla("deploy"), DEPLOY, **body)
    assert response.status_code == status
    assert Deployment.objects.count() == (status == 201)


def test_a_rollback_answers_with_what_is_in_force_now(make_version: MakeVersion) -> None:
    client = carla("deploy")
    for correct in (80, 90):
        post(client, DEPLOY, version=make_version(correct).ref)
    response = post(client, ROLLBACK, classifier="emotion", reason="answers look odd")
    assert (response.status_code, response.json()["version"]) == (201, "emotion/1")
    assert response.json()["reason"] == "answers look odd"
    assert error_of(post(client, ROLLBACK, classifier="emotion", reason="more")) == (409, "nothing_to_roll_back")
    assert post(client, ROLLBACK, classifier="emotion", reason="back", to=2).json()["version"] == "emotion/2"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"classifier": "emotion"}, 400),
        ({"classifier": "emotion", "reason": ""}, 400),
        ({"classifier": "emotion", "reason": 5}, 400),
        ({"reason": "because"}, 400),
        ({"classifier": "", "reason": "because"}, 400),
        ({"classifier": "nothing", "reason": "because"}, 404),
        ({"classifier": "emotion", "reason": "because", "to": 0}, 400),
        ({"classifier": "emotion", "reason": "because", "to": 10**12}, 400),
        ({"classifier": "emotion", "reason": "because", "to": "1"}, 400),
        ({"classifier": "emotion", "reason": "because", "to": 99}, 404),
    ],
)
def test_a_rollback_that_cannot_be_meant_is_refused(
    make_version: MakeVersion, body: dict[str, Any], status: int
) -> None:
    client = carla("deploy")
    post(client, DEPLOY, version=make_version(80).ref)
    assert post(client, ROLLBACK, **body).status_code == status


def test_a_wrong_method_or_body_keeps_the_error_shape(emotion: Classifier) -> None:
    assert error_of(carla("deploy").get(DEPLOY)) == (405, "method_not_allowed")
    assert error_of(carla("deploy").post(DEPLOY, "{", content_type="application/json"))[0] == 400
    assert error_of(carla("deploy").post(DEPLOY, "[]", content_type="application/json"))[0] == 400
    assert error_of(carla("deploy").post(DEPLOY, {"version": "emotion/1"}))[0] == 415
