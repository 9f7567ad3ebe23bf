"""Scripts of other sites: those of the origins in `KALIMTAK_CORS_ORIGINS` may call the API with a key, no others."""

import json

import pytest
from django.test import Client

from tests.contract.endpoints import ENDPOINTS, ask, error_of

SHOP = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}


@pytest.fixture(autouse=True)
def shop_may_call(settings):
    settings.KALIMTAK_CORS_ORIGINS = [SHOP]


def test_the_question_before_the_request_needs_no_key(installation):
    for endpoint in ENDPOINTS:
        headers = PREFLIGHT | {"Origin": SHOP}
        response = ask(endpoint, installation, method="OPTIONS", content=b"", headers=headers)
        assert response.status_code == 204, endpoint.path
        assert response["Access-Control-Allow-Origin"] == SHOP
        assert {"authorization", "content-type"} <= set(response["Access-Control-Allow-Headers"].split(", "))
        assert endpoint.method in response["Access-Control-Allow-Methods"].split(", ")


def test_an_allowed_origin_may_read_answers_and_errors(installation):
    asked = {"Origin": SHOP}
    for key, status in ((installation.carla.plain, 200), ("", 401)):
        response = ask(ENDPOINTS[0], installation, key, headers=asked)
        assert (response.status_code, response["Access-Control-Allow-Origin"]) == (status, SHOP)
        assert "Origin" in response["Vary"]
        assert "Retry-After" in response["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://shop.example", f"{SHOP}.evil.example", "null"])
def test_scripts_of_other_origins_may_read_nothing(installation, origin):
    for method, headers in (("OPTIONS", PREFLIGHT), ("POST", {})):
        response = ask(ENDPOINTS[0], installation, method=method, headers=headers | {"Origin": origin})
        assert not [name for name in response.headers if name.startswith("Access-Control-")]


def test_cookies_of_another_site_are_never_asked_for(installation):
    """A session counts with its CSRF token only, and no origin may have credentials sent along."""
    response = ask(ENDPOINTS[0], installation, headers={"Origin": SHOP})
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert error_of(response) == (401, "not_authenticated")


def test_outside_the_api_the_question_stays_what_it_was(db):
    response = Client().generic("OPTIONS", "/", json.dumps({}), headers=PREFLIGHT | {"Origin": SHOP})
    assert response.status_code == 405
