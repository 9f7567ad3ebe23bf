"""Which worker takes a new connection."""

import pytest

from kalimtak import balance
from kalimtak.balance import Balance


@pytest.fixture
def now(monkeypatch):
    class Clock:
        seconds = 1e9

        def monotonic(self):
            return self.seconds

    clock = Clock()
    monkeypatch.setattr(balance, "time", clock)
    return clock


@pytest.fixture
def workers(now):
    return Balance(40), Balance(41)


def test_a_worker_alone_takes_everything(now):
    assert not Balance(42).leaves_to_others(1000)
    assert not Balance(42).sheds(1000)


def test_who_has_more_leaves_a_connection_to_who_has_fewer(workers):
    first, second = workers
    second.say(2)
    assert first.leaves_to_others(3)
    assert not first.leaves_to_others(2)
    second.say(4)
    assert not first.leaves_to_others(3)


def test_a_connection_that_nobody_comes_for_is_taken(workers, now):
    first, second = workers
    second.say(0)
    assert first.leaves_to_others(1)
    now.seconds += balance.GRACE_SECONDS * 1.5
    assert not first.leaves_to_others(1)
    assert first.leaves_to_others(2)  # the next one is left to them again


def test_workers_that_do_not_come_are_not_waited_for_each_time(workers, now):
    first, second = workers
    second.say(0)
    for _ in range(balance.MOST_MISSED):
        assert first.leaves_to_others(1)
        now.seconds += balance.GRACE_SECONDS * 1.5
        assert not first.leaves_to_others(1)
    assert not first.leaves_to_others(1)
    now.seconds += balance.BUSY_SECONDS
    assert first.leaves_to_others(1)


def test_workers_that_say_nothing_do_not_count(workers, now):
    first, second = workers
    second.say(0)
    now.seconds += balance.FRESH_SECONDS + 0.1
    assert not first.leaves_to_others(5)
    assert not first.sheds(50)


def test_a_worker_with_many_more_sends_a_client_away_now_and_then(workers, now):
    first, second = workers
    second.say(4)
    assert not first.sheds(7)
    now.seconds += balance.SHED_SECONDS
    assert first.sheds(8)
    assert not first.sheds(8)
    now.seconds += balance.SHED_SECONDS
    assert first.sheds(8)
