"""New connections go to the worker that has the fewest, so that no core idles beside one with a queue.

All workers wait at one listening socket. Whoever is awake already takes a new connection, which may be all of them when
a client opens a dozen at once, or when a worker starts later than the others; kept alive, they stay there for as long
as the client. So a worker that has more than another leaves a new one alone for a moment, and where it has many more,
it asks a client now and then to come again (`Connection: close`).
"""

import mmap
import os
import time

SLOTS = 64  # a worker's slot is its number modulo this; more workers than that share slots, and are balanced less well
GRACE_SECONDS = 0.005  # that a worker leaves a connection to others
MOST_MISSED = 3  # connections that they did not come for, before it leaves none to them for a while
BUSY_SECONDS = 0.5  # that this lasts
SHED_SECONDS = 0.05  # between two clients that are asked to come again
SHED_SHARE, SHED_SLACK = 1.25, 2  # it has many more than another beyond so many times that one's, and so many
FRESH_SECONDS = 2.5  # since a worker last said how it is; it does so once a second at least, unless it is stuck or gone

_shared = mmap.mmap(-1, SLOTS * 16)  # made before the workers are forked
_table = memoryview(_shared).cast("d")  # by slot: when its worker last said so (monotonic seconds), its connections


class Balance:
    """The place of worker `number` among the others."""

    def __init__(self, number: int) -> None:
        self._slot = number % SLOTS
        self._offered = float("-inf")  # when the connection that waits now was first left to others
        self._missed = 0  # connections that they did not come for
        self._busy_until = 0.0  # when the others may have time for a connection again
        self._shed_at = 0.0

    def say(self, connections: int) -> None:
        """Tell the others how many connections this worker has."""
        _table[2 * self._slot + 1] = connections
        _table[2 * self._slot] = time.monotonic()

    def leaves_to_others(self, connections: int) -> bool:
        """Whether a connection that waits should be left where it is; asked again and again while it is."""
        now = time.monotonic()
        if now < self._busy_until or self._fewest(now) >= connections:
            return False
        if now - self._offered > 2 * GRACE_SECONDS:  # a new one, not the one that was left to them before
            self._offered = now
        elif now - self._offered > GRACE_SECONDS:
            self._offered, self._missed = float("-inf"), self._missed + 1
            if self._missed >= MOST_MISSED:
                self._missed, self._busy_until = 0, now + BUSY_SECONDS
            return False
        os.sched_yield()
        return True

    def sheds(self, connections: int) -> bool:
        """Whether a client should be asked to come again, which is how it may get to another worker."""
        now = time.monotonic()
        if now < self._shed_at:
            return False
        self._shed_at = now + SHED_SECONDS
        return connections > self._fewest(now) * SHED_SHARE + SHED_SLACK

    def _fewest(self, now: float) -> float:
        """The connections of the other worker that has the fewest; infinitely many where there is no other."""
        since, own = now - FRESH_SECONDS, 2 * self._slot
        others = [_table[at + 1] for at in range(0, 2 * SLOTS, 2) if at != own and _table[at] > since]
        return min(others, default=float("inf"))
