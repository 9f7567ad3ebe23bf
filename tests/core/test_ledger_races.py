"""Races for the same jobs, with real concurrency and with faults: 1,500 of them, and never an effect twice.

    KALIMTAK_TEST_SEED=17 pytest tests/core/test_ledger_races.py    # the dice that a failure printed

The dice are the same then; how threads and processes meet is not.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from kalimtak.core import jobs
from kalimtak.core.models import Job
from tests.core import ledger_racers
from tests.core.ledger_racers import EFFECTS, Crash, Racer

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("KALIMTAK_TEST_SEED", random.randrange(2**32)))
RATES = (0.0, 0.05, 0.10)
IN_THREADS, IN_PROCESSES = 300, 200  # races at each rate: 1,500 together; with fewer, a kind of fault may never come up
AT_ONCE = 25
WORKERS = 3
TERMINAL = {"succeeded", "failed", "cancelled", "quarantined"}


@pytest.fixture(autouse=True)
def race_track(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.KALIMTAK_JOBS = ledger_racers.KINDS
    monkeypatch.setattr(jobs, "crashpoint", ledger_racers.crashpoint)
    with connection.cursor() as cursor:
        cursor.execute(ledger_racers.CREATE_EFFECTS)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE race_effect")


def enqueue(count: int) -> list[str]:
    return [str(jobs.enqueue("race", {}, ring=False).pk) for _ in range(count)]


def race_in_threads(ids: list[str], seed: str, rate: float) -> Counter[str]:
    """What the racers counted, when the last of them has seen every job end."""
    counts: Counter[str] = Counter()
    failures: list[BaseException] = []
    start = threading.Barrier(WORKERS)

    def crash() -> None:
        raise Crash

    def work(number: int) -> None:
        racer = Racer(f"{seed}:{number}", rate, crash)
        try:
            start.wait()
            racer.race(ids)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()
            counts.update(racer.counts)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure
    return counts


def race_in_processes(ids: list[str], seed: str, rate: float) -> int:
    """How many processes died, when the last of them has seen every job end."""
    order = {"database": str(connection.settings_dict["NAME"]), "seed": seed, "rate": rate, "workers": WORKERS}
    script = "import django; django.setup(); from tests.core.ledger_racers import main; main()"
    command = [sys.executable, "-c", script, json.dumps(order | {"ids": ids})]
    racers = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, errors = racers.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(racers.pid, signal.SIGKILL)  # those that it forked, too
    assert racers.returncode == 0, errors
    return int(out)


def each_effect_was_committed_once(ids: list[str]) -> Counter[str]:
    """How many jobs are in which state."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT job, name, token FROM race_effect")
        committed = cursor.fetchall()
    effects = Counter((job, name) for job, name, _ in committed)
    assert max(effects.values()) == 1, "an effect was committed twice"
    rows = {str(job.pk): job for job in Job.objects.filter(pk__in=ids)}
    assert len(rows) == len(ids)
    for job_id, job in rows.items():
        assert job.state in TERMINAL
        assert (job.lease_until, job.slot) == (None, "")
        assert 0 <= job.attempt <= job.max_attempts
        assert (job.result is not None) == (job.state == "succeeded")
        done = [name for name in EFFECTS if effects[job_id, name]]
        assert done == (list(EFFECTS) if job.state == "succeeded" else list(EFFECTS)[: len(done)])
    assert all(token <= rows[job].token for job, _, token in committed)
    return Counter(job.state for job in rows.values())


@pytest.mark.parametrize("rate", RATES)
def test_threads_that_race_never_commit_an_effect_twice(rate: float) -> None:
    print(f"KALIMTAK_TEST_SEED={SEED}")
    counts: Counter[str] = Counter()
    ids: list[str] = []
    while len(ids) < IN_THREADS:
        batch = enqueue(AT_ONCE)
        counts += race_in_threads(batch, f"{SEED}:{rate}:{len(ids)}", rate)
        ids += batch
    states = each_effect_was_committed_once(ids)
    print(dict(counts), dict(states))
    assert counts["cancelling asked"]
    faults = counts["crashes"], counts["leases lost"], counts["zombies refused"], counts["taken back"]
    assert all(faults) if rate else not any(faults)


@pytest.mark.parametrize("rate", RATES)
def test_processes_that_race_never_commit_an_effect_twice(rate: float) -> None:
    print(f"KALIMTAK_TEST_SEED={SEED}")
    ids = enqueue(IN_PROCESSES)
    deaths = race_in_processes(ids, f"{SEED}:{rate}", rate)
    states = each_effect_was_committed_once(ids)
    print(deaths, "deaths", dict(states))
    assert bool(deaths) == bool(rate)
