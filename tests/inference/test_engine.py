"""The batcher: nothing leaves before it is durable, nobody starves, and one request is one version."""

import threading
import time

import numpy as np
import pytest

from inference.engine import Engine, ModelFailed, Overloaded, RecordFailed
from kalimtak.core.cores import Place, usable
from registry.families.base import Answer


class Parrot:
    """A model that knows two labels and fails on the word `boom`; `name` tells versions apart by their first score."""

    labels = ("yes", "no")
    input_fields = ("text",)

    def __init__(self, share=0.5, seconds=0.0, batches=False):
        self.share, self.seconds, self.batches = share, seconds, batches
        self.calls = []

    def predict(self, inputs):
        self.calls.append(len(inputs))
        time.sleep(self.seconds * len(inputs))
        if any("boom" in fields[0] for fields in inputs):
            raise ValueError("boom")
        return [Answer(np.array([self.share, 1 - self.share], np.float32), False) for _ in inputs]


class Ledger:
    """A `record` that can be held up or broken, and remembers its groups."""

    def __init__(self):
        self.groups, self.broken, self.open, self.seconds = [], False, threading.Event(), 0.0
        self.open.set()

    def __call__(self, drafts):
        self.open.wait(10)
        time.sleep(self.seconds)
        if self.broken:
            raise OSError("the disk is gone")
        self.groups.append(list(drafts))
        return drafts


def wait_for(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.002)


def shares(answers, latency_ms):
    return [round(float(answer.probabilities[0]), 3) for answer in answers]


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def engine(ledger):
    engine = Engine(ledger, capacity=16)
    yield engine
    ledger.open.set()
    engine.stop()


def texts(count):
    return [(f"text {number}",) for number in range(count)]


def test_a_request_gets_the_answers_to_its_texts_in_order(engine):
    assert engine.submit(Parrot(0.25), texts(3), shares).result(5) == [0.25, 0.25, 0.25]


def test_nothing_is_answered_before_it_is_recorded(engine, ledger):
    ledger.open.clear()
    future = engine.submit(Parrot(), texts(1), shares)
    time.sleep(0.1)
    assert not future.done()
    ledger.open.set()
    assert future.result(5) == [0.5]


def test_what_waits_is_recorded_in_one_group(engine, ledger):
    ledger.open.clear()
    first = engine.submit(Parrot(), texts(1), shares)
    time.sleep(0.05)
    others = [engine.submit(Parrot(), texts(1), shares) for _ in range(5)]
    ledger.open.set()
    assert [future.result(5) for future in (first, *others)] == [[0.5]] * 6
    assert [len(group) for group in ledger.groups] == [1, 5]


@pytest.fixture
def patient(monkeypatch):
    """Whoever comes back is waited for so long that a test can see it."""
    monkeypatch.setattr("inference.engine.RETURN_SECONDS", 1.0)
    monkeypatch.setattr("inference.engine.MOST_RETURN_SECONDS", 5.0)


def answered_together(engine, ledger, count):
    ledger.open.clear()
    model = Parrot()
    futures = [engine.submit(model, [("first",)], shares)]
    wait_for(lambda: model.calls)
    futures += [engine.submit(Parrot(), [(f"{number}",)], shares) for number in range(count)]
    ledger.open.set()
    assert [future.result(5) for future in futures] == [[0.5]] * (count + 1)
    assert [len(group) for group in ledger.groups] == [1, count]


def test_those_who_come_back_one_after_the_other_are_answered_together_again(engine, ledger, patient):
    answered_together(engine, ledger, 4)
    futures = []
    for number in range(4):
        futures.append(engine.submit(Parrot(), [(f"again {number}",)], shares))
        time.sleep(0.02)
    assert [future.result(5) for future in futures] == [[0.5]] * 4
    assert [len(group) for group in ledger.groups] == [1, 4, 4]


def test_who_comes_back_without_the_others_waits_for_them_a_moment(engine, ledger, patient):
    answered_together(engine, ledger, 4)
    began = time.perf_counter()
    assert engine.submit(Parrot(), [("again",)], shares).result(5) == [0.5]
    assert 0.9 < time.perf_counter() - began < 4.0


def test_nobody_is_waited_for_longer_than_the_limit(engine, ledger, patient, monkeypatch):
    monkeypatch.setattr("inference.engine.MOST_RETURN_SECONDS", 1.0)
    answered_together(engine, ledger, 8)
    futures = []
    while not futures or not futures[0].done():
        futures.append(engine.submit(Parrot(), [("again",)], shares))
        time.sleep(0.2)
    assert 1 < len(futures) < 8


def test_a_large_batch_that_waits_for_its_next_piece_waits_for_nobody_to_come_back(engine, ledger, patient):
    answered_together(engine, ledger, 4)
    ledger.open.clear()
    model = Parrot()
    first = engine.submit(model, [("again",)], shares)
    wait_for(lambda: model.calls, 10)
    large = engine.submit(Parrot(), texts(12), shares)
    others = [engine.submit(Parrot(), [(f"other {number}",)], shares) for number in range(3)]
    ledger.open.set()
    began = time.perf_counter()
    assert [future.result(5) for future in (first, *others)] == [[0.5]] * 4
    assert len(large.result(5)) == 12
    assert time.perf_counter() - began < 0.9


def test_who_comes_alone_again_and_again_waits_for_nobody(engine, patient):
    began = time.perf_counter()
    for number in range(5):
        assert engine.submit(Parrot(), [(f"{number}",)], shares).result(5) == [0.5]
    assert time.perf_counter() - began < 1.0


@pytest.mark.skipif(len(usable()) < 2, reason="there is one core only, or the system does not tell")
def test_models_and_commits_keep_to_the_core_of_the_process(engine, ledger, monkeypatch):
    place, seen = Place(), {}
    place.take(usable()[-1])
    monkeypatch.setattr("inference.engine.PLACE", place)
    monkeypatch.setattr("inference.committer.PLACE", place)
    monkeypatch.setattr("inference.committer.WAITING_SECONDS", -1.0)  # so that a thread of its own commits

    class Where(Parrot):
        def predict(self, inputs):
            seen[threading.current_thread().name] = usable()
            return super().predict(inputs)

    record = engine._committer._record
    engine._committer._record = lambda drafts: (
        seen.update({threading.current_thread().name: usable()}) or record(drafts)
    )
    assert engine.submit(Where(), texts(1), shares).result(5) == [0.5]
    assert seen == {"batcher": usable()[-1:], "committer": usable()[-1:]}
    assert len(usable()) > 1


def test_a_recorder_that_fails_leaves_nobody_with_an_answer(engine, ledger):
    ledger.broken = True
    futures = [engine.submit(Parrot(), texts(1), shares) for _ in range(3)]
    for future in futures:
        with pytest.raises(RecordFailed):
            future.result(5)
    ledger.broken = False
    assert engine.submit(Parrot(), texts(1), shares).result(5) == [0.5]
    assert engine.waiting == 0


def test_a_full_queue_refuses_at_once(engine, ledger):
    ledger.open.clear()
    engine.submit(Parrot(), texts(16), shares)
    with pytest.raises(Overloaded):
        engine.submit(Parrot(), texts(1), shares)


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(engine):
    assert len(engine.submit(Parrot(), texts(40), shares).result(5)) == 40
    assert engine.waiting == 0


@pytest.mark.parametrize("batches", [False, True])
def test_a_text_the_model_fails_on_costs_its_neighbours_nothing(engine, ledger, batches):
    model = Parrot(batches=batches)
    ledger.open.clear()
    engine.submit(model, texts(1), shares)
    time.sleep(0.05)
    good, bad, also_good = (engine.submit(model, [(word,)], shares) for word in ("good", "boom", "fine"))
    ledger.open.set()
    assert good.result(5) == also_good.result(5) == [0.5]
    with pytest.raises(ModelFailed):
        bad.result(5)
    assert engine.waiting == 0


def test_a_single_text_is_not_held_up_by_a_large_batch():
    engine = Engine(lambda drafts: drafts)
    model = Parrot(seconds=0.002)
    large = engine.submit(model, texts(200), shares)
    time.sleep(0.02)
    assert engine.submit(model, texts(1), shares).result(5) == [0.5]
    assert not large.done()
    assert len(large.result(5)) == 200
    engine.stop()


def test_a_model_that_computes_in_batches_is_called_once_for_all_that_wait(engine, ledger):
    model = Parrot(batches=True)
    ledger.open.clear()
    futures = [engine.submit(Parrot(), texts(1), shares)]
    time.sleep(0.05)
    futures += [engine.submit(model, [(f"{number} a",), (f"{number} b",)], shares) for number in range(4)]
    ledger.open.set()
    assert all(future.result(5) for future in futures)
    assert model.calls == [8]


def test_equal_texts_that_wait_together_are_computed_once_and_recorded_each(engine, ledger):
    model = Parrot()
    ledger.open.clear()
    futures = [engine.submit(Parrot(), texts(1), shares)]
    time.sleep(0.05)
    futures += [engine.submit(model, [("same",), (f"other {number}",)], shares) for number in range(3)]
    ledger.open.set()
    assert [future.result(5) for future in futures] == [[0.5], *[[0.5, 0.5]] * 3]
    assert sum(model.calls) == 4
    assert [len(group) for group in ledger.groups] == [1, 3]


def test_the_next_round_is_computed_while_a_slow_commit_is_waited_for(engine, ledger):
    for number in range(3):  # after these the engine knows that commits are slow
        ledger.seconds = 0.02
        engine.submit(Parrot(), [(f"{number}",)], shares).result(5)
    ledger.open.clear()
    first = engine.submit(Parrot(), [("first",)], shares)
    model = Parrot()
    second = engine.submit(model, [("second",)], shares)
    wait_for(lambda: model.calls == [1])
    assert not first.done()
    assert not second.done()
    ledger.open.set()
    assert first.result(5) == second.result(5) == [0.5]
    assert engine.waiting == 0


def test_quick_commits_are_left_to_the_batcher():
    recorders = []

    def record(drafts):
        recorders.append(threading.current_thread().name)
        return drafts

    engine = Engine(record)
    assert engine.submit(Parrot(), texts(1), shares).result(5) == [0.5]
    assert recorders == ["batcher"]
    engine.stop()


def test_a_slow_recorder_that_fails_fails_its_round_alone():
    outcomes = iter([None] * 3 + [OSError("the disk is gone")] + [None] * 10)

    def record(drafts):
        time.sleep(0.02)
        if (error := next(outcomes)) is not None:
            raise error
        return drafts

    engine = Engine(record)
    for number in range(3):
        engine.submit(Parrot(), [(f"{number}",)], shares).result(5)
    with pytest.raises(RecordFailed):
        engine.submit(Parrot(), [("lost",)], shares).result(5)
    assert engine.submit(Parrot(), [("kept",)], shares).result(5) == [0.5]
    engine.stop()
    assert engine.waiting == 0


def test_a_request_that_gave_up_waiting_is_not_computed(engine, ledger):
    ledger.open.clear()
    engine.submit(Parrot(), texts(1), shares)
    time.sleep(0.05)
    late = Parrot()
    assert engine.submit(late, texts(1), shares).cancel()
    ledger.open.set()
    assert engine.submit(Parrot(), texts(1), shares).result(5)
    assert late.calls == []


def test_the_recorder_may_answer_one_request_with_an_error():
    engine = Engine(lambda drafts: [KeyError("taken") if draft == "second" else draft for draft in drafts])
    assert engine.submit(Parrot(), texts(1), lambda answers, ms: "first").result(5) == "first"
    with pytest.raises(KeyError):
        engine.submit(Parrot(), texts(1), lambda answers, ms: "second").result(5)
    engine.stop()


def test_versions_swapped_under_load_lose_no_request_and_mix_in_none(ledger):
    engine = Engine(ledger, capacity=10_000)
    live = [Parrot(0.1, 0.0002)]
    outcomes, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            outcomes.append(engine.submit(live[0], texts(12), shares).result(10))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for share in (0.2, 0.3, 0.4):
        time.sleep(0.1)
        live[0] = Parrot(share, 0.0002)
    time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    engine.stop()
    assert all(len(outcome) == 12 and len(set(outcome)) == 1 for outcome in outcomes)
    assert {outcome[0] for outcome in outcomes} == {0.1, 0.2, 0.3, 0.4}


def test_stopping_answers_what_was_accepted_and_accepts_no_more():
    engine = Engine(lambda drafts: drafts)
    futures = [engine.submit(Parrot(seconds=0.005), texts(4), shares) for _ in range(4)]
    engine.stop()
    assert [future.result(0) for future in futures] == [[0.5] * 4] * 4
    with pytest.raises(Overloaded):
        engine.submit(Parrot(), texts(1), shares)
