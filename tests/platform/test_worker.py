"""gunicorn's worker of ours, as a process: slow clients hold no thread, too many are turned away at once."""

import os
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection

import pytest

from kalimtak.worker import READ_AHEAD, wanted_bytes
from tests.installation import ROOT
from tests.services import free_port, wait_until

THREADS = 4
SERVER = """
import kalimtak.worker as worker

worker.MOST_SECONDS, worker.REQUEST_SECONDS, worker.STOPPING_SECONDS, worker.PART_SECONDS = 0.1, 1.0, 0.2, 1

import kalimtak.pace as pace

pace.GRACE_SECONDS, pace.LEAST_RATE = 0.5, 100_000
bind, workers, threads, worker_class, keepalive = "127.0.0.1:%d", 1, 4, worker.Worker, 30
graceful_timeout, control_socket_disable = 10, True
wsgi_app = "application:application"
"""
APPLICATION = """
import time

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    with open("begun", "ab") as begun:
        begun.write(b".")
    time.sleep(float(environ["QUERY_STRING"] or 0))
    answer = b"%d" % len(body)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""

pytestmark = pytest.mark.own_servers


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("worker"), free_port()
    server = start(folder, port)
    yield port
    server.terminate()
    assert server.wait(15) == 0


def start(folder, port):
    (folder / "config.py").write_text(SERVER % port)
    (folder / "application.py").write_text(APPLICATION)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "gunicorn", "-c", str(folder / "config.py")]
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    wait_until_open(port)
    return server


def wait_until_open(port, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def ask(port, path="/api/predict", method="POST", body=b"{}"):
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    began = time.monotonic()
    connection.request(method, path, body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content, time.monotonic() - began


def head(length, path="/api/predict?0"):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def read_answer(sock):
    """Status line and body of one answer."""
    reader = sock.makefile("rb")
    status = reader.readline().decode().strip()
    length = 0
    while (line := reader.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return status, reader.read(length)


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        (None, 1),
        (b"", 0),
        (b"POST /api", 10),
        (head(5), len(head(5)) + 5),
        (head(5) + b"12345", len(head(5)) + 5),
        (b"GET / HTTP/1.1\r\n\r\n", 18),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 47),
        (head(READ_AHEAD), 0),
        (head(10**17), 0),
        (b"x" * READ_AHEAD, 0),
    ],
)
def test_a_thread_gets_a_request_when_all_of_it_is_there(start, wanted):
    assert wanted_bytes(start) == wanted


def test_a_request_that_comes_in_parts_is_answered(port):
    with connect(port) as sock:
        for byte in head(4) + b"ab":
            sock.send(bytes([byte]))
        time.sleep(0.05)
        sock.send(b"cd")
        assert read_answer(sock) == ("HTTP/1.1 200 OK", b"4")
        sock.send(head(1) + b"a")  # smaller than what was waited for before
        assert read_answer(sock) == ("HTTP/1.1 200 OK", b"1")


def test_a_body_larger_than_is_read_ahead_is_answered(port):
    _, content, _ = ask(port, "/api/predict?0", body=b"x" * (READ_AHEAD * 3))
    assert content == str(READ_AHEAD * 3).encode()


def test_a_large_body_that_drips_holds_no_thread_for_long(port):
    """As many as there are threads, a byte now and then: none would ever be late for the next part."""
    dripping = [connect(port) for _ in range(THREADS)]
    for sock in dripping:
        sock.send(head(READ_AHEAD * 3) + b"x" * 1000)
    ended = time.monotonic() + 10
    for sock in dripping:
        sock.settimeout(0.05)
    while dripping and time.monotonic() < ended:
        dripping = [sock for sock in dripping if not drip(sock)]
    assert dripping == []
    assert ask(port, "/api/predict?0")[0].status == 200


def drip(sock):
    """Whether the server has ended the connection."""
    try:
        sock.send(b"x")
        return sock.recv(10) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_large_body_that_stops_holds_no_thread_for_long(port):
    """Also on a connection that was served before, and where head and body come at once."""
    silent = [connect(port) for _ in range(THREADS)]
    for number, sock in enumerate(silent):
        if number % 2:
            sock.send(head(1) + b"a")
            assert read_answer(sock)[1] == b"1"
        sock.send(head(READ_AHEAD * 3) + b"x" * 1000)
    for sock in silent:
        assert sock.recv(10) == b""
        sock.close()
    assert ask(port, "/api/predict?0")[0].status == 200


def test_a_large_body_may_take_its_time_as_long_as_it_comes(port):
    size = READ_AHEAD * 5
    with connect(port) as sock:
        sock.send(head(size))
        began = time.monotonic()
        for _ in range(10):
            time.sleep(0.1)
            sock.send(b"x" * (size // 10))
        assert time.monotonic() - began > 0.9
        assert read_answer(sock)[1] == b"%d" % size


def test_requests_sent_together_are_answered_each(port):
    with connect(port) as sock:
        sock.send((head(1) + b"a") + (head(2) + b"ab") + (head(3) + b"abc"))
        reader = [sock.recv(4096) for _ in range(1)]
        deadline = time.monotonic() + 10
        while b"".join(reader).count(b"200 OK") < 3:
            assert time.monotonic() < deadline
            reader.append(sock.recv(4096))


@pytest.mark.clock
def test_clients_that_drip_or_say_nothing_hold_no_thread_and_are_told_in_the_end(port):
    slow = [connect(port) for _ in range(3 * THREADS)]
    silent = [connect(port) for _ in range(3 * THREADS)]
    for sock in slow:
        sock.send(head(100) + b"half of it")
    time.sleep(0.1)
    for _ in range(5):
        response, _, seconds = ask(port, "/api/predict?0")
        assert response.status == 200
        assert seconds < 0.5
    for sock in slow:
        status, body = read_answer(sock)
        assert status == "HTTP/1.1 408 Request Timeout"
        assert b"request_timeout" in body
        sock.close()
    for sock in silent:
        assert sock.recv(10) == b""
        sock.close()


@pytest.mark.clock
def test_endless_bodies_are_refused_before_a_thread_sees_them(port):
    endless = [connect(port) for _ in range(3 * THREADS)]
    for sock in endless:
        sock.send(b"POST /api/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    began = time.monotonic()
    assert ask(port, "/api/predict?0")[0].status == 200
    assert time.monotonic() - began < 0.5
    for sock in endless:
        assert read_answer(sock)[0] == "HTTP/1.1 411 Length Required"
        sock.close()


def test_a_client_that_hangs_up_in_the_middle_costs_nothing(port):
    for _ in range(3 * THREADS):
        with connect(port) as sock:
            sock.send(head(100) + b"half of it")
    assert ask(port, "/api/predict?0")[0].status == 200


def test_too_many_are_turned_away_at_once_and_their_connections_kept(port):
    outcomes = []

    def insist():
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(4):
            began = time.monotonic()
            connection.request("POST", "/api/predict?0.05", b"{}")
            response = connection.getresponse()
            response.read()
            outcomes.append((response.status, response.getheader("Retry-After"), time.monotonic() - began))
        connection.close()

    threads = [threading.Thread(target=insist) for _ in range(20 * THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    page, _, _ = ask(port, "/livez", "GET", None)
    for thread in threads:
        thread.join()
    assert page.status == 200
    refused = [seconds for status, retry, seconds in outcomes if (status, retry) == (503, "1")]
    answered = [status for status, _, _ in outcomes if status == 200]
    assert len(refused) + len(answered) == len(outcomes) == 80 * THREADS
    assert len(refused) > THREADS
    assert len(answered) > THREADS
    assert ask(port, "/api/predict?0")[0].status == 200


def test_a_worker_that_stops_answers_what_it_has_taken(tmp_path):
    port = free_port()
    server = start(tmp_path, port)
    statuses = []
    asking = [
        threading.Thread(target=lambda: statuses.append(ask(port, "/api/predict?0.5")[0].status))
        for _ in range(THREADS)
    ]
    for thread in asking:
        thread.start()
    silent = connect(port)
    wait_until(lambda: (tmp_path / "begun").stat().st_size == THREADS, what="the last request")
    server.terminate()
    for thread in asking:
        thread.join()
    assert statuses == [200] * THREADS
    assert server.wait(8) == 0
    silent.close()
