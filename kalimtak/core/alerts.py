"""What needs a person: opened by whatever notices it, shown on the first page of the admin, closed when it is over."""

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from . import audit
from .errors import Conflict
from .models import Alert

SYSTEM = "system"
MESSAGE_LENGTH = 500


def alert_open(kind: str, target: str, message: str) -> None:
    """Tell staff that something is wrong with `target`; once more where that is told already.

    `message` is in words of our own and names the remedy. Safe to call from several processes at once.
    """
    message, now = message[:MESSAGE_LENGTH], timezone.now()
    if _again(kind, target, message):
        return
    try:
        with transaction.atomic():
            Alert.objects.create(kind=kind, target=target[:200], message=message, opened_at=now, last_at=now)
    except IntegrityError:  # another process was first
        _again(kind, target, message)


def _again(kind: str, target: str, message: str) -> bool:
    known = alerts_open().filter(kind=kind, target=target[:200])
    return bool(known.update(message=message, count=F("count") + 1, last_at=timezone.now()))


def alert_over(kind: str, target: str) -> bool:
    """What was wrong is right again; True where an alert was open."""
    known = alerts_open().filter(kind=kind, target=target[:200])
    return bool(known.update(closed_at=timezone.now(), closed_by=SYSTEM))


def alert_close(alert: Alert, *, actor: str) -> None:
    """Somebody has seen to it. What is still wrong opens a new alert. Raises `Conflict` if it was closed already."""
    with transaction.atomic():
        if not alerts_open().filter(pk=alert.pk).update(closed_at=timezone.now(), closed_by=actor):
            raise Conflict("This alert is closed already.", code="already_closed")
        audit.record(actor, "alert.close", f"alert {alert.kind}: {alert.target}")


def alerts_open() -> QuerySet[Alert]:
    return Alert.objects.filter(closed_at=None)
