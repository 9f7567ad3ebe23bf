"""The short way to the views that carry the traffic: a request with an API key needs no session, language or form.

`ApiMiddleware` hands such a request to its `LeanView` past the middleware for pages, and the view checks what DRF would
have checked, in the same order and with the same answers, without DRF's request and response objects. That is two
thirds of what a request costs beside its model (decision 21). Everybody else, staff in a browser above all, comes
through Django and DRF as usual: to the same `reply`.
"""

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve
from django.utils.translation import override
from rest_framework.exceptions import NotAuthenticated, PermissionDenied, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response

from .api import ApiView, exception_handler, parse_json
from .auth import Caller, caller_of, caller_with_key, key_authenticate
from .errors import TooLarge
from .outages import outage_of, unavailable

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode  # as DRF renders


class LeanView(ApiView):
    """A POST of JSON, answered by `reply`: one that came with a key without DRF, any other one through it."""

    def reply(self, caller: Caller, body: Any, **captured: str) -> dict[str, Any]:
        """What is answered with 200. Raises `KalimtakError`."""
        raise NotImplementedError

    def post(self, request: Request, **captured: str) -> Response:
        return Response(self.reply(caller_of(request), request.data, **captured))

    def answer(self, request: HttpRequest, captured: Mapping[str, str]) -> HttpResponse:
        """The whole answer to a request with an `Authorization` header."""
        try:
            caller = self.admit(request)
            return json_response(self.reply(caller, read_json(request), **captured))
        except Exception as error:
            return refusal(request, error)

    def admit(self, request: HttpRequest) -> Caller:
        """Key, rate and scope, as `ApiView.initial` asks for them. Raises what it raises."""
        key = key_authenticate(request.META["HTTP_AUTHORIZATION"].encode("latin-1"))
        if key is None:
            raise NotAuthenticated("Give an API key or sign in.")
        caller = caller_with_key(request, key)
        self.count(request, caller)
        if self.required_scope not in caller.scopes:
            raise PermissionDenied(f"This needs the scope {self.required_scope}.")
        return caller


def answer_directly(request: HttpRequest) -> HttpResponse | None:
    """The answer of a `LeanView` to a POST with a key; None for whatever has to go the usual way.

    Raises `DisallowedHost` and whatever is a fault of ours, which Django turns into 400 and 500.
    """
    if request.method != "POST" or not request.META.get("HTTP_AUTHORIZATION", "").strip():
        return None
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return None
    view = getattr(match.func, "cls", None)
    if not (isinstance(view, type) and issubclass(view, LeanView)):
        return None
    request.get_host()
    return view().answer(request, match.kwargs)


def read_json(request: HttpRequest) -> Any:
    """The body of a request, none being an empty object. Raises `InvalidInput`, `TooLarge`,
    or DRF's 415 for another type.
    """
    raw = request.body
    if not raw:
        return {}
    if request.content_type != "application/json":
        raise UnsupportedMediaType(request.META.get("CONTENT_TYPE", ""))
    if len(raw) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise TooLarge(f"The body is over {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.")
    return parse_json(raw)


def json_response(body: Any, status: int = 200) -> HttpResponse:
    content = _encode(body).encode()
    return HttpResponse(
        content, status=status, content_type="application/json", headers={"Content-Length": str(len(content))}
    )


def refusal(request: HttpRequest, error: Exception) -> HttpResponse:
    """What DRF and the middleware would make of `error`. Raises it again where it is a fault of ours."""
    with override(settings.LANGUAGE_CODE):  # of DRF's own sentences; a page before may have left another one behind
        handled = exception_handler(error, {})
        if handled is not None:
            response = json_response(handled.data, handled.status_code)
            for name in ("Retry-After", "WWW-Authenticate"):
                if name in handled:
                    response[name] = handled[name]
            response._has_been_logged = True  # type: ignore[attr-defined]
            return response
    outage = outage_of(error)
    if outage is None:
        raise error
    return unavailable(request, error, outage, as_json=True)
