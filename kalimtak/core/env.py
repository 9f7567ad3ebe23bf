"""Typed readers for environment variables: they refuse an odd value by name rather than guess. Pure.

`.env` in the project folder is read first; a variable that is already set wins over the file.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})
RATE = r"\d+/[smhd]"  # as django-ratelimit writes it
SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class EnvironmentRefused(ValueError):
    """A variable holds a value that cannot be meant; the message names it and says what is allowed."""


def load_dotenv(path: Path) -> None:
    """Put the `NAME=value` lines of `path` into the environment where the name is not set yet.

    Blank lines and lines that begin with `#` are skipped; one pair of quotes around a value is removed.
    Raises `EnvironmentRefused` for a line that is neither.
    """
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", line)
        if match is None:
            raise EnvironmentRefused(f"{path}, line {number}: expected NAME=value")
        name, value = match.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        os.environ.setdefault(name, value)


def text(name: str, default: str = "") -> str:
    """The variable as it stands, blanks at the ends removed; unset or empty gives `default`."""
    return os.environ.get(name, "").strip() or default


def boolean(name: str, default: bool = False) -> bool:
    """1/true/yes/on or 0/false/no/off, in any case; unset gives `default`."""
    raw = os.environ.get(name)
    if raw is None:
        return default
    value = raw.strip().lower()
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise EnvironmentRefused(f"{name}={raw!r}: use 1 or 0")


def integer(name: str, default: int, *, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number between `low` and `high`, both included."""
    raw = text(name)
    if not raw:
        return default
    if not re.fullmatch(r"[+-]?\d+", raw) or not low <= int(raw) <= high:
        raise EnvironmentRefused(f"{name}={raw!r}: use a whole number from {low} to {high}")
    return int(raw)


def size(name: str, default: int) -> int:
    """Bytes, as a whole number with an optional K, M or G (powers of 1024)."""
    raw = text(name).upper()
    if not raw:
        return default
    match = re.fullmatch(r"(\d+)\s*([KMG]?)I?B?", raw)
    if match is None or int(match[1]) == 0:
        raise EnvironmentRefused(f"{name}={raw!r}: use a size such as 500M or 2G")
    return int(match[1]) * SIZES[match[2]]


def rate(name: str, default: str) -> str:
    """A request rate as django-ratelimit writes it: `6000/m` (s, m, h or d)."""
    raw = text(name, default)
    if not re.fullmatch(RATE, raw):
        raise EnvironmentRefused(f"{name}={raw!r}: use a rate such as 60/m (s, m, h or d)")
    return raw


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    """One of `allowed`."""
    value = text(name, default)
    if value not in allowed:
        raise EnvironmentRefused(f"{name}={value!r}: use one of {', '.join(allowed)}")
    return value


def words(name: str, default: Sequence[str] = ()) -> list[str]:
    """A comma-separated list; blanks around the items and empty items are dropped."""
    raw = text(name)
    return [item.strip() for item in raw.split(",") if item.strip()] if raw else list(default)


def networks(name: str, default: Sequence[str] = ()) -> list[str]:
    """A comma-separated list of addresses and networks, such as `10.0.0.0/8, ::1`."""
    values = words(name, default)
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise EnvironmentRefused(f"{name}={value!r}: use networks such as 10.0.0.0/8") from None
    return values


def origins(name: str, *, subdomains: bool = False) -> list[str]:
    """A comma-separated list of origins, such as `https://kalimtak.example.org`; one for all (`*`) is refused.

    `subdomains` lets a host begin with `*.`, as Django's trusted origins may.
    """
    values = words(name)
    anything = r"(\*\.)?" if subdomains else ""
    for value in values:
        if not re.fullmatch(
            rf"https?://{anything}[A-Za-z0-9._-]+(:\d{{1,5}})?|https?://\[[0-9A-Fa-f:]+\](:\d{{1,5}})?", value
        ):
            raise EnvironmentRefused(
                f"{name}={value!r}: use origins such as https://kalimtak.example.org, without a path"
            )
    return values


def folder(name: str, default: Path) -> Path:
    """A folder as an absolute path. URLs are refused: only local folders are supported so far."""
    raw = text(name)
    if "://" in raw:
        raise EnvironmentRefused(f"{name}={raw!r}: use a local folder; remote stores are not available yet")
    return Path(raw).expanduser().resolve() if raw else default
