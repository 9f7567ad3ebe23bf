"""Does the cache count? Rate limits live there; without it each process counts by itself."""

import time
import uuid
from collections.abc import Iterator

from django.conf import settings
from django.core.cache import cache

from kalimtak.core.cache import REDIS_SECONDS
from kalimtak.doctor.diagnosis import Diagnosis, Options, first_line, ok, problem, warning

PATIENCE_SECONDS = 3.0  # ours; a request gives up after REDIS_SECONDS
SLOW_SECONDS = 0.2
PINGS = 3

NAME = "cache"
_DEGRADED = "Until then limits are counted per process, and nothing else is lost."


def cache_answers(options: Options) -> Iterator[Diagnosis]:
    """Reachable, quick, writable, and not throwing counters away."""
    if settings.REDIS_URL:
        yield from _redis()
        return
    key = f"doctor:{uuid.uuid4()}"
    try:
        cache.set(key, 1, 10)
        cache.delete(key)
    except Exception as error:
        remedy = f"Remove {settings.KALIMTAK_VAR / 'cache.sqlite3'}, or free its disk. {_DEGRADED}"
        yield problem(NAME, f"the file cannot be used: {first_line(error)}", remedy)
        return
    yield ok(NAME, "a file that the processes of this machine share")


def _redis() -> Iterator[Diagnosis]:
    import redis

    key = f"kalimtak:doctor:{uuid.uuid4()}"
    patient = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
    try:
        with redis.Redis.from_url(settings.REDIS_URL, **patient) as client:
            took = min(_timed(client.ping) for _ in range(PINGS))
            memory = client.info("memory")
            client.set(key, 1, ex=10)
            client.delete(key)
    except redis.exceptions.TimeoutError:
        what = f"Redis did not answer within {PATIENCE_SECONDS:.0f} s"
        yield problem(NAME, what, f"Is it frozen, overloaded or behind a firewall? {_DEGRADED}")
        return
    except redis.exceptions.ReadOnlyError:
        yield problem(NAME, "Redis is read-only (a replica?)", f"Name the primary in REDIS_URL. {_DEGRADED}")
        return
    except redis.exceptions.AuthenticationError as error:
        yield problem(NAME, f"Redis lets us not in: {first_line(error)}", "Put the password into REDIS_URL.")
        return
    except redis.exceptions.ConnectionError as error:
        remedy = f"Start it, or correct REDIS_URL. {_DEGRADED}"
        yield problem(NAME, f"Redis cannot be reached: {first_line(error)}", remedy)
        return
    except redis.exceptions.RedisError as error:
        yield problem(NAME, f"Redis refuses: {first_line(error)}", f"Is its memory or disk full? {_DEGRADED}")
        return
    yield from _judged(took, str(memory.get("maxmemory_policy", "")), int(memory.get("maxmemory", 0)))


def _judged(took: float, policy: str, memory_limit: int) -> Iterator[Diagnosis]:
    if took > REDIS_SECONDS:
        what = f"Redis takes {took * 1000:.0f} ms; it is given up after {REDIS_SECONDS * 1000:.0f}"
        yield problem(NAME, what, f"Look at its load, at swapping and at the network. {_DEGRADED}")
    elif took > SLOW_SECONDS:
        what = f"Redis takes {took * 1000:.0f} ms, and every request waits for it"
        yield warning(NAME, what, "Look at its load, at swapping and at the network.")
    if memory_limit and policy not in ("", "noeviction"):
        what = f"Redis throws keys away when its memory is full ({policy})"
        yield warning(NAME, what, "Give it a memory of its own and `maxmemory-policy noeviction`, so that limits hold.")
    if took <= SLOW_SECONDS and not (memory_limit and policy not in ("", "noeviction")):
        yield ok(NAME, f"Redis answers in {took * 1000:.1f} ms")


def _timed(ask: "object") -> float:
    began = time.monotonic()
    ask()  # type: ignore[operator]
    return time.monotonic() - began
