"""Answering: texts in, recorded results out. The one front door of views, commands and pages."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from django.db import DataError, IntegrityError, InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from inference.engine import Engine, ModelFailed, Overloaded, RecordFailed
from inference.live import LIVE, LiveVersion, Served
from inference.parsing import Item
from inference.results import result_of, shown
from inference.routing import choose
from interactions.services import (
    NewAnswer,
    NewInteraction,
    NewMemo,
    memo_owner,
    memo_response,
    pseudonym_of,
)
from interactions.spooling import LOCK_SECONDS, SPOOL, First, answers_give, answers_spool, first_response
from kalimtak.core.auth import Caller
from kalimtak.core.errors import KalimtakError, Unavailable, WouldWait
from kalimtak.core.lean import ANSWER_SECONDS
from kalimtak.core.outages import lock_patience, outage_of
from kalimtak.core.uuid7 import uuid7
from registry.families.base import Answer
from registry.labels import label_text_of

logger = logging.getLogger(__name__)

RETRY_WITHIN_SECONDS = 1.0
Results = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A request's answers on their way to the database, and the results it shall get once they are there."""

    answer: NewAnswer
    results: Results
    body_digest: str = ""


def text_classify(
    classifier_slug: str, items: Sequence[Item], *, caller: Caller, top_k: int | None = None, request_id: str = ""
) -> Results:
    """Answer every item by one version of the classifier (empty slug: the default one); returns the contract's results.

    When this returns, every answer is durable. With a `request_id` that this caller used in the last 24 hours the
    first answer is given again. Raises `NotFound` (unknown classifier), `Conflict` (`request_id_reused`) or
    `Unavailable` (`no_model`, `overloaded`, or the model or the database failed).
    """
    served = LIVE.current().get(classifier_slug)
    return text_ask(served, items, caller=caller, top_k=top_k, request_id=request_id).result()


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers under way."""

    future: "Future[Results]"

    def result(self, seconds: float | None = None) -> Results:
        """Wait for them, `ANSWER_SECONDS` at most; every one is durable then. Raises `Conflict` or `Unavailable`."""
        try:
            return self.future.result(ANSWER_SECONDS if seconds is None else seconds)
        except (FutureTimeout, CancelledError):
            self.future.cancel()
            raise Unavailable("The answer took too long.", code="overloaded") from None
        except ModelFailed as error:
            raise Unavailable("The model failed on this text.", code="model_failed", retry_after=5) from error
        except RecordFailed as error:
            raise Unavailable("The answer could not be recorded, so it was not given; try again.") from error


def text_ask(
    served: Served,
    items: Sequence[Item],
    *,
    caller: Caller,
    top_k: int | None = None,
    request_id: str = "",
    may_wait: bool = True,
) -> Asked:
    """`text_classify` that does not wait for the answers.

    A `request_id` has to be looked up: without `may_wait`, `WouldWait` is raised for it.
    """
    if request_id and not may_wait:
        raise WouldWait
    digest = body_digest(served.slug, items, top_k) if request_id else ""
    if request_id and (first := first_response(memo_owner(caller), request_id, digest)):
        return Asked(_done(_results(first)))
    memo_of = _Memo(caller, request_id, digest) if request_id else None
    version = version_for(served, items[0].subject or request_id)
    writer = _Writer(served, version, items, caller, top_k, memo_of)
    try:
        future = engine().submit(version.predictor, [item.fields for item in items], writer.draft)
    except Overloaded as error:
        raise Unavailable("Too many texts are waiting; try again.", code="overloaded") from error
    return Asked(future)


def version_for(served: Served, key: str = "") -> LiveVersion:
    """The live version that answers `key`, any of them by its share for none. Raises `Unavailable` (`no_model`)."""
    try:
        return choose(served.live, key or (str(uuid7()) if len(served.live) > 1 else ""))
    except LookupError:
        message = f"The classifier {served.slug} has no live version yet; train and deploy one."
        raise Unavailable(message, code="no_model", retry_after=30) from None


def body_digest(slug: str, items: Sequence[Item], top_k: int | None) -> str:
    """Equal for two requests that ask the same, however their JSON was written."""
    asked = [slug, top_k, [[list(item.fields), item.subject] for item in items]]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _done(results: Results) -> "Future[Results]":
    future: Future[Results] = Future()
    future.set_result(results)
    return future


def _results(response: Any) -> Results:
    results: Results = response["results"]
    return results


@dataclass(frozen=True, slots=True)
class _Memo:
    caller: Caller
    request_id: str
    body_digest: str

    def new(self, results: Results) -> NewMemo:
        owner = memo_owner(self.caller)
        return NewMemo(owner, self.request_id, self.body_digest, {"results": results}, self.caller.key_id)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Turns a request's probabilities into what is stored and what is answered."""

    served: Served
    version: LiveVersion
    items: Sequence[Item]
    caller: Caller
    top_k: int | None
    memo: _Memo | None

    def draft(self, answers: list[Answer], latency_ms: float) -> Draft:
        written = [
            answer_write(self.served, self.version, item, answer, caller=self.caller, latency_ms=latency_ms)
            for item, answer in zip(self.items, answers, strict=True)
        ]
        results = [shown(result, top_k=self.top_k) for _, result in written]
        memo = self.memo.new(results) if self.memo else None
        return Draft(NewAnswer([row for row, _ in written], memo), results, self.memo.body_digest if self.memo else "")


def answer_write(
    served: Served, version: LiveVersion, item: Item, answer: Answer, *, caller: Caller, latency_ms: float
) -> tuple[NewInteraction, dict[str, Any]]:
    """The row and the full result of one answered item; `latency_ms` is from its arrival to its answer.

    Both name the version that the label comes from, which may be a helper's, and the deployment that was asked.
    """
    interaction_id = uuid7()
    giver = version.who_gave(answer)
    result = result_of(
        answer,
        item.fields,
        labels=version.predictor.labels,
        calibration=giver.predictor.calibration,
        floor=served.threshold,
        interaction_id=interaction_id,
        classifier=served.slug,
        model_version=giver.ref,
        deployment=version.role,
        latency_ms=latency_ms,
    )
    row = NewInteraction(
        id=interaction_id,
        classifier_id=served.id,
        version_id=giver.version_id,
        deployment_id=version.deployment_id,
        fields=dict(zip(served.input_fields, item.fields, strict=True)),
        label=result["label"],
        labels=label_text_of(result["labels"], version.predictor.labels) if "labels" in result else "",
        confidence=result["confidence"],
        scores=result["scores"],
        threshold=result["threshold"],
        abstained=result["abstained"],
        source=result["source"],
        flags=result["flags"],
        latency_ms=result["latency_ms"],
        pseudonym=pseudonym_of(item.subject) if item.subject else "",
        api_key_id=caller.key_id,
        address=caller.address,
        user_agent=caller.user_agent,
        created_at=timezone.now(),
    )
    return row, result


# The engine of this process ---------------------------------------------------------------------------------------


def record(drafts: list[Draft]) -> list[Results | Exception]:
    """The engine's `record`: the answers into the table, or where the database is away, into the spool.

    Raises `Unavailable` where neither is possible.
    """
    outage: Exception | None = None
    if not SPOOL.is_away:
        try:
            return _record_in_table(drafts)
        except Exception as error:
            if outage_of(error) is None:
                raise
            outage = error
    outcomes = _outcomes(drafts, answers_spool([draft.answer for draft in drafts]))
    if outage is not None:  # only now: where the spool has no room, the table is tried again with the next answers
        SPOOL.begin(outage)
    return outcomes


def interactions_keep(rows: Sequence[NewInteraction]) -> None:
    """Record answers that were given without an engine as the engine's are: in the table, or while the database is
    away in the spool. Raises `Unavailable` where neither is possible.
    """
    (outcome,) = record([Draft(NewAnswer(rows), [])])
    if isinstance(outcome, Exception):
        raise Unavailable("The answer could not be recorded, so it was not given; try again.") from outcome


def _record_in_table(drafts: list[Draft]) -> list[Results | Exception]:
    """One transaction for all, tried again once on a fresh connection if it failed at once.

    The connection stays with this thread: giving it back to the pool and asking whether it still lives, each time,
    takes as long as the commit. Whether it lives is asked once it has failed.

    What failed slowly (no connection to be had, a lock) would only make the requests behind it wait as long again.
    One request's row that the database refuses (its API key was deleted a moment ago) must not cost the others their
    answers, so a refused group is written request by request. Raises where the database is away.
    """
    started = time.monotonic()
    try:
        return _record_group(drafts)
    except (OperationalError, InterfaceError) as error:
        close_old_connections()
        if time.monotonic() - started > RETRY_WITHIN_SECONDS:
            raise
        logger.warning("The database dropped a group of answers, trying again: %s", error)
    except (IntegrityError, DataError):
        return [_record_alone(draft) for draft in drafts]
    try:
        return _record_group(drafts)
    except (OperationalError, InterfaceError):
        close_old_connections()
        raise


def _record_group(drafts: list[Draft]) -> list[Results | Exception]:
    with lock_patience(LOCK_SECONDS):
        return _outcomes(drafts, answers_give([draft.answer for draft in drafts]))


def _outcomes(drafts: list[Draft], firsts: Sequence[First | Unavailable | None]) -> list[Results | Exception]:
    """What each request gets: its results, those of the request that was first under its `request_id`, or a refusal."""
    outcomes: list[Results | Exception] = []
    for draft, first in zip(drafts, firsts, strict=True):
        if first is None:
            outcomes.append(draft.results)
        elif isinstance(first, Unavailable):
            outcomes.append(first)
        else:
            outcomes.append(_first_results(first, draft.body_digest))
    return outcomes


def _first_results(first: First, body_digest: str) -> Results | Exception:
    try:
        return _results(memo_response(first, body_digest))
    except KalimtakError as error:
        return error


def _record_alone(draft: Draft) -> Results | Exception:
    try:
        return _record_group([draft])[0]
    except (IntegrityError, DataError) as error:
        reason = str(error).partition("\n")[0]  # PostgreSQL's further lines quote the row, user text included
        logger.error("An answer was refused by the database: %s", reason)
        return RecordFailed(reason)


_engine: Engine[Draft, Results] | None = None
_engine_lock = threading.Lock()


def engine() -> Engine[Draft, Results]:
    """The engine of this process, made at its first question."""
    global _engine
    if _engine is None:
        with _engine_lock:
            if _engine is None:
                _engine = Engine(record)
    return _engine


def warm() -> None:
    """Load what is live, so that no caller waits for it; record what a process before this one left in the spool.

    Raises `Unavailable` without a database.
    """
    SPOOL.adopt()
    LIVE.current()


def shut_down() -> None:
    """Answer what was accepted, then end the threads of this process."""
    global _engine
    with _engine_lock:
        if _engine is not None:
            _engine.stop()
        _engine = None
    SPOOL.stop()
    LIVE.stop()
