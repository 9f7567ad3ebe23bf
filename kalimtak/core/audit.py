"""The audit trail: a chain of rows in which each carries the hash of the one before (compare RFC 9162 § 2)."""

import hashlib
import json
from datetime import datetime
from itertools import chain
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from .crashpoints import crashpoint
from .findings import batches
from .models import AuditEvent

GENESIS = "0" * 64
LOCK_KEY = 0x6B616C696D74616B  # "kalimtak": one writer at a time on PostgreSQL; SQLite has one writer anyway


def record(actor: str, action: str, target: str, **data: Any) -> AuditEvent:
    """Append an event in the caller's transaction. `data` must be JSON and hold no user text."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        last = AuditEvent.objects.order_by("-pk").values_list("hash", flat=True).first() or GENESIS
        at = timezone.now()
        crashpoint("audit.before_row")
        return AuditEvent.objects.create(
            at=at,
            actor=actor[:150],
            action=action,
            target=target[:200],
            data=data,
            previous_hash=last,
            hash=_digest(last, at, actor[:150], action, target[:200], data),
        )


def verify() -> list[str]:
    """Walk the chain from its start; one sentence per broken row, nothing when it is whole."""
    problems = []
    previous = GENESIS
    for event in chain.from_iterable(batches(AuditEvent.objects.all())):
        if event.previous_hash != previous:
            problems.append(f"Event {event.pk}: the event before it was changed or removed.")
        expected = _digest(event.previous_hash, event.at, event.actor, event.action, event.target, event.data)
        if event.hash != expected:
            problems.append(f"Event {event.pk}: its content was changed.")
        previous = event.hash
    return problems


def _digest(previous: str, at: datetime, actor: str, action: str, target: str, data: dict[str, Any]) -> str:
    parts = [previous, at.isoformat(), actor, action, target, json.dumps(data, sort_keys=True, ensure_ascii=True)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
