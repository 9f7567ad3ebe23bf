"""Named places where a test may kill the process, so that every window between two effects can be tried.

    crashpoint("store.before_rename")

does nothing unless the environment says `KALIMTAK_CRASHPOINT=store.before_rename`: then the process dies there as if
the plug were pulled, without a handler, a `finally` or a buffer being flushed. `name:3` lets two passes go by and dies
at the third. Where `KALIMTAK_CRASHPOINT_ONCE` names a file, the first process to arrive creates it and dies, and later
ones go on, so that a restarted process gets past the same place.
"""

import os
import signal

_passes: dict[str, int] = {}


def crashpoint(name: str) -> None:
    """Die here by SIGKILL where the environment asks for `name`."""
    wanted = os.environ.get("KALIMTAK_CRASHPOINT")
    if not wanted:
        return
    place, _, at = wanted.partition(":")
    if place != name:
        return
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] == int(at or 1) and _first_to_arrive():
        os.kill(os.getpid(), signal.SIGKILL)


def _first_to_arrive() -> bool:
    path = os.environ.get("KALIMTAK_CRASHPOINT_ONCE")
    if not path:
        return True
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
