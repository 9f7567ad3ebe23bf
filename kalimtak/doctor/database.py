"""Does the database answer, is it the right one, and does it know what time it is?"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor

from kalimtak.core.invariants import database_now
from kalimtak.core.outages import lock_patience
from kalimtak.core.sqlite import USES_WHEEL, Database, wal_is_safe
from kalimtak.doctor.diagnosis import Diagnosis, Options, ago, first_line, ok, problem, warning

STATEMENT_SECONDS = 5
SLOW_SECONDS = 1.0
JUST_RESTARTED = timedelta(minutes=10)
LOCK_SECONDS = 2.0  # that writing may take
OLDEST_POSTGRES = 140_000
FULL_SHARE = 0.9  # of the server's connections
CLOCK_WARNING, CLOCK_PROBLEM = timedelta(seconds=2), timedelta(seconds=30)
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)  # no machine that runs this release can be older

NAME = "database"


def database_answers(options: Options) -> Iterator[Diagnosis]:
    """Reachable, writable, of a version without known corruption, quick."""
    began = time.monotonic()
    try:
        _refuse_to_make_a_file()
        connection.ensure_connection()
        connect_seconds = time.monotonic() - began
        found = list(_postgres() if connection.vendor == "postgresql" else _sqlite())
    except (DatabaseError, InterfaceError, OSError) as error:
        yield problem(NAME, f"does not answer: {first_line(error)}", _away_remedy())
        return
    if connect_seconds > SLOW_SECONDS:
        what = f"took {connect_seconds:.1f} s to connect"
        yield warning(NAME, what, "Look at the server's load and at the network between.")
    yield from found


def _away_remedy() -> str:
    if connection.vendor == "sqlite":
        path = settings.DATABASES["default"]["NAME"]
        return f"Is {path} there, this user's, and its disk not full? Restore a lost one; `setup` makes a first one."
    return "Start PostgreSQL, or correct DATABASE_URL. Answering goes on by itself once it is back."


def _refuse_to_make_a_file() -> None:
    """SQLite would answer a lost file with an empty one."""
    path = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite" and not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing")


def _postgres() -> Iterator[Diagnosis]:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        cursor.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
            "pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', "
            "extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float, "
            "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
            "current_setting('max_connections')::int"
        )
        number, version, read_only, up_seconds, used, most = cursor.fetchone()
    sound = True
    if number < OLDEST_POSTGRES:
        sound = False
        yield problem(NAME, f"PostgreSQL {version} is too old", "Upgrade it to version 15 or newer.")
    if read_only:
        sound = False
        yield problem(NAME, "PostgreSQL is read-only (a standby?)", "Name the primary server in DATABASE_URL.")
    if used >= FULL_SHARE * most:
        sound = False
        remedy = "Raise max_connections, lower KALIMTAK_DATABASE_POOL, or put a pooler between."
        yield warning(NAME, f"{used} of {most} connections are taken", remedy)
    if up_seconds < JUST_RESTARTED.total_seconds():
        sound = False
        remedy = "Processes reconnect by themselves; restart one whose /readyz stays 503 (`--url` asks it)."
        yield warning(NAME, f"PostgreSQL was restarted {ago(up_seconds)} ago", remedy)
    if sound:
        yield ok(NAME, f"PostgreSQL {version}, up for {ago(up_seconds)}, {used} of {most} connections")


def _sqlite() -> Iterator[Diagnosis]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        (journal,) = cursor.fetchone()
        if wal_is_safe(Database.sqlite_version_info) and journal != "wal":
            yield warning(NAME, f"SQLite journals by {journal}, not wal", "Is the file on a network share? Move it.")
        if not (USES_WHEEL and wal_is_safe(Database.sqlite_version_info)):
            what = f"SQLite {Database.sqlite_version} may corrupt a WAL database; the slower rollback journal is used"
            yield warning(NAME, what, "Install the pysqlite3 wheel named in requirements.txt.")
        try:
            with lock_patience(LOCK_SECONDS):
                cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("ROLLBACK")
        except DatabaseError as error:
            remedy = "Is a process stuck in a transaction, the file read-only, or the disk full? Answers wait for it."
            yield problem(NAME, f"cannot be written: {first_line(error)}", remedy)
            return
    yield ok(NAME, f"SQLite {Database.sqlite_version} ({journal}), {settings.DATABASES['default']['NAME']}")


def tables_are_up_to_date(options: Options) -> Iterator[Diagnosis]:
    """The tables are those of this code, neither older nor newer."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    apps = executor.loader.migrated_apps
    unknown = [
        f"{app}.{name}"
        for app, name in executor.loader.applied_migrations
        if app in apps and (app, name) not in executor.loader.disk_migrations
    ]
    if missing:
        what = f"{len(missing)} migrations are missing, the first {missing[0][0]}"
        yield problem("migrations", what, "Stop the processes and run `manage.py setup`.")
    if unknown:
        what = f"the database is newer than this code: {', '.join(sorted(unknown)[:3])}"
        yield problem("migrations", what, "Install the release that made it, or restore a backup of this one.")
    if not missing and not unknown:
        yield ok("migrations", "all are applied")


def clocks_agree(options: Options) -> Iterator[Diagnosis]:
    """Leases go by the database's clock, schedules and the times of answers by this machine's."""
    remedy = "Let both machines keep time by NTP: `timedatectl set-ntp true`."
    began = datetime.now(UTC)
    theirs = database_now()
    ours = began + (datetime.now(UTC) - began) / 2
    apart = abs(theirs - ours)
    if ours < EARLIEST:
        yield problem("clock", f"this machine believes it is {ours:%Y-%m-%d}", remedy)
    elif apart > CLOCK_WARNING:
        state = problem if apart > CLOCK_PROBLEM else warning
        yield state("clock", f"the database's clock is {apart.total_seconds():.0f} s away from this machine's", remedy)
    else:
        yield ok("clock", f"{ours:%Y-%m-%d %H:%M:%S} UTC; schedules go by {settings.TIME_ZONE}")
