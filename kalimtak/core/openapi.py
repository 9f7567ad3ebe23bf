"""What the OpenAPI description says of every endpoint alike: who may call, which errors come, which keys a body has."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers


class ErrorDetailSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.ListField(child=serializers.CharField()), required=False)  # type: ignore[assignment]


class ErrorSerializer(serializers.Serializer[Any]):
    """The one shape of every error."""

    error = ErrorDetailSerializer()


FAILURES = {
    400: "The body cannot be meant; `fields` names the places.",
    401: "No key and no staff session, or one that is not valid.",
    403: "The key lacks the scope, or the session the permission or its CSRF token.",
    404: "No such thing, or none that this caller may see.",
    409: "The state of things forbids it.",
    411: "The body came without a `Content-Length`.",
    413: "A text or the whole body is too long.",
    415: "Not a content type that is read here, or a body that is packed.",
    429: "Too many requests; see `Retry-After`.",
    503: "Not now; see `Retry-After`.",
}
ALWAYS = (401, 403, 429, 503)
WITH_BODY = (400, 411, 413, 415)


def error_responses(*statuses: int, takes_body: bool = True, conflicts: str = "") -> dict[int, OpenApiResponse]:
    """The errors of an endpoint: those that any may answer with, those of a body, and `statuses` of its own.

    `conflicts` says which codes a 409 may carry.
    """
    known = {*ALWAYS, *(WITH_BODY if takes_body else ()), *statuses}
    described = FAILURES | ({409: conflicts} if conflicts else {})
    return {status: OpenApiResponse(ErrorSerializer, described[status]) for status in sorted(known)}


class ClosedBody(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Request bodies have the declared keys and no others, as `RequestSerializer` demands."""

    target_class = "kalimtak.core.api.RequestSerializer"
    match_subclasses = True
    others: Any = False

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        mapped = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return mapped | {"additionalProperties": self.others}


class BodyWithOwnFields(ClosedBody):  # type: ignore[no-untyped-call]
    """Here the classifier's own fields, which are texts, stand beside the declared keys."""

    target_class = "kalimtak.core.api.OwnFieldsSerializer"
    others = {"type": "string"}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "kalimtak.core.auth.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "`<prefix>.<secret>`"}


class StaffSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "kalimtak.core.auth.StaffSessionAuthentication"
    name = "staffSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}
