"""Redis stopped, emptied, frozen, slow, read-only or full: limits degrade and come back, no request fails or hangs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from django.core.cache import cache
from django.test import Client
from django_q.brokers import get_broker

from inference import services
from kalimtak.core import ratelimit
from kalimtak.core.cache import redis_options
from tests.installation import Installation
from tests.services import FaultProxy, PrivateRedis, wait_until

pytestmark = [pytest.mark.redis, pytest.mark.own_servers]

LIMIT = 10
PATIENCE = 1.5  # seconds for a request that meets the outage; the cache itself is given half a second


@pytest.fixture(scope="module")
def server():
    server = PrivateRedis()
    yield server
    server.close()


@pytest.fixture
def redis(server, settings, monkeypatch, db):
    """The server as this process's cache, empty; anonymous visitors may ask ten times a day."""
    settings.KALIMTAK_ANONYMOUS = True
    settings.KALIMTAK_RATELIMIT_ANON = f"{LIMIT}/d"
    monkeypatch.setattr(ratelimit, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(ratelimit, "_circuit", ratelimit.Circuit())
    monkeypatch.setattr(ratelimit, "_buckets", {})
    use(settings, server.url)
    server.client.flushall()
    yield server
    services.shut_down()


def use(settings, url: str) -> None:
    backend = "django.core.cache.backends.redis.RedisCache"
    settings.CACHES = settings.CACHES | {"default": {"BACKEND": backend, "LOCATION": url, "OPTIONS": redis_options()}}


def visit(address: str = "192.0.2.7", **extra: str) -> tuple[int, float]:
    """Status and seconds of one request."""
    started = time.monotonic()
    response = Client(raise_request_exception=False).get("/api/models", REMOTE_ADDR=address, **extra)
    if response.status_code == 429:
        assert int(response["Retry-After"]) > 0
    return response.status_code, time.monotonic() - started


def visits(count: int) -> list[int]:
    """The statuses of that many requests; none but the first may wait for the cache, and that one not for long."""
    seen = [visit() for _ in range(count)]
    assert seen[0][1] < PATIENCE
    assert sum(seconds for _, seconds in seen[1:]) < 2 * PATIENCE
    return [status for status, _ in seen]


def limited(count: int) -> list[int]:
    return [200] * LIMIT + [429] * (count - LIMIT)


def test_counts_are_kept_in_redis_as_plain_numbers(redis):
    assert visits(LIMIT + 3) == limited(LIMIT + 3)
    assert [redis.client.get(key) for key in redis.client.keys("*")] == [b"13"]
    cache.set("a", {"x": [1, "é"]})
    assert cache.get("a") == {"x": [1, "é"]}
    assert redis.client.get(":1:a").startswith(b"{"), "JSON, which runs nothing when it is read"


def test_a_stopped_redis_leaves_limits_per_process_until_it_is_back(redis, caplog):
    assert visits(2) == [200, 200]
    redis.stop()
    assert visits(LIMIT + 5) == limited(LIMIT + 5)
    redis.start()
    wait_until(lambda: visit("192.0.2.8")[0] == 200 and redis.client.dbsize() > 0, 10, what="a count in Redis")
    assert visits(LIMIT + 2) == limited(LIMIT + 2), "started empty, it counts from nothing"
    told = [record.getMessage() for record in caplog.records if record.name == ratelimit.__name__]
    assert len(told) == 2, "once when it went, once when it came back"


def test_a_redis_restarted_between_two_requests_costs_nothing(redis):
    assert visits(3) == [200] * 3
    redis.stop()
    redis.start()
    assert visits(LIMIT + 1) == limited(LIMIT + 1)
    assert redis.client.dbsize() == 1


@pytest.mark.clock
def test_a_frozen_redis_holds_one_request_for_half_a_second(redis):
    redis.freeze()
    try:
        assert visits(LIMIT + 5) == limited(LIMIT + 5)
    finally:
        redis.thaw()
    wait_until(lambda: visit("192.0.2.9")[0] == 200 and redis.client.dbsize() > 0, 10, what="a count in Redis")


@pytest.mark.clock
def test_while_a_frozen_redis_is_asked_again_only_one_request_waits(redis):
    visit()
    redis.freeze()
    try:
        visit()
        time.sleep(ratelimit.RETRY_SECONDS)
        with ThreadPoolExecutor(8) as threads:
            seconds = sorted(threads.map(lambda _: visit_the_limit(), range(8)))
    finally:
        redis.thaw()
    assert seconds[-2] < 0.3 < seconds[-1] < PATIENCE


def visit_the_limit() -> float:
    """Seconds that the limit alone takes; threads have no test database on SQLite."""
    started = time.monotonic()
    ratelimit.limit(None, group="test", value="one", rate="1000/d")
    return time.monotonic() - started


@pytest.mark.clock
def test_a_redis_two_seconds_away_is_not_waited_for(redis, settings):
    proxy = FaultProxy(redis.port)
    proxy.delay = 2.0
    use(settings, f"redis://127.0.0.1:{proxy.port}/0")
    try:
        assert visits(LIMIT + 5) == limited(LIMIT + 5)
        proxy.delay = 0.0
        wait_until(lambda: visit("192.0.2.10")[0] == 200 and redis.client.dbsize() > 0, 15, what="a count in Redis")
    finally:
        proxy.close()


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    ],
    ids=["a read-only replica", "full"],
)
def test_a_redis_that_cannot_be_written_to_leaves_limits_per_process(redis, break_it, mend_it):
    redis.client.config_set("maxmemory-policy", "noeviction")
    visit()
    redis.client.execute_command(*break_it)
    try:
        assert visits(LIMIT + 5) == limited(LIMIT + 5)
    finally:
        redis.client.execute_command(*mend_it)
    wait_until(lambda: visit("192.0.2.11")[0] == 200 and redis.client.dbsize() > 0, 10, what="a count in Redis")


def test_the_heartbeat_of_queue_workers_needs_no_redis(redis):
    broker = get_broker()
    broker.set_stat("worker", "alive", 3)
    assert broker.get_stat("worker") == "alive"
    assert redis.client.dbsize() == 0


def test_a_made_up_forwarding_header_makes_no_new_caller(redis, settings):
    statuses = [visit(HTTP_X_FORWARDED_FOR=f"203.0.113.{n}")[0] for n in range(LIMIT + 2)]
    assert statuses == limited(LIMIT + 2), "no proxy is trusted"
    settings.KALIMTAK_TRUSTED_PROXIES = ["192.0.2.0/24"]
    statuses = [visit(HTTP_X_FORWARDED_FOR=f"203.0.113.{n}, 198.51.100.4")[0] for n in range(LIMIT + 2)]
    assert statuses == limited(LIMIT + 2), "only what the proxy itself wrote counts, not what it was told"
    assert visit(HTTP_X_FORWARDED_FOR="198.51.100.5")[0] == 200


def test_a_host_cannot_hop_through_its_own_ipv6_network(redis):
    statuses = [visit(f"2001:db8:0:1::{n:x}")[0] for n in range(1, LIMIT + 3)]
    assert statuses == limited(LIMIT + 2)
    assert visit("2001:db8:0:2::1")[0] == 200
    assert visit("fe80::1%eth0")[0] == 200


def test_ipv4_callers_of_a_server_that_listens_on_ipv6_are_counted_one_by_one(redis, settings):
    assert [visit("::ffff:192.0.2.20")[0] for _ in range(LIMIT + 1)] == limited(LIMIT + 1)
    assert visit("::ffff:192.0.2.21")[0] == 200
    settings.KALIMTAK_TRUSTED_PROXIES = ["10.0.0.0/8"]
    assert visit("::ffff:10.0.0.1", HTTP_X_FORWARDED_FOR="198.51.100.9:4711")[0] == 200
    assert visit("::ffff:10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.20")[0] == 429


@pytest.fixture(scope="module")
def two_processes(server, tmp_path_factory):
    """A web server of two processes whose visitors may ask twenty times a day."""
    rates = {"KALIMTAK_RATELIMIT_ANON": "20/d", "WEB_CONCURRENCY": "2"}
    installation = Installation(tmp_path_factory.mktemp("web"), redis=server.url, **rates)
    server.client.flushall()
    installation.manage("setup")
    installation.start_web()
    yield installation
    installation.close()


@pytest.mark.slow
def test_a_limit_holds_across_processes_and_through_an_outage(two_processes, server):
    url = f"{two_processes.url}/api/models"
    lock, statuses, slowest = threading.Lock(), [], 0.0

    def ask(number: int) -> None:
        nonlocal slowest
        started = time.monotonic()
        response = requests.get(url, timeout=30, headers={"X-Forwarded-For": f"198.51.100.{number}"})
        with lock:
            statuses.append(response.status_code)
            slowest = max(slowest, time.monotonic() - started)

    def ask_all(count: int) -> tuple[int, int]:
        statuses.clear()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(count)))
        assert set(statuses) <= {200, 429}
        return statuses.count(200), statuses.count(429)

    assert ask_all(60) == (20, 40)
    server.stop()
    answered, _ = ask_all(100)
    assert 20 <= answered <= 40, "each of the two processes counts by itself"
    server.start()
    wait_until(lambda: requests.get(url, timeout=5).status_code and server.client.dbsize(), 20, what="a count in Redis")
    assert slowest < 5
