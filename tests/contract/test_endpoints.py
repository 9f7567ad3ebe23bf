"""Every endpoint against everything that may be wrong with a request for it: one table each, no exception."""

import time
from datetime import timedelta

import pytest
import yaml
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone

from kalimtak.core import auth
from kalimtak.core.auth import key_create, key_revoke
from kalimtak.core.models import ApiKey, Scope
from tests.contract.endpoints import ENDPOINTS, OPEN, WITH_BODY, ask, error_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def rows_of_all_tables():
    """How many rows each table of ours holds, which a refused request must not change."""
    counts = {}
    with connection.cursor() as cursor:
        for table in sorted(connection.introspection.table_names(cursor)):
            if table.startswith(("core_", "registry_", "training_", "interactions_", "django_q_")):
                cursor.execute(f"SELECT COUNT(*) FROM {table}")  # a name from the database itself
                counts[table] = cursor.fetchone()[0]
    return counts


def everywhere(installation, question, endpoints=ENDPOINTS):
    """What `question` makes of each endpoint, while none of them changes a row."""
    before = rows_of_all_tables()
    found = {f"{endpoint.method} {endpoint.path}": question(endpoint) for endpoint in endpoints}
    assert rows_of_all_tables() == before
    return found


def always(answer, endpoints=ENDPOINTS):
    return {f"{endpoint.method} {endpoint.path}": answer for endpoint in endpoints}


def test_the_table_names_every_endpoint_of_the_description():
    described = yaml.safe_load((django_settings.BASE_DIR / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    wanted = {(method.upper(), path) for path, item in described.items() for method in item}
    named = {(each.method, each.path.replace("{job}", "{job_id}")) for each in ENDPOINTS}
    named = {(method, "/api/classify/{route}" if "/classify/" in path else path) for method, path in named}
    assert wanted == named, "add new endpoints to tests/contract/endpoints.py"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_good_request_with_the_right_scope_gets_exactly_what_was_promised(installation, slash):
    for endpoint in ENDPOINTS:
        key = installation.carla.plain if endpoint.path == "/api/feedback" else installation.keys[endpoint.scope]
        response = ask(endpoint, installation, key, url=endpoint.url(installation) + slash)
        assert response.status_code == endpoint.status, (endpoint.path, response.content)
        assert set(response.json()) == endpoint.gives, endpoint.path


def test_without_a_key_nobody_gets_anything(installation):
    def question(endpoint):
        response = ask(endpoint, installation)
        assert response["WWW-Authenticate"].startswith("Bearer")
        return error_of(response)

    assert everywhere(installation, question) == always((401, "not_authenticated"))


@pytest.mark.parametrize("kind", ["wrong secret", "unknown prefix", "prefix only", "revoked", "expired", "basic"])
def test_a_key_that_is_not_valid_opens_nothing(installation, kind):
    def key(scope):
        made, plain = key_create(kind, [scope], actor="olga")
        if kind == "revoked":
            key_revoke(made, actor="olga")
        if kind == "expired":
            ApiKey.objects.filter(pk=made.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        prefix, _, secret = plain.partition(".")
        changed = {"wrong secret": f"{prefix}.{secret[::-1]}", "unknown prefix": f"x.{secret}", "prefix only": prefix}
        return changed.get(kind, plain)

    keys = {scope: key(scope) for scope in Scope.values}
    auth.cache_clear()

    def question(endpoint):
        scheme = {"Authorization": f"Basic {keys[endpoint.scope]}"} if kind == "basic" else None
        return error_of(ask(endpoint, installation, keys[endpoint.scope], headers=scheme))

    assert everywhere(installation, question) == always((401, "not_authenticated"))


def test_a_key_with_every_scope_but_the_right_one_opens_nothing(installation):
    others = {
        scope: key_create("others", [other for other in Scope.values if other != scope], actor="olga")[1]
        for scope in Scope.values
    }
    found = everywhere(installation, lambda endpoint: error_of(ask(endpoint, installation, others[endpoint.scope])))
    assert found == always((403, "permission_denied"))


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "authorization", "Authorization"])
def test_a_key_in_the_query_string_opens_nothing(installation, name):
    def question(endpoint):
        url = f"{endpoint.url(installation)}?{name}={installation.carla.plain}"
        return error_of(ask(endpoint, installation, url=url))

    assert everywhere(installation, question) == always((401, "not_authenticated"))


def test_another_method_is_named_as_such_and_the_right_one_told(installation):
    def question(endpoint):
        wrong = [method for method in METHODS if method != endpoint.method]
        responses = [ask(endpoint, installation, installation.carla.plain, method=method) for method in wrong]
        assert all(endpoint.method in response["Allow"] for response in responses)
        return {error_of(response) for response in responses}

    assert everywhere(installation, question) == always({(405, "method_not_allowed")})


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/csv", "application/x-www-form-urlencoded", "application/xml", "nonsense", ""]
)
def test_a_body_of_another_type_is_415(installation, content_type):
    def question(endpoint):
        return error_of(ask(endpoint, installation, installation.carla.plain, content_type=content_type))

    assert everywhere(installation, question, WITH_BODY) == always((415, "unsupported_media_type"), WITH_BODY)


def test_a_form_is_taken_by_uploads_only(installation):
    forms = tuple(endpoint for endpoint in WITH_BODY if endpoint.path != "/api/admin/load-dataset")
    content = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--x--\r\n'

    def question(endpoint):
        kind = "multipart/form-data; boundary=x"
        return error_of(ask(endpoint, installation, installation.carla.plain, content=content, content_type=kind))

    assert everywhere(installation, question, forms) == always((415, "unsupported_media_type"), forms)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Content-Encoding": "gzip"}, (415, "unsupported_media_type")),
        ({"Content-Encoding": "br"}, (415, "unsupported_media_type")),
        ({"Transfer-Encoding": "chunked"}, (411, "length_required")),
    ],
)
def test_a_packed_or_endless_body_is_refused_unread(installation, headers, answer):
    def question(endpoint):
        return error_of(ask(endpoint, installation, installation.carla.plain, headers=headers))

    assert everywhere(installation, question) == always(answer)


def test_a_body_over_the_limit_is_413_whether_announced_or_not(installation, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    large = b'{"text": "' + b"x" * 2_000 + b'"}'

    def question(endpoint):
        key = installation.carla.plain
        return error_of(ask(endpoint, installation, key, content=large))

    assert everywhere(installation, question, WITH_BODY) == always((413, "too_long"), WITH_BODY)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b" ", "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"text": NaN}', "malformed_json"),
        (b'{"text": -Infinity}', "malformed_json"),
        (b'{"text": "\xff"}', "malformed_json"),
        ('\ufeff{"text": "x"}'.encode(), "malformed_json"),
        ('{"text": "x"}'.encode("utf-16"), "malformed_json"),
        (b'{"text": "x", "text": "y"}', "malformed_json"),
        (b"[" * 500_000, "malformed_json"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "malformed_json"),
        (b'{"text": ' + b"9" * 5_000_000 + b"}", "malformed_json"),
        (b"null", "invalid_input"),
        (b"true", "invalid_input"),
        (b'"text"', "invalid_input"),
        (b"12", "invalid_input"),
        (b"[]", "invalid_input"),
        (b'[{"text": "x"}]', "invalid_input"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_what_is_no_json_object_is_400_at_once(installation, content, code):
    def question(endpoint):
        started = time.thread_time()  # other tests run beside this one
        answer = error_of(ask(endpoint, installation, installation.carla.plain, content=content))
        return (*answer, time.thread_time() - started < 1)

    assert everywhere(installation, question, WITH_BODY) == always((400, code, True), WITH_BODY)


def test_no_body_is_an_empty_object(installation):
    """Enough where nothing must be said, as for a curation of everything."""

    def question(endpoint):
        response = ask(endpoint, installation, installation.carla.plain, content=b"")
        return response.status_code if endpoint.path.endswith("curate-training-data") else error_of(response)[0]

    expected = always(400, WITH_BODY) | {"POST /api/admin/curate-training-data": 200}
    assert everywhere(installation, question, WITH_BODY) == expected


def test_a_mistyped_key_is_named(installation):
    def question(endpoint):
        body = endpoint.content(installation)[:-1] + b', "clasifier": "emotion"}'
        response = ask(endpoint, installation, installation.carla.plain, content=body)
        assert list(response.json()["error"]["fields"]) == ["clasifier"], endpoint.path
        return error_of(response)

    assert everywhere(installation, question, WITH_BODY) == always((400, "invalid_input"), WITH_BODY)


def test_half_a_character_is_refused_in_every_text(installation):
    def question(endpoint):
        found = set()
        for name, value in endpoint.body(installation).items():
            if isinstance(value, str):
                body = endpoint.content(installation).replace(f'"{value}"'.encode(), b'"\\ud83d"')
                response = ask(endpoint, installation, installation.carla.plain, content=body)
                assert list(response.json()["error"]["fields"]) == [name], endpoint.path
                found.add(error_of(response))
        return found

    assert everywhere(installation, question, WITH_BODY) == always({(400, "invalid_input")}, WITH_BODY)


def test_too_many_requests_are_429_and_told_when_to_come_back(installation):
    cache.clear()
    slow = {endpoint.path: key_create("slow", [endpoint.scope], actor="olga", rate="1/h")[1] for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        ask(endpoint, installation, slow[endpoint.path])
    found = everywhere(installation, lambda endpoint: error_of(ask(endpoint, installation, slow[endpoint.path])))
    assert found == always((429, "rate_limited"))


class TestSessions:
    def test_a_session_with_its_csrf_token_opens_everything_to_a_superuser(self, installation):
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("olga"))
        client.get("/")  # the playground sets the cookie
        token = {"X-CSRFToken": client.cookies["csrftoken"].value}
        for endpoint in ENDPOINTS:
            response = ask(endpoint, installation, client=client, headers=token)
            assert (response.status_code, set(response.json())) == (endpoint.status, endpoint.gives), endpoint.path

    def test_without_the_token_it_changes_nothing(self, installation):
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("olga"))
        writing = tuple(endpoint for endpoint in ENDPOINTS if endpoint.method == "POST")
        found = everywhere(installation, lambda each: error_of(ask(each, installation, client=client)), writing)
        assert found == always((403, "permission_denied"), writing)

    @pytest.mark.parametrize(
        ("options", "answer"),
        [({"is_staff": True}, (403, "permission_denied")), ({"is_staff": False}, (401, "not_authenticated"))],
        ids=["staff without a role", "no staff"],
    )
    def test_other_sessions_open_nothing(self, installation, options, answer):
        client = Client()
        client.force_login(User.objects.create_user("nadia", **options))
        assert everywhere(installation, lambda each: error_of(ask(each, installation, client=client))) == always(answer)

    def test_a_wrong_key_is_not_made_good_by_a_session(self, installation):
        client = Client()
        client.force_login(User.objects.create_superuser("olga"))
        found = everywhere(installation, lambda each: error_of(ask(each, installation, "x.y", client=client)))
        assert found == always((401, "not_authenticated"))


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/nowhere",
        "/api/predict/more",
        "/api//predict",
        "/api/Predict",
        "/api/admin",
        "/api/admin/jobs",
        "/api/admin/jobs/12",
        "/api/admin/jobs/0199a0a0-0000-7000-8000-00000000000g",
        "/api/classify",
        "/api/classify/a b",
        "/api/classify/%00",
        "/api/classify/%F0%9F%98%8A",
        "/api/classify/..%2F..%2Fetc",
        "/healthz/more",
        "/livez/more",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_address_that_does_not_exist_has_the_one_error_shape(client, path, method):
    assert error_of(client.generic(method, path)) == (404, "not_found")


def test_what_is_open_to_all_answers_without_a_key(installation):
    assert {path: Client().get(path).status_code for path in OPEN} == dict.fromkeys(OPEN, 200)
