"""How much a record is worth to learn from, and a floor under it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import replace

from registry.text import prepare
from training.etl import Dropped, Record, Step

FLOOR = 0.3
REPETITION_WORDS = 10  # fewer words may well repeat themselves
_WORD = re.compile(r"\w+")


def score_quality(records: Sequence[Record]) -> Step:
    """Give each record its quality score from 0 to 1; drop those under the floor unless a person named the label."""
    kept, dropped = [], []
    for record in records:
        quality, remark = quality_of(record)
        if quality >= FLOOR:
            kept.append(replace(record, quality=quality))
        elif record.is_human_label:
            kept.append(replace(record, quality=quality).doubted("low_quality", remark))
        else:
            dropped.append(Dropped(record, "low_quality", remark))
    return Step(kept, dropped)


def quality_of(record: Record) -> tuple[float, str]:
    """The score and what lowers it most: rating 4 of 5 is a weaker yes, few or repeated words teach little."""
    words = [word for text in record.fields for word in _WORD.findall(prepare(text).casefold())]
    score = 0.9 if record.origin == "confirmed" and (record.rating or 5) < 5 else 1.0
    if not words:
        return round(score * 0.2, 3), "No word in it."
    if len(words) >= REPETITION_WORDS and len(set(words)) / len(words) < 0.3:
        return round(score * 0.25, 3), "It repeats the same words."
    if len(words) == 1:
        return round(score * 0.8, 3), "A single word."
    return score, ""
