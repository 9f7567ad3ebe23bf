"""The batcher of a serving process: texts are answered one by one, and made durable together.

Request threads hand in work and wait; one thread takes what is waiting, runs the models, calls `record` once for all
answers of the round (the group commit), and only then lets anybody have an answer. It never waits for company: a
request that comes alone is a round of its own.

The engine deliberately knows neither versions nor classifiers nor the database. Work brings the predictor chosen for
it, so no request can mix two versions, and a replaced version is freed when its last work is done.
"""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from registry.families.base import Answer, Fields, Predictor

logger = logging.getLogger(__name__)

CAPACITY = 256  # texts waiting
ROUND_TEXTS = 32  # between two commits, so that nobody waits long behind a crowd
PIECE_TEXTS = 8  # of one request in a round, so that single texts are not held up by a large batch
BATCH_FACTOR = 8  # a text of a model that computes whole batches at once counts as an eighth

Draft = TypeVar("Draft")
Result = TypeVar("Result")


class Overloaded(Exception):
    """The queue is full; nothing was accepted."""


class ModelFailed(Exception):
    """The model could not answer this request."""


class RecordFailed(Exception):
    """The answers could not be made durable, so nobody got one."""


@dataclass(slots=True, eq=False)
class Work(Generic[Draft, Result]):
    """The inputs of one request, all for one predictor.

    `complete` turns the answers and the milliseconds since submission into what `record` is given.
    """

    predictor: Predictor
    inputs: Sequence[Fields]
    complete: Callable[[list[Answer], float], Draft]
    answers: list[Answer] = field(default_factory=list)
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)

    @property
    def factor(self) -> int:
        return BATCH_FACTOR if getattr(self.predictor, "batches", False) else 1

    def next_piece(self, room: int) -> Sequence[Fields]:
        """The next inputs to answer, `room` and a piece's size permitting."""
        done = len(self.answers)
        return self.inputs[done : done + min(room, PIECE_TEXTS) * self.factor]

    @property
    def is_answered(self) -> bool:
        return len(self.answers) == len(self.inputs)


class Engine(Generic[Draft, Result]):
    """One batcher thread with a queue of at most `capacity` waiting texts.

    `record(drafts)` makes the drafts durable in one go and returns, for each, what its request shall get: a result, or
    an exception. It is called in the batcher thread only. Where it raises, every draft's request gets `RecordFailed`.
    """

    def __init__(
        self, record: Callable[[list[Draft]], Sequence[Result | Exception]], *, capacity: int = CAPACITY
    ) -> None:
        self._record = record
        self._capacity = capacity
        self._waiting: deque[Work[Draft, Result]] = deque()
        self._texts = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Texts accepted and not yet answered."""
        return self._texts

    def submit(
        self, predictor: Predictor, inputs: Sequence[Fields], complete: Callable[[list[Answer], float], Draft]
    ) -> "Future[Result]":
        """Queue one request. Its future ends with what `record` returned for it, `ModelFailed` or `RecordFailed`.

        A request of more texts than the queue holds is accepted when nothing else waits. Raises `Overloaded`.
        """
        work: Work[Draft, Result] = Work(predictor, inputs, complete)
        with self._changed:
            if self._stopping:
                raise Overloaded("the engine is stopping")
            if self._texts and self._texts + len(inputs) > self._capacity:
                raise Overloaded(f"{self._texts} texts are waiting already")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
            self._texts += len(inputs)
            self._waiting.append(work)
            self._changed.notify()
        return work.future

    def stop(self, timeout: float = 10.0) -> None:
        """Accept nothing more, answer what was accepted, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while pieces := self._take():
            works = [work for work, _ in pieces]
            try:
                self._compute(pieces)
                self._commit([work for work in works if work.is_answered and not work.future.done()])
            except Exception as error:  # whatever happens, nobody waits for ever
                logger.exception("A round of answers failed")
                _fail(works, ModelFailed(str(error)))
            self._put_back(works)

    def _take(self) -> "list[tuple[Work[Draft, Result], Sequence[Fields]]]":
        """Wait for work, then take a piece of each request in turn until the round is full. Empty: time to end."""
        pieces: list[tuple[Work[Draft, Result], Sequence[Fields]]] = []
        room = ROUND_TEXTS
        with self._changed:
            while not pieces and (self._waiting or not self._stopping):
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                while self._waiting and room > 0:
                    work = self._waiting.popleft()
                    if not work.answers and not work.future.set_running_or_notify_cancel():
                        self._texts -= len(work.inputs)  # its request gave up waiting
                        continue
                    piece = work.next_piece(room)
                    room -= -(-len(piece) // work.factor)
                    pieces.append((work, piece))
        return pieces

    def _put_back(self, works: "Iterable[Work[Draft, Result]]") -> None:
        """Requests with texts left go to the end of the queue, behind those that came meanwhile."""
        with self._changed:
            for work in works:
                if work.future.done():
                    self._texts -= len(work.inputs)
                else:
                    self._waiting.append(work)

    def _compute(self, pieces: "list[tuple[Work[Draft, Result], Sequence[Fields]]]") -> None:
        """Answer every piece: one call per request, or one for all that share a model which computes in batches."""
        groups: defaultdict[int, list[tuple[Work[Draft, Result], Sequence[Fields]]]] = defaultdict(list)
        for work, piece in pieces:
            groups[id(work.predictor) if work.factor > 1 else id(work)].append((work, piece))
        for group in groups.values():
            if not self._predict(group) and len(group) > 1:
                for alone in group:  # one odd text must not spoil its neighbours
                    self._predict([alone])

    def _predict(self, group: "list[tuple[Work[Draft, Result], Sequence[Fields]]]") -> bool:
        """Extend the answers of the group's requests. False where the model failed.

        A request that was tried on its own is told so; a group may still be tried one by one.
        """
        inputs = [fields for _, piece in group for fields in piece]
        try:
            answers = group[0][0].predictor.predict(inputs)
            if len(answers) != len(inputs):
                raise ModelFailed(f"{len(inputs)} texts got {len(answers)} answers")
        except Exception as error:
            if len(group) == 1:
                logger.exception("The model failed")
                _fail([work for work, _ in group], ModelFailed(str(error)))
            return False
        start = 0
        for work, piece in group:
            work.answers += answers[start : start + len(piece)]
            start += len(piece)
        return True

    def _commit(self, works: "list[Work[Draft, Result]]") -> None:
        """Make the answers of these requests durable together, then hand them out."""
        now, ready, drafts = time.perf_counter(), [], []
        for work in works:
            try:
                drafts.append(work.complete(work.answers, (now - work.submitted) * 1000))
                ready.append(work)
            except Exception as error:
                logger.exception("An answer could not be put into words")
                _fail([work], ModelFailed(str(error)))
        if not ready:
            return
        try:
            results = self._record(drafts)
        except Exception as error:
            logger.error("Answers could not be recorded: %s", error)
            _fail(ready, RecordFailed(str(error)))
            return
        for work, result in zip(ready, results, strict=True):
            if isinstance(result, Exception):
                work.future.set_exception(result)
            else:
                work.future.set_result(result)


def _fail(works: "Iterable[Work[Draft, Result]]", error: Exception) -> None:
    for work in works:
        if not work.future.done():
            work.future.set_exception(error)
