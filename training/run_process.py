"""The trainer as a process: started by its supervisor, followed through its events, stopped as a group.

A trainer lives in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor, and never outlives
its supervisor: the kernel ends it on Linux, a watching thread elsewhere, and the next attempt ends whatever is left.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil

from kalimtak.core.crashpoints import crashpoint
from registry.families.process_environment import training_environment
from training.run_spec import RunSpec, write_json

STOP_SECONDS = 15.0  # between asking (TERM) and ending (KILL): a checkpoint, and the supervisor's own end within 20 s
ORPHAN_CHECK_SECONDS = 0.5
LOG_TAIL_BYTES = 8_000
NICENESS = 10  # answering people goes first
_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).resolve().parent.parent


class TrainerProcess:
    """One `python -m training.runner`, as its supervisor sees it. As a context manager it leaves no process behind."""

    def __init__(self, spec: RunSpec, pid_file: Path) -> None:
        spec.events.unlink(missing_ok=True)
        self._spec = spec
        self._read_up_to = 0
        self._pid_file = pid_file
        with spec.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.runner", str(spec.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_ROOT,
                env=training_environment() | {"OMP_NUM_THREADS": str(_cores()), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        crashpoint("supervisor.before_pid_file")
        write_json(pid_file, {"pid": self._process.pid, "started": _started(self._process.pid)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill_group()
        self._process.wait()
        if _noted(self._pid_file).get("pid") == self.pid:  # where this supervisor was overtaken it is the newer one's
            self._pid_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def events(self) -> list[dict[str, Any]]:
        """What it reported since the last call; a line that is still being written waits for the next one."""
        try:
            with self._spec.events.open("rb") as stream:
                stream.seek(self._read_up_to)
                fresh = stream.read()
        except FileNotFoundError:
            return []
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read_up_to += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def ask_to_stop(self) -> None:
        """The trainer checkpoints and ends; a second request changes nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask, wait so long, then end the group."""
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._kill_group()
        self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of its output, for an error message."""
        with self._spec.log.open("rb") as stream:
            stream.seek(max(0, self._spec.log.stat().st_size - LOG_TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def end_orphan(pid_file: Path) -> bool:
    """End the trainer that an earlier supervisor left running, if there is one; whether there was.

    A process with the same number that started at another time is somebody else's and left alone.
    """
    pid = trainer_lives(pid_file)
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).wait(STOP_SECONDS)
    pid_file.unlink(missing_ok=True)
    return bool(pid)


def trainer_lives(pid_file: Path) -> int:
    """The process id that `pid_file` notes where that very process still runs; 0 otherwise."""
    noted = _noted(pid_file)
    pid, started = noted.get("pid"), noted.get("started")
    return pid if isinstance(pid, int) and started is not None and _started(pid) == started else 0


def _noted(pid_file: Path) -> dict[str, Any]:
    try:
        noted = json.loads(pid_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def die_with(supervisor: int) -> None:
    """Called by the trainer about itself: from here on it does not outlive process `supervisor`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(supervisor,), name="orphan-watch", daemon=True).start()


def _watch(supervisor: int) -> None:
    """Also covers a supervisor that was gone before the kernel was asked."""
    while os.getppid() == supervisor:
        time.sleep(ORPHAN_CHECK_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _started(pid: int) -> float | None:
    """When process `pid` started, in seconds since the epoch; None where there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
