"""What the processes of a test do; a module of its own, which they import quickly."""

import os
import signal
import time
from typing import Any

from registry.families.base import Reporter, Stopped
from registry.families.processes import Seat

PATIENCE = 300  # seconds, which none of them should ever wait


class OwnError(Exception):
    """One that a caller says it expects."""


def report(task: dict[str, Any], seat: Seat, reporter: Reporter) -> str:
    reporter.progress(0.5, "half")
    reporter.metrics(3, 0.5, {"loss": 1.0 + seat.rank})
    reporter.describe(steps=task["steps"])
    return f"{seat.rank} of {seat.count}"


def fail(task: dict[str, Any], seat: Seat, reporter: Reporter) -> None:
    if seat.rank == task.get("rank", 1):
        if error := task.get("error"):
            raise error
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PATIENCE)


def wait_for_stop(task: None, seat: Seat, reporter: Reporter) -> None:
    while seat.rank == 0 and not reporter.stop_requested():
        time.sleep(0.01)
    raise Stopped("stopped at step 3")
