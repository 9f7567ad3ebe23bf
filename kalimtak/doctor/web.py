"""Is the configuration fit for visitors, and does the web server answer?"""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from django.core import checks

from kalimtak.doctor.diagnosis import Diagnosis, Options, ok, problem, warning

ANSWER_SECONDS = 5.0


def settings_are_sound(options: Options) -> Iterator[Diagnosis]:
    """What `manage.py check --deploy` says, in one line."""
    messages = [found for found in checks.run_checks(include_deployment_checks=True) if not found.is_silenced()]
    errors = [found for found in messages if found.level >= checks.ERROR]
    for found in errors:
        yield problem("settings", f"{found.id}: {found.msg}", found.hint or "See `manage.py check --deploy`.")
    others = sorted({str(found.id) for found in messages if checks.WARNING <= found.level < checks.ERROR})
    if others:
        what = f"not yet fit for the open internet: {', '.join(others)}"
        yield warning("settings", what, "`manage.py check --deploy` explains each; docs/operations.md: Behind a proxy.")
    if not errors and not others:
        yield ok("settings", "`check --deploy` has nothing to say")


def server_is_ready(options: Options) -> Iterator[Diagnosis]:
    """`/readyz` of the server that should be at `--url`."""
    if not options.url:
        return
    address = urlsplit(options.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        yield problem("web", f"{options.url} is no address", "Write it as http://127.0.0.1:8000.")
        return
    try:
        status, body = _readyz(address)
    except (OSError, HTTPException) as error:
        remedy = "Start it: `manage.py up`, or the `web` of Procfile."
        yield problem("web", f"{options.url} does not answer: {error}", remedy)
        return
    if status == 200:
        yield ok("web", f"{options.url} is ready")
    else:
        remedy = "It comes back by itself once that is mended; restart it if it does not."
        yield problem("web", f"{options.url} answers {status}: {_reasons(body)}", remedy)


def _readyz(address: SplitResult) -> tuple[int, bytes]:
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"{address.path.rstrip('/')}/readyz", headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(100_000)
    finally:
        connection.close()


def _reasons(body: bytes) -> str:
    """What the server said is the matter with it."""
    try:
        return "; ".join(map(str, json.loads(body)["problems"]))
    except (ValueError, LookupError, TypeError):
        return "no reason given"
