"""The express lane of a web process: real gunicorn, real Django, and a view whose answers come when the test wants."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.installation import ROOT
from tests.platform.test_worker import connect, read_answer, wait_until_open
from tests.services import free_port

THREADS, ANSWER_SECONDS = 2, 1.5
SERVER = f"""
import kalimtak.worker as worker

worker.MOST_SECONDS, worker.LOOK_SECONDS = 0.3, 0.1
bind, workers, threads, worker_class, keepalive = "127.0.0.1:%d", 1, {THREADS}, worker.Worker, 30
graceful_timeout, control_socket_disable = 10, True
wsgi_app = "application:application"
"""
APPLICATION = f"""
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.conf import settings

from kalimtak import lane

lane.ANSWER_SECONDS = {ANSWER_SECONDS}
settings.ROOT_URLCONF = "questions"
"""
QUESTIONS = """
import threading
from concurrent.futures import Future

from django.urls import path

from kalimtak.core.auth import Caller
from kalimtak.core.errors import WouldWait
from kalimtak.core.lean import LeanView


class Answer:
    def __init__(self, body, began_in):
        self.body, self.began_in, self.future = body, began_in, Future()
        seconds = body.get("seconds", 0)
        if seconds:
            threading.Timer(seconds, self.future.set_result, (None,)).start()
        else:
            self.future.set_result(None)

    def result(self, seconds=None):
        from concurrent.futures import TimeoutError

        from kalimtak.core.errors import Unavailable
        try:
            self.future.result(seconds)
        except TimeoutError:
            raise Unavailable("Too late.") from None
        if self.body.get("breaks") == "result":
            raise RuntimeError("broken")
        return {"number": self.body.get("number"), "began_in": self.began_in, "much": "x" * self.body.get("size", 0)}


class Question(LeanView):
    authentication_classes = []

    def admit(self, request, *, may_wait):
        return Caller("key", "key:test")

    def begin(self, caller, body, captured, *, may_wait=True):
        if body.get("waits") and not may_wait:
            raise WouldWait
        if body.get("breaks") == "begin":
            raise RuntimeError("broken")
        return Answer(body, threading.current_thread().name)


urlpatterns = [path("api/question", Question.as_view())]
handler500 = "kalimtak.core.api.server_error"
"""

pytestmark = pytest.mark.own_servers


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    server, port = start(tmp_path_factory.mktemp("lane"))
    yield port
    server.terminate()
    assert server.wait(15) == 0


def start(folder):
    port = free_port()
    for name, text in (("config.py", SERVER % port), ("application.py", APPLICATION), ("questions.py", QUESTIONS)):
        (folder / name).write_text(text)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "DJANGO_SETTINGS_MODULE": "kalimtak.settings",
        "KALIMTAK_VAR": str(folder / "var"),
        "DATABASE_URL": f"sqlite:///{folder / 'none.sqlite3'}",
        "DEBUG": "0",
        "SECRET_KEY": "of this test",
        "ALLOWED_HOSTS": "x",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", str(folder / "config.py")],
        cwd=folder,
        env=environment,
        stderr=(folder / "log").open("w"),
    )
    wait_until_open(port)
    return server, port


def question(number=0, *, more="", key="Authorization: Bearer k\r\n", version="1.1", **body):
    content = json.dumps({"number": number} | body)
    head = f"POST /api/question HTTP/{version}\r\nHost: x\r\n{key}Content-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode()


def answer(sock):
    status, content = read_answer(sock)
    return int(status.split()[1]), json.loads(content)


def ask(port, *arguments, **body):
    with connect(port) as sock:
        sock.send(question(*arguments, **body))
        return answer(sock)


@pytest.mark.clock
def test_no_thread_waits_for_an_answer(port):
    """Four threads' worth of answers, all waiting at once: one after the other they would take four times as long."""
    began = time.monotonic()
    with ThreadPoolExecutor(4 * THREADS) as pool:
        answers = list(pool.map(lambda number: ask(port, number, seconds=0.5), range(4 * THREADS)))
    assert time.monotonic() - began < 1.5
    assert [(status, body["number"], body["began_in"]) for status, body in answers] == [
        (200, number, "MainThread") for number in range(4 * THREADS)
    ]


def test_a_connection_is_kept_and_asked_again_and_again(port):
    with connect(port) as sock:
        for number in range(20):
            sock.send(question(number, seconds=number % 2 * 0.01))
            assert answer(sock)[1]["number"] == number


@pytest.mark.parametrize(
    "body",
    [
        {"waits": True},  # Django would have to wait
        {"more": "Expect: 100-continue\r\n"},
        {"more": "Upgrade: h2c\r\n"},
        {"much": "x" * 20_000},  # too long
    ],
)
def test_what_the_lane_does_not_take_goes_to_a_thread(port, body):
    with connect(port) as sock:
        sock.send(question(7, **body))
        came = b""
        while b"}" not in came:
            came += sock.recv(65_536)
        head, _, content = came.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(content)["number"] == 7
        assert json.loads(content)["began_in"].startswith("ThreadPool")
        sock.send(question(8))  # and back
        assert answer(sock)[1] == {"number": 8, "began_in": "MainThread", "much": ""}


def test_who_brings_no_key_goes_to_a_thread(port):
    with connect(port) as sock:
        sock.send(question(7, key=""))
        assert read_answer(sock)[0].split()[1] == "200"


def test_requests_that_come_before_the_answer_are_answered_in_their_turn(port):
    with connect(port) as sock:
        for number in range(4):
            sock.send(question(number, seconds=0.1 if number % 2 == 0 else 0))
            time.sleep(0.02)
        came = b""
        while came.count(b'"number"') < 4:
            came += sock.recv(65_536)
        numbers = [int(part.partition(b",")[0]) for part in came.split(b'"number":')[1:]]
        assert numbers == [0, 1, 2, 3]


def test_clients_that_leave_before_the_answer_cost_nothing(port):
    for _ in range(30):
        with connect(port) as sock:
            sock.send(question(seconds=0.2))
    assert ask(port, 1)[0] == 200
    time.sleep(0.3)
    assert ask(port, 2)[0] == 200


def test_a_large_answer_reaches_a_client_that_takes_its_time(port):
    with connect(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.send(question(1, size=5_000_000))
        time.sleep(0.5)
        assert ask(port, 2)[0] == 200  # meanwhile
        assert len(answer(sock)[1]["much"]) == 5_000_000
        sock.send(question(3))
        assert answer(sock)[1]["number"] == 3


@pytest.mark.parametrize("how", [{"more": "Connection: close\r\n"}, {"version": "1.0"}])
def test_a_connection_ends_where_the_client_wants_it(port, how):
    with connect(port) as sock:
        sock.send(question(1, seconds=0.05, **how))
        assert answer(sock)[0] == 200
        assert sock.recv(1) == b""


@pytest.mark.parametrize("before", [0, 1])  # the first with its head, and one for which middleware is left out
@pytest.mark.parametrize("place", ["begin", "result"])
def test_a_fault_of_ours_is_a_500_and_nothing_more(port, place, before):
    with connect(port) as sock:
        for number in range(before):
            sock.send(question(number))
            assert answer(sock)[0] == 200
        sock.send(question(breaks=place, seconds=0.01))
        status, body = answer(sock)
        assert (status, body["error"]["code"]) == (500, "internal_error")
        sock.send(question(2))
        assert answer(sock)[1]["number"] == 2


@pytest.mark.clock
def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(port):
    with connect(port) as sock:
        began = time.monotonic()
        sock.send(question(1, seconds=2 * ANSWER_SECONDS))
        status, body = answer(sock)
        assert (status, body["error"]["message"]) == (503, "Too late.")
        assert ANSWER_SECONDS <= time.monotonic() - began < 2 * ANSWER_SECONDS
        sock.send(question(2, seconds=0.8 * ANSWER_SECONDS))  # what comes late, meanwhile, belongs to nobody
        assert answer(sock)[1]["number"] == 2
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(1)


@pytest.mark.clock
def test_too_many_are_turned_away_at_once_and_their_connections_kept(port):
    early = [connect(port) for _ in range(2 * THREADS)]
    for sock in early:
        sock.send(question(1, seconds=0.8))
    time.sleep(0.5)
    with connect(port) as sock:
        began = time.monotonic()
        sock.send(question(2))
        assert answer(sock)[0] == 503
        assert time.monotonic() - began < 0.1
        assert [answer(other)[0] for other in early] == [200] * len(early)
        sock.send(question(3))
        assert answer(sock)[1]["number"] == 3
    for other in early:
        other.close()


def test_a_worker_that_stops_answers_what_it_has_begun(tmp_path):
    server, port = start(tmp_path)
    idle, busy = connect(port), connect(port)
    try:
        idle.send(question(1))
        assert answer(idle)[0] == 200
        busy.send(question(2, seconds=0.8))
        time.sleep(0.2)
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert answer(busy)[1]["number"] == 2
        assert server.wait(10) == 0
        assert time.monotonic() - began < 6
    finally:
        server.kill()
        idle.close()
        busy.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_many_connections_at_once_are_all_answered(port):
    def insist(number):
        with connect(port) as sock:
            for each in range(25):
                sock.send(question(each, seconds=0.001 * (each % 3)))
                assert answer(sock)[1]["number"] == each

    threads = [threading.Thread(target=insist, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
