"""The express lane: requests that need not wait for anything are begun where the sockets are read, and need no thread.

A question to a model costs a millisecond or two, most of it the model's. Handing it to a thread, waiting there for the
batcher, and waking the thread again, with one lock for all of Python in between, was half of what it cost besides
(decision 22 has the measurements). So the thread that reads the sockets runs the request through Django up to the
engine's queue, and the thread that made the answer durable sends it. Where the request before it on the connection had
the same head, Django's middleware is left out (decision 34).

Only what cannot wait is taken: a request that has come whole, to the API, with a key. Django itself says where
something would have to be waited for after all (`kalimtak.core.lean.NotNow`); then the request goes to a thread as any
other, which is why nothing is taken from the socket before that.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from socket import SHUT_WR
from types import SimpleNamespace
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponse
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.wsgi import Response
from gunicorn.util import http_date
from gunicorn.workers.gthread import TConn

from kalimtak.core.lean import ANSWER_SECONDS, NEVER_WAITS, Begun, Later, NotNow, Shortcut, Whole
from kalimtak.heads import Head, head_of
from kalimtak.worker import PART_SECONDS

MOST_BYTES = 16_384  # of a request; reading a longer one takes long enough to be felt by all others
ENDING_SECONDS = 2.0  # from the last byte of the last answer until a connection is closed, if the client does not

_TAKEN = re.compile(rb"POST /+api/(?=[^\n]*HTTP/1\.[01]\r\n)(?=.*\nauthorization:)", re.IGNORECASE | re.DOTALL)
_NOT_TAKEN = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade):", re.IGNORECASE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Promise:
    """An answer that is being worked out."""

    shortcut: Shortcut
    begun: Begun

    def completed(self) -> Whole:
        return self.shortcut.completed(self.begun)


@dataclass(slots=True, eq=False)
class Passage:
    """A request on its way: since when (monotonic seconds), what will answer it, and whether its connection goes on."""

    conn: TConn
    head: Head
    answer: HttpResponse | Promise
    keeps: bool
    arrived: float = field(default_factory=time.monotonic)
    wanted: deque[bool] = field(default_factory=deque)  # holds something while somebody wants to know its end


class Lane:
    """The requests of one worker that no thread holds, oldest first.

    A connection that is not to be kept `is_ending` after its last answer; the worker reads what still comes, and closes
    it. `leave(conn, done)` is called once an answer is sent where somebody wants to know (`calls_when_done`), from
    whichever thread sent it; `done` holds whether the connection is kept. `pool` sends what a client does not take at
    once.

    Threads meet here without a lock: `pop` gives an entry of a dictionary or a queue to one of them only.
    """

    def __init__(
        self, cfg: Any, application: WSGIHandler, pool: ThreadPoolExecutor, leave: Callable[[TConn, Future[bool]], None]
    ) -> None:
        self._cfg, self._application, self._pool, self._leave = cfg, application, pool, leave
        self._open: dict[int, Passage] = {}  # what waits for its answer, by its own identity
        self._unsent: dict[int, Passage] = {}  # that, and what is being sent, by connection

    def __len__(self) -> int:
        return len(self._open)

    @property
    def longest_wait(self) -> float:
        """Seconds that the oldest request has waited for its answer."""
        for passage in self._open.copy().values():
            return time.monotonic() - passage.arrived
        return 0.0

    def has(self, conn: TConn) -> bool:
        """Whether a request of this connection is not answered yet."""
        return id(conn) in self._unsent

    def calls_when_done(self, conn: TConn) -> bool:
        """Ask for `leave` once the request of this connection is answered. False: it has been answered by now."""
        passage = self._unsent.get(id(conn))
        if passage is None:
            return False
        passage.wanted.append(True)
        return self._unsent.get(id(conn)) is passage or not _taken_from(passage.wanted)

    def take(self, conn: TConn, request: bytes, *, keeps: bool) -> bool:
        """Begin the whole request that waits in `conn`'s socket; False where a thread must do it.

        `keeps`: whether the connection may be kept after the answer.
        """
        end = request.find(b"\r\n\r\n") + 4
        if len(request) > MOST_BYTES or not _TAKEN.match(request, 0, end) or _NOT_TAKEN.search(request, 0, end):
            return False
        try:
            head = head_of(request, end, conn, self._cfg)
            answer = self._begin(head, request, end)
        except (ParseException, NoMoreData):  # a thread will meet it again, and knows how to say so
            return False
        except Exception:  # a fault of ours, which must not end the thread that reads the sockets
            _log.exception("A request was not taken")
            return False
        if isinstance(answer, NotNow):
            return False
        conn.sock.recv(len(request))
        if not conn.initialized:
            conn.init()
            conn.sock.setblocking(False)
        passage = Passage(conn, head, answer, keeps and not head.closes)
        self._unsent[id(conn)] = self._open[id(passage)] = passage
        if isinstance(answer, Promise):
            answer.begun.future.add_done_callback(lambda _: self._complete(passage))
        else:
            self._complete(passage)
        return True

    def _begin(self, head: Head, request: bytes, end: int) -> HttpResponse | Promise:
        """Django's answer, or its promise of one, which the next requests with this head can get without Django.

        Its `close` is not called, which would tell all of Django that a request is finished whose start it was not
        told of, 20 us of work, and give the connection to PostgreSQL back that the thread which sends keeps for the
        next answers. What it closes besides are uploaded files, of which there are none.
        """
        if head.shortcut is not None:
            begun = head.shortcut.begin(request[end:])
            return begun if isinstance(begun, HttpResponse) else Promise(head.shortcut, begun)
        environ = head.environ_of(request, end)
        environ[NEVER_WAITS] = True
        answer = self._application.get_response(WSGIRequest(environ))
        assert isinstance(answer, HttpResponse)  # nothing in the lane streams
        if not isinstance(answer, Later):
            return answer
        head.shortcut = answer.shortcut()
        return Promise(head.shortcut, answer.begun)

    def give_up_late(self) -> None:
        """Answer the requests that have waited for too long; to be called now and then."""
        now = time.monotonic()
        for passage in self._open.copy().values():
            if now - passage.arrived > ANSWER_SECONDS:
                self._complete(passage)

    def _complete(self, passage: Passage) -> None:
        """Send an answer that has come, or that nobody can wait for any longer. Whoever comes first does it."""
        if self._open.pop(id(passage), None) is None:
            return
        try:
            answer = passage.answer
            self._send(passage, answer.completed() if isinstance(answer, Promise) else Whole.of(answer))
        except Exception:
            _log.exception("An answer could not be sent")
            self._done(passage, keeps=False)

    def _send(self, passage: Passage, answer: Whole) -> None:
        """Head and body in one piece."""
        message = _head_of(passage, answer) + answer.content
        try:
            sent = passage.conn.sock.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._done(passage, keeps=False)
            return
        if sent == len(message):
            self._done(passage, keeps=passage.keeps)
        else:
            self._pool.submit(self._send_rest, passage, message[sent:], keeps=passage.keeps)

    def _send_rest(self, passage: Passage, rest: bytes, *, keeps: bool) -> None:
        """In a thread of the pool: the client takes its time."""
        sock, left = passage.conn.sock, memoryview(rest)
        sock.settimeout(PART_SECONDS)  # of each part; `sendall` would take it for the whole
        try:
            while left:
                left = left[sock.send(left) :]
        except OSError:
            keeps = False
        sock.settimeout(0)
        self._done(passage, keeps=keeps)

    def _done(self, passage: Passage, *, keeps: bool) -> None:
        conn = passage.conn
        conn.set_timeout()
        if not keeps:
            conn.is_ending, conn.timeout = True, time.monotonic() + ENDING_SECONDS
            with suppress(OSError):
                conn.sock.shutdown(SHUT_WR)
        del self._unsent[id(conn)]  # from here on the worker may take its next request
        if _taken_from(passage.wanted):
            done: Future[bool] = Future()
            done.set_result(keeps)
            self._leave(conn, done)


def _taken_from(wanted: deque[bool]) -> bool:
    try:
        return wanted.pop()
    except IndexError:
        return False


def _head_of(passage: Passage, answer: Whole) -> bytes:
    """The head of the answer, as gunicorn writes it."""
    start, middle, end = _parts_of_head(passage.head.version, answer.status, passage.keeps, answer.headers)
    return f"{start}{_date(int(time.time()))}{middle}{len(answer.content)}{end}".encode("latin-1")


@lru_cache(maxsize=256)
def _parts_of_head(
    version: tuple[int, int], status: str, keeps: bool, headers: tuple[tuple[str, str], ...]
) -> tuple[str, str, str]:
    """What stands before the date, between it and the body's length, and after that, once gunicorn has found nothing
    wrong with it: of nearly all answers it is the same.
    """
    asked = SimpleNamespace(version=version, method="POST", should_close=lambda: not keeps)
    written = Response(asked, None, None)
    written.start_response(status, [("Content-Length", "0"), *headers])
    lines = written.default_headers() + [f"{name}: {value}\r\n" for name, value in written.headers]
    head, (before, after) = "".join(lines) + "\r\n", ("Date: ", "\r\nContent-Length: ")
    date, length = head.index(before) + len(before), head.index(after)
    return head[:date], head[head.index("\r\n", date) : length] + after, head[length + len(after) + 1 :]


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    return str(http_date(seconds))
