"""How much a record is worth to learn from, and a floor under it. Pure.

The score is 1 less what each doubtful sign takes away, and 0 at least:

| Sign | Takes away |
|---|---|
| no word in it | 0.8 |
| the same words again and again: under 30 % of 10 words or more differ | 0.75 |
| letters hardly any: under 40 % of its characters, of 20 or more | 0.3 |
| a single word | 0.2 |
| over 2,000 words | 0.2 |
| a script that under 1 % of the classifier's texts are written in | 0.2 |
| a rating of 4 of 5 that confirms | 0.1 |
| a confirmation of an answer that was given with low confidence | 0.3 × (1 - confidence) |
| each further source that says the same, up to three | -0.1 |

A further source gives back what others took, and never lifts a score over 1. Confidence counts for confirmations alone:
praise for what the model was unsure of is weak evidence, while a correction of something it was sure of is what it has
most to learn from. A score under `FLOOR` drops a confirmation; what a person labelled waits for a reviewer instead.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from registry.text import prepare
from training.etl import Dropped, Record, Step
from training.etl.scripts import script_of

FLOOR = 0.3
REPETITION_WORDS, REPETITION_SHARE = 10, 0.3  # fewer words may well repeat themselves
MOST_WORDS = 2_000
LETTERS_FROM, LETTERS_SHARE = 20, 0.4
MOST_AGREEING = 3
RARE_SCRIPT = 0.01

NO_WORD, REPEATED, FEW_LETTERS, ONE_WORD, LONG, STRANGE_SCRIPT = 0.8, 0.75, 0.3, 0.2, 0.2, 0.2
WEAK_RATING, UNSURE, AGREEMENT = 0.1, 0.3, 0.1

_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")


def score_quality(records: Sequence[Record], scripts: Collection[str] = ()) -> Step:
    """Give each record its quality score from 0 to 1; drop those under the floor unless a person named the label.

    `scripts` are those that the classifier's texts are written in (`script_of`); empty: any is usual.
    """
    kept, dropped = [], []
    for record in records:
        quality, remark = quality_of(record, scripts)
        if quality >= FLOOR:
            kept.append(replace(record, quality=quality))
        elif record.is_human_label:
            kept.append(replace(record, quality=quality).doubted("low_quality", remark))
        else:
            dropped.append(Dropped(record, "low_quality", remark))
    return Step(kept, dropped)


def quality_of(record: Record, scripts: Collection[str] = ()) -> tuple[float, str]:
    """The score, and in words the sign that takes away most ("" where none does)."""
    signs = [*_text_signs(" ".join(map(prepare, record.fields)), scripts), *_evidence_signs(record)]
    agreeing = min(record.agreeing - 1, MOST_AGREEING) if record.agreeing > 1 else 0
    score = 1.0 - sum(weight for weight, _ in signs) + AGREEMENT * agreeing
    return round(min(max(score, 0.0), 1.0), 3), max(signs)[1] if signs else ""


def _text_signs(text: str, scripts: Collection[str]) -> list[tuple[float, str]]:
    words = _WORD.findall(text.casefold())
    signs = []
    if not words:
        return [(NO_WORD, "No word in it.")]
    if len(words) >= REPETITION_WORDS and len(set(words)) / len(words) < REPETITION_SHARE:
        signs.append((REPEATED, "It repeats the same words."))
    if len(words) == 1:
        signs.append((ONE_WORD, "A single word."))
    if len(words) > MOST_WORDS:
        signs.append((LONG, f"More than {MOST_WORDS:,} words."))
    if len(text) >= LETTERS_FROM and len(_LETTER.findall(text)) / len(text) < LETTERS_SHARE:
        signs.append((FEW_LETTERS, "Hardly any letters."))
    if scripts and (script := script_of(text)) and script not in scripts:
        signs.append((STRANGE_SCRIPT, f"Written in {script}, as hardly any text of this classifier is."))
    return signs


def _evidence_signs(record: Record) -> list[tuple[float, str]]:
    if record.is_human_label:
        return []
    signs = []
    if (record.rating or 5) < 5:
        signs.append((WEAK_RATING, "A rating of 4 is a weaker yes."))
    if record.confidence is not None:
        signs.append((UNSURE * (1 - record.confidence), "The model was unsure of its answer."))
    return signs


def usual_scripts(texts: Sequence[str]) -> frozenset[str]:
    """The scripts of at least 1 % of `texts`; none where they are too few to tell."""
    if len(texts) < 1 / RARE_SCRIPT:
        return frozenset()
    found = [script_of(text) for text in texts]
    return frozenset(script for script in set(found) if script and found.count(script) >= RARE_SCRIPT * len(found))
