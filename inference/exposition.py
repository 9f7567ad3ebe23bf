"""`/metrics`: how this web process and this machine's spool stand, for Prometheus.

Text exposition format 0.0.4. Whoever comes from one of `KALIMTAK_METRICS_NETWORKS` may read it, without a key. What a
proxy handed on that is not among `KALIMTAK_TRUSTED_PROXIES` is refused, as where it came from is not known.
"""

from datetime import datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from inference.health import find_problems
from inference.live import LIVE
from inference.services import engine
from interactions import spooling
from kalimtak.core.errors import error_body
from kalimtak.core.ratelimit import client_address, comes_from_trusted_proxy, is_in_networks


def metrics(request: HttpRequest) -> HttpResponse:
    """The figures, or 403."""
    if not may_read(request):
        message = "Metrics are for the networks in KALIMTAK_METRICS_NETWORKS."
        return JsonResponse(error_body("forbidden", message), status=403)
    response = HttpResponse(generate_latest(gathered()), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    response["Cache-Control"] = "no-store"
    return response


def may_read(request: HttpRequest) -> bool:
    """Whether the request comes from a network that may, as far as that can be known."""
    is_handed_on = "HTTP_X_FORWARDED_FOR" in request.META and not comes_from_trusted_proxy(request)
    is_from_nowhere = not request.META.get("REMOTE_ADDR")  # through a socket
    if is_handed_on or (is_from_nowhere and not comes_from_trusted_proxy(request)):
        return False
    return is_in_networks(client_address(request), settings.KALIMTAK_METRICS_NETWORKS)


def gathered() -> CollectorRegistry:
    """Every figure, read now."""
    registry = CollectorRegistry()
    waiting = spooling.waiting()
    since = datetime.fromisoformat(waiting.since) if waiting.since else None
    figures = {
        "kalimtak_ready": ("1 where requests will be answered.", not find_problems()),
        "kalimtak_waiting_texts": ("Texts in this process's queue.", engine().waiting),
        "kalimtak_live_age_seconds": ("Since this process last read what is deployed.", LIVE.age),
        "kalimtak_spool_active": ("1 while this process writes answers to the spool.", spooling.SPOOL.is_away),
        "kalimtak_spool_answers": ("Answers that wait in this machine's spool.", waiting.answers),
        "kalimtak_spool_bytes": ("Size of this machine's spool.", waiting.bytes),
        "kalimtak_spool_set_aside_files": ("Files of the spool that could not be recorded.", waiting.set_aside),
        "kalimtak_spool_oldest_seconds": (
            "Age of what waits in the spool; 0 where nothing does.",
            max(0.0, (timezone.now() - since).total_seconds()) if since else 0.0,
        ),
    }
    for name, (documentation, value) in figures.items():
        Gauge(name, documentation, registry=registry).set(float(value))
    return registry
