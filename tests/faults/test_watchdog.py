"""A queue cluster that is stuck is noticed and started again; one that is only busy is left alone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kalimtak.core.cluster import ANSWERED, ASKING, BUSY, IDLE, PULSE, TIMER_SECONDS, TimerLock
from kalimtak.core.watchdog import DATABASE_SECONDS, Progress
from tests.faults.scene import Console, Worker
from tests.installation import Installation
from tests.services import wait_until

# What the words of a cluster mean ---------------------------------------------------------------------------------


def progress(*heard: tuple[float, bytes]) -> Progress:
    """Limit 30 s, tasks of at most 600 s; `heard` are (second, words)."""
    made = Progress(0.0, limit=30.0, longest=600.0)
    for now, words in heard:
        made.hear(words, now)
    return made


def guard(word: bytes, first: int, last: int) -> list[tuple[float, bytes]]:
    return [(float(second), word) for second in range(first, last + 1)]


def test_a_cluster_whose_pulse_comes_is_well() -> None:
    seen = progress(*guard(IDLE, 1, 90), (90.0, PULSE))
    assert seen.verdict(119.0) == ""
    assert seen.pulses == 1


def test_a_cluster_with_a_free_worker_and_no_pulse_is_stuck() -> None:
    seen = progress(*guard(IDLE, 1, 40))
    assert seen.verdict(30.0) == ""
    assert "no task got through" in seen.verdict(40.0)


def test_a_cluster_that_was_busy_to_the_last_is_not_stuck() -> None:
    seen = progress(*guard(BUSY, 1, 500), *guard(IDLE, 501, 529))
    assert seen.verdict(529.0) == ""
    seen = progress(*guard(BUSY, 1, 500), *guard(IDLE, 501, 532))
    assert seen.verdict(532.0) != ""


def test_a_single_moment_in_which_all_were_busy_starts_the_clock_again() -> None:
    seen = progress(*guard(IDLE, 1, 20), (20.5, BUSY), *guard(IDLE, 21, 45))
    assert seen.verdict(45.0) == ""


def test_a_guard_that_says_nothing_may_have_busy_workers() -> None:
    seen = progress(*guard(IDLE, 1, 2))
    assert seen.verdict(600.0) == ""
    assert "said nothing" in seen.verdict(640.0)


def test_a_halted_process_explains_the_silence() -> None:
    seen = progress(*guard(IDLE, 1, 2))
    assert "stands still" in seen.verdict(40.0, halted=True)


def test_a_database_that_does_not_answer_is_not_the_clusters_fault() -> None:
    seen = progress((1.0, ASKING), *guard(IDLE, 1, 200))
    assert seen.verdict(200.0) == ""
    seen.hear(ANSWERED + IDLE, 200.0)
    assert seen.verdict(202.0) == ""
    seen.hear(IDLE, 240.0)
    assert seen.verdict(240.0) != ""


def test_a_question_without_end_is_stuck_after_all() -> None:
    seen = progress((1.0, ASKING), *guard(IDLE, 1, int(DATABASE_SECONDS) + 10))
    assert seen.verdict(DATABASE_SECONDS + 10) != ""


def test_a_slow_start_counts_from_its_end() -> None:
    seen = progress(*guard(IDLE, 100, 129))
    assert seen.verdict(129.0) == ""


def test_a_watchdog_that_stood_still_blames_nobody() -> None:
    seen = progress(*guard(IDLE, 1, 5))
    seen.excuse(5_000.0)
    seen.hear(IDLE, 5_001.0)
    assert seen.verdict(5_001.0) == ""


# Real clusters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def installation(template: Installation, tmp_path: Path) -> Iterator[Installation]:
    cloned = template.clone(tmp_path / "installation")
    yield cloned
    cloned.close()


@pytest.fixture
def ask(installation: Installation) -> Console:
    return Console(installation)


def enqueue(ask: Console, *tasks: tuple[str, float]) -> None:
    for name, argument in tasks:
        ask(f"async_task({name!r}, {argument})")


def waiting(ask: Console) -> int:
    return ask("OrmQ.objects.count()")


def restarts_noted(ask: Console) -> list[str]:
    rows = "AuditEvent.objects.filter(action='queue.restart').order_by('pk')"
    return ask(f"[f'{{row.target}} {{row.data}}' for row in {rows}]")


@pytest.mark.postgres
def test_a_frozen_cluster_is_started_again_and_takes_what_waits(installation: Installation, ask: Console) -> None:
    worker = Worker(installation)
    frozen = worker.freeze()
    enqueue(ask, ("time.sleep", 0), ("time.sleep", 0))
    worker.wait_until_replaced(frozen)
    assert worker.state["restarts"] == 1
    assert "no task got through" in worker.state["last_restart"]
    assert "no task got through" in installation.log("worker-default")
    enqueue(ask, ("time.sleep", 0))
    wait_until(lambda: waiting(ask) <= 2, 30, what="tasks that are taken")  # two were taken by the frozen one
    (noted,) = restarts_noted(ask)
    assert "cluster default@" in noted and "no task got through" in noted
    assert worker.stop() < 10


@pytest.mark.postgres
def test_a_cluster_whose_workers_are_killed_as_they_start_goes_on(installation: Installation, ask: Console) -> None:
    """Whatever they were at, a lock of the guard's included: others take their place, or all is started again."""
    worker = Worker(installation, wait=False)
    wait_until(lambda: len(worker.helpers) == 4, 60, every=0.001, what="workers that start")
    killed = time.time()
    for each in worker.helpers[:2]:
        each.kill()
    wait_until(lambda: worker.pulse > killed + 4, 45, what="a pulse of those that follow")
    enqueue(ask, ("time.sleep", 0))
    wait_until(lambda: waiting(ask) == 0, 30, what="an empty queue")


def test_the_lock_of_a_killed_workers_timer_is_given_up() -> None:
    timer = multiprocessing.Value("f", -1, lock=TimerLock())
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(timer,))
    holder.start()
    wait_until(lambda: timer.get_obj().value == 7, what="a lock that is held")
    holder.kill()
    holder.join()
    began = time.monotonic()
    with timer.get_lock():
        assert timer.value == 7
        timer.value -= 1
    assert TIMER_SECONDS <= time.monotonic() - began < 3 * TIMER_SECONDS
    assert timer.get_obj().value == 6


def hold(timer: Any) -> None:
    with timer.get_lock():
        timer.get_obj().value = 7
        time.sleep(60)


def test_workers_that_are_busy_for_long_are_left_alone(installation: Installation, ask: Console) -> None:
    worker = Worker(installation)
    enqueue(ask, *[("time.sleep", 6)] * 3)
    leader = worker.leader
    wait_until(lambda: waiting(ask) == 0, 60, what="an empty queue")
    assert worker.leader == leader
    assert worker.state["restarts"] == 0
    assert restarts_noted(ask) == []


def test_a_cluster_that_was_halted_is_replaced(installation: Installation) -> None:
    worker = Worker(installation)
    halted = worker.group()
    os.killpg(worker.leader.pid, signal.SIGSTOP)
    worker.wait_until_replaced(halted)
    assert "stands still" in worker.state["last_restart"]


def test_a_halted_watchdog_and_its_cluster_go_on_when_they_may(installation: Installation) -> None:
    worker = Worker(installation)
    leader = worker.leader
    worker.watchdog.send_signal(signal.SIGSTOP)
    os.killpg(leader.pid, signal.SIGSTOP)
    time.sleep(8)  # the time itself is the fault: more than it takes to be called stuck
    os.killpg(leader.pid, signal.SIGCONT)
    worker.watchdog.send_signal(signal.SIGCONT)
    beat = worker.pulse
    wait_until(lambda: worker.pulse > beat, 20, what="another pulse")
    assert worker.leader == leader


@pytest.mark.parametrize("victim", ["leader", "sentinel"])
def test_no_process_survives_the_one_that_leads_it(installation: Installation, victim: str) -> None:
    worker = Worker(installation)
    group = worker.group()
    getattr(worker, victim).kill()
    worker.wait_until_replaced(group)
    assert "it ended with" in worker.state["last_restart"]


@pytest.mark.parametrize("is_frozen", [False, True], ids=["at work", "frozen"])
def test_a_cluster_dies_with_its_watchdog(installation: Installation, is_frozen: bool) -> None:
    worker = Worker(installation)
    group = worker.freeze() if is_frozen else worker.group()
    worker.watchdog.kill()
    wait_until(lambda: not [each for each in group if each.is_running()], 10, what="nothing left")
    assert [each for each in installation.own_processes() if each.pid != worker.watchdog.pid] == []


def test_a_frozen_cluster_that_is_told_to_stop_is_ended_after_the_grace(installation: Installation) -> None:
    worker = Worker(installation, "--stuck-after", "60", "--grace", "2")
    group = worker.freeze()
    assert 2 <= worker.stop() < 10
    assert psutil.wait_procs(group, timeout=5)[1] == []


def test_a_task_that_runs_may_finish_before_its_cluster_ends(installation: Installation, ask: Console) -> None:
    worker = Worker(installation)
    enqueue(ask, ("time.sleep", 5))
    wait_until(lambda: ask("OrmQ.objects.filter(lock__gt=timezone.now()).count()"), 20, what="a task under way")
    worker.stop()
    assert waiting(ask) == 0
    assert ask("list(Success.objects.values_list('func', flat=True))") == ["time.sleep"]


def test_a_cluster_may_be_named_and_may_run_once(installation: Installation, ask: Console) -> None:
    ask("async_task('time.sleep', 0, cluster='training')")
    installation.start("qcluster", "--name", "training")
    wait_until(lambda: waiting(ask) == 0, 60, what="an empty queue")
    assert (Path(installation.environment["KALIMTAK_VAR"]) / "run" / "qcluster-training.json").exists()
    installation.manage("qcluster", "--run-once")
    assert "Q_CLUSTER_NAME=training" in installation.manage("qcluster", "--run-once", "--name", "training", code=1)


@pytest.mark.postgres
def test_no_two_processes_of_a_cluster_share_a_connection(installation: Installation, ask: Console) -> None:
    if installation.environment["DATABASE_URL"].startswith("sqlite"):
        pytest.skip("SQLite has no connections")
    worker = Worker(installation)
    enqueue(ask, *[("kalimtak.core.tasks.job_wake", 0)] * 4)  # which asks for a job's row, in vain
    owners: dict[tuple, set[int]] = {}

    def all_are_seen() -> bool:
        """The pusher, the monitor and a worker at the least."""
        for process in worker.group():
            for peer in process.net_connections():
                owners.setdefault(tuple(peer.laddr), set()).add(process.pid)
        return len(owners) >= 3

    wait_until(all_are_seen, 60, what="connections")
    assert [pids for pids in owners.values() if len(pids) > 1] == []
