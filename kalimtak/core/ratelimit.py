"""django-ratelimit, wrapped so that a lost cache degrades a limit instead of failing the request.

Fixed windows, counted in the shared cache. While the cache is away each process counts by itself with a token bucket.
"""

import ipaddress
import logging
import threading
import time
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest
from django_ratelimit.core import _split_rate, get_usage

from .errors import KalimtakError

logger = logging.getLogger(__name__)
BUCKETS_AT_MOST = 50_000


class RateLimited(KalimtakError):
    """Too many requests (429 with `Retry-After`, in seconds)."""

    code = "rate_limited"
    status = 429


def client_address(request: HttpRequest) -> str:
    """The caller's address: the right-most `X-Forwarded-For` entry that is no trusted proxy, else the peer's."""
    peer = str(request.META.get("REMOTE_ADDR") or "127.0.0.1")
    trusted = _networks(tuple(settings.KALIMTAK_TRUSTED_PROXIES))
    if not trusted or not _is_in(peer, trusted):
        return peer
    for hop in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        address: str = hop.strip()
        if _parse(address) is None:
            break
        if not _is_in(address, trusted):
            return address
    return peer


def limit(request: HttpRequest, *, group: str, value: str, rate: str) -> None:
    """Count one request of `value` in `group` against `rate` (such as `60/m`); raises `RateLimited` beyond it."""
    if not settings.RATELIMIT_ENABLE:
        return
    try:
        usage = get_usage(request, group=group, key=lambda group, request: value, rate=rate, increment=True)
    except Exception:
        logger.warning("The cache is away: rate limits are counted per process", exc_info=True)
        usage = None
    if usage is None or usage["time_left"] < 0:
        wait = _local_wait(f"{group}:{value}", rate)
    else:
        wait = max(usage["time_left"], 1) if usage["should_limit"] else 0
    if wait:
        raise RateLimited(f"More than {rate.replace('/', ' requests per ')}.", retry_after=int(wait))


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
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def address_group(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 /64, since one host owns that many addresses."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return address
