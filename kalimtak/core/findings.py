"""What the checks of an installation say and how they look: `manage.py fsck` gathers each app's `invariants.CHECKS`.

A check is a generator of findings. It writes nothing, reads in key order with a short query per batch (so that it may
run beside a busy installation), and may meet rows and files that are being written this moment: whoever gathers the
findings looks twice and keeps what was there both times.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

from .commands import Report, silent

ERROR, WARNING = "error", "warning"
BATCH = 1_000


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it must always be, and what a person does about it.

    An `error` is damage or a contradiction; a `warning` is work or tidying that is late, or damage that is known.
    """

    severity: str
    where: str
    what: str
    remedy: str


class Look:
    """How thoroughly a check looks, and whom it tells how far it is. `quick` leaves the contents of files unread."""

    def __init__(self, *, quick: bool = False, report: Report = silent) -> None:
        self.quick = quick
        self.report = report

    def rows(self, queryset: "QuerySet[Any, Any]", *, batch: int = BATCH) -> Iterator[Any]:
        """The rows in the order of their keys, one query per batch. Named tuples need `pk` among their columns."""
        total = self._estimate(queryset.model) if self.report is not silent else 0
        seen = 0
        for rows in batches(queryset, size=batch):
            yield from rows
            seen += len(rows)
            self.report(min(seen / total, 1.0) if total else 0.0)

    @staticmethod
    def _estimate(model: type[Model]) -> int:
        return model._default_manager.count()


Check = Callable[[Look], Iterator[Finding]]


def batches(queryset: "QuerySet[Any, Any]", *, size: int = BATCH) -> Iterator[list[Any]]:
    """The rows of `queryset` in the order of their keys, `size` at a time, each in a query of its own.

    A reader that stays in one query for minutes would keep SQLite's log from being folded back.
    """
    ordered = queryset.order_by("pk")
    rows = list(ordered[:size])
    while rows:
        yield rows
        rows = list(ordered.filter(pk__gt=rows[-1].pk)[:size]) if len(rows) == size else []


def error(where: object, what: str, remedy: str) -> Finding:
    return Finding(ERROR, str(where), what, remedy)


def warning(where: object, what: str, remedy: str) -> Finding:
    return Finding(WARNING, str(where), what, remedy)


def outside(model: type[Model], *columns: str) -> Iterator[tuple[str, str, int]]:
    """(column, value, rows) for values that are none of a column's choices, which no database checks for us."""
    for column in columns:
        allowed = [value for value, _ in getattr(model._meta.get_field(column), "flatchoices", ())]
        odd = model._default_manager.exclude(**{f"{column}__in": allowed}).order_by().values_list(column)
        for (value,) in odd.distinct()[:10]:
            yield column, value, model._default_manager.filter(**{column: value}).count()
