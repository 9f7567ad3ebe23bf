"""What a key may be called and how long it may live, whoever makes it."""

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

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
