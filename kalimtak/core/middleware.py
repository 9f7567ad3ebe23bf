"""What every request passes: whom to believe, what pages may load, the shape of errors, the visitor's time zone."""

import zoneinfo
from collections.abc import Callable
from datetime import UTC
from urllib.parse import unquote

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from .errors import error_body
from .lean import answer_directly
from .outages import outage_of, unavailable
from .ratelimit import comes_from_trusted_proxy

Handler = Callable[[HttpRequest], HttpResponse]


def is_api(request: HttpRequest) -> bool:
    """Whether programs ask here: the API and the health checks."""
    return f"{request.path_info}/".startswith(("/api/", "/livez/", "/readyz/", "/healthz/", "/metrics/"))


class ProxyMiddleware:
    """Believes `X-Forwarded-Proto` from `KALIMTAK_TRUSTED_PROXIES` only: anybody could write it."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not comes_from_trusted_proxy(request):
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        return self.get_response(request)


class ContentSecurityPolicyMiddleware:
    """What a page may load and run: its own files. The two interfaces that are not ours need a little more.

    unfold's Alpine evaluates the expressions in its attributes and sets styles there; Swagger UI writes inline styles.
    """

    OWN = (
        "default-src 'none'; script-src 'self'{script}; style-src 'self'{style}; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    STRICT = OWN.format(script="", style="")
    PATHS = {
        "/admin/": OWN.format(script=" 'unsafe-eval'", style=" 'unsafe-inline'"),
        "/api/docs": OWN.format(script="", style=" 'unsafe-inline'"),
    }

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        policy = next((policy for path, policy in self.PATHS.items() if request.path.startswith(path)), self.STRICT)
        response = self.get_response(request)
        if not (settings.DEBUG and response.status_code >= 400):  # Django's own pages for debugging are all inline
            response.headers.setdefault("Content-Security-Policy", policy)
        return response


class OutageMiddleware:
    """A database that is away is no fault of the request: 503 with `Retry-After`, whatever was asked."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        outage = outage_of(exception)
        return unavailable(request, exception, outage, as_json=is_api(request)) if outage else None


class ApiMiddleware:
    """Refuses a body that cannot be read before it is, gives API errors their shape, and takes the short way to the
    views that have one: what comes after it is for pages.

    It looks into `META`: `request.headers` would first bring all of them into another form, 9 us a request.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not is_api(request):
            return self.get_response(request)
        request.path_info = request.path_info.rstrip("/")  # a trailing slash makes no difference
        response = (
            self.answer_preflight(request)
            or self.refuse_body(request)
            or answer_directly(request)
            or self.get_response(request)
        )
        self.add_cors(request, response)
        return response

    def answer_preflight(self, request: HttpRequest) -> HttpResponse | None:
        """What a browser asks before a request from another origin; it sends no key along, and none is needed."""
        if request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META:
            return HttpResponse(status=204)
        return None

    def refuse_body(self, request: HttpRequest) -> HttpResponse | None:
        """The refusal of a body whose headers say that it is packed, of unknown length, or too large."""
        if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            message = "Send the body as it is, without a Content-Encoding."
            return JsonResponse(error_body("unsupported_media_type", message), status=415)
        if "HTTP_TRANSFER_ENCODING" in request.META:  # Django would take it for an empty body
            return JsonResponse(error_body("length_required", "Send the body with a Content-Length."), status=411)
        announced = request.META.get("CONTENT_LENGTH") or "0"
        is_upload = (request.content_type or "").startswith("multipart/")
        limit = settings.KALIMTAK_MAX_UPLOAD if is_upload else settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if announced.isdecimal() and int(announced) > limit:
            return JsonResponse(error_body("too_long", f"The body is over {limit} bytes."), status=413)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if is_api(request) and isinstance(exception, RequestDataTooBig):
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            return JsonResponse(error_body("too_long", f"The body is over {limit} bytes."), status=413)
        return None

    def add_cors(self, request: HttpRequest, response: HttpResponse) -> None:
        origin = request.META.get("HTTP_ORIGIN")
        if origin and origin in settings.KALIMTAK_CORS_ORIGINS:
            response["Access-Control-Allow-Origin"] = origin
            response["Access-Control-Allow-Headers"] = "authorization, content-type"
            response["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            response["Access-Control-Expose-Headers"] = "Retry-After"
            patch_vary_headers(response, ["Origin"])


class TimeZoneMiddleware:
    """Shows times in the zone that the browser names in the cookie `tz`; everything is stored in UTC, and the API
    speaks UTC."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if is_api(request):
            with timezone.override(UTC):
                return self.get_response(request)
        name = unquote(request.COOKIES.get("tz", ""))
        try:
            zone = zoneinfo.ZoneInfo(name) if name else None
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            zone = None
        if zone is None:
            return self.get_response(request)
        with timezone.override(zone):
            return self.get_response(request)
