"""One text cannot deserve two labels: such records wait for a reviewer. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from training.etl import Record, Step


def mark_conflicts(records: Sequence[Record], known: Mapping[str, str]) -> Step:
    """Doubt records whose text has another label among themselves or in `known` {content hash: label}."""
    labels: dict[str, set[str]] = defaultdict(set)
    for record in records:
        labels[record.content_hash].add(record.label)
    return Step([_marked(record, labels[record.content_hash], known.get(record.content_hash)) for record in records])


def _marked(record: Record, labels: set[str], known: str | None) -> Record:
    if known is not None and known != record.label:
        return record.doubted("conflict", f"The same text is already labelled {known!r}.")
    if len(labels) > 1:
        others = ", ".join(repr(label) for label in sorted(labels - {record.label}))
        return record.doubted("conflict", f"Others labelled the same text {others}.")
    return record
