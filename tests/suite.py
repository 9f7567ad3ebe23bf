"""The whole suite on whatever this machine has; `make test` calls it with its ARGS, which go to pytest.

Everything runs on SQLite. Where a PostgreSQL server is found, what is marked `postgres` runs there as well, with Redis
as the cache if one answers. KALIMTAK_TEST_STRICT=1 is for merging: everything on both databases, side by side, what is
marked `alone` or `clock` by itself afterwards; a service that is missing, or a test of one that was skipped everywhere,
fails. The last line sums up all passes as pytest does one, each test counted once.
"""

import getpass
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from tests.installation import prepared_database

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
SERVICES = {"postgres", "redis", "browser"}
FAULTS, FAULTS_SUFFIX = "tests/faults", "_faults"
# What is tried there knows no database, and some of it takes seconds to import.
PURE = [f"tests/{name}" for name in ("registry/families", "test_notebook.py", "test_architecture.py", "test_house.py")]
WORSE = ["skipped", "passed", "failed", "error"]
NO_TESTS = 5  # pytest's exit status
TELL_SECONDS = 60
FILES_TOLD = 25


@dataclass(frozen=True)
class Pass:
    """One run of pytest: what it is called, on what, which tests; its output and outcomes go to `folder`."""

    name: str
    environment: dict[str, str]
    marked: str
    folder: Path
    arguments: Sequence[str] = field(default=())

    @property
    def output(self) -> Path:
        return self.folder / f"{self.name}.txt"

    @property
    def outcomes(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "pytest", *(["-m", self.marked] if self.marked else []), *self.arguments]

    def variables(self) -> dict[str, str]:
        # Hundreds of processes start: each would compile all of the project where bytecode may not be kept.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return inherited | self.environment | {"KALIMTAK_TEST_OUTCOMES": str(self.outcomes)}

    def read(self) -> list[dict[str, object]]:
        """One entry per test tried: `id`, `outcome` (see `tests/conftest.py`), `marks`, `reason`, `seconds`."""
        return [entry for entry in self._lines() if entry["outcome"] != "alone"]

    def files_left_for_alone(self) -> list[str]:
        return sorted({str(entry["id"]).partition("::")[0] for entry in self._lines() if entry["outcome"] == "alone"})

    def _lines(self) -> list[dict[str, object]]:
        lines = self.outcomes.read_text().splitlines() if self.outcomes.exists() else []
        return [json.loads(line) for line in lines]


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    strict = os.environ.get("KALIMTAK_TEST_STRICT", "0") == "1"
    postgres, cache = find_postgres(), find_redis()
    print(f"PostgreSQL  {shown(postgres) or 'none found; set KALIMTAK_TEST_DATABASE_URL to run what needs it'}")
    print(f"Redis       {shown(cache) or 'none found; set KALIMTAK_TEST_REDIS_URL to run what needs it'}")
    print(f"Browser     {CHROMIUM if CHROMIUM.exists() else f'none; install chromium as {CHROMIUM}'}", flush=True)
    if strict and not (postgres and cache and CHROMIUM.exists()):
        print("A service is missing, and KALIMTAK_TEST_STRICT=1 wants them all.")
        return 1
    database = f"kalimtak_suite_{uuid.uuid4().hex[:12]}"
    folder = Path(tempfile.mkdtemp(prefix="kalimtak-suite-"))
    prepared = folder / "prepared"
    prepared.mkdir()
    os.environ["KALIMTAK_TEST_PREPARED"] = str(prepared)
    sqlite = {"KALIMTAK_TEST_DATABASE_URL": "", "KALIMTAK_TEST_REDIS_URL": "" if postgres else cache}
    server = {"KALIMTAK_TEST_DATABASE_URL": named(postgres, database), "KALIMTAK_TEST_REDIS_URL": cache}
    try:
        if strict:
            passes, statuses = run_everything(sqlite, server, folder, arguments)
        else:
            passes = [Pass("sqlite", sqlite, "", folder, arguments)]
            passes += (
                [Pass("postgresql", server, "postgres and not own_servers", folder, arguments)] if postgres else []
            )
            statuses = [run(each) for each in passes]
        tell_where_the_time_went(passes)
        missed = tell_what_was_not_tested(passes)
        print(sum_up(passes, statuses, time.monotonic() - began), flush=True)
    finally:
        if postgres:
            drop(postgres, f"test_{database}")
            drop(postgres, f"test_{database}{FAULTS_SUFFIX}")
            drop(postgres, prepared_database(prepared))
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(statuses) or (strict and missed) else 0


# What is there ----------------------------------------------------------------------------------------------------


def find_postgres() -> str:
    """The URL of a server that answers and lets us create databases; empty if there is none."""
    given = os.environ.get("KALIMTAK_TEST_DATABASE_URL", "")
    url = named(given or f"postgres://{getpass.getuser()}@127.0.0.1:5432/postgres", "postgres")
    may_create = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    try:
        with psycopg.connect(url, connect_timeout=3) as connection:
            row = connection.execute(may_create).fetchone()
    except psycopg.Error as error:
        if given:
            sys.exit(f"KALIMTAK_TEST_DATABASE_URL cannot be used: {error}")
        return ""
    return url if row and row[0] else ""


def find_redis() -> str:
    """The URL of a server that answers; empty if there is none."""
    given = os.environ.get("KALIMTAK_TEST_REDIS_URL", "")
    url = given or "redis://127.0.0.1:6379/9"
    try:
        redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3).ping()
    except redis.RedisError as error:
        if given:
            sys.exit(f"KALIMTAK_TEST_REDIS_URL cannot be used: {error}")
        return ""
    return url


def named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}")) if url else ""


def shown(url: str) -> str:
    """Without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if url else ""


def drop(server: str, database: str) -> None:
    """What a killed run left behind; a run that ended has dropped it itself."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


# Running ----------------------------------------------------------------------------------------------------------


def run(each: Pass) -> int:
    """Run it with its output on the terminal; 0 if nothing failed."""
    print(f"\n=== {each.name}{f': {each.marked}' if each.marked else ''}", flush=True)
    return accepted(subprocess.run(each.command(), cwd=ROOT, env=each.variables(), check=False).returncode)


def run_everything(
    sqlite: dict[str, str], server: dict[str, str], folder: Path, arguments: Sequence[str]
) -> tuple[list[Pass], list[int]]:
    """Both databases side by side, then by itself what measures time or needs the whole machine.

    The fault tests are passes of their own, one after the other: they mostly wait for what they killed, while the
    others keep the cores busy. What knows no database comes after them, since they end first. Where nothing was left to
    run by itself no pass is begun for it.
    """
    arguments = ["--durations=25", *arguments]
    rest = [*arguments, *(f"--ignore={path}" for path in (FAULTS, *PURE))]
    pure, faults = [*arguments, *PURE], [*arguments, FAULTS]
    server = server | {"KALIMTAK_TEST_ONLY_DATABASE": "1"}
    # A database for each: two passes would drop each other's.
    url = server["KALIMTAK_TEST_DATABASE_URL"]
    beside = server | {"KALIMTAK_TEST_DATABASE_URL": named(url, urlsplit(url).path.strip("/") + FAULTS_SUFFIX)}
    together = [
        Pass("sqlite", sqlite, "not alone", folder, rest),
        Pass("postgresql", server, "not alone and not own_servers", folder, rest),
        Pass("sqlite-faults", sqlite, "not alone", folder, faults),
        Pass(
            "postgresql-faults",
            beside | {"KALIMTAK_TEST_REDIS_URL": ""},
            "not alone and not own_servers",
            folder,
            faults,
        ),
        Pass("pure", sqlite, "not alone", folder, pure),
    ]
    statuses = side_by_side([together[:1], together[1:2], together[2:]])
    alone = []
    for on_it, environment, marked in (
        ([together[0], together[2], together[4]], sqlite, "alone"),
        ([together[1], together[3]], server, "alone and not own_servers"),
    ):
        if files := sorted({file for each in on_it for file in each.files_left_for_alone()}):
            alone.append(Pass(f"{on_it[0].name}-alone", environment, marked, folder, [*arguments, *files]))
    return together + alone, statuses + [run(each) for each in alone]


def side_by_side(rows: Sequence[Sequence[Pass]]) -> list[int]:
    """Run the rows at once, the passes of a row one after the other; each output is printed when all have ended."""
    passes = [each for row in rows for each in row]
    print(f"\n=== {' and '.join(each.name for each in passes)}, side by side", flush=True)
    with ThreadPoolExecutor(len(rows)) as pool:
        running = [pool.submit(lambda row=row: [run_aside(each) for each in row]) for row in rows]
        while wait(running, timeout=TELL_SECONDS).not_done:
            print(", ".join(f"{each.name}: {progress(each)}" for each in passes), flush=True)
    for each in passes:
        print(f"\n=== {each.name}\n{each.output.read_text(errors='replace')}", flush=True)
    return [status for row in running for status in row.result()]


def run_aside(each: Pass) -> int:
    """Run it with its output in its file."""
    with each.output.open("wb") as output:
        done = subprocess.run(
            each.command(), cwd=ROOT, env=each.variables(), stdout=output, stderr=subprocess.STDOUT, check=False
        )
    return accepted(done.returncode)


def progress(each: Pass) -> str:
    seen = each.read()
    failed = sum(entry["outcome"] in ("failed", "error") for entry in seen)
    return f"{len(seen)} tests" + (f", {failed} failed" if failed else "")


def accepted(status: int) -> int:
    return 0 if status == NO_TESTS else status


def tell_where_the_time_went(passes: Sequence[Pass]) -> None:
    """Print the files that took longest, in all passes together, which share the cores."""
    seconds: Counter[str] = Counter()
    for entry in (entry for each in passes for entry in each.read()):
        seconds[str(entry["id"]).partition("::")[0]] += float(str(entry["seconds"]))
    print(f"\n{sum(seconds.values()):,.0f} s in tests, most of them in:")
    for file, spent in seconds.most_common(FILES_TOLD):
        print(f"  {spent:6.0f} s  {file}")


def tell_what_was_not_tested(passes: Sequence[Pass]) -> list[str]:
    """Print which tests ran nowhere, and why; those among them that need a service."""
    entries = [entry for each in passes for entry in each.read()]
    ran = {entry["id"] for entry in entries if entry["outcome"] != "skipped"}
    never = {str(entry["id"]): entry for entry in entries if entry["id"] not in ran}
    print(f"\n{len(ran)} tests ran, {len(never)} were skipped wherever they were tried.")
    for name, entry in sorted(never.items()):
        print(f"  not tested: {name}: {entry['reason']}")
    missed = [name for name, entry in never.items() if SERVICES & set(entry["marks"])]  # type: ignore[arg-type]
    if missed:
        print(f"{len(missed)} of these test a service; KALIMTAK_TEST_STRICT=1 takes that for a failure.")
    return missed


def sum_up(passes: Sequence[Pass], statuses: Sequence[int], seconds: float) -> str:
    """As pytest's last line. A test counts once, by the worst that became of it in any pass; a pass that broke off
    before it could name a culprit is an error.
    """
    worst: dict[str, str] = {}
    silent = 0
    for each, status in zip(passes, statuses, strict=True):
        entries = each.read()
        for entry in entries:
            name, outcome = str(entry["id"]), str(entry["outcome"])
            worst[name] = max(worst.get(name, "skipped"), outcome, key=WORSE.index)
        silent += bool(status) and not any(entry["outcome"] in ("failed", "error") for entry in entries)
    counts = Counter(worst.values())
    counts["error"] += silent
    parts = [f"{counts['failed']} failed"] if counts["failed"] else []
    parts += [f"{counts['passed']} passed, {counts['skipped']} skipped"] if worst else ["no tests ran"]
    parts += [f"{counts['error']} error{'s' * (counts['error'] > 1)}"] if counts["error"] else []
    said = f" {', '.join(parts)} in {seconds:.2f}s "
    return f"\n{said:=^120}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
