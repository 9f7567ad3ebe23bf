"""What a connection keeps of its last request's head: the same as reading the next one anew would give."""

import socket

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from gunicorn.workers.gthread import TConn
from hypothesis import given
from hypothesis import strategies as st

from kalimtak.heads import Head, head_of

LINE = b"POST /api/predict?a=1 HTTP/1.1\r\nHost: x:80\r\n"
NAMES = st.sampled_from(
    ["Content-Type", "authorization", "X-Forwarded-For", "Connection", "Accept", "User-Agent", "X-A"]
)
VALUES = st.sampled_from(
    ["application/json", "Bearer a.b", "close", "keep-alive", "", "7", "Content-Length: 5", "a\tb"]
)
LENGTHS = st.sampled_from(["Content-Length: %d", "content-length:%d", "CONTENT-LENGTH:\t %d", "Content-Length: %d "])


@pytest.fixture(scope="module")
def cfg():
    configuration = Config()
    configuration.set("forwarded_allow_ips", "")
    return configuration


@pytest.fixture(scope="module")
def conn(cfg):
    client, server = socket.socketpair()
    yield TConn(cfg, server, ("192.0.2.7", 1234), ("127.0.0.1", 8000))
    client.close()
    server.close()


def request(fields, body, line=LINE):
    return line + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n" + body


def end_of(message):
    return message.find(b"\r\n\r\n") + 4


def read_anew(message, conn, cfg):
    """What gunicorn makes of it, and the body."""
    parsed = next(RequestParser(cfg, iter([message]), conn.client))
    environ = create(parsed, conn.sock, conn.client, conn.server, cfg)[1] | {"wsgi.multithread": True}
    return comparable(environ) | {"body": environ["wsgi.input"].read(), "closes": parsed.should_close()}


def read_as_kept(message, conn, cfg):
    head = head_of(message, end_of(message), conn, cfg)
    environ = head.environ_of(message, end_of(message))
    return comparable(environ) | {"body": environ["wsgi.input"].read(), "closes": head.closes}


def comparable(environ):
    own = ("wsgi.input", "wsgi.errors", "wsgi.early_hints")
    return {name: value for name, value in environ.items() if name not in own}


@st.composite
def conversations(draw):
    """Requests of one client: mostly the same fields, bodies of different lengths."""
    fields = draw(st.lists(st.builds("{}: {}".format, NAMES, VALUES), max_size=4))
    place, length = draw(st.integers(0, len(fields))), draw(LENGTHS)
    requests = []
    for _ in range(draw(st.integers(1, 4))):
        body = draw(st.binary(max_size=120))
        more = draw(st.sampled_from([[], [], [], ["X-Request-Id: 1"], ["Content-Length: 0"]]))
        requests.append(request([*fields[:place], length % len(body), *fields[place:], *more], body))
    return requests


@given(requests=conversations())
def test_a_kept_head_says_what_reading_it_anew_would_say(requests, conn, cfg):
    conn.head = None
    for message in requests:
        try:
            expected = read_anew(message, conn, cfg)
        except ParseException as error:
            with pytest.raises(type(error)):
                read_as_kept(message, conn, cfg)
        else:
            assert read_as_kept(message, conn, cfg) == expected


def test_another_length_is_the_same_head_and_anything_else_another(conn, cfg):
    head = Head.read(short := request(["Content-Length: 2", "A: b"], b"{}"), end_of(short), conn, cfg)
    for number in (b"0", b"2", b"13", b"007", b"9" * 18):
        other = short.replace(b": 2", b": " + number)
        assert head.end_in(other) == end_of(other)
    for before, after in (
        *((b": 2", b": " + number) for number in (b"", b" 2", b"2 ", b"+2", b"-2", b"2,2", b"0x2", b"9" * 19, b"\xb2")),
        *((b"A: b", b"A: c"), (b"A: b", b"A: b\r\nC: d"), (b"\r\nA: b", b""), (b"POST", b"PUT"), (b"Host", b"host")),
    ):
        assert head.end_in(short.replace(before, after)) == 0


def test_a_head_without_a_length_is_read_each_time(conn, cfg):
    message = request(["A: b"], b"")
    head = Head.read(message, end_of(message), conn, cfg)
    assert head.end_in(message) == 0
    assert "CONTENT_LENGTH" not in head.environ_of(message, end_of(message))


def test_what_django_changes_in_an_environment_is_not_kept(conn, cfg):
    message = request(["Content-Length: 2"], b"{}")
    head = head_of(message, end_of(message), conn, cfg)
    head.environ_of(message, end_of(message)).clear()
    assert head_of(message, end_of(message), conn, cfg) is head
    assert head.environ_of(message, end_of(message))["PATH_INFO"] == "/api/predict"
