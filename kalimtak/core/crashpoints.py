"""Named places where a test may kill the process, so that every window between two effects can be tried.

    crashpoint("store.before_rename")

does nothing unless the environment says `KALIMTAK_CRASHPOINT=store.before_rename`: then the process dies there as if
the plug were pulled, without a handler, a `finally` or a buffer being flushed. `name:3` lets two passes go by and dies
at the third; several names are parted by commas. Where `KALIMTAK_CRASHPOINT_ONCE` names a file, the first process to
arrive at a place notes it there and dies, and later ones go on, so that a restarted process gets past the same place.
"""

import fcntl
import os
import signal
from pathlib import Path

_passes: dict[str, int] = {}


def crashpoint(name: str) -> None:
    """Die here by SIGKILL where the environment asks for `name`."""
    wanted = os.environ.get("KALIMTAK_CRASHPOINT")
    if not wanted:
        return
    places = dict(each.partition(":")[::2] for each in wanted.split(","))
    if name not in places:
        return
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] == int(places[name] or 1) and _first_to_arrive(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _first_to_arrive(name: str) -> bool:
    path = os.environ.get("KALIMTAK_CRASHPOINT_ONCE")
    if not path:
        return True
    with Path(path).open("a+") as noted:
        fcntl.flock(noted, fcntl.LOCK_EX)
        noted.seek(0)
        if name in noted.read().split():
            return False
        noted.write(f"{name}\n")
    return True
