"""Heads of requests, read once: what a client says before a body hardly changes from one of its requests to the next.

To parse a head and to make WSGI's environment of it took 36 us, a quarter of what a question cost up to the engine's
queue. So a connection keeps the head that was read from it last. A request has the same one if its bytes are the same,
but for the digits of `Content-Length`: nothing else depends on the body.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from gunicorn.workers.gthread import TConn

if TYPE_CHECKING:
    from kalimtak.core.lean import Shortcut

MOST_DIGITS = 18
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,%d})\r\n" % MOST_DIGITS, re.IGNORECASE)


@dataclass(slots=True)
class Head:
    """The head of a request that came on one connection; `environ` is WSGI's, without a body.

    `before` and `after` are its bytes around the digits of `Content-Length`, empty where it has none.
    """

    before: bytes
    after: bytes
    version: tuple[int, int]
    closes: bool  # whether the client wants the connection to end after the answer
    environ: dict[str, Any]
    shortcut: "Shortcut | None" = None  # past what was learnt from the first request with this head

    @classmethod
    def read(cls, request: bytes, end: int, conn: TConn, cfg: Any) -> "Head":
        """The head of `request`, which is `end` bytes long. Raises gunicorn's `ParseException` or `NoMoreData`."""
        parsed = next(RequestParser(cfg, iter([request]), conn.client))
        _, environ = create(parsed, conn.sock, conn.client, conn.server, cfg)
        for name in ("wsgi.input", "wsgi.early_hints"):  # of this request, not of the next
            del environ[name]
        environ["wsgi.multithread"] = True
        length = _LENGTH.search(request, 0, end)
        before, after = (request[: length.start(1)], request[length.end(1) : end]) if length else (b"", b"")
        return cls(before, after, parsed.version, parsed.should_close(), environ)

    def end_in(self, request: bytes) -> int:
        """How long the head of `request` is, if it is this one; else 0."""
        if not self.before or not request.startswith(self.before):
            return 0
        start = len(self.before)
        end = request.find(b"\r", start, start + MOST_DIGITS + 1)
        if end < 0 or not request[start:end].isdigit() or not request.startswith(self.after, end):
            return 0
        return end + len(self.after)

    def environ_of(self, request: bytes, end: int) -> dict[str, Any]:
        """WSGI's environment of a request with this head, which is `end` bytes long."""
        environ = self.environ | {"wsgi.input": BytesIO(request[end:])}
        if self.before:
            environ["CONTENT_LENGTH"] = request[len(self.before) : end - len(self.after)].decode("ascii")
        return environ


def head_of(request: bytes, end: int, conn: TConn, cfg: Any) -> Head:
    """The head of a request, `end` bytes long, which `conn` keeps for the next one. Raises as `Head.read`."""
    head: Head | None = getattr(conn, "head", None)
    if head is None or head.end_in(request) != end:
        head = conn.head = Head.read(request, end, conn, cfg)
    return head
