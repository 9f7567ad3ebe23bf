"""django-ratelimit, wrapped so that a lost cache degrades a limit instead of failing the request.

Fixed windows, counted in the shared cache. A process takes a thousandth of a window's requests from there at a time, so
that whoever may ask thousands does not ask the cache each time; of n processes each may keep that much unused, so a
generous limit may end n thousandths early, and never late. While the cache is away each process counts by itself with a
token bucket.
"""

import ipaddress
import logging
import re
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest
from django_ratelimit.core import _split_rate, get_usage

from .errors import KalimtakError, WouldWait

logger = logging.getLogger(__name__)
BUCKETS_AT_MOST = 50_000
BLOCKS_IN_WINDOW = 1000  # how often a process that uses up a whole limit asks the cache
RETRY_SECONDS = 5.0  # before a cache that failed is asked again


class RateLimited(KalimtakError):
    """Too many requests (429 with `Retry-After`, in seconds)."""

    code = "rate_limited"
    status = 429


def client_address(request: HttpRequest) -> str:
    """The caller's address: the right-most `X-Forwarded-For` entry that is no trusted proxy, else the peer's."""
    peer = _peer(request)
    if not comes_from_trusted_proxy(request):
        return peer
    trusted = _networks(tuple(settings.KALIMTAK_TRUSTED_PROXIES))
    for hop in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        address = _parse(hop.strip())
        if address is None:
            break
        if not _is_in(str(address), trusted):
            return str(address)
    return peer


def comes_from_trusted_proxy(request: HttpRequest) -> bool:
    """Whether whoever opened the connection may say for whom and how."""
    trusted = _networks(tuple(settings.KALIMTAK_TRUSTED_PROXIES))
    return bool(trusted) and _is_in(_peer(request), trusted)


def _peer(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "127.0.0.1")


def limit(request: HttpRequest, *, group: str, value: str, rate: str, may_wait: bool = True) -> None:
    """Count one request of `value` in `group` against `rate` (such as `60/m`).

    Raises `RateLimited` beyond it, and without `may_wait` `WouldWait` where the cache would have to be asked.
    """
    if not settings.RATELIMIT_ENABLE:
        return
    name = f"{group}:{value}:{rate}"
    if _blocks.take(name):
        return
    if not may_wait:
        raise WouldWait
    count, period = _split_rate(rate)
    block = max(1, count // BLOCKS_IN_WINDOW)
    usage = None
    if _circuit.may_ask():
        blocks = f"{count // block}/{period}s"
        try:
            usage = get_usage(request, group=group, key=lambda group, request: value, rate=blocks, increment=True)
        except Exception as error:  # whatever a cache raises when it is away, slow, full or read-only
            _circuit.failed(error)
        else:
            _circuit.answered()
    if usage is None or usage["time_left"] < 0:
        wait = _local_wait(name, rate)
    elif usage["should_limit"]:
        wait = max(usage["time_left"], 1)
    else:
        wait = 0
        _blocks.put(name, block - 1, usage["time_left"])
    if wait:
        raise RateLimited(f"More than {rate.replace('/', ' requests per ')}.", retry_after=int(wait))


class Blocks:
    """Requests that were counted in the cache already and may still be made, by name, until their window ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[int, float]] = {}  # how many, and until when (monotonic seconds)

    def take(self, name: str) -> bool:
        """Use one up, if one is left."""
        with self._lock:
            left, until = self._left.get(name, (0, 0.0))
            if left < 1 or time.monotonic() >= until:
                return False
            self._left[name] = (left - 1, until)
            return True

    def put(self, name: str, count: int, seconds: float) -> None:
        if count < 1:
            return
        with self._lock:
            if len(self._left) > BUCKETS_AT_MOST:
                self._left.clear()
            now = time.monotonic()
            left, until = self._left.get(name, (0, 0.0))
            self._left[name] = (count + (left if now < until else 0), now + seconds)

    def clear(self) -> None:
        with self._lock:
            self._left.clear()


class Circuit:
    """Spares requests a cache that is away: after a failure one request in `RETRY_SECONDS` asks it, the others do not.

    Without it every request would wait for the cache's timeout.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open, self._ask_at = False, 0.0

    def may_ask(self) -> bool:
        if not self._is_open:
            return True
        with self._lock:
            if time.monotonic() < self._ask_at:
                return False
            self._ask_at = time.monotonic() + RETRY_SECONDS  # for the others, while this request finds out
            return True

    def failed(self, error: Exception) -> None:
        with self._lock:
            was_open, self._is_open = self._is_open, True
            self._ask_at = time.monotonic() + RETRY_SECONDS
        if not was_open:
            logger.warning(
                "The cache is away, rate limits are counted per process: %s: %s", type(error).__name__, error
            )

    def answered(self) -> None:
        if self._is_open:
            self._is_open = False
            logger.warning("The cache answers again: rate limits hold across processes")


_circuit = Circuit()
_blocks = Blocks()
_buckets: dict[str, tuple[float, float]] = {}
_buckets_lock = threading.Lock()


def _local_wait(name: str, rate: str) -> int:
    """Seconds to wait by this process's own token bucket; 0 where a token was left."""
    count, period = _split_rate(rate)
    now = time.monotonic()
    with _buckets_lock:
        if len(_buckets) > BUCKETS_AT_MOST:
            _buckets.clear()
        tokens, then = _buckets.get(name, (float(count), now))
        tokens = min(float(count), tokens + (now - then) * count / period)
        allowed = tokens >= 1
        _buckets[name] = (tokens - 1 if allowed else tokens, now)
    return 0 if allowed else max(1, int((1 - tokens) * period / max(count, 1)))


@lru_cache(maxsize=16)
def _networks(names: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(name, strict=False) for name in names)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address without a port or zone; an IPv4 address in IPv6 clothes is an IPv4 address. None if it is none."""
    with_port = re.fullmatch(r"\[(.+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", address)
    if with_port:
        address = with_port[1] or with_port[2]
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def is_in_networks(address: str, names: Sequence[str]) -> bool:
    """Whether an address lies in one of the networks, such as `10.0.0.0/8`."""
    return _is_in(address, _networks(tuple(names)))


def address_group(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 /64, since one host owns that many addresses."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed or address)
