"""Logs of the past as interactions: which columns say what, and what a row of them means. Pure: no Django.

The names that logs use for the same thing are looked up in a table; the input and the label are found as in any data
set (`training.columns`). A thumb up or down counts as 5 or 1.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from training.columns import choose_columns
from training.streams import ImportRefused

if TYPE_CHECKING:
    import pandas as pd

NAMES: dict[str, tuple[str, ...]] = {
    "id": ("interaction_id", "external_id", "id", "request_id", "message_id", "uuid"),
    "rating": ("rating", "stars", "thumbs", "vote", "feedback", "feedback_score", "score"),
    "comment": ("comment", "feedback_comment", "remark"),
    "correct_label": ("correct_label", "correction", "correct_labels", "corrected_label"),
    "confidence": ("confidence", "probability"),
    "created_at": ("created_at", "timestamp", "time", "asked_at", "date", "start_time"),
    "pseudonym": ("pseudonym",),
    "source": ("feedback_source",),
    "said_at": ("feedback_at",),
    "subject": ("subject", "user_id", "user", "sender_id"),
    "version": ("model_version", "version"),
    "classifier": ("classifier",),
}
THUMBS = dict.fromkeys(("up", "thumbs up", "thumbs_up", "thumbsup", "👍", "like", "+1", "true", "positive"), 5) | (
    dict.fromkeys(("down", "thumbs down", "thumbs_down", "thumbsdown", "👎", "dislike", "-1", "false", "negative"), 1)
)
SOURCE = re.compile(r"(?:subject:[0-9a-f]{64}|(?:anonymous|key|user|import):.{1,60})")  # as exports name them
ANYWHERE = ("subject:", "anonymous:")  # sources that are the same in every installation that has the same key
PSEUDONYM = re.compile(r"[0-9a-f]{64}")
MOST_NAME = 200  # characters of an external id or a user's name
EPOCH_MILLISECONDS = 10**11  # a number of seconds beyond it lies in the year 5138: it is milliseconds


class RowRefused(ValueError):
    """The row says something that cannot be meant; the message is its reason."""


@dataclass(frozen=True)
class PastColumns:
    """The columns to read: `inputs` in the classifier's order, the `label` that was answered, and what `named` finds
    under the keys of NAMES. `why` has a sentence for each choice."""

    inputs: tuple[str, ...]
    label: str | None
    named: Mapping[str, str]
    why: tuple[str, ...]


def past_columns(
    available: Sequence[str],
    sample: "pd.DataFrame",
    *,
    input_fields: Sequence[str],
    label_field: str,
    labels: Sequence[str],
    multi_label: bool,
    asked: Mapping[str, Any],
) -> PastColumns:
    """Find the columns of a log. `asked` may name `text_fields`, `label_field` and `rating_field`.

    Raises `ImportRefused` where the input cannot be told.
    """
    named, why = _named(available, str(asked.get("rating_field") or ""))
    taken = {column for key, column in named.items() if column not in (asked.get("text_fields") or ())}
    rest = [name for name in available if name not in taken]
    found = choose_columns(
        rest,
        sample[rest],
        input_fields=input_fields,
        label_field=label_field,
        labels=labels,
        multi_label=multi_label,
        asked_inputs=asked.get("text_fields") or (),
        asked_label=asked.get("label_field") or "",
    )
    return PastColumns(found.inputs, found.label, named, (*found.why, *why))


def _named(available: Sequence[str], rating: str) -> tuple[dict[str, str], list[str]]:
    folded = {name.strip().casefold(): name for name in reversed(available)}
    named: dict[str, str] = {}
    for key, names in NAMES.items():
        column = next((folded[name] for name in names if name in folded and folded[name] not in named.values()), None)
        if column:
            named[key] = column
    if rating:
        if rating not in available:
            raise ImportRefused(f"There is no column {rating!r} among {', '.join(available[:20])}.")
        named = {key: column for key, column in named.items() if column != rating} | {"rating": rating}
    why = [f"{column!r} is taken for the {key.replace('_', ' ')}: its name says so." for key, column in named.items()]
    if rating:
        why = [f"You named {rating!r} as the rating.", *(line for line in why if not line.startswith(f"{rating!r} "))]
    return named, why


def rating_of(cell: Any) -> int | None:
    """1 to 5, or None where nobody rated. Raises `RowRefused`."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    text = str(cell).strip().casefold()
    if not text:
        return None
    if text in THUMBS and not (isinstance(cell, int | float) and not isinstance(cell, bool)):
        return THUMBS[text]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number in (1, 2, 3, 4, 5):
        return int(number)
    raise RowRefused(f"The rating {str(cell)[:40]!r} is neither 1 to 5 nor a thumb, up or down.")


def moment_of(cell: Any, now: datetime) -> datetime | None:
    """When it was asked: ISO 8601 (UTC unless it says), or Unix seconds or milliseconds. Raises `RowRefused`."""
    text = "" if cell is None else str(cell).strip()
    if not text or text == "nan":
        return None
    try:
        moment = _moment(cell, text)
    except (ValueError, OverflowError, OSError):
        raise RowRefused(f"The time {text[:40]!r} is neither ISO 8601 nor Unix time.") from None
    if not datetime(1970, 1, 1, tzinfo=UTC) <= moment <= now:
        raise RowRefused(f"The time {text[:40]!r} lies before 1970 or in the future.")
    return moment


def hour_told(moment: datetime | None) -> datetime | None:
    """The moment, unless it is a midnight: that is how files write a day of which they do not know the hour."""
    if moment is None or (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return None
    return moment


def _moment(cell: Any, text: str) -> datetime:
    if isinstance(cell, datetime):
        return cell if cell.tzinfo else cell.replace(tzinfo=UTC)
    if re.fullmatch(r"\d{1,14}(\.\d{1,9})?", text):
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number > EPOCH_MILLISECONDS else number, tz=UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def confidence_of(cell: Any) -> float:
    """0 to 1; 0 where it is not told. Raises `RowRefused`."""
    if cell is None or str(cell).strip() == "":
        return 0.0
    try:
        number = float(str(cell))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise RowRefused(f"The confidence {str(cell)[:40]!r} is not between 0 and 1.")
    return number


def name_of(cell: Any) -> str:
    """An id or a user's name as text. Raises `RowRefused` for one that is too long."""
    text = "" if cell is None else str(cell).strip().replace("\x00", "")
    if len(text) > MOST_NAME:
        raise RowRefused(f"A name of {len(text)} characters; {MOST_NAME} is the most.")
    return text
