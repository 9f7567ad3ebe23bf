"""When the database or a disk is away: one answer for every door, 503 with `Retry-After`, and no word of what it said.

Away means whatever a second try may cure: not reached, restarted, out of connections, locked, out of time, out of
space, or read-only (a standby, before it is promoted).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from .errors import Unavailable, is_disk_full

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2
SQLITE_ERROR = 1  # https://sqlite.org/rescode.html#error: the statement is wrong, and will be next time
SQLITE_FULL = 13
DISK_FULL = "53100"
READ_ONLY_TRANSACTION = "25006"  # https://www.postgresql.org/docs/15/errcodes-appendix.html


_DISK_FULL = Unavailable("The disk is full; nothing was stored.", code="disk_full", retry_after=60)


def outage_of(error: BaseException | None) -> Unavailable | None:
    """The 503 that `error` calls for; None if it is no outage but a fault of ours."""
    if error is not None and is_disk_full(error):
        return _DISK_FULL
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    cause = error.__cause__
    if getattr(cause, "sqlite_errorcode", None) == SQLITE_FULL or getattr(cause, "sqlstate", None) == DISK_FULL:
        return _DISK_FULL
    is_away = isinstance(error, OperationalError | InterfaceError)
    if getattr(cause, "sqlite_errorcode", None) == SQLITE_ERROR:
        is_away = False
    if isinstance(error, InternalError) and getattr(cause, "sqlstate", None) == READ_ONLY_TRANSACTION:
        is_away = True
    if not is_away:
        return None
    return Unavailable("The database cannot be used just now; try again.", retry_after=RETRY_SECONDS)


def unavailable(request: HttpRequest, error: BaseException, outage: Unavailable, *, as_json: bool) -> HttpResponse:
    """The answer to a request that met an outage: JSON for programs, a page for people."""
    # The first line only: PostgreSQL's further lines may quote the row, which is people's text.
    logger.warning("The database is away: %s: %s", type(error).__name__, str(error).partition("\n")[0])
    if as_json:
        response: HttpResponse = JsonResponse(outage.body(), status=503)
    else:
        # Without the request: its context would ask the database who is calling.
        response = HttpResponse(render_to_string("unavailable.html"), status=503)
    response["Retry-After"] = str(outage.retry_after)
    response["Cache-Control"] = "no-store"
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


@contextmanager
def lock_patience(seconds: float) -> Iterator[None]:
    """Transactions begun in here wait so long for another writer of SQLite, not the usual 20 s.

    PostgreSQL has its `lock_timeout`.
    """
    if connection.vendor == "sqlite":
        with connection.limited_patience(seconds):  # type: ignore[attr-defined]  # our own backend's
            yield
    else:
        yield
