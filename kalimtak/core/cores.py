"""Every web process on a core of its own: its threads hand one lock to each other, which is cheap on one core alone.

A thread that waits for Python's lock, or for work, has to be woken; the kernel likes to do that on another core, where
nothing it needs is in the cache, and at times puts the models of two processes on one core while the other one idles.
Decision 33 has the measurements. The threads that carry the traffic `keep` to the core of their process; those that do
anything else `leave` it, and so does whatever they start. Pure.
"""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress


def usable() -> list[int]:
    """The cores this thread may use, none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def for_next(held: Iterable[int | None], processes: int) -> int | None:
    """The core for one more process, the one that fewest of those in `held` have.

    None unless there are as many `processes` as cores: with fewer some would idle, with more some would be crowded.
    """
    cores, holders = usable(), Counter(held)
    return min(cores, key=lambda core: holders[core]) if 1 < len(cores) == processes else None


class Place:
    """The core of this process and all those it may use."""

    def __init__(self) -> None:
        self._own: int | None = None
        self._all: list[int] = []

    def take(self, core: int | None) -> None:
        """From now on `core` is where threads `keep`; None: wherever they are."""
        self._own, self._all = core, usable()

    def keep(self) -> None:
        """Bind the calling thread to the core of this process."""
        if self._own is not None:
            _bind([self._own])

    def leave(self) -> None:
        """Let the calling thread, which may have been started by a bound one, use every core."""
        if self._own is not None:
            _bind(self._all)


def _bind(cores: list[int]) -> None:
    with suppress(OSError):  # taken away from this container meanwhile; any core will do
        os.sched_setaffinity(0, cores)


PLACE = Place()
"""Of this process."""
