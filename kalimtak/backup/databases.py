"""The two databases, as a backup sees them: a copy at one instant while others write, and the way back."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg
from django.db import connection
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from kalimtak.core.errors import Conflict, InvalidInput, Unavailable
from kalimtak.core.sqlite import Database
from registry.manifest import fsync_path
from registry.models import Classifier, ModelVersion
from training.models import Dataset

ASIDE = "before_"  # with a time: the schema of what a restore moved out of the way
Ask = Callable[[str], list[Any]]


@dataclass(frozen=True)
class Snapshot:
    """What the copied database knows of files: (slug, number) of versions, digests of uploads, and its migrations."""

    versions: list[tuple[str, int]]
    uploads: list[str]
    migrations: list[str]
    engine_version: str

    @classmethod
    def of(cls, ask: Ask, engine_version: str) -> "Snapshot":
        version, classifier = ModelVersion._meta.db_table, Classifier._meta.db_table
        versions = ask(
            f"SELECT c.slug, v.number FROM {version} v "  # noqa: S608  (our own table names)
            f"JOIN {classifier} c ON c.id = v.classifier_id ORDER BY 1, 2"
        )
        uploads = ask(f"SELECT DISTINCT digest FROM {Dataset._meta.db_table} WHERE digest <> '' ORDER BY 1")  # noqa: S608
        migrations = ask("SELECT app, name FROM django_migrations ORDER BY id")
        return cls(
            [(slug, number) for slug, number in versions],
            [digest for (digest,) in uploads],
            [f"{app}.{name}" for app, name in migrations],
            engine_version,
        )


class Engine(Protocol):
    """One kind of database. `file_name` is what its copy is called in a backup."""

    name: str
    file_name: str

    def size(self) -> int:
        """Bytes, about."""
        ...

    def dump(self, target: Path) -> Snapshot:
        """Write a copy of the whole database at one instant to `target`; what that copy knows of files."""
        ...

    def refuse_company(self) -> None:
        """Raise `Conflict` where another process uses the database."""
        ...

    def is_empty(self) -> bool:
        """No table of ours is there."""
        ...

    def check_readable(self, dump: Path) -> None:
        """Raise `InvalidInput` or `Unavailable` where `dump` cannot be restored here."""
        ...

    def load(self, dump: Path, stamp: str) -> str:
        """Put `dump` in the place of what is there, which is kept aside under a name with `stamp`; that name."""
        ...


def engine() -> Engine:
    """The engine that DATABASE_URL names."""
    return Postgres() if connection.vendor == "postgresql" else Sqlite()


@contextmanager
def drivers_errors() -> Iterator[None]:
    """What goes on beside Django's connection fails with the drivers' errors: raise `Unavailable` in their place."""
    try:
        yield
    except (Database.Error, psycopg.Error) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"The database cannot be used: {lines[0]}", code="database_away") from error


# SQLite ----------------------------------------------------------------------------------------------------------


class Sqlite:
    name, file_name = "sqlite", "database.sqlite3"

    @property
    def path(self) -> Path:
        """With links followed: that is how other processes' open files are told, and what must be exchanged."""
        return Path(connection.settings_dict["NAME"]).resolve()

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def dump(self, target: Path) -> Snapshot:
        """By SQLite's online-backup API in one step: one read transaction, beside which others go on writing."""
        if not self.path.is_file():
            raise InvalidInput(f"There is nothing to back up: {self.path} is missing.")
        with closing(Database.connect(self.path, timeout=60)) as source, closing(Database.connect(target)) as copy:
            source.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            (sound,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise Conflict(f"The database is damaged and was not backed up: {sound}. Keep your earlier backups.")
            snapshot = Snapshot.of(lambda sql: list(copy.execute(sql)), Database.sqlite_version)
        fsync_path(target)
        return snapshot

    def refuse_company(self) -> None:
        holders = [process.pid for process in psutil.process_iter() if self._is_held_by(process)]
        if holders:
            who = ", ".join(map(str, sorted(holders)))
            raise Conflict(f"The database is in use by process {who}; stop all processes of this installation first.")

    def _is_held_by(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and any(Path(opened.path) == self.path for opened in process.open_files())
        except (psutil.Error, OSError):
            return False

    def _refuse_hidden_company(self) -> None:
        """Leaving the write-ahead log takes the file for oneself: it shows other accounts' and containers' users."""
        if not self.path.exists():
            return
        with closing(Database.connect(self.path, timeout=1)) as database:
            try:
                database.execute("PRAGMA journal_mode=DELETE").fetchone()
            except Database.OperationalError as error:
                raise Conflict("The database is in use; stop all processes of this installation first.") from error
            except Database.DatabaseError:  # a damaged file is no reason not to restore
                return

    def is_empty(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with closing(Database.connect(self.path)) as database:
            return not database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    def check_readable(self, dump: Path) -> None:
        """Its hash was checked, and its soundness when it was made."""

    def load(self, dump: Path, stamp: str) -> str:
        """By renames: the new file lies beside the old one, whole and on the disk, before anything is moved."""
        connection.close()
        self._refuse_hidden_company()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.restoring")
        shutil.copyfile(dump, draft)
        fsync_path(draft)
        aside = self.path.with_name(f"{self.path.name}.before-{stamp}")
        kept = ""
        for tail in ("-wal", "-shm", ""):
            old = self.path.with_name(self.path.name + tail)
            if old.exists():
                old.rename(aside.with_name(aside.name + tail))
                kept = str(aside)
        draft.rename(self.path)
        fsync_path(self.path.parent)
        return kept


# PostgreSQL ------------------------------------------------------------------------------------------------------


class Postgres:
    name, file_name = "postgresql", "database.dump"

    def size(self) -> int:
        with self._session() as session:
            row = session.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0])

    def dump(self, target: Path) -> Snapshot:
        """By `pg_dump` on a snapshot that our own transaction shares, so that both see the same instant."""
        program = self._program("pg_dump")
        with self._session() as session, session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            exported, version = session.execute(
                "SELECT pg_export_snapshot(), current_setting('server_version')"
            ).fetchone()
            self._run(
                [program, "--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s"],
                [f"--exclude-schema={ASIDE}*", f"--snapshot={exported}", f"--file={target}"],
            )
            snapshot = Snapshot.of(lambda sql: session.execute(sql).fetchall(), version)
        fsync_path(target)
        return snapshot

    def refuse_company(self) -> None:
        with self._session() as session:
            (others,) = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
        if others:
            raise Conflict(f"{others} other sessions use the database; stop all processes of this installation first.")

    def is_empty(self) -> bool:
        with self._session() as session:
            row = session.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public' LIMIT 1").fetchone()
        return row is None

    def check_readable(self, dump: Path) -> None:
        done = subprocess.run([self._program("pg_restore"), "--list", str(dump)], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"pg_restore cannot read the dump: {_complaint(done.stderr)} It was made by a newer one.")

    def load(self, dump: Path, stamp: str) -> str:
        """What is there becomes the schema `before_<stamp>`, and comes back where the dump does not go in."""
        connection.close()
        was_empty, aside = self.is_empty(), ASIDE + stamp.replace("-", "_")
        restore = [self._program("pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error"]
        with self._session() as session, session.transaction():
            if not was_empty:
                session.execute(f"ALTER SCHEMA public RENAME TO {aside}")
                session.execute("CREATE SCHEMA public")
                session.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        try:
            self._run([*restore, "--single-transaction"], [str(dump)])
        except BaseException:
            if not was_empty:
                with self._session() as session, session.transaction():
                    session.execute("DROP SCHEMA public CASCADE")
                    session.execute(f"ALTER SCHEMA {aside} RENAME TO public")
            raise
        return "" if was_empty else f"schema {aside}"

    def _program(self, name: str) -> str:
        with self._session() as session:
            (number,) = session.execute("SELECT current_setting('server_version_num')::int").fetchone()
        return program_for(name, number // 10_000, programs(name))

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """A session of our own, beside Django's."""
        with psycopg.connect(**self._parameters(), autocommit=True) as session:
            yield session

    def _run(self, command: list[str], arguments: list[str]) -> None:
        """Raises `Unavailable` with the program's complaint. The password goes by the environment, which others of
        this machine cannot read."""
        parameters = self._parameters()
        password = str(parameters.pop("password", "") or "")
        conninfo = make_conninfo("", **parameters)
        environment = os.environ | ({"PGPASSWORD": password} if password else {})
        done = subprocess.run(
            [*command, f"--dbname={conninfo}", *arguments], capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise Unavailable(f"{Path(command[0]).name} failed: {_complaint(done.stderr)}")

    def _parameters(self) -> dict[str, Any]:
        """As Django connects, what libpq does not know left out."""
        known = {option.keyword.decode() for option in Conninfo.get_defaults()}
        return {name: value for name, value in connection.get_connection_params().items() if name in known}


def programs(name: str) -> dict[int, str]:
    """PostgreSQL's programs of that name by major version; Debian keeps most off the PATH."""
    found = [str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    found += [path] if (path := shutil.which(name)) else []
    said = {path: subprocess.run([path, "--version"], capture_output=True, text=True).stdout for path in found}
    versions = {path: re.search(r"\) (\d+)", text) for path, text in said.items()}  # pg_dump (PostgreSQL) 15.8
    return {int(version[1]): path for path, version in versions.items() if version}


def program_for(name: str, server: int, known: dict[int, str]) -> str:
    """The program of the server's own version, else the next newer one. Raises `Unavailable` where there is none.

    From 17 on, `pg_restore` says `SET transaction_timeout`, which older servers refuse, and older `pg_restore` do not
    read what a newer `pg_dump` wrote.
    """
    newest = 16 if server < 17 else max(known, default=server)
    fitting = [major for major in sorted(known) if server <= major <= newest]
    if fitting:
        return known[fitting[0]]
    there = f" (version {', '.join(map(str, sorted(known)))} is)" if known else ""
    raise Unavailable(
        f"{name} for PostgreSQL {server} is not installed{there}; install the client programs of the server's version "
        f"(postgresql-client-{server})."
    )


def _complaint(output: str) -> str:
    """What a program of PostgreSQL says went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return f"{(errors or lines)[0]}." if lines else "it said nothing."
