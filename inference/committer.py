"""Making answers durable, and only then handing them out.

A commit to a database that is near, on a good disk, takes less than a millisecond, nearly all of it work for this core.
Then the batcher does it itself: two threads would only split the groups, and what a commit costs hardly depends on how
many rows it has. Where a commit means waiting (a server across the network, a disk that takes its time to sync), a
thread of its own waits while the batcher computes the next round. docs/decisions, 21 has the measurements.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from kalimtak.core.cores import PLACE

logger = logging.getLogger(__name__)

WAITING_SECONDS = 0.003  # of a commit, on average, that make a thread for it worth while
MEMORY = 0.1  # the newest commit's share in that average

Draft = TypeVar("Draft")
Result = TypeVar("Result")
DraftOf = TypeVar("DraftOf", covariant=True)


class ModelFailed(Exception):
    """The model could not answer this request."""


class RecordFailed(Exception):
    """The answers could not be made durable, so nobody got one."""


class Answered(Protocol[DraftOf, Result]):
    """A request whose answers are all there."""

    @property
    def inputs(self) -> Sequence[Any]: ...
    @property
    def future(self) -> "Future[Result]": ...
    def draft(self, now: float) -> DraftOf: ...


class Committer(Generic[Draft, Result]):
    """Records rounds of answered requests with `record`, in order, then calls `settled` and ends their futures.

    `record(drafts)` makes the drafts durable in one go and returns, for each, what its request shall get: a result, or
    an exception. Where it raises, every request of the round gets `RecordFailed`.
    """

    def __init__(
        self,
        record: Callable[[list[Draft]], Sequence[Result | Exception]],
        settled: Callable[[Sequence[Answered[Draft, Result]]], None],
    ) -> None:
        self._record, self._settled = record, settled
        self._waiting = 0.0  # seconds of a commit in which the core was free, a moving average
        self._pending: list[Answered[Draft, Result]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_busy = self._stopping = False

    def commit(self, works: Sequence[Answered[Draft, Result]]) -> None:
        """Record a round: before returning, or in the committer's thread."""
        if self._waiting < WAITING_SECONDS and not self._is_busy:
            self._commit(works)
            return
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                self._thread.start()
            self._pending, self._is_busy = [*self._pending, *works], True
            self._changed.notify()

    def stop(self, timeout: float) -> None:
        """Record what is pending, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        PLACE.keep()
        while True:
            with self._changed:
                while not self._pending and not self._stopping:
                    self._changed.wait()
                works, self._pending = self._pending, []
                if not works:
                    return
            self._commit(works)
            with self._changed:
                self._is_busy = bool(self._pending)

    def _commit(self, works: Sequence[Answered[Draft, Result]]) -> None:
        """Make the answers of these requests durable together, then hand them out."""
        ready, drafts = self._drafts(works)
        results: Sequence[Result | Exception] = []
        if ready:
            began, worked = time.perf_counter(), time.process_time()
            try:
                results = self._record(drafts)
            except Exception as error:
                logger.error("Answers could not be recorded: %s", error)
                results = [RecordFailed(str(error))] * len(ready)
            waited = max(0.0, time.perf_counter() - began - (time.process_time() - worked))
            self._waiting += MEMORY * (waited - self._waiting)
        self._settled(works)  # first, so that it is known who may come back when the first of them does
        for work, result in zip(ready, results, strict=True):
            if isinstance(result, Exception):
                work.future.set_exception(result)
            else:
                work.future.set_result(result)

    def _drafts(self, works: Sequence[Answered[Draft, Result]]) -> tuple[list[Answered[Draft, Result]], list[Draft]]:
        now = time.perf_counter()
        ready: list[Answered[Draft, Result]] = []
        drafts: list[Draft] = []
        for work in works:
            try:
                drafts.append(work.draft(now))
                ready.append(work)
            except Exception as error:
                logger.exception("An answer could not be put into words")
                work.future.set_exception(ModelFailed(str(error)))
        return ready, drafts
