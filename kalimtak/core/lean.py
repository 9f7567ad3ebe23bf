"""The short way to the views that carry the traffic: a request with an API key needs no session, language or form.

`ApiMiddleware` hands such a request to its `LeanView` past the middleware for pages, and the view checks what DRF would
have checked, in the same order and with the same answers, without DRF's request and response objects. That is two
thirds of what a request costs beside its model (decision 21). Everybody else, staff in a browser above all, comes
through Django and DRF as usual: to the same `begin`.

A request that `kalimtak.lane` brings must not wait for anything. It gets `Later`, to be completed when the answer is
there, or `NotNow` where something would have to be waited for: then a thread takes the request up from the start.
The next request with the same head takes a `Shortcut`: what middleware makes of it is known by then (decision 34).
"""

import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from django.conf import settings
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve
from django.utils.translation import override
from rest_framework.exceptions import NotAuthenticated, PermissionDenied, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response

from .api import ApiView, exception_handler, parse_json
from .auth import Caller, caller_of, caller_with_key, key_authenticate
from .errors import TooLarge, WouldWait
from .outages import outage_of, unavailable

ANSWER_SECONDS = 30.0  # that an answer is waited for, be it by a thread or in the lane
NEVER_WAITS = "kalimtak.never_waits"  # in a request's `META`, put there by `kalimtak.lane`

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode  # as DRF renders


class Begun(Protocol):
    """A request that was checked and accepted, and is being answered."""

    @property
    def future(self) -> Future[Any]:
        """Done when `result` no longer waits."""
        ...

    def result(self, seconds: float | None = None) -> dict[str, Any]:
        """What is answered with 200; waits for it, as long as is usual or so many seconds. Raises `KalimtakError`."""
        ...


class Whole(NamedTuple):
    """An answer as it is sent: `status` such as `200 OK`, all headers but `Content-Length`."""

    status: str
    headers: tuple[tuple[str, str], ...]
    content: bytes

    @classmethod
    def of(cls, response: HttpResponse) -> "Whole":
        headers = tuple([header for header in response.items() if header[0] != "Content-Length"])
        return cls(f"{response.status_code} {response.reason_phrase}", headers, response.content)


class Later(HttpResponse):
    """An answer that has not come yet, on its way through middleware, which puts its headers here."""

    def __init__(self, request: HttpRequest, view: "type[LeanView]", captured: Mapping[str, str], begun: Begun) -> None:
        super().__init__(content_type="application/json")
        self._way, self.begun = (request, view, captured), begun

    def shortcut(self) -> "Shortcut":
        """To be asked for once middleware has put its headers here. It keeps of the request what is not its body."""
        request, view, captured = self._way
        request._body, request._stream = b"", BytesIO()  # type: ignore[attr-defined]
        request.META["wsgi.input"] = request._stream  # type: ignore[attr-defined]
        return Shortcut(request, view, captured, Whole.of(self).headers)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Straight to the view that a request came to before, for the next ones with the same head.

    Middleware looks at nothing else of a request that comes here, so it would let each pass and put the same headers
    on its answer. `request` is the first one; of the others there is only the body. Key and rate are the view's to
    check, each time.
    """

    request: HttpRequest
    view: "type[LeanView]"
    captured: Mapping[str, str]
    headers: tuple[tuple[str, str], ...]

    def begin(self, body: bytes) -> Begun | HttpResponse:
        """Take up a request with this body; a refusal of it, or `NotNow`."""
        try:
            return self.view().take_up(self.request, body, self.captured, may_wait=False)
        except WouldWait:
            return NotNow()
        except Exception as error:
            return self._refusal(error)

    def completed(self, begun: Begun) -> Whole:
        """What is sent now: the answer if `begun.future` is done, else that it took too long."""
        try:
            return Whole("200 OK", self.headers, _encode(begun.result(seconds=0)).encode())
        except Exception as error:
            return Whole.of(self._refusal(error))

    def _refusal(self, error: Exception) -> HttpResponse:
        response = _refusal_or_fault(self.request, error)
        for name, value in self.headers:
            response.headers.setdefault(name, value)
        return response


class NotNow(HttpResponse):
    """In place of an answer: this request would have to wait. It has changed nothing, and this is never sent."""


class LeanView(ApiView):
    """A POST of JSON that is taken up by `begin`: one that came with a key without DRF, any other one through it."""

    def begin(self, caller: Caller, body: Any, captured: Mapping[str, str], *, may_wait: bool = True) -> Begun:
        """Check and accept a request; `captured` is what its path holds.

        Raises `KalimtakError`, and without `may_wait` `WouldWait`.
        """
        raise NotImplementedError

    def post(self, request: Request, **captured: str) -> Response:
        return Response(self.begin(caller_of(request), request.data, captured).result())

    def answer(self, request: HttpRequest, captured: Mapping[str, str]) -> HttpResponse:
        """The whole answer to a request with an `Authorization` header; `Later` or `NotNow` where it never waits."""
        may_wait = NEVER_WAITS not in request.META
        try:
            begun = self.take_up(request, request.body, captured, may_wait=may_wait)
            return json_response(begun.result()) if may_wait else Later(request, type(self), captured, begun)
        except WouldWait:
            return NotNow()
        except Exception as error:
            return refusal(request, error)

    def take_up(self, request: HttpRequest, body: bytes, captured: Mapping[str, str], *, may_wait: bool) -> Begun:
        """Check and accept `request`, of which nothing but the head is looked at, with this body.

        Raises what `admit`, `read_json` and `begin` raise.
        """
        caller = self.admit(request, may_wait=may_wait)
        return self.begin(caller, read_json(request, body), captured, may_wait=may_wait)

    def admit(self, request: HttpRequest, *, may_wait: bool) -> Caller:
        """Key, rate and scope, as `ApiView.initial` asks for them. Raises what it raises, and `WouldWait`."""
        key = key_authenticate(request.META["HTTP_AUTHORIZATION"].encode("latin-1"), may_wait=may_wait)
        if key is None:
            raise NotAuthenticated("Give an API key or sign in.")
        caller = caller_with_key(request, key)
        self.count(request, caller, may_wait=may_wait)
        if self.required_scope not in caller.scopes:
            raise PermissionDenied(f"This needs the scope {self.required_scope}.")
        return caller


def answer_directly(request: HttpRequest) -> HttpResponse | None:
    """The answer of a `LeanView` to a POST with a key; None for whatever has to go the usual way.

    Raises `DisallowedHost` and whatever is a fault of ours, which Django turns into 400 and 500.
    """
    answer = _answer_directly(request)
    return NotNow() if answer is None and NEVER_WAITS in request.META else answer


def _answer_directly(request: HttpRequest) -> HttpResponse | None:
    if request.method != "POST" or not request.META.get("HTTP_AUTHORIZATION", "").strip():
        return None
    match = _lean_view_at(request.path_info)
    if match is None:
        return None
    request.get_host()
    view, captured = match
    return view().answer(request, captured)


@lru_cache(maxsize=256)
def _lean_view_at(path: str) -> tuple[type[LeanView], Mapping[str, str]] | None:
    """The view of a path and what the path captures; kept, since a client asks the same path again and again."""
    try:
        match = resolve(path)
    except Resolver404:
        return None
    view = getattr(match.func, "cls", None)
    return (view, match.kwargs) if isinstance(view, type) and issubclass(view, LeanView) else None


def read_json(request: HttpRequest, raw: bytes) -> Any:
    """The body of a request, none being an empty object. Raises `InvalidInput`, `TooLarge`,
    or DRF's 415 for another type.
    """
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


def _refusal_or_fault(request: HttpRequest, error: Exception) -> HttpResponse:
    """`refusal`, and Django's own 500, logged, where there is none."""
    try:
        return refusal(request, error)
    except Exception as fault:
        return response_for_exception(request, fault)
