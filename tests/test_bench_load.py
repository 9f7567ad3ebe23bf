"""The load generators of `bench/`: what they count, and that a server that stalls cannot hide it from them."""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(autouse=True)
def _bench_is_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]


class Stub:
    """Answers requests as told: after `delay` seconds, by `status`, not at all for a while, or by hanging up."""

    def __init__(self, *, delay=0.0, status=200, head="", stall=(0.0, 0.0), hang_up_at=-1):
        self.delay, self.status, self.head, self.stall, self.hang_up_at = delay, status, head, stall, hang_up_at
        self.began, self.seen, self.open, self.most = 0.0, [], 0, 0

    async def serve(self, reader, writer):
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.seen.append(json.loads(await reader.readexactly(length))["text"])
                self.began = self.began or time.monotonic()
                if len(self.seen) - 1 == self.hang_up_at:
                    return
                at = time.monotonic() - self.began
                if self.stall[0] <= at < self.stall[1]:
                    await asyncio.sleep(self.stall[1] - at)
                await asyncio.sleep(self.delay)
                body = json.dumps({"label": "joy", "interaction_id": f"i{len(self.seen)}"}).encode()
                answer = f"HTTP/1.1 {self.status} x\r\n{self.head}Content-Length: {len(body)}\r\n\r\n".encode()
                writer.write(answer[:20])  # in two pieces, as a network may deliver it
                await writer.drain()
                writer.write(answer[20:] + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
def ask(tmp_path):
    """Run one loop against a stub; returns what came of it."""
    from support.load import Asker, Target
    from support.texts import write_bodies

    bodies = str(write_bodies(tmp_path / "bodies.jsonl", [f"text {number}" for number in range(50)]))

    def ask(stub, kind, connections=4, most=0, **options):
        async def both():
            server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            asker = Asker(Target(port, "/", bodies), connections, most=most, keep=True)
            await (asker.keep_rate(**options) if kind == "open" else asker.keep_asking(**options))
            server.close()
            return asker.outcome

        return asyncio.run(both())

    return ask


def test_a_stall_is_felt_by_every_request_that_was_due_in_it(ask):
    outcome = ask(Stub(stall=(0.5, 1.0)), "open", rate=100, seconds=2)
    assert outcome.answers == 200 and outcome.failed == 0
    late = [took for took in outcome.latencies[200] if took > 0.1]
    assert 30 <= len(late) <= 55  # due in the first 0.4 of the 0.5 seconds, though 4 connections were all that waited
    assert 0.4 < outcome.percentile(0.99) < 0.6
    assert outcome.percentile(0.5) < 0.1


def test_an_open_loop_opens_connections_where_all_are_busy(ask):
    stub = Stub(delay=0.2)
    outcome = ask(stub, "open", most=64, rate=100, seconds=1)
    assert 16 <= stub.most <= 40  # 20 requests are under way at any time
    assert outcome.percentile(0.5) < 0.3


def test_what_is_not_answered_in_time_is_counted(ask):
    outcome = ask(Stub(delay=0.5), "open", rate=50, seconds=1, patience=0.1)
    assert 0 < outcome.in_time < 10
    assert outcome.answers + outcome.unanswered == 50 and outcome.failed == outcome.unanswered


def test_a_closed_loop_asks_each_text_once(ask):
    stub = Stub()
    outcome = ask(stub, "closed", seconds=30, total=50)
    assert Counter(stub.seen) == Counter(f"text {number}" for number in range(50))
    assert sorted(answer.number for answer in outcome.kept) == list(range(50))
    assert stub.most == 4


def test_a_cut_connection_and_a_refusal_are_no_answers(ask):
    cut = ask(Stub(hang_up_at=10), "closed", seconds=30, total=50)
    assert (cut.answers, cut.cut, cut.failed) == (49, 1, 1)
    refused = ask(Stub(status=503), "closed", seconds=30, total=10)
    assert (refused.answers, refused.statuses[503], refused.without_retry_after) == (0, 10, 10)
    told = ask(Stub(status=503, head="Retry-After: 1\r\n"), "closed", seconds=30, total=10)
    assert told.without_retry_after == 0


def test_each_sentence_is_another_one_and_the_same_next_time():
    from support.texts import sentences

    assert len(set(sentences(20_000))) == 20_000
    assert sentences(10) == sentences(10)


def test_rows_are_held_against_answers():
    from support.load import Kept
    from support.scenarios import faults_of

    answers = [Kept(0, 0.0, "joy", "a", "emotion/2", "model"), Kept(1, 0.0, "joy", "b", "emotion/2", "model")]
    assert faults_of(answers, {"a": 2, "b": 2}, 0) == []
    assert faults_of(answers, {"a": 2, "b": 2, "c": 2}, 1) == []
    assert faults_of(answers, {"a": 2, "b": 2, "c": 2}, 0) == ["3 rows for 2 answers and 0 failed requests."]
    assert faults_of(answers, {"a": 2}, 0) == ["1 answers have no row."]
    assert faults_of(answers, {"a": 2, "b": 1}, 0) == ["1 answers name another version than their rows."]
    assert faults_of([*answers, answers[0]], {"a": 2, "b": 2}, 0) == ["an interaction id was given twice."]
    cached = [answers[0]._replace(source="cache")]
    assert "cache" in faults_of(cached, {"a": 2}, 0)[0]
