"""Several processes that do one piece of work together, followed by the one that started them.

Each gets a seat and reports through a pipe of its own. The first seat's answer is the work's. A process that fails or
dies takes the others with it, and none outlives the one that started them: without it their pipes end, and so do they.
Knows nothing of what the work is.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from registry.families.base import FamilyError, Reporter, Silent, Stopped

POLL_SECONDS = 0.2  # between two looks at whether to stop


@dataclass(frozen=True)
class Seat:
    """Which of `count` processes this is, from 0; `meeting` is a file through which they find each other."""

    rank: int = 0
    count: int = 1
    meeting: Path | None = None


Work = Callable[[Any, Seat, Reporter], Any]
"""What each process does, with the task, its seat and who listens; all that goes in or out can be pickled."""


class _Remote:
    """The first process's reporter: all goes up the pipe, and a request to stop comes down."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stop = threading.Event()

    def progress(self, fraction: float, note: str) -> None:
        self._pipe.send(("progress", (fraction, note)))

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._pipe.send(("metrics", (step, epoch, dict(values))))

    def describe(self, **facts: str | float) -> None:
        self._pipe.send(("facts", facts))

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self) -> None:
        self._stop.set()


def work_together(
    work: Work, task: Any, count: int, reporter: Reporter, *, expected: tuple[type[Exception], ...]
) -> Any:
    """The first process's answer to `work`.

    Raises what a process raised where it is Stopped, FamilyError or one of `expected`, and FamilyError for a process
    that ended in another way.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="kalimtak-") as folder, contextlib.ExitStack() as ending:
        pipes: list[Connection] = []
        processes: list[BaseProcess] = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            seat = Seat(rank, count, Path(folder) / "meeting")
            process = context.Process(target=_sit, args=(work, task, seat, theirs, expected), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends with the process
            ending.callback(_end, process, ours)
            pipes.append(ours)
            processes.append(process)
        return _follow(pipes, processes, reporter)


def _follow(pipes: list[Connection], processes: list[BaseProcess], reporter: Reporter) -> Any:
    first, open_pipes, is_told = pipes[0], list(pipes), False
    while True:
        if not is_told and reporter.stop_requested():
            with contextlib.suppress(OSError):  # it has just ended
                first.send("stop")
            is_told = True
        for pipe in wait(open_pipes, POLL_SECONDS):
            assert isinstance(pipe, Connection)
            try:
                said, what = pipe.recv()
            except (EOFError, OSError):
                open_pipes.remove(pipe)
                process = processes[pipes.index(pipe)]
                process.join()
                if process.exitcode != 0 or pipe is first:
                    raise FamilyError(_obituary(process.exitcode)) from None
                continue
            match said:
                case "progress":
                    reporter.progress(*what)
                case "metrics":
                    reporter.metrics(*what)
                case "facts":
                    reporter.describe(**what)
                case "answer" if pipe is first:
                    return what
                case "raised" if pipe is first or not isinstance(what, Stopped):  # the first one may still be writing
                    raise what


def _obituary(code: int | None) -> str:
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return (
        f"One of the training processes {how}; the machine may be short of memory: lower training_config.batch_size "
        "or training_config.num_processes."
    )


def _end(process: BaseProcess, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.join()


def _sit(work: Work, task: Any, seat: Seat, pipe: Connection, expected: tuple[type[Exception], ...]) -> None:
    """One process, from its start to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it decides
    remote = _Remote(pipe)
    threading.Thread(target=_listen, args=(pipe, remote), name="listen", daemon=True).start()
    reporter: Reporter = remote if seat.rank == 0 else Silent()
    try:
        pipe.send(("answer", work(task, seat, reporter)))
    except Exception as error:
        if isinstance(error, (Stopped, FamilyError, *expected)):
            pipe.send(("raised", type(error)(str(error))))
            return
        traceback.print_exc()
        pipe.send(("raised", FamilyError(f"A training process failed: {type(error).__name__}: {error}")))


def _listen(pipe: Connection, remote: _Remote) -> None:
    while True:
        try:
            pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        remote.request_stop()
