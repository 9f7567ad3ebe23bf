"""django-q2's cluster with a pulse: what `manage.py qcluster` runs under its watchdog.

Every few seconds the pusher puts a task of ours into the cluster's own queue. It takes the way of all tasks, over
the queue, a worker, the results and the monitor, and where it arrives a byte goes to the watchdog. It asks nothing of
the database and never meets another cluster's workers. The guard adds whether every worker is busy, the pusher whether
it waits for the database: together they tell a cluster that is stuck from one that has much to do.

Leans on the inside of django-q2 1.11: the guard loop asks `Sentinel.status` once a cycle, and `worker` keeps the
seconds it has left in `timer`, -1 while it is idle.
"""

import ctypes
import functools
import logging
import multiprocessing
import os
import signal
import sys
import time
import uuid
from contextlib import suppress
from typing import Any, Self

from django.db import connections
from django.utils import timezone
from django_q import cluster
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from .jobs import DATABASE_AWAY, drop_broken_connection

logger = logging.getLogger(__name__)

PULSE_ID = "pulse"  # where other tasks have the key of their row
PULSE, IDLE, BUSY, ASKING, ANSWERED = b"p", b"i", b"b", b"d", b"r"
AWAY_SECONDS = 2.0  # between two questions to a database that is away
CONNECTION_SECONDS = 60
TIMER_SECONDS = 2.0  # to wait for a timer's lock, which is held for far less
_PR_SET_PDEATHSIG = 1


def run(descriptor: int, pulse_seconds: float, *, once: bool = False) -> None:
    """Run a cluster in this process and its children, reporting to the pipe `descriptor` until it is stopped.

    No process of it outlives its parent, whichever way that one ends. What a worker starts in a session of its own,
    such as a job's supervisor, does.
    """
    os.set_blocking(descriptor, False)
    _die_with(os.getppid())
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_remembered)
    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = CONNECTION_SECONDS  # the queue is read twice a second
    cluster.Sentinel = functools.partial(Sentinel, Line(descriptor), pulse_seconds)
    running = cluster.Cluster()
    running.start()
    if once:
        running.stop()


def pulse() -> None:
    """What a worker does when the pulse comes by."""


class Line:
    """The way to the watchdog. Without a watchdog at its other end there is no cluster either."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, word: bytes) -> None:
        try:
            os.write(self._descriptor, word)
        except BlockingIOError:  # it has not listened for hours; it will
            return
        except BrokenPipeError:
            os.killpg(os.getpgrp(), signal.SIGKILL)


class Sentinel(cluster.Sentinel):  # type: ignore[misc]
    """django-q2's guard, which also says whether a worker is free."""

    def __init__(self, line: Line, pulse_seconds: float, *arguments: Any, **named: Any) -> None:
        self._line = line
        stop_event, start_event, cluster_id, _, timeout = arguments
        super().__init__(stop_event, start_event, cluster_id, Broker(line, pulse_seconds), timeout, **named)

    def status(self) -> Any:
        # Not `timer.value`: that waits for a lock which a killed worker may hold for ever.
        busy = [worker.timer.get_obj().value > 0 for worker in self.pool]
        self._line.say(BUSY if busy and all(busy) else IDLE)
        return super().status()

    def spawn_worker(self) -> None:
        timer = multiprocessing.Value("f", -1, lock=TimerLock())  # type: ignore[call-overload]
        self.spawn_process(cluster.worker, self.task_queue, self.result_queue, timer, self.timeout)


class TimerLock:
    """The lock of a worker's timer, given up where nobody gives it back.

    A worker holds it whenever it ends a task. If it is killed then, the guard would wait for ever, start no other
    worker and say nothing any more.
    """

    def __init__(self) -> None:
        self._lock = multiprocessing.RLock()
        self._patience = TIMER_SECONDS

    def acquire(self) -> bool:
        taken = self._lock.acquire(timeout=self._patience)
        self._patience = TIMER_SECONDS if taken else 0.0  # once is enough: the guard asks several times a cycle
        return taken

    def release(self) -> None:
        with suppress(AssertionError):  # it was not taken
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Broker(ORM):  # type: ignore[misc]
    """The queue in the database, with a pulse. It rides out a database that is away."""

    def __init__(self, line: Line, pulse_seconds: float) -> None:
        self._line = line
        self._pulse_seconds, self._next_pulse = pulse_seconds, 0.0
        self._away = False
        super().__init__()

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:
        """The rows of the queue. The original asks for a connection here, so that no cluster starts without one."""
        drop_broken_connection()
        return OrmQ.objects.using(Conf.ORM)

    def dequeue(self) -> list[tuple[Any, str]] | None:
        if time.monotonic() >= self._next_pulse:
            self._next_pulse = time.monotonic() + self._pulse_seconds
            return [(PULSE_ID, _pulse_task())]
        self._line.say(ASKING)
        try:
            tasks: list[tuple[Any, str]] | None = super().dequeue()
            self._away = False
            return tasks
        except DATABASE_AWAY as error:
            if not self._away:
                logger.warning("The queue cannot be read, trying again until it can: %s", error)
            self._away = True
            drop_broken_connection()
            time.sleep(AWAY_SECONDS)
            return None
        finally:
            self._line.say(ANSWERED)

    def acknowledge(self, task_id: Any) -> None:
        if task_id == PULSE_ID:
            self._line.say(PULSE)
            return
        try:
            super().acknowledge(task_id)
        except DATABASE_AWAY as error:  # the wake-up comes again and finds nothing to do
            logger.warning("A wake-up could not be taken off the queue: %s", error)
            drop_broken_connection()


def _pulse_task() -> str:
    task = {
        "id": uuid.uuid4().hex,
        "name": PULSE_ID,
        "func": f"{__name__}.{pulse.__name__}",
        "args": (),
        "kwargs": {},
        "started": timezone.now(),
        "save": False,
    }
    package: str = SignedPackage.dumps(task)
    return package


# Dying together ----------------------------------------------------------------------------------------------------

_parent = 0


def _remember_parent() -> None:
    global _parent
    _parent = os.getpid()


def _die_with_remembered() -> None:
    _die_with(_parent)


def _die_with(parent: int) -> None:
    """From here on the kernel ends this process with its parent, on Linux; elsewhere the broken line does, later."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)
