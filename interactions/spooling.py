"""Answering goes on while the database is away: answers wait in this machine's spool until they can be recorded.

The first failure turns a process over to the spool; a thread of its own asks the database, with growing pauses, whether
it is back, and records what waits. What a process left behind when it died is recorded by whoever finds it: web
processes when they start, and the reaper.

A `request_id` gets one answer. It is looked up in the table and in the spool before it is answered, and once more, with
the other processes of this machine shut out, before its answer is spooled; where the table cannot be read, an answer
that may have been given already must not be given anew, and the request is refused.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import DataError, IntegrityError, close_old_connections, connections, transaction

from interactions import spool
from interactions.models import RequestMemo
from interactions.services import (
    NewAnswer,
    NewInteraction,
    NewMemo,
    answers_record,
    memo_find,
    memo_response,
    spool_folder,
)
from kalimtak.core.cores import PLACE
from kalimtak.core.errors import Unavailable
from kalimtak.core.outages import lock_patience, outage_of

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0  # seconds between two looks for the database
LOCK_SECONDS = 1.5  # for another writer of SQLite, before an answer is spooled
NEARLY_FULL = 0.9

First = RequestMemo | NewMemo
_REFUSALS = (IntegrityError, DataError, ValueError, TypeError)  # of a row for good; all else may pass
_UNKNOWN = "The database is away, and whether this request_id was answered before cannot be told; try again."


class Waiting(NamedTuple):
    """What waits in this machine's spool: answers, the bytes of its folder, since when (ISO 8601), files set aside."""

    answers: int
    bytes: int
    since: str
    set_aside: int


# Records -----------------------------------------------------------------------------------------------------------

_ROW, _MEMO = ({each.name for each in fields(kind)} for kind in (NewInteraction, NewMemo))


def record_of(answer: NewAnswer) -> spool.Record:
    """An answer as JSON."""
    rows = [{name: getattr(row, name) for name in _ROW} for row in answer.rows]
    for row in rows:
        row |= {"id": str(row["id"]), "created_at": row["created_at"].isoformat()}
    memo = {name: getattr(answer.memo, name) for name in _MEMO} if answer.memo else None
    return {"rows": rows, "memo": memo}


def answer_of(record: spool.Record) -> NewAnswer:
    """The way back. Raises `ValueError` for what another release wrote and this one cannot read."""
    try:
        rows = []
        for row in record["rows"]:
            known = {name: value for name, value in row.items() if name in _ROW}
            known |= {"id": UUID(row["id"]), "created_at": datetime.fromisoformat(row["created_at"])}
            rows.append(NewInteraction(**known))
        return NewAnswer(rows, _memo_of(record["memo"]) if record["memo"] else None)
    except (TypeError, LookupError) as error:
        raise ValueError(f"of a form that this release does not know: {error}") from error


def _memo_of(memo: dict[str, Any]) -> NewMemo:
    return NewMemo(**{name: value for name, value in memo.items() if name in _MEMO})


# The spool of this process -----------------------------------------------------------------------------------------


class Spool:
    """Where the answers of this process go: while `is_away`, into a file."""

    def __init__(self) -> None:
        self.is_away = False
        self._can_read = True  # whether request_ids can be looked up in the table; a lock leaves reading alone
        self._file: spool.SpoolFile | None = None
        self._sealed: list[spool.SpoolFile] = []  # written to the end, and still locked by us
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    # Answers

    def write(self, answers: Sequence[NewAnswer]) -> None:
        """Bring them to the disk. Raises `Unavailable` where the spool is full or cannot be written."""
        if not answers:
            return
        line = spool.line_of([record_of(answer) for answer in answers])
        try:
            _room_check(len(line))
            with self._lock:
                self._current().append(line)
        except (spool.SpoolFull, OSError) as error:
            message = f"The database is away, and nothing can be spooled: {error}."
            raise Unavailable(message, retry_after=5) from error

    def _current(self) -> spool.SpoolFile:
        """The file to write to; one that failed is mended and left alone, since others may have read what it lost."""
        if self._file is not None and self._file.has_failed:
            self._seal()
        if self._file is None:
            self._file = spool.SpoolFile(spool_folder())
        return self._file

    def _seal(self) -> None:
        """Raises `OSError` where the file cannot be mended: it stays, and nothing is written meanwhile."""
        if self._file is not None:
            if self._file.has_failed:
                self._file.mend()
            self._sealed.append(self._file)
            self._file = None

    def may_look_up(self) -> bool:
        """Whether it is worth asking the table for a `request_id`."""
        return self._can_read or not self.is_away

    def lookups_failed(self) -> None:
        self._can_read = False

    # Coming back

    def begin(self, error: BaseException) -> None:
        """Turn to the spool until the database is back."""
        with self._lock:
            if not self.is_away:
                reason = str(error).partition("\n")[0]  # PostgreSQL's further lines may quote a row
                logger.warning("The database is away (%s); answers are spooled in %s", reason, spool_folder())
                self.is_away, self._can_read = True, True
            self._start()

    def adopt(self) -> None:
        """Record, beside whatever else goes on, what dead processes left behind."""
        if spool.files(spool_folder(), spool.WAITING):
            with self._lock:
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and let go of the files; what waits in them is for others to record."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        with self._lock:
            for file in filter(None, (*self._sealed, self._file)):
                file.close()
            self._sealed.clear()
            self._file, self._thread, self.is_away = None, None, False

    def _run(self) -> None:
        PLACE.leave()
        pause, rows, refused = FIRST_PAUSE, 0, 0
        try:
            while not self._stop.wait(pause):
                try:
                    for emptied in self._round():
                        rows, refused = rows + emptied.rows, refused + emptied.refused
                except Exception as error:
                    if outage_of(error) is None:
                        logger.exception("The spool cannot be emptied")
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                if self._is_done():
                    logger.warning("The database answers; %d spooled answers were recorded, %d refused", rows, refused)
                    return
                pause = FIRST_PAUSE
        finally:
            connections.close_all()

    def _round(self) -> list[spool.Emptied]:
        """One try to record all that waits. Raises what the database raises."""
        close_old_connections()
        try:
            RequestMemo.objects.exists()
        except Exception:
            self._can_read = False
            raise
        self._can_read = True
        with lock_patience(LOCK_SECONDS):
            with transaction.atomic():  # takes SQLite's lock
                RequestMemo.objects.exists()
            return self._empty_all()

    def _empty_all(self) -> list[spool.Emptied]:
        with self._lock:
            if not self._sealed:
                self._seal()
        emptied = []
        while self._sealed:
            emptied.append(spool.empty(self._sealed[0].path, self._write_back))
            self._sealed.pop(0).close()
        self.is_away = False
        emptied += [spool.empty(path, self._write_back) for path in spool.left_behind(spool_folder())]
        return emptied

    def _write_back(self, records: list[spool.Record]) -> list[str]:
        reasons = records_write(records)
        self.is_away = False  # the newest answers need not wait behind the oldest
        return reasons

    def _is_done(self) -> bool:
        with self._lock:
            if self.is_away or self._file is not None or self._sealed:
                return False
            self._thread = None
            return True


SPOOL = Spool()


def left_behind_record() -> int:
    """Record what processes of this machine left in the spool when they died; how many answers that were."""
    paths = spool.left_behind(spool_folder())
    return sum(spool.empty(path, records_write).rows for path in paths)


def records_write(records: list[spool.Record]) -> list[str]:
    """Record spooled answers; for each why it was refused, or "". Raises where the database is away."""
    reasons, answers = [""] * len(records), {}
    for place, record in enumerate(records):
        try:
            answers[place] = answer_of(record)
        except ValueError as error:
            reasons[place] = str(error)
    try:
        found = _recorded(list(answers.values()))
    except _REFUSALS:
        found = [_recorded_alone(answer) for answer in answers.values()]
    for place, reason in zip(answers, found, strict=True):
        reasons[place] = reason
    return reasons


def _recorded(answers: list[NewAnswer]) -> list[str]:
    earlier = answers_record(answers) if answers else []
    return ["its request_id was answered elsewhere first" if memo else "" for memo in earlier]


def _recorded_alone(answer: NewAnswer) -> str:
    try:
        return _recorded([answer])[0]
    except _REFUSALS as error:
        return str(error).partition("\n")[0]


# Giving answers ----------------------------------------------------------------------------------------------------


def answers_give(answers: Sequence[NewAnswer]) -> list[First | None]:
    """`answers_record` beside a spool: a `request_id` that was answered out of it keeps that answer."""
    if not any(answer.memo for answer in answers):
        return list(answers_record(answers))
    try:
        with spool.turn(spool_folder(), shared=True):
            return _record_beside_spool(answers)
    except spool.SpoolBusy as error:
        raise Unavailable(_UNKNOWN) from error


def _record_beside_spool(answers: Sequence[NewAnswer]) -> list[First | None]:
    spooled: list[First | None] = [_spooled(answer.memo) for answer in answers]
    recorded = iter(answers_record([answer for answer, memo in zip(answers, spooled, strict=True) if memo is None]))
    return [memo or next(recorded) for memo in spooled]


def answers_spool(answers: Sequence[NewAnswer]) -> list[First | Unavailable | None]:
    """Bring the answers to the disk in place of the table.

    Returns for each None, or what counts instead: the first answer to its `request_id`, or the refusal of one that
    cannot be looked up. Raises `Unavailable` where the spool is full.
    """
    if not any(answer.memo for answer in answers):
        SPOOL.write(answers)
        return [None] * len(answers)
    try:
        with spool.turn(spool_folder(), shared=False):
            outcomes = _first_of_each(answers)
            SPOOL.write([answer for answer, first in zip(answers, outcomes, strict=True) if first is None])
    except (spool.SpoolBusy, OSError):
        outcomes = [Unavailable(_UNKNOWN) if answer.memo else None for answer in answers]
        SPOOL.write([answer for answer in answers if answer.memo is None])
    return outcomes


def _first_of_each(answers: Sequence[NewAnswer]) -> list[First | Unavailable | None]:
    taken: dict[tuple[str, str], NewMemo] = {}
    outcomes: list[First | Unavailable | None] = []
    for answer in answers:
        outcome: First | Unavailable | None = None
        if answer.memo:
            outcome = taken.get(answer.memo.key) or _first_or_refusal(answer.memo)
            if outcome is None:
                taken[answer.memo.key] = answer.memo
        outcomes.append(outcome)
    return outcomes


def _first_or_refusal(memo: NewMemo) -> First | Unavailable | None:
    try:
        return _first(memo.owner, memo.request_id)
    except Unavailable as refusal:
        return refusal


def first_response(owner: str, request_id: str, body_digest: str) -> Any:
    """What this request was answered with in the last 24 hours, or None.

    Raises `Conflict` for another request under its name, and `Unavailable` where that cannot be told.
    """
    try:
        with spool.turn(spool_folder(), shared=True):  # what is being spooled just now is not on the disk yet
            first = _first(owner, request_id)
    except spool.SpoolBusy as error:
        raise Unavailable(_UNKNOWN) from error
    return memo_response(first, body_digest) if first else None


def _first(owner: str, request_id: str) -> First | None:
    """The spool is asked first: what leaves it is in the table before. Raises `Unavailable`."""
    if memo := spool.index_of(spool_folder()).memo(owner, request_id):
        return _memo_of(memo)
    if not SPOOL.may_look_up():
        raise Unavailable(_UNKNOWN, retry_after=2)
    try:
        return memo_find(owner, request_id)
    except Exception as error:
        if outage_of(error) is None:
            raise
        SPOOL.lookups_failed()
        raise Unavailable(_UNKNOWN, retry_after=2) from error


def _spooled(memo: NewMemo | None) -> NewMemo | None:
    found = spool.index_of(spool_folder()).memo(memo.owner, memo.request_id) if memo else None
    return _memo_of(found) if found else None


# How it stands -----------------------------------------------------------------------------------------------------


def waiting() -> Waiting:
    """What waits in the spool of this machine."""
    answers, since = spool.index_of(spool_folder()).count()
    set_aside = len(spool.files(spool_folder(), spool.REFUSED, spool.DAMAGED))
    return Waiting(answers, spool.bytes_in(spool_folder()), since, set_aside)


def can_go_on() -> bool:
    """Whether there is room in the spool for a while."""
    try:
        _room_check(int((1 - NEARLY_FULL) * settings.KALIMTAK_SPOOL_BYTES))
    except (spool.SpoolFull, OSError):
        return False
    return True


def _room_check(needed: int) -> None:
    most, reserve = settings.KALIMTAK_SPOOL_BYTES, settings.KALIMTAK_DISK_RESERVE
    spool.room_check(spool_folder(), needed, most=most, reserve=reserve)
