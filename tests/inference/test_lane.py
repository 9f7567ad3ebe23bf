"""The express lane gives the answers of the usual way, and takes nothing that would have to wait."""

import json
import socket
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from interactions.models import PersonalRecord, UserInteraction
from kalimtak import lane as lane_module
from kalimtak.core.auth import key_create, key_revoke
from kalimtak.core.models import ApiKey
from kalimtak.lane import Lane
from tests.inference.conftest import in_threads

FAST = "1000000/d"  # counted in blocks of a thousand; no window ends within a test


class Road:
    """A lane and a client at its end."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self.left = []
        self.application = WSGIHandler()
        configuration = Config()
        configuration.set("forwarded_allow_ips", "")
        self.lane = Lane(
            configuration, self.application, self._pool, lambda conn, done: self.left.append(done.result())
        )
        self.client, server = socket.socketpair()
        self.client.settimeout(10)
        self.conn = TConn(configuration, server, ("127.0.0.1", 1234), ("127.0.0.1", 8000))

    def take(self, request):
        while self.lane.has(self.conn):  # as the worker does
            time.sleep(0.0005)
        self.client.sendall(request)
        taken = self.lane.take(self.conn, request, keeps=True)
        if not taken:  # everything is left for a thread
            assert self.conn.sock.recv(65_536) == request
        return taken

    def ask(self, request):
        """Status, headers and body of the lane's answer."""
        assert self.take(request)
        came = b""
        while b"\r\n\r\n" not in came:
            came += self.client.recv(65_536)
        head, _, body = came.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        while len(body) < int(headers["Content-Length"]):
            body += self.client.recv(65_536)
        return int(status.split()[1]), headers, json.loads(body)

    def close(self):
        self._pool.shutdown()
        self.client.close()
        self.conn.sock.close()


@pytest.fixture
def road(serving, settings):
    settings.ALLOWED_HOSTS = ["testserver"]
    road = Road()
    yield road
    road.close()


@pytest.fixture
def key(serving, transactional_db):
    return key_create("Carla", ["predict", "feedback", "read"], actor="olga", rate=FAST)[1]


def post(path, body, key, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": "testserver", "Content-Type": "application/json", "Authorization": f"Bearer {key}"} | headers
    lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
    head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, f"Content-Length: {len(content)}", "", ""])
    return head.encode() + content


def usual(path, body, key, **headers):
    """What the same request gets the usual way."""
    from django.test import Client

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {key}"} | {name.lower(): value for name, value in headers.items() if value}
    kind = given.pop("content-type", "application/json")
    response = Client(headers=given, raise_request_exception=False).post(path, content, content_type=kind)
    return response.status_code, dict(response.items()), response.json()


def warm(key):
    """The first request of a key has to look for it, and counts a block."""
    assert usual("/api/predict", {"text": "joy"}, key)[0] == 200


def comparable(body):
    """Without what differs from one answer to the next."""
    if isinstance(body, dict):
        return {name: comparable(value) for name, value in body.items() if name not in ("interaction_id", "latency_ms")}
    return [comparable(each) for each in body] if isinstance(body, list) else body


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/api/predict", {"text": "what a joy"}, {}),
        ("/api/predict/", {"classifier": "emotion", "text": "ärger 😀", "subject": "u1", "top_k": 1}, {}),
        ("/api/classify/clarity", {"question": "Will you?", "context": "No."}, {}),
        ("/api/classify/emotion", {"texts": ["joy", "anger", "joy"]}, {}),
        ("/api/classify/topics", {"text": "sport"}, {}),
        ("/api/classify/nothing", {"text": "joy"}, {}),
        ("/api/classify/emotion", {"classifier": "clarity", "text": "joy"}, {}),
        ("/api/predict", {"text": 7, "colour": "red"}, {}),
        ("/api/predict", {"texts": []}, {}),
        ("/api/predict", {"text": " "}, {}),
        ("/api/predict", b"{", {}),
        ("/api/predict", b"\xff", {}),
        ("/api/predict", b"[]", {}),
        ("/api/predict", b"", {}),
        ("/api/predict", {"text": "joy"}, {"Content-Type": "text/plain"}),
        ("/api/predict", {"text": "joy"}, {"Content-Encoding": "gzip"}),
        ("/api/predict", {"text": "joy"}, {"Origin": "https://shop.example"}),
        ("/api/predict", {"text": "joy"}, {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}),
    ],
)
def test_the_lane_gives_the_answer_of_the_usual_way(road, key, emotion, clarity, topics, settings, path, body, headers):
    settings.KALIMTAK_CORS_ORIGINS = ["https://shop.example"]
    warm(key)
    status, usual_headers, usual_body = usual(path, body, key, **headers)
    lane_status, lane_headers, lane_body = road.ask(post(path, body, key, **headers))
    assert (lane_status, comparable(lane_body)) == (status, comparable(usual_body))
    for name in ("Server", "Date", "Connection", "Content-Length"):
        lane_headers.pop(name)
    usual_headers.pop("Content-Length", None)
    assert lane_headers == usual_headers


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"text": "ärger 😀", "top_k": 1}, {}),
        ({"texts": ["joy", "anger", "joy"]}, {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}),
        ({"text": "anger"}, {"Origin": "https://shop.example"}),
        ({"text": 7, "colour": "red"}, {"Origin": "https://shop.example"}),
        ({"classifier": "nothing", "text": "joy"}, {}),
        (b"{", {}),
        (b"", {}),
    ],
)
def test_the_next_request_with_the_same_head_is_answered_without_middleware(
    road, key, emotion, settings, monkeypatch, body, headers
):
    settings.KALIMTAK_CORS_ORIGINS, settings.KALIMTAK_TRUSTED_PROXIES = ["https://shop.example"], ["127.0.0.1"]
    warm(key)
    status, usual_headers, usual_body = usual("/api/predict", body, key, **headers)
    assert road.ask(post("/api/predict", {"text": "joy"}, key, **headers))[0] == 200
    monkeypatch.setattr(road.application, "get_response", None)
    lane_status, lane_headers, lane_body = road.ask(post("/api/predict", body, key, **headers))
    assert (lane_status, comparable(lane_body)) == (status, comparable(usual_body))
    for name in ("Server", "Date", "Connection", "Content-Length"):
        lane_headers.pop(name)
    usual_headers.pop("Content-Length", None)
    assert lane_headers == usual_headers


def test_every_answer_is_recorded_with_whom_the_head_names(road, key, emotion, settings):
    settings.KALIMTAK_TRUSTED_PROXIES = ["127.0.0.1"]
    warm(key)
    PersonalRecord.objects.all().delete()
    for address in ("203.0.113.9", "203.0.113.9", "198.51.100.4", "198.51.100.4"):
        headers = {"X-Forwarded-For": address, "User-Agent": f"of {address}"}
        assert road.ask(post("/api/predict", {"text": "joy"}, key, **headers))[0] == 200
    kept = sorted(PersonalRecord.objects.values_list("address", "user_agent"))
    assert kept == [("198.51.100.4", "of 198.51.100.4")] * 2 + [("203.0.113.9", "of 203.0.113.9")] * 2


def test_no_text_is_kept_with_the_head(road, key, emotion):
    warm(key)
    assert road.ask(post("/api/predict", {"text": "joy"}, key))[0] == 200
    request = road.conn.head.shortcut.request
    assert request.body == request.META["wsgi.input"].read() == b""


def test_another_head_goes_through_middleware_again(road, key, emotion, settings):
    settings.KALIMTAK_CORS_ORIGINS = ["https://shop.example"]
    warm(key)
    for origin in ("https://shop.example", "https://elsewhere.example", None, "https://shop.example"):
        _, headers, _ = road.ask(post("/api/predict", {"text": "joy"}, key, Origin=origin))
        assert ("Access-Control-Allow-Origin" in headers) == (origin == "https://shop.example")
    assert road.ask(post("/api/predict", {"text": "joy"}, key, Host="elsewhere"))[0] == 400


def test_a_key_is_looked_at_each_time(road, key, emotion):
    request = post("/api/predict", {"text": "joy"}, key)
    warm(key)
    assert road.ask(request)[0] == road.ask(request)[0] == 200
    key_revoke(ApiKey.objects.get(), actor="olga")
    assert not road.take(request)  # a thread has to look it up again
    assert usual("/api/predict", {"text": "joy"}, key)[0] == 401
    status, headers, body = road.ask(request)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
    assert body["error"]["message"] == "This API key was revoked."


def test_a_host_that_is_not_ours_is_refused(road, key, emotion):
    warm(key)
    status, _, body = road.ask(post("/api/predict", {"text": "joy"}, key, Host="elsewhere"))
    assert (status, body["error"]["code"]) == (400, "invalid_input")


def test_a_scope_that_is_missing_is_refused(road, emotion):
    poor = key_create("Pia", ["feedback"], actor="olga", rate=FAST)[1]
    assert usual("/api/predict", {"text": "joy"}, poor)[0] == 403
    assert road.ask(post("/api/predict", {"text": "joy"}, poor))[0] == 403


def test_the_answer_is_in_the_table_when_it_arrives(road, key, emotion):
    warm(key)
    _, _, result = road.ask(post("/api/predict", {"text": "what a joy"}, key))
    row = UserInteraction.objects.get(pk=result["interaction_id"])
    assert (row.fields, row.label, row.api_key.name) == ({"text": "what a joy"}, "joy", "Carla")
    assert road.left == []  # the connection stays


def test_what_records_answers_keeps_its_connection_to_the_database(road, key, emotion, serving, monkeypatch):
    """Giving it back to the pool after each answer, and asking whether it still lives, takes as long as the commit."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)  # as with a pool
    used, record_group = defaultdict(list), serving._record_group

    def recording(drafts):
        outcomes = record_group(drafts)
        used[threading.get_ident()].append(connections["default"].connection)
        return outcomes

    monkeypatch.setattr(serving, "_record_group", recording)
    warm(key)
    used.clear()
    for _ in range(6):
        assert road.ask(post("/api/predict", {"text": "joy"}, key))[0] == 200
    assert sum(map(len, used.values())) == 6
    for kept in used.values():  # the batcher's, and the committer's where commits take long
        assert kept[0] is not None and len({id(each) for each in kept}) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"POST", b"GET"),
        (b"Authorization", b"X-Other"),
        (b"/api/predict", b"/admin/"),
        (b"/api/predict", b"/api/feedback"),
        (b"/api/predict", b"/api/nothing"),
        (b"HTTP/1.1", b"HTTP/2.0"),
        (b"Host: ", b"Transfer-Encoding: chunked\r\nHost: "),
        (b"Host: ", b"Expect: 100-continue\r\nHost: "),
        (b"Host: ", b"Upgrade: h2c\r\nHost: "),
        (b"Host: ", b"Content-Length: 3\r\nHost: "),  # which of the two?
        (b"Host: ", b"No field at all\r\nHost: "),
        (b'{"text"', b'{"request_id": "a", "text"'),  # has to be looked up
        (b'{"text"', b'{"request\\u005fid": "a", "text"'),
        (b'{"text": "joy', b'{"text": "joy' + b" and joy" * 3000),  # too long
    ],
)
def test_what_has_to_wait_is_left_for_a_thread(road, key, emotion, before, after):
    warm(key)
    request = post("/api/predict", {"text": "joy"}, key)
    assert before in request
    head, _, body = request.replace(before, after, 1).partition(b"\r\n\r\n")
    head = head.replace(b"Content-Length: 15", b"Content-Length: %d" % len(body))
    assert not road.take(head + b"\r\n\r\n" + body)
    assert UserInteraction.objects.count() == 1


def test_a_key_that_was_not_looked_up_is_left_for_a_thread(road, key, emotion):
    assert not road.take(post("/api/predict", {"text": "joy"}, key))
    warm(key)
    assert road.take(post("/api/predict", {"text": "joy"}, key))


def test_requests_beyond_those_counted_are_left_for_a_thread(road, emotion):
    slow = key_create("Sam", ["predict"], actor="olga", rate="3000/d")[1]  # blocks of three
    warm(slow)
    taken = [road.take(post("/api/predict", {"text": "joy"}, slow)) for _ in range(3)]
    assert taken == [True, True, False]


def test_without_models_a_thread_finds_out_why(road, key, emotion):
    from inference.live import LIVE

    warm(key)
    LIVE.stop()
    assert not road.take(post("/api/predict", {"text": "joy"}, key))


def test_an_answer_that_is_late_is_given_up_once(road, key, make_classifier, publish, go_live, monkeypatch):
    go_live(publish(make_classifier("emotion", is_default=True), seconds=0.8))
    warm(key)
    monkeypatch.setattr(lane_module, "ANSWER_SECONDS", 0.1)
    assert road.take(post("/api/predict", {"text": "joy"}, key))
    time.sleep(0.2)
    assert road.lane.has(road.conn) and road.lane.longest_wait > 0.1
    road.lane.give_up_late()
    assert b"503 Service Unavailable" in road.client.recv(65_536)
    assert not road.lane.has(road.conn) and len(road.lane) == 0
    road.client.settimeout(1.5)
    with pytest.raises(TimeoutError):
        road.client.recv(1)


def test_a_client_that_has_gone_is_let_go(road, key, make_classifier, publish, go_live):
    go_live(publish(make_classifier("emotion", is_default=True), seconds=0.2))
    warm(key)
    before = UserInteraction.objects.count()
    assert road.take(post("/api/predict", {"text": "joy"}, key))
    road.client.close()
    deadline = time.monotonic() + 10
    while road.lane.has(road.conn):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert road.conn.is_ending
    assert UserInteraction.objects.count() == before + 1  # it was answered all the same


def test_many_at_once_are_each_answered_once(serving, key, emotion, settings):
    settings.ALLOWED_HOSTS = ["testserver"]
    warm(key)
    roads, found = [Road() for _ in range(8)], []

    def insist(road):
        for number in range(20):
            label = ("joy", "anger", "sadness")[number % 3]
            status, _, result = road.ask(post("/api/predict", {"text": label}, key))
            found.append((status, result["label"] == label, result["interaction_id"]))

    for thread in in_threads(*[lambda road=road: insist(road) for road in roads]):
        thread.join(30)
    for road in roads:
        road.close()
    connections.close_all()
    assert {(status, right) for status, right, _ in found} == {(200, True)}
    assert len({identifier for *_, identifier in found}) == 160
    assert UserInteraction.objects.count() == 161
