"""Keys, scopes, limits and the one error shape, on a view of the test's own."""

import json
import logging
import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client, RequestFactory
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.response import Response

from kalimtak.core import auth, ratelimit
from kalimtak.core.api import ApiView, StrictCharField, bad_request, not_found, server_error
from kalimtak.core.auth import caller_of, key_create, key_revoke
from kalimtak.core.errors import Conflict, InvalidInput, WouldWait
from kalimtak.core.logs import LineFormatter
from kalimtak.core.models import Scope


class Body(serializers.Serializer):
    text = StrictCharField(max_length=20)
    rows = serializers.ListField(child=serializers.IntegerField(), required=False)


class Echo(ApiView):
    required_scope = Scope.PREDICT

    def post(self, request):
        body = Body(data=request.data)
        body.is_valid(raise_exception=True)
        if body.validated_data["text"] == "boom":
            raise RuntimeError("a fault of ours")
        return Response({"caller": caller_of(request).name, "text": body.validated_data["text"]})


urlpatterns = [path("api/echo", Echo.as_view())]
handler400, handler404, handler500 = bad_request, not_found, server_error


@pytest.fixture(autouse=True)
def wiring(settings, db):
    settings.ROOT_URLCONF = __name__
    auth.cache_clear()
    cache.clear()


@pytest.fixture
def carla():
    key, plain = key_create("Carla", ["predict"], actor="olga")
    return key, {"Authorization": f"Bearer {plain}"}


def ask(headers=None, body=None, client=None, **extra):
    client = client or Client(raise_request_exception=False)
    content = body if isinstance(body, bytes) else json.dumps(body or {"text": "hi"}).encode()
    return client.post("/api/echo", content, content_type="application/json", headers=headers or {}, **extra)


def error_of(response):
    assert set(response.json()) == {"error"}
    return response.status_code, response.json()["error"]["code"]


class TestKeys:
    def test_a_key_opens_what_its_scope_allows(self, carla):
        key, headers = carla
        assert ask(headers).json() == {"caller": f"key:{key.prefix}", "text": "hi"}

    def test_a_trailing_slash_makes_no_difference(self, carla):
        response = Client().post("/api/echo/", {"text": "hi"}, content_type="application/json", headers=carla[1])
        assert response.status_code == 200

    def test_the_secret_is_nowhere_kept(self, carla):
        key, headers = carla
        assert headers["Authorization"].rpartition(".")[2] not in json.dumps(
            list(type(key).objects.values()), default=str
        )

    @pytest.mark.parametrize("word", ["Bearer x", "Bearer x.y", "Basic eDp5", "Bearer", "Bearer a b", "Bearer é.ü"])
    def test_a_wrong_key_is_refused(self, word):
        response = ask({"Authorization": word})
        assert error_of(response) == (401, "not_authenticated")
        assert response["WWW-Authenticate"].startswith("Bearer")

    def test_a_key_in_the_query_string_is_not_looked_at(self, carla):
        _, headers = carla
        response = Client().post(f"/api/echo?token={headers['Authorization'][7:]}", {"text": "hi"})
        assert response.status_code == 401

    def test_a_revoked_key_is_refused(self, carla):
        key, headers = carla
        assert ask(headers).status_code == 200
        key_revoke(key, actor="olga")
        assert error_of(ask(headers)) == (401, "not_authenticated")
        with pytest.raises(Conflict):
            key_revoke(key, actor="olga")

    def test_an_expired_key_is_refused(self):
        _, plain = key_create("old", ["predict"], actor="olga", expires_at=timezone.now() - timedelta(seconds=1))
        assert ask({"Authorization": f"Bearer {plain}"}).status_code == 401

    def test_a_key_of_another_scope_is_refused(self):
        _, plain = key_create("reader", ["read"], actor="olga")
        response = ask({"Authorization": f"Bearer {plain}"})
        assert error_of(response) == (403, "permission_denied")
        assert response.json()["error"]["message"] == "This needs the scope predict."

    def test_a_rate_that_is_none_is_refused(self):
        with pytest.raises(InvalidInput, match="such as 600/m"):
            key_create("Carla", ["predict"], actor="olga", rate="often")

    def test_an_unknown_scope_is_named(self):
        with pytest.raises(InvalidInput, match="'everything'"):
            key_create("x", ["everything"], actor="olga")

    def test_a_request_reads_no_key_from_the_database_twice(self, carla, django_assert_num_queries):
        ask(carla[1])
        with django_assert_num_queries(0):
            assert ask(carla[1]).status_code == 200


class TestSessions:
    def test_staff_need_the_csrf_token(self):
        User.objects.create_superuser("olga", password="x")
        client = Client(enforce_csrf_checks=True)
        client.login(username="olga", password="x")
        assert ask(client=client).status_code == 403

    def test_a_superuser_may_all_and_staff_without_a_role_nothing(self):
        User.objects.create_superuser("olga", password="x")
        User.objects.create_user("nadia", password="x", is_staff=True)
        for name, status in (("olga", 200), ("nadia", 403)):
            client = Client()
            client.login(username=name, password="x")
            assert ask(client=client).status_code == status

    def test_anonymous_use_is_off_by_default(self, settings):
        assert error_of(ask()) == (401, "not_authenticated")
        settings.KALIMTAK_ANONYMOUS = True
        assert ask().json()["caller"] == "anonymous"


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", "malformed_json"),
            (b"\xff", "malformed_json"),
            (b'{"text": NaN}', "malformed_json"),
            (b"[" * 100_000, "malformed_json"),
            (b'{"text": "\\ud800"}', "invalid_input"),
            (b"", "invalid_input"),
        ],
    )
    def test_bad_json_is_refused(self, carla, body, code):
        assert error_of(ask(carla[1], body)) == (400, code)

    def test_the_place_of_a_fault_is_named(self, carla):
        response = ask(carla[1], {"text": 5, "rows": [1, "x"]})
        assert set(response.json()["error"]["fields"]) == {"text", "rows.1"}
        assert response.json()["error"]["fields"]["text"] == ["Must be a text."]

    def test_nul_is_stripped(self, carla):
        assert ask(carla[1], {"text": "a\x00b"}).json()["text"] == "ab"

    def test_a_body_that_stops_coming_is_408(self, carla):
        class Stopped:
            def read(self, size=-1):
                raise ConnectionResetError(104, "The body came too slowly")

            readline = read

        assert error_of(ask(carla[1], **{"wsgi.input": Stopped()})) == (408, "request_timeout")

    def test_a_body_over_the_limit_is_413(self, carla, settings):
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
        assert error_of(ask(carla[1], {"text": "x" * 200})) == (413, "too_long")

    def test_other_media_types_methods_and_addresses_have_the_same_shape(self, carla):
        client = Client()
        assert error_of(client.post("/api/echo", "a=b", content_type="text/csv", headers=carla[1]))[0] == 415
        assert error_of(client.get("/api/echo", headers=carla[1])) == (405, "method_not_allowed")
        assert error_of(client.get("/api/nowhere")) == (404, "not_found")

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
            ({"Transfer-Encoding": "chunked"}, 411, "length_required"),
            ({"Host": "elsewhere.example"}, 400, "invalid_input"),
        ],
    )
    def test_a_request_that_cannot_be_read_has_the_same_shape(self, carla, headers, status, code):
        assert error_of(ask(carla[1] | headers)) == (status, code)

    def test_a_fault_of_ours_says_nothing_of_the_inside(self, carla, caplog):
        caplog.set_level(logging.CRITICAL)
        response = ask(carla[1], {"text": "boom"})
        assert error_of(response) == (500, "internal_error")
        assert "fault" not in response.content.decode()


class TestLimits:
    def test_beyond_the_rate_is_429_with_retry_after(self, settings):
        settings.KALIMTAK_ANONYMOUS, settings.KALIMTAK_RATELIMIT_ANON = True, "3/h"
        assert [ask().status_code for _ in range(4)] == [200, 200, 200, 429]
        response = ask()
        assert error_of(response) == (429, "rate_limited")
        assert 0 < int(response["Retry-After"]) <= 3600

    def test_a_key_has_a_rate_of_its_own(self, settings):
        settings.KALIMTAK_RATELIMIT_KEY = "100/h"
        _, plain = key_create("slow", ["predict"], actor="olga", rate="1/h")
        headers = {"Authorization": f"Bearer {plain}"}
        assert [ask(headers).status_code for _ in range(2)] == [200, 429]

    def test_a_forged_address_does_not_help(self, settings):
        settings.KALIMTAK_ANONYMOUS, settings.KALIMTAK_RATELIMIT_ANON = True, "1/h"
        codes = [ask({"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(2)]
        assert codes == [200, 429]

    def test_behind_a_trusted_proxy_the_client_counts(self, settings, rf):
        settings.KALIMTAK_TRUSTED_PROXIES = ["127.0.0.1/32", "10.0.0.0/8"]
        request = rf.get("/", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.1.1"})
        assert ratelimit.client_address(request) == "203.0.113.9"

    def test_one_ipv6_network_is_one_caller(self):
        assert ratelimit.address_group("2001:db8::1") == ratelimit.address_group("2001:db8::ffff:2")
        assert ratelimit.address_group("203.0.113.9") == "203.0.113.9"

    def test_a_lost_cache_degrades_the_limit_and_does_not_fail(self, settings, monkeypatch):
        def away(*args, **kwargs):
            raise ConnectionError("no cache")

        monkeypatch.setattr(type(cache._connections["default"]), "add", away)
        monkeypatch.setattr(ratelimit, "_circuit", ratelimit.Circuit())
        monkeypatch.setattr(ratelimit, "_buckets", {})
        settings.KALIMTAK_ANONYMOUS, settings.KALIMTAK_RATELIMIT_ANON = True, "2/h"
        assert [ask().status_code for _ in range(3)] == [200, 200, 429]

    def test_a_generous_limit_is_counted_in_blocks_and_ends_where_it_should(self, settings, monkeypatch):
        asked = []
        usage = ratelimit.get_usage
        monkeypatch.setattr(ratelimit, "get_usage", lambda *a, **values: asked.append(1) or usage(*a, **values))
        outcomes = [self.passes("one", "5000/d") for _ in range(5001)]
        assert outcomes == [True] * 5000 + [False]
        assert len(asked) == ratelimit.BLOCKS_IN_WINDOW + 1

    def test_who_must_not_wait_gets_what_was_counted_before(self):
        assert not self.passes("two", "3000/d", may_wait=False)
        assert self.passes("two", "3000/d")
        assert [self.passes("two", "3000/d", may_wait=False) for _ in range(3)] == [True, True, False]

    def test_a_block_ends_with_its_window(self, monkeypatch):
        blocks = ratelimit.Blocks()
        blocks.put("one", 2, 10)
        assert blocks.take("one") and not blocks.take("other")
        later = time.monotonic() + 10
        monkeypatch.setattr(ratelimit.time, "monotonic", lambda: later)
        assert not blocks.take("one")

    def passes(self, value, rate, may_wait=True):
        try:
            ratelimit.limit(RequestFactory().get("/"), group="test", value=value, rate=rate, may_wait=may_wait)
        except (ratelimit.RateLimited, WouldWait):
            return False
        return True


def test_a_log_line_cannot_be_forged():
    record = logging.LogRecord("x", logging.INFO, "", 0, "text %s", ("a\n2026 | ERROR | b\x1b[31m",), None)
    line = LineFormatter(colour=False).format(record)
    assert line.endswith("| INFO     | text a\\n2026 | ERROR | b\\x1b[31m")
    assert "\n" not in line
