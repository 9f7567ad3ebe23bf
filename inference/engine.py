"""The batcher of a serving process: what waits is answered together, and made durable together.

Request threads hand in work and wait; one thread takes what is waiting, runs the models, and hands the answers of the
round to the committer, which records them together and only then lets anybody have one. A request that comes alone is
a round of its own, at once. Only for a few milliseconds after an answer to several are those waited for, as long as
they come back one after the other: then they share a pass and a commit again. Equal texts of a round are computed once.

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

from inference.committer import Answered, Committer, ModelFailed, RecordFailed
from kalimtak.core.cores import PLACE
from registry.families.base import Answer, Fields, Predictor

__all__ = ["Engine", "ModelFailed", "Overloaded", "RecordFailed", "Work"]

logger = logging.getLogger(__name__)

CAPACITY = 256  # texts waiting
ROUND_TEXTS = 32  # between two commits, so that nobody waits long behind a crowd
PIECE_TEXTS = 8  # of one request in a round, so that single texts are not held up by a large batch
# Who comes back after an answer, as most clients do under load, does it while the others are still being told theirs.
RETURN_SECONDS = 0.002  # without anybody coming back, until those who have begin without the others
MOST_RETURN_SECONDS = 0.006
BATCH_FACTOR = 8  # a text of a model that computes whole batches at once counts as an eighth

Draft = TypeVar("Draft")
Result = TypeVar("Result")


class Overloaded(Exception):
    """The queue is full; nothing was accepted."""


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

    def draft(self, now: float) -> Draft:
        """What is recorded of the answers; `now` is in seconds of `perf_counter`."""
        return self.complete(self.answers, (now - self.submitted) * 1000)


class Engine(Generic[Draft, Result]):
    """One batcher thread with a queue of at most `capacity` waiting texts; `record` is the committer's."""

    def __init__(
        self, record: Callable[[list[Draft]], Sequence[Result | Exception]], *, capacity: int = CAPACITY
    ) -> None:
        self._committer = Committer(record, self._settle)
        self._capacity = capacity
        self._waiting: deque[Work[Draft, Result]] = deque()
        self._texts = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._expected = 0  # requests answered together last, whose clients may come back
        self._return_until = self._latest_return = 0.0  # seconds of `perf_counter`

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
            self._return_until = min(work.submitted + RETURN_SECONDS, self._latest_return)
            if len(self._waiting) == 1 or len(self._waiting) >= self._expected:
                self._changed.notify()
        return work.future

    def stop(self, timeout: float = 10.0) -> None:
        """Accept nothing more, answer what was accepted, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        self._committer.stop(timeout)

    def _run(self) -> None:
        PLACE.keep()
        while pieces := self._take():
            if answered := self._round(pieces):
                self._committer.commit(answered)

    def _round(self, pieces: "list[tuple[Work[Draft, Result], Sequence[Fields]]]") -> "list[Work[Draft, Result]]":
        """Compute every piece; returns the requests whose answers are all there now."""
        works = [work for work, _ in pieces]
        try:
            self._compute(pieces)
        except Exception as error:  # whatever happens, nobody waits for ever
            logger.exception("A round of answers failed")
            _fail(works, ModelFailed(str(error)))
        if failed := [work for work in works if work.future.done()]:
            self._settle(failed)
            works = [work for work in works if not work.future.done()]
        if unfinished := [work for work in works if not work.is_answered]:
            self._put_back(unfinished)
            works = [work for work in works if work.is_answered]
        return works

    def _take(self) -> "list[tuple[Work[Draft, Result], Sequence[Fields]]]":
        """Wait for work, then take a piece of each request in turn until the round is full. Empty: time to end."""
        pieces: list[tuple[Work[Draft, Result], Sequence[Fields]]] = []
        room = ROUND_TEXTS
        with self._changed:
            while not pieces and (self._waiting or not self._stopping):
                while not self._stopping and (pause := self._pause()) != 0:
                    self._changed.wait(pause)
                while self._waiting and room > 0:
                    work = self._waiting.popleft()
                    if not work.answers and not work.future.set_running_or_notify_cancel():
                        self._texts -= len(work.inputs)  # its request gave up waiting
                        continue
                    piece = work.next_piece(room)
                    room -= -(-len(piece) // work.factor)
                    pieces.append((work, piece))
        return pieces

    def _pause(self) -> float | None:
        """Seconds to wait before the next round begins with what waits now. None: until something does."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._expected or any(work.answers for work in self._waiting):  # what was put back
            return 0
        return max(0.0, self._return_until - time.perf_counter())

    def _put_back(self, works: "Sequence[Work[Draft, Result]]") -> None:
        """Requests with texts left go to the end of the queue, behind those that came meanwhile."""
        with self._changed:
            self._waiting.extend(works)

    def _settle(self, works: Sequence[Answered[Draft, Result]]) -> None:
        """These requests have their outcome and wait no longer."""
        now = time.perf_counter()
        with self._changed:
            self._texts -= sum(len(work.inputs) for work in works)
            self._expected = min(len(works), ROUND_TEXTS)
            self._return_until, self._latest_return = now + RETURN_SECONDS, now + MOST_RETURN_SECONDS
            self._changed.notify()

    def _compute(self, pieces: "list[tuple[Work[Draft, Result], Sequence[Fields]]]") -> None:
        """Answer every piece, each text of a model once. A text that the model fails on fails its own requests only."""
        by_model: defaultdict[int, list[tuple[Work[Draft, Result], Sequence[Fields]]]] = defaultdict(list)
        for work, piece in pieces:
            by_model[id(work.predictor)].append((work, piece))
        for group in by_model.values():
            wanted = list(dict.fromkeys(fields for _, piece in group for fields in piece))
            answers = _answers(group[0][0].predictor, wanted)
            for work, piece in group:
                found = [answers[fields] for fields in piece]
                failures = [answer for answer in found if isinstance(answer, ModelFailed)]
                if failures:
                    _fail([work], failures[0])
                else:
                    work.answers += found  # type: ignore[arg-type]


def _answers(predictor: Predictor, inputs: Sequence[Fields]) -> dict[Fields, Answer | ModelFailed]:
    """The model's answer to each input; where it fails on all together, each alone, since one may be to blame."""
    try:
        answers = predictor.predict(inputs)
        if len(answers) != len(inputs):
            raise ModelFailed(f"{len(inputs)} texts got {len(answers)} answers")
    except Exception as error:
        if len(inputs) > 1:
            return {fields: _answers(predictor, [fields])[fields] for fields in inputs}
        logger.exception("The model failed")
        return {inputs[0]: ModelFailed(str(error))}
    return dict(zip(inputs, answers, strict=True))


def _fail(works: "Iterable[Work[Draft, Result]]", error: Exception) -> None:
    for work in works:
        if not work.future.done():
            work.future.set_exception(error)
