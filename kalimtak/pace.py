"""How slowly a body may come that a thread reads: bodies too large to be waited for in the kernel.

A client that sends byte after byte would hold the thread for hours otherwise, with a valid key or without. What counts
is the time that the thread waits for the client; what it does with the parts, such as writing them to a disk, does not.
"""

import errno
import time
from collections.abc import Callable

from gunicorn.http.unreader import Unreader

GRACE_SECONDS = 10.0  # of waiting that any body may cost
LEAST_RATE = 16_384  # bytes a second, of all that came, beyond that

Chunk = Callable[..., bytes]


def keeps_pace(unreader: Unreader) -> Chunk:
    """What reads the next part of a body from `unreader`, in place of its own `chunk`.

    Raises `ConnectionResetError`, as if the client had gone, once it is too slow, or a part does not come within the
    socket's own time limit: Django and gunicorn know that error.
    """
    read: Chunk = type(unreader).chunk
    waited, came = 0.0, 0

    def chunk(size_hint: int | None = None) -> bytes:
        nonlocal waited, came
        if waited > GRACE_SECONDS + came / LEAST_RATE:
            raise _too_slow()
        began = time.monotonic()
        try:
            part = read(unreader, size_hint)
        except (BlockingIOError, TimeoutError):
            raise _too_slow() from None
        waited, came = waited + time.monotonic() - began, came + len(part)
        return part

    return chunk


def _too_slow() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "The body came too slowly")
