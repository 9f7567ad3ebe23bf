"""Signing in to the admin."""

import pytest
from django.core.cache import cache
from django.urls import reverse


@pytest.fixture
def attempt(client, people, settings):
    settings.RATELIMIT_ENABLE = True
    settings.KALIMTAK_RATELIMIT_LOGIN = "3/h"
    cache.clear()
    people.rami.set_password("a-long-password")
    people.rami.save()

    def attempt(password, **headers):
        return client.post(reverse("admin:login"), {"username": "rami", "password": password}, **headers)

    yield attempt
    cache.clear()


def test_rami_signs_in(attempt):
    assert attempt("a-long-password").status_code == 302


def test_guessing_is_stopped_and_says_when_to_come_back(attempt):
    assert [attempt(f"guess-{n}").status_code for n in range(4)] == [200, 200, 200, 429]
    response = attempt("a-long-password")
    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert "Too many attempts" in response.text


def test_another_address_is_counted_by_itself(attempt):
    for number in range(4):
        attempt(f"guess-{number}")
    assert attempt("a-long-password", REMOTE_ADDR="203.0.113.7").status_code == 302


def test_looking_at_the_page_is_not_an_attempt(attempt, client):
    for _ in range(6):
        assert client.get(reverse("admin:login")).status_code == 200


def test_the_next_page_cannot_be_on_another_host(attempt, client):
    data = {"username": "rami", "password": "a-long-password", "next": "https://evil.example/"}
    assert client.post(reverse("admin:login"), data).url == "/"
