"""Fetching a file from a host that the installation allows, and from nowhere else. Pure: no Django.

Only https, no redirects, a size cap and a deadline. The address is looked up once, must be a public one, and is the
one connected to, so that a name cannot point elsewhere between check and use (DNS rebinding).
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from kalimtak.core.errors import InvalidInput, NotAllowed, TooLarge

TIMEOUT_SECONDS = 20.0  # to connect, and between two blocks
DEADLINE_SECONDS = 1_800.0
BLOCK_BYTES = 2**16

Resolver = Callable[[str, int], str]


def url_check(url: str, allowed: Collection[str]) -> tuple[str, str]:
    """The host of `url` and the name of its file.

    Raises `InvalidInput` for anything but `https://host/path`, `NotAllowed` (`host_not_allowed`) for a host that is
    not in `allowed`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise _refused("Not a URL.") from None
    host = (parts.hostname or "").lower().rstrip(".")
    if parts.scheme != "https" or not host or port != 443:
        raise _refused("Use https://host/path, on the usual port.")
    if parts.username is not None or parts.password is not None:
        raise _refused("A URL must not hold a user name or password.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _refused("Write the URL in ASCII, other characters percent-encoded.")
    if host not in {name.lower() for name in allowed}:
        raise NotAllowed(
            f"{host} is not among the hosts data may be loaded from; add it to KALIMTAK_DATASET_HOSTS.",
            code="host_not_allowed",
        )
    return host, PurePosixPath(unquote(parts.path)).name[-200:] or "download"


def download(
    url: str,
    target: BinaryIO,
    *,
    allowed: Collection[str],
    limit: int,
    progress: Callable[[int], None] = lambda size: None,
    resolve: Resolver | None = None,
    context: ssl.SSLContext | None = None,
) -> int:
    """Copy the file at `url` to `target`; its size in bytes. `progress` hears the bytes so far.

    Raises what `url_check` raises, `InvalidInput` where the host has no public address or does not answer with the
    file, and `TooLarge` over `limit` bytes.
    """
    host, _ = url_check(url, allowed)
    address = (resolve or public_address)(host, 443)
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Pinned(host, address, context or ssl.create_default_context())
    clock = threading.Timer(DEADLINE_SECONDS, connection.cut)  # also for a host that sends a byte now and then
    clock.daemon = True
    clock.start()
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "identity", "User-Agent": "kalimtak"})
        response = connection.getresponse()
        if response.status != 200:
            raise _refused(f"{host} answered {response.status}; only 200 is taken, and redirects are not followed.")
        size = _copy(response, target, limit, progress)
        if connection.was_cut:
            raise OSError("out of time")  # without an announced length it looks like the end of the file
        return size
    except (OSError, ValueError, http.client.HTTPException) as error:
        if connection.was_cut:
            raise _refused(f"The download took over {DEADLINE_SECONDS / 60:.0f} minutes.") from error
        raise _refused(f"{host} could not be read: {error}.") from error
    finally:
        clock.cancel()
        connection.close()


def _copy(response: http.client.HTTPResponse, target: BinaryIO, limit: int, progress: Callable[[int], None]) -> int:
    announced = response.headers.get("Content-Length", "")
    size = 0
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"The file is over {limit} bytes.")
    while block := response.read1(BLOCK_BYTES):
        size += len(block)
        if size > limit:
            raise TooLarge(f"The file is over {limit} bytes.")
        target.write(block)
        progress(size)
    if announced.isdigit() and size != int(announced):
        raise _refused("The download was cut off; try again.")
    return size


def public_address(host: str, port: int) -> str:
    """An address of `host`, all of which must be public. Raises `InvalidInput`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(f"{host} is not known.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refused(f"{host} has no public address.")
    return addresses[0]


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, multicast and reserved addresses, also where IPv6 wraps such an IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        elif parsed.sixtofour or parsed.teredo or parsed in ipaddress.ip_network("64:ff9b::/96"):
            return False
    return parsed.is_global and not parsed.is_multicast


class _Pinned(http.client.HTTPSConnection):
    """Connects to `address` while the certificate must be that of `host`."""

    def __init__(self, host: str, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=TIMEOUT_SECONDS, context=context)
        self._address, self._tls, self.was_cut = address, context, False
        self._live: ssl.SSLSocket | None = None  # `sock` is given away with the response

    def cut(self) -> None:
        """End whatever goes on; called by another thread."""
        self.was_cut = True
        with suppress(OSError):
            if self._live is not None:
                self._live.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        try:
            self.sock = self._live = self._tls.wrap_socket(plain, server_hostname=self.host)
        except OSError:
            plain.close()
            raise


def _refused(message: str) -> InvalidInput:
    return InvalidInput(message, fields={"url": [message]})
