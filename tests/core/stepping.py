"""A worker thread that stands still before each statement at which its connection holds no lock.

Those are all the places where another process can come between, so a test that decides there who goes on tries every
meeting of two processes that there can be, and the same one again when it is asked to.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

from django.db import OperationalError, connection

from kalimtak.core.errors import Conflict

STUCK_SECONDS = 30


class Crash(BaseException):
    """The process is gone: nothing after this happens in it."""


class Worker:
    """A thread with a connection of its own that does one call at a time, statement by statement."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self.busy = False
        self.outcome: Any = None  # of the last call; while `busy`, the statement that waits

    def begin(self, call: Callable[[], Any]) -> None:
        assert not self.busy
        self._send(call)

    def step(self, fault: BaseException | None = None) -> None:
        """Go on to the next place to stand still; `fault` happens instead of the statement that waits."""
        assert self.busy
        self._send(fault)

    def stands_before_a_write(self) -> bool:
        """Whether what it decides to write, by what it read before, may be out of date by now."""
        return self.busy and str(self.outcome).startswith(("INSERT", "UPDATE", "BEGIN"))

    def end(self) -> None:
        self._orders.put(None)
        self._thread.join(STUCK_SECONDS)

    def _send(self, order: Any) -> None:
        self._orders.put(order)
        self.busy, self.outcome = self._reports.get(timeout=STUCK_SECONDS)
        if isinstance(self.outcome, BaseException) and not isinstance(
            self.outcome, Crash | OperationalError | Conflict
        ):
            raise self.outcome

    def _work(self) -> None:
        with connection.execute_wrapper(self._stand_still):
            while (call := self._orders.get()) is not None:
                try:
                    outcome = call()
                except BaseException as error:
                    outcome = error
                self._reports.put((False, outcome))
        connection.close()

    def _stand_still(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not holds_a_lock():
            self._reports.put((True, sql))
            if fault := self._orders.get():
                raise fault
        return execute(sql, params, many, context)


def holds_a_lock() -> bool:
    """Whether others may have to wait for this thread's connection."""
    if not connection.in_atomic_block:
        return False
    if connection.vendor == "sqlite":
        return True  # every transaction begins with IMMEDIATE
    with connection.connection.cursor() as cursor:
        return cursor.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0] is not None
