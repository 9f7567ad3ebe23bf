"""What counts as an outage of the database, and what every door answers then. The errors are the databases' own."""

import pytest
from django.db import OperationalError, connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from kalimtak.core.api import ApiView
from kalimtak.core.models import AuditEvent
from kalimtak.urls import handler400, handler404, handler500  # noqa: F401  (part of this module as an URL configuration)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


def ask_for_nothing_that_exists() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")


def write_where_only_reading_is_allowed() -> None:
    is_sqlite = connection.vendor == "sqlite"
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = 1" if is_sqlite else "SET TRANSACTION READ ONLY")
            AuditEvent.objects.create(actor="olga", action="test", target="x' -- a private word")
    finally:
        if is_sqlite:
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA query_only = 0")


WHAT = {"fault": ask_for_nothing_that_exists, "outage": write_where_only_reading_is_allowed}


def page(request, what):
    WHAT[what]()
    return HttpResponse()


class Api(ApiView):
    def get(self, request, what):
        WHAT[what]()


urlpatterns = [path("page/<what>", page), path("api/<what>", Api.as_view())]


def storing_middleware(get_response):
    """Fails after the view, as a session that cannot be stored."""

    def middleware(request):
        get_response(request)
        raise OperationalError("the connection is closed")

    return middleware


@pytest.fixture(autouse=True)
def wiring(settings):
    settings.ROOT_URLCONF = __name__


def get(address: str) -> HttpResponse:
    return Client(raise_request_exception=False).get(address)


def assert_outage(response: HttpResponse, *, is_api: bool) -> None:
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    if is_api:
        assert response.json()["error"]["code"] == "unavailable"
    else:
        assert "Back in a moment" in response.text
        assert response["Cache-Control"] == "no-store"
    assert "Content-Security-Policy" in response


@pytest.mark.parametrize("door", ["page", "api"])
def test_an_outage_is_a_503_that_says_when_to_come_back(door, caplog):
    assert_outage(get(f"/{door}/outage"), is_api=door == "api")
    assert "The database is away" in caplog.text
    assert "private word" not in caplog.text


@pytest.mark.parametrize("door", ["page", "api"])
def test_a_wrong_statement_is_a_fault_of_ours(door):
    assert get(f"/{door}/fault").status_code == 500


@pytest.mark.parametrize("address", ["/page/nowhere", "/api/nowhere"])
def test_an_outage_outside_of_any_view_is_a_503_too(address, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.storing_middleware"]
    WHAT["nowhere"] = lambda: None
    assert_outage(get(address), is_api=address.startswith("/api/"))
