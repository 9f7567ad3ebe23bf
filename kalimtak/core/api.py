"""The base of every API view: strict JSON in, one error shape out; key, scope and rate limit in one place."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse, UnreadablePostError
from django.urls import path as api_path
from rest_framework import exceptions, serializers
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from .auth import Caller, caller_of
from .errors import InvalidInput, KalimtakError, TooLarge, error_body, printable
from .ratelimit import address_group, limit

__all__ = [
    "ApiView",
    "OwnFieldsSerializer",
    "RequestSerializer",
    "StrictBooleanField",
    "StrictCharField",
    "StrictIntegerField",
    "StrictJSONParser",
    "api_path",
    "exception_handler",
    "refuse_unknown_keys",
]

logger = logging.getLogger(__name__)


class StrictJSONParser(JSONParser):
    """`parse_json` for DRF."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        raw = stream.read(most + 1)
        if len(raw) > most:
            raise TooLarge(f"The body is over {most} bytes.")
        return parse_json(raw)


def parse_json(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no name twice, no lone surrogates, bounded in depth.

    Raises `InvalidInput`.
    """
    try:
        data = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput("The body is not UTF-8.", code="malformed_json") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body is not valid JSON.", code="malformed_json") from error
    if b"\\ud" in raw.lower():
        refuse_lone_surrogates(data)
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique: readers would disagree which of two values counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_repetition)


def refuse_lone_surrogates(data: Any) -> None:
    """Raises `InvalidInput` naming the place of a string that is no Unicode text."""
    for place, text in _strings(data, ()):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            where = ".".join(place).encode("utf-8", "replace").decode()
            raise InvalidInput(
                "A text holds half a character (a lone surrogate).",
                fields={where or "body": ["Not valid Unicode: a lone surrogate."]},
            ) from None


def _strings(data: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, dict):
        for name, value in data.items():
            yield (*place, name), name
            yield from _strings(value, (*place, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _strings(value, (*place, str(index)))


class ApiView(APIView):
    """Base of the API's views. `required_scope` names what the caller must hold; None lets everybody in."""

    # Named here and not in the settings: DRF reads its settings while this module imports `rest_framework.views`.
    parser_classes = [StrictJSONParser]
    required_scope: str | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request, force=True)
        request.version, request.versioning_scheme = None, None
        self.perform_authentication(request)
        self.check_rate(request)
        self.check_permissions(request)

    def check_rate(self, request: Request) -> None:
        self.count(request._request, caller_of(request))

    def count(self, request: HttpRequest, caller: Caller, *, may_wait: bool = True) -> None:
        """Count a request of this caller. Raises `RateLimited`, and without `may_wait` `WouldWait`."""
        if caller.kind == "anonymous":
            value, rate = address_group(caller.address), settings.KALIMTAK_RATELIMIT_ANON
        else:
            value, rate = caller.name, caller.rate or settings.KALIMTAK_RATELIMIT_KEY
        limit(request, group=f"api-{caller.kind}", value=value, rate=rate, may_wait=may_wait)


class RequestSerializer(serializers.Serializer[Any]):
    """A body of exactly the declared keys: a mistyped one is named, not dropped."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_unknown_keys(data, self.fields)
        return super().to_internal_value(data)


class OwnFieldsSerializer(serializers.Serializer[Any]):
    """A body in which a classifier's own fields stand beside the declared keys; the view checks their names."""


def refuse_unknown_keys(data: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises DRF's `ValidationError` naming the first ten keys of `data` that are not `known`."""
    if unknown := sorted(set(data) - set(known))[:10]:
        raise serializers.ValidationError({printable(name): ["Unknown key."] for name in unknown})


class StrictBooleanField(serializers.BooleanField):
    """true or false, not a word for them."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StrictCharField(serializers.CharField):
    """A text and nothing else: a number is no text. NUL is stripped, since PostgreSQL cannot hold it."""

    default_error_messages = {"invalid": "Must be a text."}

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str):
            data = data.replace("\x00", "")
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class StrictIntegerField(serializers.IntegerField):
    """A whole number and nothing else: neither "5" nor 5.0 nor true."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(super().to_internal_value(data))


CODES = {
    400: "invalid_input",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
    429: "rate_limited",
}


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Turn whatever a view raised into the one error shape; None (a 500) only for faults of our own."""
    if isinstance(error, KalimtakError):
        return _response(error.status, error.body(), error.retry_after)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, DjangoPermissionDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, RequestDataTooBig):
        return _response(413, error_body("too_long", f"The body is over {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."))
    if isinstance(error, UnreadablePostError):  # the client stopped sending, or was too slow (kalimtak/pace.py)
        return _response(408, error_body("request_timeout", "The request took too long to arrive."))
    if not isinstance(error, exceptions.APIException):
        return None
    status = error.status_code
    code = CODES.get(status, "error")
    if isinstance(error, exceptions.ValidationError):
        fields = dict(_flatten(error.detail, ()))
        where = ", ".join(fields)
        return _response(status, error_body(code, f"Not valid: {where}.", fields))
    response = _response(status, error_body(code, str(error.detail)))
    if status == 401:
        response["WWW-Authenticate"] = getattr(error, "auth_header", None) or 'Bearer realm="api"'
    return response


def _response(status: int, body: dict[str, Any], retry_after: int | None = None) -> Response:
    response = Response(body, status=status)
    response._has_been_logged = True  # type: ignore[attr-defined]  # an answer we meant to give is no fault to log
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return response


def _flatten(detail: Any, place: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """DRF's nested details as `{"texts.3": ["…"]}`."""
    if isinstance(detail, dict):
        for name, value in detail.items():
            inner = place if name == "non_field_errors" else (*place, str(name))
            yield from _flatten(value, inner)
    elif isinstance(detail, list) and any(isinstance(entry, dict | list) for entry in detail):
        for index, value in enumerate(detail):
            if value:
                yield from _flatten(value, (*place, str(index)))
    else:
        messages = detail if isinstance(detail, list) else [detail]
        yield ".".join(place) or "body", [str(message) for message in messages]


def not_found(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    """The 404 of an address under `/api/` that does not exist."""
    return JsonResponse(error_body("not_found", "There is nothing at this address."), status=404)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    """The 400 of a request that Django refuses before any view, such as one for a host that is not ours."""
    return JsonResponse(error_body("invalid_input", "This request cannot be meant for this server."), status=400)


def server_error(request: HttpRequest) -> JsonResponse:
    """The 500 of the API: says nothing of the inside."""
    return JsonResponse(error_body("internal_error", "Something went wrong here; the log says what."), status=500)
