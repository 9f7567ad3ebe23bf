"""Every invariant of an installation, looked at twice: what `manage.py fsck` reports, and tests after each crash.

The apps own the checks (`<app>/invariants.py`); the tables themselves are checked here. A finding counts when it was
there both times, since rows and files of work in progress are for a moment of two minds.
"""

import logging
import re
import time
from collections.abc import Iterator

from django.apps import apps
from django.db import InterfaceError, OperationalError, connection
from django.db.models import CheckConstraint, Model, UniqueConstraint

from interactions import invariants as interactions
from kalimtak.core import invariants as core
from kalimtak.core.commands import Report, silent
from kalimtak.core.findings import Check, Finding, Look, error
from registry import invariants as registry
from training import invariants as training

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0  # a transaction of ours is over by then
OUR_APPS = ("core", "registry", "interactions", "training")
_NAMED_RULE = re.compile(r'(?:\bCONSTRAINT|^CREATE UNIQUE INDEX) "([^"]+)"')
_RESTORE = "Stop all processes and restore a backup: `manage.py restore DIR`."


def tables_are_sound(look: Look) -> Iterator[Finding]:
    """SQLite finds no damaged page and no reference that leads nowhere; PostgreSQL guards both by itself."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA quick_check(10)" if look.quick else "PRAGMA integrity_check(10)")
        for (line,) in cursor.fetchall():
            if line != "ok":
                yield error("database", f"SQLite reports: {line}", _RESTORE)
        cursor.execute("PRAGMA foreign_key_check")
        for table, row, target, _ in cursor.fetchmany(20):
            yield error(f"table {table}", f"row {row} refers to a row of {target} that is gone", _RESTORE)


def constraints_are_there(look: Look) -> Iterator[Finding]:
    """The database itself holds what may exist only once; without these rules two of our processes could disagree."""
    remedy = "The tables were made or restored without them: restore a backup, or ask for help with the migrations."
    for label in OUR_APPS:
        for model in apps.get_app_config(label).get_models():
            for name in _missing_constraints(model):
                yield error(f"table {model._meta.db_table}", f"its constraint {name} is missing", remedy)


def _missing_constraints(model: type[Model]) -> Iterator[str]:
    table = model._meta.db_table
    names, unique = _rules_of_sqlite(table) if connection.vendor == "sqlite" else _rules_of(table)
    for constraint in model._meta.constraints:
        if isinstance(constraint, UniqueConstraint | CheckConstraint) and constraint.name not in names:
            yield constraint.name
    for field in model._meta.concrete_fields:
        if field.unique and (field.column,) not in unique:
            yield f"unique {field.column}"


def _rules_of(table: str) -> tuple[set[str], set[tuple[str, ...]]]:
    """The names of a table's constraints, and which columns may not repeat together."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    unique = {tuple(each["columns"] or ()) for each in found.values() if each["unique"] or each["primary_key"]}
    return set(found), unique


def _rules_of_sqlite(table: str) -> tuple[set[str], set[tuple[str, ...]]]:
    """The same; Django's way parses each table's SQL in Python, which took two thirds of a whole look."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sql FROM sqlite_master WHERE tbl_name = %s AND sql IS NOT NULL", [table])
        names = {name for (sql,) in cursor.fetchall() for name in _NAMED_RULE.findall(sql)}
        cursor.execute("SELECT name FROM pragma_table_info(%s) WHERE pk ORDER BY pk", [table])
        unique = {tuple(name for (name,) in cursor.fetchall())}
        cursor.execute('SELECT name FROM pragma_index_list(%s) WHERE "unique" AND NOT partial', [table])
        for (index,) in cursor.fetchall():
            cursor.execute("SELECT name FROM pragma_index_info(%s) ORDER BY seqno", [index])
            unique.add(tuple(name for (name,) in cursor.fetchall()))
    return names, unique


CHECKS: tuple[Check, ...] = (
    tables_are_sound,
    constraints_are_there,
    *core.CHECKS,
    *registry.CHECKS,
    *interactions.CHECKS,
    *training.CHECKS,
)


def find(
    *,
    quick: bool = False,
    report: Report = silent,
    checks: tuple[Check, ...] = CHECKS,
    settle_seconds: float = SETTLE_SECONDS,
) -> list[Finding]:
    """What is not as it must always be, errors first. `quick` does not read the contents of files and texts.

    Raises `OperationalError` or `InterfaceError` where the database cannot be reached.
    """
    suspected: dict[Check, set[Finding]] = {}
    for index, check in enumerate(checks):
        if found := _look(check, _share(report, index, len(checks), check), quick):
            suspected[check] = found
    if suspected:
        time.sleep(settle_seconds)
    return sorted(finding for check, found in suspected.items() for finding in found & _look(check, silent, quick))


def _look(check: Check, report: Report, quick: bool) -> set[Finding]:
    """A check that breaks off on what it meets has found something, and the others go on."""
    found: set[Finding] = set()
    try:
        found.update(check(Look(quick=quick, report=report)))
    except (OperationalError, InterfaceError):
        raise
    except Exception as problem:
        logger.exception("Check %s broke off", check.__name__)
        what = f"this check broke off: {type(problem).__name__}: {str(problem).partition(chr(10))[0]}"
        found.add(error(name_of(check), what, "A row or file it met is of a form that cannot be; the log says where."))
    return found


def name_of(check: Check) -> str:
    """What a check holds true, in words."""
    return check.__name__.replace("_", " ")


def _share(report: Report, index: int, count: int, check: Check) -> Report:
    """A report of one check among `count` as a report of all of them; silent stays silent."""
    if report is silent:
        return silent
    report(index / count, name_of(check))

    def of_all(fraction: float, note: str = "") -> None:
        report((index + fraction) / count, note or name_of(check))

    return of_all
