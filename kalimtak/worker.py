"""gunicorn's threaded worker, with a door: threads get whole requests only, and no more than they can answer in time.

- A request goes to a thread when all of it has come, so that a client who sends byte after byte holds a few bytes of
  the kernel's and no thread. Bodies too large for that are read by a thread, which waits `PART_SECONDS` for each part
  and for all of them as long as `kalimtak/pace.py` allows.
- A question with a key is begun by the thread that reads the sockets, and waits in no thread (`kalimtak/lane.py`).
- A body of unknown length is refused with 411 before any thread sees it: reading it could take for ever.
- Once the request that has waited longest for a thread has waited `MOST_SECONDS`, or `MOST_WAITING` wait, those that
  come now would only get their answer after their patience ends, and everybody behind them too. They get 503 with
  `Retry-After` at once, from the thread that reads the sockets, for a twentieth of what an answer costs. Only requests
  to answer something (`POST /api/…`) are turned away, never a health check, a page or a file.
"""

import json
import re
import selectors
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from kalimtak.balance import Balance
from kalimtak.core.cores import PLACE
from kalimtak.core.errors import error_body
from kalimtak.pace import keeps_pace

if TYPE_CHECKING:
    from kalimtak.lane import Lane

MOST_SECONDS = 0.5  # that a request waits for a thread before those behind it are turned away
MOST_WAITING = 256  # requests
RETRY_AFTER = 1  # seconds
REQUEST_SECONDS = 10.0  # from a request's first byte, or the opening of its connection, to its last byte
PART_SECONDS = 5  # between two parts of a body that a thread reads, and until a client takes the next part of an answer
STOPPING_SECONDS = 1.0  # what is left of `REQUEST_SECONDS` when the worker is told to stop
LOOK_SECONDS = 0.5  # between two looks for connections of the lane whose time is over
READ_AHEAD = 65_536  # bytes; a larger request is read by a thread


def _answer(status: str, code: str, message: str, *, headers: str = "", closes: bool = True) -> bytes:
    body = json.dumps(error_body(code, message))
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [*headers.splitlines(), f"Connection: {'close' if closes else 'keep-alive'}", "", body]
    return "\r\n".join(lines).encode()


def _overloaded(*, closes: bool) -> bytes:
    message = "Too many requests are waiting; try again."
    headers = f"Retry-After: {RETRY_AFTER}"
    return _answer("503 Service Unavailable", "overloaded", message, headers=headers, closes=closes)


KEPT, CLOSED = _overloaded(closes=False), _overloaded(closes=True)
ENDLESS = _answer("411 Length Required", "length_required", "Send the body with a Content-Length.")
LATE = _answer("408 Request Timeout", "request_timeout", "The request took too long to arrive.")

_ASKS = re.compile(rb"POST /+api/")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """The worker class of `kalimtak/gunicorn.py`."""

    core: int | None = None  # that the threads which carry the traffic keep to

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since: deque[float] = deque()  # when each request came that waits for a thread, monotonic seconds
        self._lane: Lane | None = None
        self._watched: dict[
            int, TConn
        ] = {}  # connections that need no thread, by descriptor; in the poller all the time
        self._look_at = 0.0  # when to look for late ones among them again
        self._notify_at = 0.0  # when gunicorn's master is to hear again that this worker is alive
        self._stopping_since: float | None = None
        self._balance = Balance(self.age)
        # gunicorn looks each of these up anew, 2 us a time.
        self._is_ssl, self._threads, self._keepalive = self.cfg.is_ssl, self.cfg.threads, self.cfg.keepalive

    @property
    def is_overloaded(self) -> bool:
        lane, waiting = self._lane, len(self._since)
        if lane is not None and len(lane) > self._threads:  # as many as threads could wait with, however long
            waiting += len(lane)
            if lane.longest_wait > MOST_SECONDS:
                return True
        try:
            longest = time.monotonic() - self._since[0]
        except IndexError:  # a thread took it a moment ago
            longest = 0.0
        return longest > MOST_SECONDS or waiting >= MOST_WAITING

    def init_process(self) -> None:
        # gunicorn collects what a line of its access log might say even where nobody asked for that log.
        self.log._access_log_enabled = self.log.access_log_enabled and self.log.access_log.hasHandlers()
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self.cfg.threads, initializer=PLACE.leave)

    def run(self) -> None:
        PLACE.take(self.core)
        PLACE.keep()
        super().run()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from django.core.handlers.wsgi import WSGIHandler

        # Who wants a line for each request, or speaks another protocol, is served by threads.
        usual = self.log.access_log_enabled or self.cfg.is_ssl or self.cfg.proxy_protocol not in (False, "off")
        if isinstance(self.wsgi, WSGIHandler) and not usual:
            from kalimtak.lane import Lane  # not in gunicorn's master, whose Django is not set up

            self._lane = Lane(self.cfg, self.wsgi, self.tpool, partial(self.method_queue.defer, self._leave_lane))

    def notify(self) -> None:
        """Called in every round of the poller; the master looks once a second, after `timeout` without a word."""
        now = time.monotonic()
        if now >= self._notify_at:
            self._notify_at = now + LOOK_SECONDS
            super().notify()
        self._balance.say(self.nr_conns)

    def accept(self, listener: socket.socket) -> None:
        if not self._balance.leaves_to_others(self.nr_conns):
            super().accept(listener)
            self._balance.say(self.nr_conns)

    def enqueue_req(self, conn: TConn) -> None:
        """Answer the request of a readable connection in the lane, give it to a thread, wait for the rest of it, or
        turn it away."""
        if self._is_ssl or conn.is_http2 or _has_read_ahead(conn):
            self._unwatch(conn)
            self._admit(conn)
            return
        start = _peek(conn.sock)
        wanted, asks = wanted_bytes(start), bool(start and _ASKS.match(start))
        is_overloaded = asks and self.is_overloaded
        if (
            start
            and wanted == len(start)
            and (self._refuses(conn, start) if is_overloaded else self._takes(conn, start))
        ):
            return
        self._unwatch(conn)
        if wanted > len(start or b""):
            self._await(conn, wanted)
        elif start and asks and _CHUNKED.search(start, 0, start.find(b"\r\n\r\n") + 2):
            _send(conn.sock, ENDLESS)
            self._drop(conn)
        elif start and is_overloaded:
            _send(conn.sock, CLOSED)
            self._drop(conn)
        else:
            self._admit(conn)

    # What needs no thread

    def _takes(self, conn: TConn, request: bytes) -> bool:
        """Whether the lane takes this request. Then its connection stays in the poller, also while it is answered:
        taking it out and putting it back, from another thread, would cost more than all the rest of this.
        """
        if self._lane is None:
            return False
        kept = len(self.keepalived_conns) + len(self._watched)
        keeps = self.alive and bool(self._keepalive) and kept < self.max_keepalived
        keeps = keeps and not self._balance.sheds(self.nr_conns)
        conn.is_ending = False
        if not self._lane.take(conn, request, keeps=keeps):
            return False
        self._end_waiting(conn)
        self._watch(conn)
        return True

    def _refuses(self, conn: TConn, request: bytes) -> bool:
        """Answer 503 to a whole request in a thread's stead; False where the connection has to end with that.

        Like one of the lane it stays in the poller: the same client may well come with the next request at once.
        """
        if _CLOSES.search(request, 0, request.find(b"\r\n\r\n") + 2):
            return False
        self._end_waiting(conn)
        if _send(conn.sock, KEPT):
            conn.sock.recv(len(request))
            conn.is_ending = False
            conn.set_timeout()
            self._watch(conn)
        else:
            self._drop(conn)
        return True

    def _on_watched_readable(self, conn: TConn, client: socket.socket) -> None:
        if not self._is_watched(conn):  # what came before it in the same round of the poller has closed it
            return
        if self._lane is not None and self._lane.has(conn):
            self._unwatch(conn)  # what comes before the answer is left for later, be it the next request or the end
            if self._lane.calls_when_done(conn):
                return
            self._watch(conn)
        if conn.is_ending:
            self._drain(conn)
        else:
            self.enqueue_req(conn)

    def _leave_lane(self, conn: TConn, done: Future[bool]) -> None:
        """What the lane calls for connections that were taken out of the poller before their answer was sent."""
        if done.result():
            self.finish_request(conn, done)
        else:
            self._watch(conn)  # and drain it

    def _drain(self, conn: TConn) -> None:
        """Read what a client still sends that was told the end, up to its own end: closing a socket with bytes in it
        would take the answer's last part away from the client (RFC 9112, 9.6)."""
        try:
            if conn.sock.recv(READ_AHEAD):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(conn)

    def _is_watched(self, conn: TConn) -> bool:
        return self._watched.get(conn.sock.fileno()) is conn

    def _watch(self, conn: TConn) -> None:
        if not self._is_watched(conn):
            self._watched[conn.sock.fileno()] = conn
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_watched_readable, conn))

    def _unwatch(self, conn: TConn) -> None:
        if self._is_watched(conn):
            del self._watched[conn.sock.fileno()]
            self.poller.unregister(conn.sock)

    def _end_watching(self, now: float, *, force: bool = False) -> None:
        """Close the watched connections whose client has nothing more to ask."""
        if not self.alive and self._stopping_since is None:
            self._stopping_since = now
        latest = float("inf") if self._stopping_since is None else self._stopping_since + STOP_KEEPALIVE_LINGER
        for conn in list(self._watched.values()):
            is_answered = self._lane is None or not self._lane.has(conn)
            if force or (is_answered and min(conn.timeout, latest) < now):
                self._drop(conn)

    def murder_keepalived(self, force: bool = False) -> None:
        super().murder_keepalived(force)
        now = time.monotonic()
        if force or now > self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._lane is not None:
                self._lane.give_up_late()
            self._end_watching(now, force=force)

    # Threads

    def handle(self, conn: TConn) -> Any:
        self._since.popleft()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        conn.parser.unreader.chunk = keeps_pace(conn.parser.unreader)
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Close the connections whose request did not come in time, and say so to those that began one."""
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if self._is_late(conn, now)]:
            self.pending_conns.remove(conn)
            self.poller.unregister(conn.sock)
            if _peek(conn.sock):
                _send(conn.sock, LATE)
            self._drop(conn)

    def _is_late(self, conn: TConn, now: float) -> bool:
        return bool(conn.timeout - (0 if self.alive else REQUEST_SECONDS - STOPPING_SECONDS) < now)

    def _admit(self, conn: TConn) -> None:
        self._end_waiting(conn)
        _limit_parts(conn)
        conn.data_ready = True
        self._since.append(time.monotonic())
        super().enqueue_req(conn)

    def _await(self, conn: TConn, wanted: int) -> None:
        """Come back when the connection has so many bytes, or when it is late."""
        if getattr(conn, "begun", None) is None:
            conn.begun = time.monotonic()
        conn.timeout = conn.begun + REQUEST_SECONDS
        _wake_at(conn.sock, wanted)
        conn.sock.setblocking(False)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _drop(self, conn: TConn) -> None:
        self._unwatch(conn)
        self.nr_conns -= 1
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)  # so that what was sent arrives before the reset
        conn.close()

    def _end_waiting(self, conn: TConn) -> None:
        if getattr(conn, "begun", None) is not None:
            conn.begun = None
            _wake_at(conn.sock, 1)  # whoever reads on must not wait for as much again


def wanted_bytes(start: bytes | None) -> int:
    """How many bytes of a request there must be before a thread can take it, given those that have come.

    None are there yet: 1. Without the end of its head: one more than there are. At most `READ_AHEAD`, and 0 for what a
    thread shall look at in any case: a closed connection, a body of unknown length.
    """
    if not start:
        return 1 if start is None else 0
    head = start.find(b"\r\n\r\n")
    if head < 0:
        return len(start) + 1 if len(start) < READ_AHEAD else 0
    length = _LENGTH.search(start, 0, head + 2)
    whole = head + 4 + (int(length[1]) if length else 0)
    return whole if whole <= READ_AHEAD else 0


def _has_read_ahead(conn: TConn) -> bool:
    """Whether the parser holds bytes of the next request, which the socket no longer shows."""
    return conn.parser is not None and bool(conn.parser.unreader.buf.getvalue())


def _limit_parts(conn: TConn) -> None:
    """Let a thread wait no longer than `PART_SECONDS` for the client at a time."""
    if not getattr(conn, "is_limited", False):
        conn.is_limited = True
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PART_SECONDS, 0))


def _wake_at(sock: socket.socket, count: int) -> None:
    """Count the socket as readable when it holds so many bytes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _peek(sock: socket.socket) -> bytes | None:
    """The bytes that have come and are not read yet: none of a closed connection; None where there are none so far."""
    if sock.gettimeout() != 0:
        sock.setblocking(False)
    try:
        return sock.recv(READ_AHEAD, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _send(sock: socket.socket, answer: bytes) -> bool:
    try:
        return sock.send(answer) == len(answer)
    except OSError:
        return False
