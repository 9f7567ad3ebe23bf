"""What the fault tests look through: a console into an installation, its queue workers, people who ask all the time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from tests.installation import ROOT, Installation
from tests.services import wait_until

CONSOLE = """
import json, sys
import django
django.setup()
from datetime import timedelta
from django.db import close_old_connections, connections
from django.utils import timezone
from django_q.models import OrmQ, Success
from django_q.tasks import async_task
from interactions import spooling
from interactions.models import Feedback, UserInteraction
from kalimtak import fsck
from kalimtak.core import jobs
from kalimtak.core.models import AuditEvent, Job
from kalimtak.core.reaper import reap
from registry.models import Classifier, Deployment, ModelVersion
from registry.services import version_deploy, version_rollback
from training.models import Dataset, TrainingDataItem, TrainingRun
from training.services import dataset_add, dataset_import_queue, run_start

def topic():
    return Classifier.objects.get(slug="topic")

for line in sys.stdin:
    try:
        said = {"value": eval(json.loads(line))}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    connections.close_all()
    print(json.dumps(said, default=str), flush=True)
"""

REAP_SECONDS = 2.5  # what a supervisor takes to start where the machine is busy
QUIET_SECONDS = 0.2  # in which one who waits for work does nothing


class ConsoleError(Exception):
    pass


class Console:
    """A process inside an installation that evaluates expressions: asking costs no start of Django."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def __call__(self, expression: str) -> Any:
        """Raises `ConsoleError` with what the expression raised."""
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process and self._process.stdin and self._process.stdout
            self._process.stdin.write(json.dumps(expression) + "\n")
            self._process.stdin.flush()
            said = json.loads(self._process.stdout.readline())
        if "error" in said:
            raise ConsoleError(f"{expression}: {said['error']}")
        return said["value"]

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONSOLE],
            cwd=ROOT,
            env={"DJANGO_SETTINGS_MODULE": "kalimtak.settings"} | self._installation.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._installation.processes.append(self._process)


class Worker:
    """A queue cluster under its watchdog, found through the file that the watchdog leaves."""

    def __init__(
        self, installation: Installation, *arguments: str, cluster: str = "default", wait: bool = True
    ) -> None:
        self.watchdog = installation.start(
            "qcluster", "--stuck-after", "3", *arguments, name=f"worker-{cluster}", Q_CLUSTER_NAME=cluster
        )
        self.file = Path(installation.environment["KALIMTAK_VAR"]) / "run" / f"qcluster-{cluster}.json"
        if wait:
            self.wait_until_it_beats()

    def wait_until_it_beats(self) -> None:
        """All its processes are there, and its guard has spoken."""
        wait_until(lambda: len(self.helpers) == 4 and self.pulse > self.started, 60, what="a cluster")

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    @property
    def pulse(self) -> float:
        return datetime.fromisoformat(self.state["pulse"]).timestamp()

    @property
    def started(self) -> float:
        return self.sentinel.create_time()

    @property
    def leader(self) -> psutil.Process:
        state = self.state
        assert state["pid"] == self.watchdog.pid, "the file of an earlier watchdog"
        return psutil.Process(state["child"])

    @property
    def sentinel(self) -> psutil.Process:
        return self.leader.children()[0]

    @property
    def helpers(self) -> list[psutil.Process]:
        """At first two workers, the monitor and the pusher, in this order."""
        return self.sentinel.children()

    def group(self) -> list[psutil.Process]:
        """All processes of the cluster, without supervisors, which have sessions of their own."""
        leader = self.leader
        below = leader.children(recursive=True)
        return [leader, *(each for each in below if os.getpgid(each.pid) == leader.pid)]

    def freeze(self) -> list[psutil.Process]:
        """Kill both workers while one of them holds the lock of the queue, which is lost with it."""
        group = self.group()
        wait_until(self._kill_waiting_workers, 60, every=0.3, what="workers that wait for work")
        return group

    def _kill_waiting_workers(self) -> bool:
        """A worker that is still starting or has just been given a pulse holds no lock; were both killed like that, the
        guard would replace them and all would go on. So no pulse may come while they are looked at."""
        *workers, _, pusher = self.helpers
        pusher.suspend()
        try:
            if not stand_by(workers):
                return False
            for worker in workers:
                worker.kill()
            return True
        finally:
            pusher.resume()

    def wait_until_replaced(self, group: list[psutil.Process]) -> None:
        wait_until(lambda: self.state["child"] != group[0].pid, 30, what="another cluster")
        assert psutil.wait_procs(group, timeout=5)[1] == []
        self.wait_until_it_beats()

    def stop(self) -> float:
        """Seconds until it had ended after TERM."""
        began = time.monotonic()
        self.watchdog.terminate()
        assert self.watchdog.wait(30) == 0
        assert not self.file.exists()
        return time.monotonic() - began


def stand_by(processes: list[psutil.Process]) -> bool:
    """Whether all are asleep and stay so: a process that starves for a processor counts as running."""
    woken = [each.num_ctx_switches() for each in processes]
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        if any(each.status() != psutil.STATUS_SLEEPING for each in processes):
            return False
        time.sleep(0.05)
    return [each.num_ctx_switches() for each in processes] == woken


class Load:
    """People who ask without a pause, over connections that stay open, while the block runs; then the sums."""

    def __init__(self, url: str, people: int = 4, path: str = "/api/predict") -> None:
        self.url, self.people, self.path = url, people, path
        self.answered: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.without_retry_after = 0
        self.cut = 0  # connections that ended without an answer, refused ones included
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(people)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, more: int = 20, seconds: float = 60.0) -> None:
        """Until so many more were answered with 200 than now."""
        wanted = self.statuses[200] + more
        wait_until(lambda: self.statuses[200] >= wanted, seconds, what="answers")

    @property
    def lost(self) -> int:
        """Requests that may have left a row though their client got no answer."""
        return self.cut + sum(count for status, count in self.statuses.items() if status != 200)

    def _ask(self) -> None:
        session = requests.Session()
        while not self._over.is_set():
            try:
                answer = session.post(self.url + self.path, json={"text": "rain and wind"}, timeout=30)
            except requests.RequestException:
                self.cut += 1
                time.sleep(0.02)
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.answered.append(answer.json()["interaction_id"])
            elif "Retry-After" not in answer.headers:
                self.without_retry_after += 1
            if answer.status_code != 200:
                time.sleep(0.05)


class Scene:
    """An installation with a console, and workers that are started when they are needed."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.ask = Console(installation)
        self.workers: dict[str, Worker] = {}

    def worker(self, cluster: str = "default") -> Worker:
        """A living one."""
        known = self.workers.get(cluster)
        if known is None or known.watchdog.poll() is not None:
            self.workers[cluster] = Worker(self.installation, cluster=cluster)
        return self.workers[cluster]

    def web(self) -> None:
        with suppress(requests.RequestException):
            if requests.get(f"{self.installation.url}/readyz", timeout=5).ok:
                return
        self.installation.start_web()
        wait_until(lambda: requests.get(f"{self.installation.url}/readyz", timeout=5).ok, 60, what="readiness")

    def job(self, key: str) -> dict[str, Any]:
        names = "'state', 'attempt', 'token', 'owner', 'error', 'result'"
        return self.ask(f"Job.objects.values({names}).get(pk={key!r})")

    def owner(self, key: str) -> psutil.Process:
        """The process that runs job `key`, once one does."""
        wait_until(lambda: self.job(key)["state"] == "running", 60, what="a running job")
        return psutil.Process(int(self.job(key)["owner"].split(":")[1]))

    def wait_for(self, key: str, state: str = "succeeded", seconds: float = 90.0) -> dict[str, Any]:
        """The job once it is in this state; what a dead process held is taken back meanwhile, as every minute."""

        next_reap = 0.0

        def is_there() -> bool:
            nonlocal next_reap
            if time.monotonic() >= next_reap:
                self.ask("reap()")  # which rings for what waits: a supervisor for each ring, until one has started
                next_reap = time.monotonic() + REAP_SECONDS
            return self.job(key)["state"] == state

        wait_until(is_there, seconds, every=0.5, what=f"a job that is {state} ({self.job(key)})")
        return self.job(key)

    def open_gate(self, key: str) -> None:
        (Path(self.installation.environment["KALIMTAK_VAR"]) / f"go-{key}").touch()

    def effects(self, key: str) -> int:
        return self.ask(f"AuditEvent.objects.filter(action='test.effect', target='job {key}').count()")

    def trainer(self) -> psutil.Process:
        """The trainer at work, halted as soon as it is seen."""

        def find() -> psutil.Process | None:
            for each in self.installation.own_processes():
                with suppress(psutil.Error):
                    if "training.runner" in each.cmdline():
                        each.send_signal(signal.SIGSTOP)
                        return each
            return None

        return wait_until(find, 60, every=0.02, what="a trainer")

    def wait_for_an_empty_spool(self) -> None:
        """What was answered while the database was away has been recorded."""
        wait_until(lambda: self.ask("spooling.waiting().answers") == 0, 30, what="an empty spool")

    def load(self, people: int = 4) -> Load:
        self._rows_before = len(self._rows())
        return Load(self.installation.url, people)

    def check_rows(self, load: Load) -> None:
        """All that the newest load was answered has its row, once; one more at most for each answer that was lost."""
        rows = self._rows()
        assert len(set(load.answered)) == len(load.answered)
        assert set(load.answered) <= set(rows)
        assert len(rows) - self._rows_before <= len(load.answered) + load.lost

    def _rows(self) -> list[str]:
        return self.ask("[str(key) for key in UserInteraction.objects.values_list('pk', flat=True)]")

    def check(self) -> None:
        """Nothing is under way, and every invariant holds."""
        assert self.ask("list(Job.objects.filter(state__in=['queued', 'running']).values('kind', 'state'))") == []
        assert self.ask("[[each.where, each.what] for each in fsck.find()]") == []
