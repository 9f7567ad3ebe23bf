"""Is this process alive, is it ready for traffic, and how is it doing?"""

import logging
import threading
from typing import Any

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference.live import LIVE, Picture
from inference.serializers import HealthDetailsSerializer
from inference.services import engine
from inference.views import description_of
from interactions import spooling
from kalimtak.core.api import ApiView
from kalimtak.core.errors import KalimtakError
from kalimtak.core.models import Scope
from kalimtak.core.openapi import error_responses

logger = logging.getLogger(__name__)

STALE_SECONDS = 30.0
_migrated = threading.Event()


def livez(request: HttpRequest) -> JsonResponse:
    """The process answers. Asks nothing of anybody else."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> JsonResponse:
    """200 where requests will be answered, else 503 with the reasons."""
    problems = find_problems()
    body = {"status": "not_ready" if problems else "ready", "problems": problems}
    response = JsonResponse(body, status=503 if problems else 200)
    response["Cache-Control"] = "no-store"
    if problems:
        response["Retry-After"] = "1"
        response._has_been_logged = True  # type: ignore[attr-defined]  # a probe's 503 is an answer, not a fault
    return response


class HealthView(ApiView):
    """How this web process is doing."""

    required_scope = Scope.READ

    @extend_schema(
        operation_id="health",
        summary="Readiness, queue and loaded versions of the process that answers",
        responses={200: HealthDetailsSerializer} | error_responses(takes_body=False),
    )
    def get(self, request: Request) -> Response:
        problems = find_problems()
        details: dict[str, Any] = {
            "status": "not_ready" if problems else "ready",
            "problems": problems,
            "waiting_texts": engine().waiting,
            "asked_seconds_ago": round(LIVE.age, 1),
            "spooled": spooled(),
            "models": [description_of(served) for served in LIVE.current().classifiers.values()],
        }
        return Response(details)


def spooled() -> dict[str, Any]:
    """How the spool stands: whether this process writes to it, and what waits on this machine."""
    waiting = spooling.waiting()
    return {
        "active": spooling.SPOOL.is_away,
        "answers": waiting.answers,
        "bytes": waiting.bytes,
        "since": waiting.since or None,
        "set_aside": waiting.set_aside,
    }


def find_problems() -> list[str]:
    """Why this process should get no traffic; says nothing that a stranger should not know.

    Without its database a process that has its models goes on answering as long as the spool has room.
    """
    if spooling.SPOOL.is_away:
        return problems_without_database()
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if unapplied_migrations():
            return ["database: migrations are missing; run `manage.py setup`"]
        picture = LIVE.current()
    except (DatabaseError, KalimtakError) as error:
        logger.warning("Not ready: %s", error)
        return problems_without_database()
    if LIVE.age > STALE_SECONDS:
        return ["models: the live deployments were not read for a while"]
    return missing_models(picture)


def problems_without_database() -> list[str]:
    """A process that never was ready does not know what to answer with."""
    if not LIVE.is_started:
        return ["database: cannot be reached"]
    if not spooling.can_go_on():
        return ["database: cannot be reached, and the spool is nearly full"]
    return missing_models(LIVE.current())


def missing_models(picture: Picture) -> list[str]:
    """Classifiers whose deployed version failed to load, with none before it to go on answering."""
    return [
        f"models: the live version of {slug} cannot be loaded"
        for slug in picture.failed
        if not picture.classifiers[slug].live
    ]


def unapplied_migrations() -> bool:
    """Asked until the answer is no: a process never sees its database go back."""
    if not _migrated.is_set():
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return True
        _migrated.set()
    return False
