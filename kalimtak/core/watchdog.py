"""Keeps a queue cluster at work: ends one that is stuck and starts it again, however it is run.

An idle worker that is killed while it waits for work takes the queue's lock with it. django-q2 then hands out nothing
any more and ignores TERM as well, and no process manager notices, since all its processes live. So the cluster runs as
a child and reports its progress over a pipe (see `kalimtak.core.cluster`). Time is measured by the monotonic clock.
"""

import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psutil
from django.conf import settings
from django.db import connections
from django.utils import timezone

from . import audit
from .cluster import ANSWERED, ASKING, BUSY, IDLE, PULSE
from .owners import this_process
from .pulses import pulse_file

logger = logging.getLogger(__name__)

STUCK_SECONDS = 30.0  # without a pulse while a worker is free; a third of it lies between two pulses
GRACE_SECONDS = 15.0  # for a cluster that was asked to stop; `manage.py up` and service managers allow more
SUPERVISOR_SECONDS = 18.0  # for long jobs to checkpoint when all ends, a trainer's own 15 seconds included
MARK = "KALIMTAK_WATCHDOG"  # in the environment of whatever a cluster starts: under which watchdog
DATABASE_SECONDS = 300.0  # a question to the database that takes longer is stuck, too
SLOW_QUESTION_SECONDS = 2.0  # a shorter one holds no pulse up
BACK_OFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
SETTLED_SECONDS = 60.0  # a cluster that lived so long starts again at the first step
TICK_SECONDS = 0.5
NOTE_SECONDS = 5.0


class Progress:
    """What a cluster's words say about it. All times are seconds of one monotonic clock.

    It is stuck when no pulse came for `limit` seconds in which a worker was free all the time. While every worker is
    busy a pulse has to wait, and that is nobody's fault. Where the guard says nothing at all, its workers may be busy
    for `longest` seconds, the time limit of a task.
    """

    def __init__(self, now: float, *, limit: float, longest: float) -> None:
        self.limit, self.longest = limit, longest
        self.well = now  # when it was last certain that nothing is stuck
        self.pulses = 0
        self._guarded: float | None = None  # when the guard spoke last; never while it starts
        self._asking: float | None = None

    def hear(self, words: bytes, now: float) -> None:
        """Take in what the cluster said since the last call, in its order."""
        for word in (words[index : index + 1] for index in range(len(words))):
            if word == PULSE:
                self.pulses += 1
                self.well = now
            elif word in (BUSY, IDLE):
                if word == BUSY or self._guarded is None:
                    self.well = now
                self._guarded = now
            elif word == ASKING:
                self._asking = now
            elif word == ANSWERED and self._asking is not None:
                took, self._asking = now - self._asking, None
                if took > SLOW_QUESTION_SECONDS:
                    self.well = min(now, self.well + took)

    def excuse(self, now: float) -> None:
        """The listener itself stood still: nothing that was not heard counts."""
        self.well, self._asking = now, None

    def verdict(self, now: float, *, halted: bool = False) -> str:
        """Why the cluster is stuck, or "". `halted`: one of its processes was stopped by a signal."""
        waited = now - self.well
        if waited <= self.limit:
            return ""
        if halted:
            return f"a process of it stands still, and no task got through for {waited:.0f} s"
        if self._asking is not None and now - self._asking <= DATABASE_SECONDS:
            return ""
        if self._guarded is not None and now - self._guarded <= self.limit / 2:
            return f"no task got through for {waited:.0f} s although a worker was free"
        if waited > self.longest + self.limit:
            return f"it said nothing for {waited:.0f} s"
        return ""


class Watchdog:
    """Runs `command` as cluster `name` until it is told to stop.

    The command gets two more words: the number of the pipe's end it reports to, and the seconds between two pulses.
    """

    def __init__(
        self, command: Sequence[str], name: str, *, stuck: float = STUCK_SECONDS, grace: float = GRACE_SECONDS
    ) -> None:
        self.command, self.name, self.stuck, self.grace = command, name, stuck, grace
        self.file = pulse_file(name)
        self.mark = this_process()
        self.started, self.restarts, self.last_restart = timezone.now(), 0, ""
        # When we were told to stop, in monotonic seconds. No event: a signal's handler must not wait for its lock.
        self._asked: float | None = None

    def run(self) -> None:
        """Returns when TERM or INT came and the cluster has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        step = 0
        try:
            while True:
                began = time.monotonic()
                child, line = self._start()
                try:
                    reason = self._watch(child, line)
                    self._end(child, politely=not reason)
                finally:
                    os.close(line)
                if self._stopping:
                    break
                step = 0 if time.monotonic() - began > SETTLED_SECONDS else min(step, len(BACK_OFF_SECONDS) - 1)
                logger.error("Cluster %s is started again in %.0f s: %s", self.name, BACK_OFF_SECONDS[step], reason)
                self.restarts, self.last_restart = self.restarts + 1, reason
                threading.Thread(target=_remember, args=(self.name, reason, self.restarts), daemon=True).start()
                if self._wait(BACK_OFF_SECONDS[step]):
                    break
                step += 1
            self._end_supervisors()
        finally:
            self.file.unlink(missing_ok=True)

    def _ask_to_stop(self, *_: Any) -> None:
        self._asked = self._asked or time.monotonic()

    @property
    def _stopping(self) -> bool:
        return self._asked is not None

    def _start(self) -> tuple["subprocess.Popen[bytes]", int]:
        """A new cluster in a session of its own, and our end of its line."""
        ours, its = os.pipe()
        os.set_blocking(ours, False)
        environment = os.environ | {"Q_CLUSTER_NAME": self.name, MARK: self.mark}
        child = subprocess.Popen(
            [*self.command, str(its), str(self.stuck / 3)],
            pass_fds=[its],
            start_new_session=True,
            env=environment,
            cwd=settings.BASE_DIR,
        )
        os.close(its)
        return child, ours

    def _watch(self, child: "subprocess.Popen[bytes]", line: int) -> str:
        """Why the cluster must be started again, or "" where it was us who should stop."""
        now = time.monotonic()
        progress = Progress(now, limit=self.stuck, longest=float(settings.Q_CLUSTER["timeout"]))
        heard, noted = now, 0.0
        while not self._stopping:
            if child.poll() is not None:
                return f"it ended with {child.returncode}"
            ready, _, _ = select.select([line], [], [], TICK_SECONDS)
            words = os.read(line, 65_536) if ready else b""
            if ready and not words:
                time.sleep(TICK_SECONDS)  # its last process is about to end
            now = time.monotonic()
            progress.hear(words, now)
            if now - heard > 10 * TICK_SECONDS:  # this process was halted, or the machine was
                progress.excuse(now)
            heard = now
            waits_long = now - progress.well > self.stuck
            if reason := progress.verdict(now, halted=waits_long and _is_halted(child.pid)):
                return reason
            if now - noted > min(NOTE_SECONDS, self.stuck / 2):
                noted = now
                self._note(child.pid, now - progress.well)
        return ""

    def _end(self, child: "subprocess.Popen[bytes]", *, politely: bool) -> None:
        """Let it finish its tasks within the grace where that can be hoped for, then end whatever is left of it."""
        if politely:
            child.terminate()
            self._tell_supervisors()
            with suppress(subprocess.TimeoutExpired):
                child.wait(self.grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def _tell_supervisors(self) -> list[psutil.Process]:
        """Where all is to end, they are told so: in a container they would die with the first process, and the
        attempt would count. They checkpoint and give their jobs back."""
        told = _supervisors(self.mark)
        for supervisor in told:
            with suppress(psutil.Error):
                supervisor.terminate()
        return told

    def _end_supervisors(self) -> None:
        """Wait for those that were told, and tell those that were started meanwhile."""
        began = self._asked or time.monotonic()
        psutil.wait_procs(self._tell_supervisors(), timeout=max(0.0, began + SUPERVISOR_SECONDS - time.monotonic()))

    def _wait(self, seconds: float) -> bool:
        """Whether we were told to stop meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            time.sleep(min(TICK_SECONDS, seconds))
        return self._stopping

    def _note(self, child: int, unwell_for: float) -> None:
        """Write `var/run/qcluster-<name>.json`, which `manage.py doctor` reads; times are ISO 8601 in UTC."""
        now = timezone.now()
        state = {
            "cluster": self.name,
            "host": settings.KALIMTAK_HOST,
            "pid": os.getpid(),
            "child": child,
            "started": self.started.isoformat(),
            "pulse": (now - timedelta(seconds=unwell_for)).isoformat(),
            "restarts": self.restarts,
            "last_restart": self.last_restart,
        }
        draft = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
            draft.replace(self.file)
        except OSError as error:  # a full disk stops nothing here
            logger.warning("%s cannot be written: %s", self.file, error)


def _supervisors(mark: str) -> list[psutil.Process]:
    """The processes at long jobs that a cluster under the watchdog `mark` started, wherever they hang by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or another user's
            if "run_job" in process.cmdline() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _is_halted(leader: int) -> bool:
    """Whether a process of `leader`'s group was stopped by a signal."""
    with suppress(psutil.Error):
        process = psutil.Process(leader)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error, ProcessLookupError):
                if member.status() == psutil.STATUS_STOPPED and os.getpgid(member.pid) == leader:
                    return True
    return False


def _remember(name: str, reason: str, restarts: int) -> None:
    """Leave a row in the audit trail, if the database is there to take it."""
    data: dict[str, Any] = {"reason": reason, "restarts": restarts}
    try:
        audit.record("watchdog", "queue.restart", f"cluster {name}@{settings.KALIMTAK_HOST}", **data)
    except Exception as error:
        logger.warning("The restart of cluster %s is not in the audit trail: %s", name, error)
    finally:
        connections.close_all()
