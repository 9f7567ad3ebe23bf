"""What a key may be called and how long it may live, whoever makes it."""

import time

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.urls import reverse

from kalimtak.core import auth
from kalimtak.core.auth import key_create
from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import ApiKey

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "two\nlines", "nul\x00", "\u202eesrever"])
def test_a_name_that_is_no_short_line_is_refused(name):
    with pytest.raises(InvalidInput, match="name of 1 to 100 printable"):
        key_create(name, ["predict"], actor="olga")
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("rate", ["often", "5", "5/w", "9" * 30 + "/m", "5/m\n"])
def test_a_rate_that_is_none_or_too_long_is_refused(rate):
    with pytest.raises(InvalidInput, match="such as 600/m"):
        key_create("shop", ["predict"], actor="olga", rate=rate)


def test_the_longest_name_is_kept_whole():
    key, _ = key_create("سعيد " * 20 + " ", ["predict"], actor="olga")
    assert ApiKey.objects.get(pk=key.pk).name == ("سعيد " * 20).strip()


@pytest.mark.parametrize("days", ["0", "-1", "36501", "99999999999999"])
def test_days_out_of_bounds_make_no_key(days):
    with pytest.raises(CommandError, match="from 1 to 36500"):
        call_command("create_api_key", "shop", "--scope", "predict", "--days", days)
    assert not ApiKey.objects.exists()


def test_days_say_when_the_key_expires():
    call_command("create_api_key", "shop", "--scope", "predict", "--days", "1")
    key = ApiKey.objects.get()
    assert 86_000 < (key.expires_at - key.created_at).total_seconds() < 86_401


@pytest.mark.parametrize("changes", [{"name": "x" * 101}, {"rate": "9" * 30 + "/m"}, {"name": "nul\x00"}])
def test_the_form_shows_what_is_wrong_instead_of_failing(admin_client, changes):
    body = {"name": "shop", "scopes": ["predict"], "rate": ""} | changes
    assert admin_client.post(reverse("admin:core_apikey_add"), body).status_code == 200
    assert not ApiKey.objects.exists()


# While the database is away -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    auth.cache_clear()
    start, passed = time.monotonic(), [0.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: start + passed[0])
    yield lambda seconds: passed.__setitem__(0, passed[0] + seconds)
    auth.cache_clear()


@pytest.fixture
def looks(monkeypatch):
    """How often the database was asked while it was away."""
    asked = []

    def away(**_):
        asked.append(1)
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(ApiKey.objects, "filter", away)
    return asked


def test_a_known_key_is_honoured_for_ten_minutes_and_the_database_not_asked_each_time(clock, request):
    key, _ = key_create("shop", ["predict"], actor="olga")
    assert auth._look_up(key.prefix) == key
    looks = request.getfixturevalue("looks")
    for _ in range(100):
        clock(5.5)
        assert [auth._look_up(key.prefix) for _ in range(3)] == [key] * 3
    assert len(looks) == 100
    clock(60)
    with pytest.raises(OperationalError):
        auth._look_up(key.prefix)


def test_a_key_that_was_not_known_is_not_honoured(clock, request):
    key, _ = key_create("shop", ["predict"], actor="olga")
    assert auth._look_up("nobody") is None
    request.getfixturevalue("looks")
    clock(5.5)
    for prefix in (key.prefix, "nobody"):
        with pytest.raises(OperationalError):
            auth._look_up(prefix)


def test_a_revoked_key_is_refused_as_soon_as_the_database_is_back(clock, monkeypatch):
    key, _ = key_create("shop", ["predict"], actor="olga")
    assert auth._look_up(key.prefix).revoked_at is None
    ApiKey.objects.update(revoked_at="2026-03-01T00:00:00Z")
    clock(5.5)
    assert auth._look_up(key.prefix).revoked_at is not None
