"""The body of a prediction request, checked. Written by hand, since it runs for every request: strict, and in one pass.

Every refusal names the place (`texts.3`, `items.0.question`) and nothing of a refused batch is answered.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kalimtak.core.errors import InvalidInput, TooLarge, printable
from registry.families.base import Fields
from registry.text import prepare

TEXT_LENGTH = 20_000
BODY_LENGTH = 1_000_000
BATCH_SIZE = 256
TOP_K = 1_000
NAME_LENGTH = 200
REQUEST_ID_LENGTH = 100

COMMON_KEYS = frozenset({"classifier", "subject", "request_id", "top_k"})


@dataclass(frozen=True, slots=True)
class Item:
    """One input: a text per input field, and the opaque id of the person it is about."""

    fields: Fields
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A whole request; `is_batch` where it is answered with a list."""

    items: tuple[Item, ...]
    is_batch: bool = False
    top_k: int | None = None
    request_id: str = ""


def classifier_named(body: Any) -> str:
    """The `classifier` of a body, empty where it names none. Raises `InvalidInput` for a body that is no object."""
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.")
    return name(body, "classifier")


def question_of(body: Mapping[str, Any], input_fields: Sequence[str], *, classifier: str) -> Question:
    """Read a body for a classifier with these `input_fields`. Raises `InvalidInput` (400) or `TooLarge` (413)."""
    expects = Expected(tuple(input_fields), classifier)
    given = [key for key in ("texts", "items") if key in body]
    subject = name(body, "subject")
    top_k = body.get("top_k")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= TOP_K):
        raise refused("top_k", f"Use a whole number from 1 to {TOP_K}.")
    if len(given) > 1:
        raise refused("items", "Give texts or items, not both.")
    if given == ["items"]:
        items = tuple(expects.items(body, subject))
    elif given == ["texts"]:
        items = tuple(expects.texts(body, subject))
    else:
        items = (Item(expects.fields(body, "", also=COMMON_KEYS), subject),)
    if sum(len(text) for item in items for text in item.fields) > BODY_LENGTH:
        raise TooLarge(f"All texts together are over {BODY_LENGTH:,} characters; send fewer at a time.")
    return Question(items, bool(given), top_k, name(body, "request_id", REQUEST_ID_LENGTH))


@dataclass(frozen=True, slots=True)
class Expected:
    """What a classifier reads."""

    input_fields: tuple[str, ...]
    classifier: str

    def items(self, body: Mapping[str, Any], subject: str) -> Iterable[Item]:
        self.refuse_others(body, COMMON_KEYS | {"items"}, "")
        for index, entry in enumerate(batch(body, "items")):
            place = f"items.{index}."
            if not isinstance(entry, dict):
                raise refused(place[:-1], "Must be an object with the classifier's fields.")
            fields = self.fields(entry, place, also=frozenset({"subject"}))
            yield Item(fields, name(entry, "subject", place=place) or subject)

    def texts(self, body: Mapping[str, Any], subject: str) -> Iterable[Item]:
        self.refuse_others(body, COMMON_KEYS | {"texts"}, "")
        if len(self.input_fields) > 1:
            raise refused("texts", f"{self.described}; send them as items.")
        for index, entry in enumerate(batch(body, "texts")):
            yield Item((text(entry, f"texts.{index}"),), subject)

    def fields(self, values: Mapping[str, Any], place: str, *, also: frozenset[str]) -> Fields:
        """The texts of one input, in the classifier's order; a single field is also known as `text`."""
        names = self.input_fields
        if len(names) == 1 and names[0] not in values and "text" in values:
            names = ("text",)
        self.refuse_others(values, also.union(names), place)
        missing = [field for field in names if field not in values]
        if missing:
            raise InvalidInput(f"{self.described}.", fields={place + field: ["Missing."] for field in missing})
        return tuple([text(values[field], place + field) for field in names])

    def refuse_others(self, values: Mapping[str, Any], known: frozenset[str], place: str) -> None:
        """Raises `InvalidInput` naming every key outside `known`."""
        if others := values.keys() - known:
            message = f"Unknown; {self.described[0].lower()}{self.described[1:]}."
            raise InvalidInput(
                f"Unknown: {', '.join(sorted(map(printable, others))[:10])}. {self.described}.",
                fields={place + printable(key): [message] for key in sorted(others)[:10]},
            )

    @property
    def described(self) -> str:
        return f"The classifier {self.classifier} reads {' and '.join(self.input_fields)}"


def text(value: Any, place: str) -> str:
    """A text to answer, NUL stripped. A number is no text, and neither is one that a model would read as nothing."""
    if not isinstance(value, str):
        raise refused(place, "Must be a text.")
    if "\x00" in value:
        value = value.replace("\x00", "")
    if len(value) > TEXT_LENGTH:
        message = f"Over {TEXT_LENGTH:,} characters."
        raise TooLarge(f"{place}: {message}", fields={place: [message]})
    if not value.isascii():
        refuse_half_characters(value, place)
    if not prepare(value):
        raise refused(place, "Must not be blank.")
    return str(value)


def name(values: Mapping[str, Any], key: str, most: int = NAME_LENGTH, *, place: str = "") -> str:
    """A short optional text such as an id; null and absence give the empty string."""
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refused(place + key, "Must be a text.")
    refuse_half_characters(value, place + key)
    if not value.strip() or len(value) > most or not value.isprintable():
        raise refused(place + key, f"Must be 1 to {most} printable characters.")
    return value


def batch(body: Mapping[str, Any], key: str) -> list[Any]:
    entries = body[key]
    if not isinstance(entries, list):
        raise refused(key, "Must be a list.")
    if not 1 <= len(entries) <= BATCH_SIZE:
        raise refused(key, f"Must hold 1 to {BATCH_SIZE} entries, has {len(entries)}.")
    return entries


def refuse_half_characters(value: str, place: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(place, "Not valid Unicode: a lone surrogate.") from None


def refused(place: str, message: str) -> InvalidInput:
    return InvalidInput(f"{place}: {message}", fields={place: [message]})
