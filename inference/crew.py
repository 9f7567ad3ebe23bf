"""Answering a long stream on every core: processes that each hold the model, fed in turn, their answers kept in order.

The process that reads and writes answers by itself at first, so that a short file costs no start; a longer one gets a
crew, which takes over when all of it is ready. Nobody outlives who started it: without it their pipes end.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kalimtak.core.errors import Unavailable

if TYPE_CHECKING:  # the processes import this module before Django is set up
    from inference.classifier import LocalClassifier
    from inference.parsing import Item

ALONE_SECONDS = 2.0
AHEAD = 3  # pieces a process has waiting, so that it never waits for the one that reads

Results = list[dict[str, Any]]
Piece = TypeVar("Piece")


def usable_cores() -> int:
    """Those this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def answered_together(
    classifier: "LocalClassifier", pieces: "Iterable[tuple[Piece, Sequence[Item]]]", processes: int
) -> Iterator[tuple[Piece, Results]]:
    """Each piece with the results of its items, in order; reads only a few pieces ahead.

    Raises `Unavailable` where a process dies or its model fails.
    """
    with ExitStack() as stack:
        crew: Crew[Piece] | None = None
        stream, began = iter(pieces), time.monotonic()
        for piece, items in stream:
            yield piece, classifier.answer(items)
            if processes > 1 and crew is None and time.monotonic() - began > ALONE_SECONDS:
                crew = stack.enter_context(_crew(classifier, processes))
            if crew is not None and crew.is_ready:
                yield from crew.answered(stream)


class Crew(Generic[Piece]):
    """Processes that answer by the same version as `LocalClassifier` does."""

    def __init__(self, members: "list[tuple[BaseProcess, Connection]]") -> None:
        self._members = members
        self._starting = list(members)

    @property
    def is_ready(self) -> bool:
        """Whether all have loaded their model."""
        while self._starting and self._starting[0][1].poll():
            _hear(*self._starting.pop(0))
        return not self._starting

    def answered(self, pieces: "Iterator[tuple[Piece, Sequence[Item]]]") -> Iterator[tuple[Piece, Results]]:
        """As `answered_together`. Pieces go round, so the next answer is always the longest asked member's."""
        asked: deque[tuple[Piece, tuple[BaseProcess, Connection]]] = deque()
        for number, (piece, items) in enumerate(pieces):
            member = self._members[number % len(self._members)]
            _tell(*member, items)
            asked.append((piece, member))
            if len(asked) >= AHEAD * len(self._members):
                oldest, member = asked.popleft()
                yield oldest, _hear(*member)
        for piece, member in asked:
            yield piece, _hear(*member)


@contextmanager
def _crew(classifier: "LocalClassifier", count: int) -> "Iterator[Crew[Any]]":
    context = multiprocessing.get_context("spawn")
    order = (classifier.served.slug, classifier.version.deployment_id, classifier.enable_backup)
    members: list[tuple[BaseProcess, Connection]] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, *order), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends with the process
            members.append((process, ours))
        yield Crew(members)
    finally:
        for member, pipe in members:
            pipe.close()
            member.kill()
            member.join()


def _tell(process: BaseProcess, pipe: Connection, items: "Sequence[Item]") -> None:
    try:
        pipe.send(items)
    except OSError:
        raise _died(process) from None


def _hear(process: BaseProcess, pipe: Connection) -> Any:
    """What it answered."""
    try:
        fault, results = pipe.recv()
    except (EOFError, OSError):
        raise _died(process) from None
    if fault:
        raise Unavailable(f"An answering process failed: {fault}", code="model_failed")
    return results


def _died(process: BaseProcess) -> Unavailable:
    process.join(5)
    code = process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Unavailable(f"An answering process {how}; lower --processes where memory is short.", code="model_failed")


def _work(pipe: Connection, slug: str, deployment_id: int, enable_backup: bool) -> None:
    """One process, from its start to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it decides
    waiting: queue.SimpleQueue[Sequence[Item]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, waiting), name="listen", daemon=True).start()
    try:
        import django

        django.setup()
        from inference.classifier import LocalClassifier

        classifier = LocalClassifier(slug, enable_backup=enable_backup, record=False, deployment_id=deployment_id)
        pipe.send(("", None))
        while True:
            pipe.send(("", classifier.answer(waiting.get())))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))


def _listen(pipe: Connection, waiting: "queue.SimpleQueue[Sequence[Item]]") -> None:
    """Take what is told at once: were both sides to wait for the other to read, neither would."""
    while True:
        try:
            waiting.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
