"""Reading configuration strictly: every value is typed and bounded, every refusal names the place and the remedy.

A section of the configuration is a frozen dataclass whose fields are declared with `key(default, check)`, and
`read_section` builds one from untrusted data. The checks take what YAML or JSON yields and return the value to keep.
"""

import dataclasses
import difflib
import re
import reprlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

T = TypeVar("T")
S = TypeVar("S", bound="Section")

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d{1,3}")  # YAML 1.1 takes 1e-4, without a point, for text
# Controls, line separators, lone surrogates, bidirectional overrides: nothing a name or a label is made of.
_UNWELCOME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class RecipeError(ValueError):
    """`<file, entry>: <dotted.key>: <what is wrong and what is allowed>`, on one line."""


@dataclass(frozen=True)
class Place:
    """Where a value stands. `later_allowed`: keys that no release honours yet may be used, as in a disabled entry."""

    where: str
    path: str = ""
    later_allowed: bool = False

    def at(self, name: object) -> "Place":
        """The place of `name` below this one."""
        text = name if isinstance(name, str) and name.isprintable() else describe(name)
        return dataclasses.replace(self, path=f"{self.path}.{text}" if self.path else text)

    def error(self, message: str) -> RecipeError:
        return RecipeError(": ".join(part for part in (self.where, self.path, message) if part))


Check = Callable[[Any, Place], T]


def key(default: T, check: Check[Any], *, later: bool | Collection[Any] = ()) -> T:
    """Declare a field of a section.

    `later` marks what no code honours yet: certain values, or (True) anything but the default.
    """
    metadata = {"check": check, "later": later}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: cast(T, dict(default)), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """A group of keys. Subclasses are frozen dataclasses made of `key` fields."""

    def conflict(self) -> tuple[str, str] | None:
        """The key and the sentence that say which values do not go together, if any do not."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; `from_dict` reads it back."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(cast(Any, self))}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str = "", allow_later: bool = True) -> Self:
        """Read what was stored; absent keys take their defaults. Raises `RecipeError`."""
        return read_section(cls, raw, Place(where or cls.__name__, later_allowed=allow_later))


def read_section(section: type[S], raw: Any, place: Place) -> S:
    """Build `section` from `raw` (None: all defaults; an empty value of a key: its default). Raises `RecipeError`."""
    fields = {f.name: f for f in dataclasses.fields(cast(Any, section))}
    raw = read_mapping(raw, place, known=fields)
    values = {name: _read_key(fields[name], value, place.at(name)) for name, value in raw.items() if value is not None}
    built = section(**values)
    if conflict := built.conflict():
        name, message = conflict
        raise place.at(name).error(message)
    return built


def read_mapping(raw: Any, place: Place, known: Collection[str]) -> Mapping[str, Any]:
    """`raw` as a mapping whose keys are all `known`; None counts as an empty one. Raises `RecipeError`."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise place.error(f"expected keys with values, got {describe(raw)}")
    for name in raw:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
            hint = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
            raise place.at(name).error(f"unknown key; {hint}")
    return raw


def _read_key(declared: "dataclasses.Field[Any]", raw: Any, place: Place) -> Any:
    value = declared.metadata["check"](raw, place)
    later = declared.metadata["later"]
    is_later = value != declared.default if later is True else later and value in later
    if is_later and not place.later_allowed:
        raise place.error(f"{describe(value)} is not available yet")
    return value


def plain(value: Any) -> Any:
    """Sections to dicts and tuples to lists, all the way down."""
    if isinstance(value, Section):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def describe(value: Any) -> str:
    """A short representation for messages, safe for whatever a hostile file holds."""
    try:
        return _short.repr(value)
    except ValueError:  # an integer of more digits than Python is willing to write
        return "a huge number"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 2


# ---- checks ----------------------------------------------------------------------------------------------------------


def whole(low: int, high: int) -> Check[int]:
    """A whole number from `low` to `high`."""

    def check(value: Any, place: Place) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise place.error(f"expected a whole number from {low} to {high}, got {describe(value)}")
        return value

    return check


def number(low: float, high: float) -> Check[float]:
    """A finite number from `low` to `high`; `1e-4` is understood though YAML reads it as text."""

    def check(value: Any, place: Place) -> float:
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise place.error(f"expected a number from {low:g} to {high:g}, got {describe(value)}")
        return float(value)

    return check


def flag(value: Any, place: Place) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise place.error(f"expected true or false, got {describe(value)}")
    return value


def choice(*allowed: str) -> Check[str]:
    """One of a few words. YAML reads a bare `no` as false; where "no" is a choice, false means it."""

    def check(value: Any, place: Place) -> str:
        value = "no" if value is False and "no" in allowed else value
        if not isinstance(value, str) or value not in allowed:
            raise place.error(f"expected one of {', '.join(allowed)}, got {describe(value)}")
        return value

    return check


def text(longest: int) -> Check[str]:
    """One line of text without control characters, not blank, in Unicode form C, at most `longest` characters."""

    def check(value: Any, place: Place) -> str:
        if isinstance(value, bool | int | float):
            raise place.error(f"expected text, got {describe(value)}; put it in quotes if it is meant as text")
        if not isinstance(value, str) or not value.strip() or len(value) > longest or _UNWELCOME.search(value):
            raise place.error(f"expected one line of 1 to {longest} characters, got {describe(value)}")
        return unicodedata.normalize("NFC", value.strip())

    return check


def slug(value: Any, place: Place) -> str:
    """The name of a classifier as it stands in its route."""
    if not isinstance(value, str) or not _SLUG.fullmatch(value):
        raise place.error(
            f"expected a slug (up to 63 of a-z, 0-9, - and _, beginning with a letter or digit), got {describe(value)}"
        )
    return value


def sequence_of(item: Check[T], shortest: int, longest: int, *, or_none: bool = False) -> Check[tuple[T, ...]]:
    """A list of distinct items, `shortest` to `longest` of them, or an empty one where `or_none`."""

    def check(value: Any, place: Place) -> tuple[T, ...]:
        if or_none and isinstance(value, list | tuple) and not value:
            return ()
        if not isinstance(value, list | tuple) or not shortest <= len(value) <= longest:
            raise place.error(f"expected a list of {shortest} to {longest} items, got {describe(value)}")
        items = tuple(item(each, place.at(index)) for index, each in enumerate(value))
        if repeated := first_repeated(items):
            raise place.error(f"{describe(repeated)} is listed twice")
        return items

    return check


def mapping_of(value_check: Check[T], key_check: Check[str], longest: int) -> Check[dict[str, T]]:
    """Keys and values of one kind each; keys that YAML reads as whole numbers are taken as text."""

    def check(value: Any, place: Place) -> dict[str, T]:
        if not isinstance(value, Mapping) or len(value) > longest:
            raise place.error(f"expected up to {longest} keys with values, got {describe(value)}")
        read: dict[str, T] = {}
        for name, item in value.items():
            is_whole = isinstance(name, int) and not isinstance(name, bool) and abs(name) < 10**18
            read[key_check(str(name) if is_whole else name, place.at(name))] = value_check(item, place.at(name))
        return read

    return check


def section_of(kind: type[S]) -> Check[S]:
    """A section of its own."""
    return lambda value, place: read_section(kind, value, place)


def either(word: str, otherwise: Check[T]) -> Check[str | T]:
    """A certain word, or what another check accepts."""
    return lambda value, place: word if value == word else otherwise(value, place)


def first_repeated(items: Iterable[T]) -> T | None:
    """The first item that occurred before."""
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
