"""What people say is right, as the text that rows hold."""

from collections.abc import Sequence

from kalimtak.core.errors import InvalidInput
from registry.labels import MOST_CHARACTERS, label_text_of
from registry.models import Classifier


def label_given(
    classifier: Classifier,
    label: str,
    labels: Sequence[str] | None = None,
    *,
    known: Sequence[str] = (),
    names: tuple[str, str] = ("correct_label", "correct_labels"),
) -> str:
    """One label, or the text of a set, from what a caller gave under the two `names`; "" where that was nothing.

    A multi-label classifier takes `labels`, an empty list meaning that none applies, and `label` for just one. Another
    one takes `label`, and `labels` where it holds just one. `known` are the labels of a classifier that lists none.
    Raises `InvalidInput` naming the field for what is outside the set, too much, or different in the two.
    """
    field = names[0] if labels is None else names[1]
    chosen = [label] if labels is None else list(labels)
    if not label and labels is None:
        return ""
    if label and chosen != [label]:
        _refuse(field, f"Differs from {names[0]}; give one of them.")
    if not classifier.multi_label and len(chosen) != 1:
        _refuse(field, f"{classifier} gives each text one label; give {names[0]}.")
    allowed = classifier.labels or known
    if strange := next((each for each in chosen if each not in allowed), None):
        _refuse(field, f"{strange[:60]!r} is not a label of {classifier}; use one of {', '.join(allowed)}.")
    text = label_text_of(chosen, allowed) if classifier.multi_label else chosen[0]
    if len(text) > MOST_CHARACTERS:
        _refuse(field, f"These labels have more than {MOST_CHARACTERS} characters together; give fewer.")
    return text


def _refuse(field: str, message: str) -> None:
    raise InvalidInput(message, fields={field: [message]})
