"""The same text with the same label is one item. Pure."""

import hashlib
from collections.abc import Collection, Sequence

from registry.text import prepare
from training.etl import Dropped, Fields, Record, Step

Known = Collection[tuple[str, str]]


def content_hash(fields: Sequence[str]) -> str:
    """SHA-256 over the normalised fields: as the models read them, case and white space folded, joined by U+001F."""
    return hashlib.sha256("\x1f".join(normalise(fields)).encode()).hexdigest()


def normalise(fields: Sequence[str]) -> Fields:
    """What of the texts tells them apart. `prepare` has already folded the white space."""
    return tuple(prepare(text).casefold() for text in fields)


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
