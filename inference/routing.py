"""Which deployment answers a request: a stable hash, so that one person keeps one version while shares stand. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Routable(Protocol):
    """A live deployment; `share` is in percent."""

    @property
    def role(self) -> str: ...
    @property
    def share(self) -> int: ...
    @property
    def deployment_id(self) -> int: ...


Live = TypeVar("Live", bound=Routable)

DIVERTING = ("canary", "split")


def choose(live: Sequence[Live], key: str) -> Live:
    """The deployment for `key` (a subject, else the request): canaries, splits by their share, production for the rest.

    Each diverting deployment owns the first `share` percent of what is left to it by its own hash of `key`, so starting
    or ending one moves nobody between the others. Shadows never answer. Raises `LookupError` where nothing can.
    """
    for deployment in live:
        if deployment.role in DIVERTING and bucket(key, str(deployment.deployment_id)) < deployment.share * 100:
            return deployment
    for deployment in live:
        if deployment.role == "production":
            return deployment
    raise LookupError("no live deployment answers")


def bucket(key: str, salt: str) -> int:
    """0 to 9,999, evenly spread and the same on every machine."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"kalimtak", salt=salt.encode()[:16]).digest()
    return int.from_bytes(digest) % 10_000
