"""Who is calling: API keys with scopes, staff sessions, or nobody in particular."""

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from . import audit
from .env import RATE
from .errors import Conflict, InvalidInput, WouldWait
from .models import ApiKey, Scope
from .outages import lock_patience, outage_of
from .ratelimit import client_address

if TYPE_CHECKING:  # DRF's views import the authentication classes named in the settings, hence this module
    from rest_framework.views import APIView

CACHE_SECONDS = 5.0  # how long a revoked key may still be honoured by a web process
OUTAGE_SECONDS = 600.0  # the same while the database is away, counted from when the key was last seen there
USE_SECONDS = 0.2  # that noting a key's use may wait for another writer
CACHE_ENTRIES = 10_000
NAME_LENGTH, RATE_LENGTH = 100, 20  # as their columns have it
USED_EVERY = timedelta(minutes=1)  # `last_used_at` is written no more often than this

# What a staff session may do follows from its permissions.
SCOPE_PERMISSIONS = {
    Scope.PREDICT: "registry.view_classifier",
    Scope.FEEDBACK: "registry.view_classifier",
    Scope.READ: "registry.view_classifier",
    Scope.ADMIN: "registry.train_classifier",
    Scope.DEPLOY: "registry.deploy_modelversion",
    Scope.PRIVACY: "interactions.delete_subject",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The other end of a request. `name` is `key:<prefix>`, a username, or `anonymous`."""

    kind: str
    name: str
    key_id: int | None = None
    user: Any = None
    scopes: frozenset[str] = frozenset()
    address: str = ""
    user_agent: str = ""
    rate: str = ""


def caller_of(request: Request) -> Caller:
    """The caller of an authenticated DRF request, worked out once."""
    known: Caller | None = getattr(request, "kalimtak_caller", None)
    if known is None:
        known = _caller(request)
        request.kalimtak_caller = known  # type: ignore[attr-defined]
    return known


def caller_with_key(request: HttpRequest, key: ApiKey) -> Caller:
    """The caller of a request that came with `key`."""
    return Caller(
        "key", f"key:{key.prefix}", key_id=key.pk, scopes=frozenset(key.scopes), rate=key.rate, **_origin(request)
    )


def _origin(request: HttpRequest) -> dict[str, str]:
    """Worked out once: the head of one request may stand for many (`kalimtak.core.lean`)."""
    known: dict[str, str] | None = getattr(request, "kalimtak_origin", None)
    if known is None:
        agent = request.META.get("HTTP_USER_AGENT", "").replace("\x00", "")[:300]
        known = {"address": client_address(request), "user_agent": agent}
        request.kalimtak_origin = known  # type: ignore[attr-defined]
    return known


def _caller(request: Request) -> Caller:
    if isinstance(request.auth, ApiKey):
        return caller_with_key(request._request, request.auth)
    common: dict[str, Any] = _origin(request._request)
    user = request.user
    if user is not None and user.is_authenticated:
        granted = frozenset(scope for scope, permission in SCOPE_PERMISSIONS.items() if user.has_perm(permission))
        return Caller("user", user.get_username(), user=user, scopes=granted, **common)
    scopes = frozenset({Scope.PREDICT, Scope.FEEDBACK}) if settings.KALIMTAK_ANONYMOUS else frozenset()
    return Caller("anonymous", "anonymous", scopes=scopes, **common)


# Keys ------------------------------------------------------------------------------------------------------------


def key_create(
    name: str,
    scopes: Sequence[str],
    *,
    actor: str,
    user: Any = None,
    rate: str = "",
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its plain text, which is nowhere kept.

    Raises `InvalidInput` for an unknown scope or none, a `rate` that is none, and a `name` that is no short line.
    """
    unknown = sorted(set(scopes) - set(Scope.values))
    if unknown or not scopes:
        allowed = ", ".join(Scope.values)
        raise InvalidInput(f"Unknown scope {unknown[0]!r}; use {allowed}." if unknown else f"Give a scope: {allowed}.")
    if not 1 <= len(name.strip()) <= NAME_LENGTH or not name.isprintable():
        message = f"Give the key a name of 1 to {NAME_LENGTH} printable characters."
        raise InvalidInput(message, fields={"name": [message]})
    if rate and (len(rate) > RATE_LENGTH or not re.fullmatch(RATE, rate)):
        message = f"{rate[:20]!r} is no rate; use one such as 600/m (s, m, h or d)."
        raise InvalidInput(message, fields={"rate": [message]})
    prefix, secret = secrets.token_hex(5), secrets.token_urlsafe(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            name=name.strip(),
            prefix=prefix,
            secret_hash=_hash(secret),
            scopes=sorted(set(scopes)),
            rate=rate,
            expires_at=expires_at,
            created_by=user,
        )
        audit.record(actor, "api_key.create", f"key:{prefix}", scopes=key.scopes)
    return key, f"{prefix}.{secret}"


def key_revoke(key: ApiKey, *, actor: str) -> ApiKey:
    """Revoke `key` for good. Raises `Conflict` if it was already."""
    with transaction.atomic():
        if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
            raise Conflict("This key is already revoked.", code="already_revoked")
        audit.record(actor, "api_key.revoke", f"key:{key.prefix}")
    _forget(key.prefix)
    key.refresh_from_db()
    return key


def _hash(secret: str) -> str:
    """A fast hash is right for a secret of 256 random bits: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True)
class _Known:
    """What a look-up found: `seen` when it did, `ask_at` when to look again (both monotonic seconds)."""

    key: ApiKey | None
    seen: float
    ask_at: float


_cache: dict[str, _Known] = {}
_cache_lock = threading.Lock()


def _look_up(prefix: str, may_wait: bool = True) -> ApiKey | None:
    """The key with `prefix`, at most `CACHE_SECONDS` old, so that a request costs no database read.

    While the database is away a key that was there goes on being honoured for `OUTAGE_SECONDS`.
    Without `may_wait` it raises `WouldWait` where it would have to be read.
    """
    now = time.monotonic()
    known = _cache.get(prefix)
    if known is not None and now < known.ask_at:
        return known.key
    if not may_wait:
        raise WouldWait
    may_go_on = known is not None and known.key is not None and now - known.seen < OUTAGE_SECONDS
    if known is not None and may_go_on:
        known.ask_at = now + CACHE_SECONDS  # for the others, while this request finds out
    try:
        key = ApiKey.objects.filter(prefix=prefix).first()
    except Exception as error:
        if known is None or not may_go_on or outage_of(error) is None:
            raise
        return known.key
    _note_use(key)
    with _cache_lock:
        if len(_cache) >= CACHE_ENTRIES:
            _cache.clear()
        _cache[prefix] = _Known(key, now, now + CACHE_SECONDS)
    return key


def _note_use(key: ApiKey | None) -> None:
    """Once a minute, and not where that would hold up the request: somebody may have locked the database."""
    if key is None or (key.last_used_at is not None and timezone.now() - key.last_used_at <= USED_EVERY):
        return
    try:
        with lock_patience(USE_SECONDS), transaction.atomic():
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now())
    except Exception as error:
        if outage_of(error) is None:
            raise


def _forget(prefix: str) -> None:
    with _cache_lock:
        _cache.pop(prefix, None)


def cache_clear() -> None:
    """Forget every key that was looked up (tests change rows behind the cache)."""
    with _cache_lock:
        _cache.clear()


def key_authenticate(header: bytes, *, may_wait: bool = True) -> ApiKey | None:
    """The key that an `Authorization` header holds; None for an empty one.

    Raises `AuthenticationFailed`, and without `may_wait` `WouldWait`.
    """
    words = header.split()
    if not words:
        return None
    if words[0].lower() != b"bearer" or len(words) != 2:
        raise AuthenticationFailed("Use: Authorization: Bearer <prefix>.<secret>")
    prefix, _, secret = words[1].decode("latin-1").partition(".")
    key = _look_up(prefix, may_wait) if len(prefix) <= 12 else None
    # An unknown prefix costs the same comparison as a wrong secret.
    matches = hmac.compare_digest(_hash(secret), key.secret_hash if key else "0" * 64)
    if key is None or not matches:
        raise AuthenticationFailed("This API key is not valid.")
    if key.revoked_at is not None:
        raise AuthenticationFailed("This API key was revoked.")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        raise AuthenticationFailed("This API key has expired.")
    return key


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <prefix>.<secret>`."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        key = key_authenticate(get_authorization_header(request))
        return None if key is None else (AnonymousUser(), key)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class StaffSessionAuthentication(SessionAuthentication):
    """The admin's own session, with its CSRF token; other users' sessions do not count."""

    def authenticate(self, request: Request) -> Any:
        user = getattr(request._request, "user", None)
        if user is None or not user.is_active or not user.is_staff:
            return None
        return super().authenticate(request)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class HasScope(BasePermission):
    """Lets a caller in who holds the view's `required_scope`."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        scope = getattr(view, "required_scope", None)
        caller = caller_of(request)
        if scope is None or scope in caller.scopes:
            return True
        if caller.kind == "anonymous":
            raise NotAuthenticated("Give an API key or sign in.")
        raise PermissionDenied(f"This needs the scope {scope}.")
