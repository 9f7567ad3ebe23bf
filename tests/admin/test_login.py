"""The door of the admin."""

import pytest
from django.core.cache import cache
from django.test import Client


@pytest.mark.django_db
def test_guessing_passwords_is_slowed_down(settings):
    settings.KALIMTAK_RATELIMIT_LOGIN = "3/h"
    cache.clear()
    client = Client()
    guess = {"username": "olga", "password": "wrong"}
    codes = [client.post("/admin/login/", guess).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    assert int(client.post("/admin/login/", guess)["Retry-After"]) > 0
    assert client.get("/admin/login/").status_code == 200
