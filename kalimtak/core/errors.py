"""One family of errors for every door, and the one JSON shape the API answers them with.

A service raises a `KalimtakError`; views turn it into `{"error": {"code", "message", "fields"}}` with its status,
commands into one line and a non-zero exit, admin actions into a message.
"""

import errno
from collections.abc import Mapping
from typing import Any


class KalimtakError(Exception):
    """Something a person can act on. `fields` maps a dotted place in the input to what is wrong there."""

    code = "error"
    status = 400

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fields: Mapping[str, list[str]] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.fields = dict(fields or {})
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        return error_body(self.code, self.message, self.fields)


class InvalidInput(KalimtakError):
    """The request cannot be meant (400)."""

    code = "invalid_input"


class NotAllowed(KalimtakError):
    """The caller is known and may not do this (403)."""

    code = "permission_denied"
    status = 403


class NotFound(KalimtakError):
    """No such thing, or none that this caller may see (404)."""

    code = "not_found"
    status = 404


class Conflict(KalimtakError):
    """The state of things forbids it now (409)."""

    code = "conflict"
    status = 409


class TooLarge(KalimtakError):
    """Longer than the contract allows (413)."""

    code = "too_long"
    status = 413


class Unavailable(KalimtakError):
    """Cannot be answered now, may be later (503 with `Retry-After`, in seconds)."""

    code = "unavailable"
    status = 503

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


class WouldWait(Exception):
    """Whoever must not wait would have to, for the database, a cache or a file; nothing was changed."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write for want of space, or of this user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def error_body(code: str, message: str, fields: Mapping[str, list[str]] | None = None) -> dict[str, Any]:
    """The contract's error payload; `fields` is left out where there are none."""
    error: dict[str, Any] = {"code": code, "message": message}
    if fields:
        error["fields"] = dict(fields)
    return {"error": error}


def printable(key: str) -> str:
    """The beginning of a key from outside, fit to be named in an error."""
    return key[:60].encode("utf-8", "backslashreplace").decode() or '""'
