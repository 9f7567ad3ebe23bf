"""Several labels as one text, so that whatever holds a label can hold a set of them.

A truth or an answer of a multi-label classifier is written as its labels in the classifier's order, joined with `|`;
the empty set is `|` alone, since an empty text means that nothing was said. Labels of such a classifier hold no `|`.
"""

from collections.abc import Iterable, Sequence

SEPARATOR = "|"
NOTHING = SEPARATOR
MOST_CHARACTERS = 500  # of a text of labels, so that it can be part of a database index


def label_text(labels: Iterable[str]) -> str:
    """`("joy", "love")` → `joy|love`; nothing → `|`."""
    return SEPARATOR.join(labels) or NOTHING


def label_set(text: str) -> tuple[str, ...]:
    """`joy|love` → `("joy", "love")`; `|` → `()`. One label is a set of one."""
    return tuple(label for label in text.split(SEPARATOR) if label)


def label_text_of(chosen: Iterable[str], known: Sequence[str]) -> str:
    """The text of `chosen` in the order of `known`, repetitions dropped. Raises `ValueError` naming unknown labels."""
    wanted = set(chosen)
    if strange := sorted(wanted.difference(known)):
        raise ValueError(f"not among the labels: {', '.join(strange)}")
    return label_text(label for label in known if label in wanted)
