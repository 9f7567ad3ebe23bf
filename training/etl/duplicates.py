"""The same text with the same label is one item. Pure."""

import hashlib
from collections.abc import Collection, Sequence

from training.etl import Dropped, Fields, Record, Step
from training.etl.folding import comparable, skeleton

Known = Collection[tuple[str, str]]


def content_hash(fields: Sequence[str]) -> str:
    """SHA-256 over the fields in the form in which texts are compared (`training.etl.folding`), joined by U+001F."""
    return hash_of(normalise(fields))


def hash_of(comparable_fields: Fields) -> str:
    """The content hash of fields that are in that form already."""
    return hashlib.sha256("\x1f".join(comparable_fields).encode()).hexdigest()


def normalise(fields: Sequence[str]) -> Fields:
    """What of the texts tells them apart."""
    return tuple(comparable(text) for text in fields)


def skeletons(fields: Sequence[str]) -> Fields:
    """The same without punctuation: what near-duplicates are found by."""
    return tuple(skeleton(comparable(text)) for text in fields)


def drop_duplicates(records: Sequence[Record], known: Known) -> Step:
    """Keep the first record of each text and label that is not among the `known` (content hash, label)."""
    seen: dict[tuple[str, str], Record] = {}
    kept, dropped = [], []
    for record in records:
        key = (record.content_hash, record.label)
        if key in known:
            dropped.append(Dropped(record, "duplicate", f"The same text is an item labelled {record.label!r} already."))
        elif key in seen:
            dropped.append(Dropped(record, "duplicate", "The same text and label came more than once."))
        else:
            seen[key] = record
            kept.append(record)
    return Step(kept, dropped)
