"""Which columns of a file hold the inputs and the label, and why one thinks so. Pure: no Django.

What the caller names counts first, then what the classifier's `data_config` names, then heuristics.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.streams import ImportRefused

if TYPE_CHECKING:
    import pandas as pd

TEXT_NAMES = ("text", "sentence", "message", "content", "utterance", "review", "comment", "body", "tweet", "prompt")
QUESTION_NAMES = ("question", "query", "prompt", "premise", "sentence1", "text_a")
CONTEXT_NAMES = ("context", "answer", "reply", "response", "passage", "hypothesis", "sentence2", "text_b")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion", "tag", "y")
SPLIT_NAMES = ("split", "subset", "partition", "fold")
SPLITS = {"train": "train", "training": "train", "test": "test", "golden": "test"} | dict.fromkeys(
    ("valid", "validation", "val", "dev"), "valid"
)
# What our own exports say of an item in their column `status`: `APPROVED` and `WAITING` are loaded as that, the others
# are left out.
STATUS_NAME = "status"
APPROVED, WAITING = "approved", "review"
STATUSES = (APPROVED, WAITING, "rejected", "quarantined", "candidate")
_BETWEEN, _AROUND = re.compile(r"[|;,]"), " []'\""  # labels in one cell, a list as Python or JSON writes it included
LABEL_DISTINCT_SHARE = 0.5  # a column whose values repeat less than this is no label


@dataclass(frozen=True)
class Columns:
    """The columns to read: `inputs` in the order of the classifier's fields. `why` has a sentence for each choice.

    `status` is a column that says what was approved, as our own exports do.
    """

    inputs: tuple[str, ...]
    label: str | None
    split: str | None
    why: tuple[str, ...]
    status: str | None = None


def choose_columns(
    available: Sequence[str],
    sample: "pd.DataFrame",
    *,
    input_fields: Sequence[str],
    label_field: str,
    labels: Collection[str] = (),
    multi_label: bool = False,
    asked_inputs: Sequence[str] = (),
    asked_label: str = "",
    asked_split: str = "",
) -> Columns:
    """Find the columns of a classifier in a file. Raises `ImportRefused` where an input cannot be told.

    With `multi_label` a cell may hold several of the `labels`, as a list or with separators between them.
    """
    why: list[str] = []
    inputs = _inputs(available, sample, input_fields, asked_inputs, exclude={asked_label or label_field}, why=why)
    rest = [name for name in available if name not in inputs]
    label = _label(rest, sample, label_field, _LabelTest(labels, multi_label), asked_label, why)
    split = _split([name for name in rest if name != label], sample, asked_split, why)
    return Columns(inputs, label, split, tuple(why))


def with_status(columns: Columns, available: Sequence[str], sample: "pd.DataFrame") -> Columns:
    """The columns with the one that says what was approved: called `status`, and with our own words in it alone."""
    taken = {*columns.inputs, columns.label, columns.split}
    name = _by_name([name for name in available if name not in taken], (STATUS_NAME,))
    if name is None:
        return columns
    words = _texts(sample[name]).str.lower()
    if words.empty or not words.isin(["", *STATUSES]).all():
        return columns
    why = (
        f"{name!r} says what was approved: rows that are not wait for review; "
        f"{', '.join(STATUSES[2:-1])} and {STATUSES[-1]} ones are left out."
    )
    return replace(columns, status=name, why=(*columns.why, why))


def _inputs(
    available: Sequence[str],
    sample: "pd.DataFrame",
    names: Sequence[str],
    asked: Sequence[str],
    *,
    exclude: set[str],
    why: list[str],
) -> tuple[str, ...]:
    if asked:
        if len(asked) != len(names):
            wanted = " and ".join(names)
            raise ImportRefused(f"The classifier reads {wanted}: name {len(names)} text fields, not {len(asked)}.")
        for name in asked:
            _require(name, available)
        why.append(f"You named {_listed(asked)} as the input.")
        return tuple(asked)
    if all(name in available for name in names):
        why.append(f"The classifier reads {_listed(names)}, and the file has just that.")
        return tuple(names)
    candidates = [name for name in available if name not in exclude]
    guesses = [_text_guess(candidates, sample)] if len(names) == 1 else _pair_guess(candidates)
    if any(guess is None for guess in guesses):
        raise ImportRefused(
            f"The classifier reads {_listed(names)}, but the file has the columns {_listed(available)}; "
            f"name the text columns{', one for each in this order' if len(names) > 1 else ''}."
        )
    why += [
        f"{guess[0]!r} is taken for {name}: {guess[1]}." for name, guess in zip(names, guesses, strict=True) if guess
    ]
    return tuple(guess[0] for guess in guesses if guess)


Guess = tuple[str, str]


def _text_guess(candidates: Sequence[str], sample: "pd.DataFrame") -> Guess | None:
    """A column with a telling name, else the one with the longest texts."""
    if named := _by_name(candidates, TEXT_NAMES):
        return named, "its name says so"
    lengths = {name: _mean_length(sample[name]) for name in candidates}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    if longest is None or lengths[longest] == 0:
        return None
    return longest, f"its texts are the longest ({lengths[longest]:.0f} characters on average)"


def _pair_guess(candidates: Sequence[str]) -> list[Guess | None]:
    """Two texts cannot be told apart by their length, so only names count."""
    found = [_by_name(candidates, names) for names in (QUESTION_NAMES, CONTEXT_NAMES)]
    return [(name, "its name says so") if name else None for name in found]


def _label(
    rest: Sequence[str],
    sample: "pd.DataFrame",
    field: str,
    labels: "_LabelTest",
    asked: str,
    why: list[str],
) -> str | None:
    if asked:
        _require(asked, rest)
        why.append(f"You named {asked!r} as the label.")
        return asked
    if field in rest:
        why.append(f"The classifier's label field is {field!r}, and the file has it.")
        return field
    if named := _by_name(rest, LABEL_NAMES):
        why.append(f"{named!r} is taken for the label: its name says so.")
        return named
    for name in rest:
        values = _texts(sample[name])
        if len(values) and values.map(labels.holds).mean() >= 0.5:
            why.append(f"{name!r} is taken for the label: most of its values are labels of the classifier.")
            return name
    for name in rest:
        values = _texts(sample[name])
        if len(values) >= 10 and 1 < values.nunique() <= len(values) * LABEL_DISTINCT_SHARE:
            why.append(f"{name!r} is taken for the label: {values.nunique()} values repeat in {len(values)} rows.")
            return name
    why.append("No column looks like a label.")
    return None


@dataclass(frozen=True)
class _LabelTest:
    """Tells cells with labels of the classifier from others."""

    labels: Collection[str]
    multi_label: bool

    def holds(self, text: str) -> bool:
        if not self.multi_label:
            return text in self.labels
        parts = [part for each in _BETWEEN.split(text) if (part := each.strip(_AROUND))]
        return text in self.labels or (bool(parts) and all(part in self.labels for part in parts))


def _split(rest: Sequence[str], sample: "pd.DataFrame", asked: str, why: list[str]) -> str | None:
    if asked:
        _require(asked, rest)
        why.append(f"You named {asked!r} as the split.")
        return asked
    name = _by_name(rest, SPLIT_NAMES)
    if name is None:
        return None
    values = _texts(sample[name]).str.lower()
    if not values.isin(list(SPLITS)).all():
        why.append(f"{name!r} is not taken for the split: it holds other values than train, valid and test.")
        return None
    why.append(f"{name!r} says which split a row belongs to.")
    return name


def _by_name(candidates: Sequence[str], names: Sequence[str]) -> str | None:
    """The candidate that is called by the earliest of `names`, whatever its case."""
    folded = {name.strip().casefold(): name for name in reversed(candidates)}
    return next((folded[name] for name in names if name in folded), None)


def _require(name: str, available: Sequence[str]) -> None:
    if name not in available:
        raise ImportRefused(f"There is no column {name!r}; the file has {_listed(available)}.")


def _texts(column: "pd.Series") -> "pd.Series":
    return column.dropna().map(str).str.strip()


def _mean_length(column: "pd.Series") -> float:
    texts = column[column.map(lambda cell: isinstance(cell, str))]
    return float(texts.str.len().mean()) if len(texts) else 0.0


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
