"""First step: mend what is damaged, take personal data out, and leave out what no model could read. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from kalimtak.core import pii
from registry.text import prepare
from training.etl import Dropped, Fields, Record, Step
from training.etl.duplicates import hash_of, normalise
from training.etl.folding import mend, skeleton

MAX_CHARACTERS = 20_000


def clean(records: Sequence[Record]) -> Step:
    """Redact each record and give it what it is compared by; drop what is empty or too long."""
    kept, dropped = [], []
    for record in records:
        if problem := text_problem(record.fields):
            dropped.append(Dropped(record, "unreadable", problem))
            continue
        fields, redactions = redact_fields(record.fields)
        folded = normalise(fields)
        kept.append(
            replace(
                record,
                fields=fields,
                redactions=redactions,
                content_hash=hash_of(folded),
                skeletons=tuple([skeleton(text) for text in folded]),
            )
        )
    return Step(kept, dropped)


def text_problem(fields: Fields) -> str:
    """Why a model could not learn from these texts; "" where it can."""
    for text in fields:
        if len(text) > MAX_CHARACTERS:
            return f"A text of {len(text)} characters; {MAX_CHARACTERS} is the most."
        if not prepare(text):
            return "An empty text."
    return ""


def redact_fields(fields: Fields) -> tuple[Fields, int]:
    """The texts, mended, with placeholders for personal data, and how many there were."""
    redacted = [pii.redact(mend(text.replace("\x00", ""))) for text in fields]
    return tuple(each.text for each in redacted), sum(len(each.findings) for each in redacted)
