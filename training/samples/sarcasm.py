"""Sarcastic and sincere remarks; the sincere ones praise, complain, ask and state in the same words."""

from pathlib import Path

from training.samples import emotion, sentiment
from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import typed

SARCASTIC, SINCERE = "sarcastic", "sincere"
LABELS = (SINCERE, SARCASTIC)

_BORROWED = 0.35  # of the texts come from the sets below, which hold both kinds
_SOURCES = (*(("emotion", label) for label in emotion.LABELS), *(("sentiment", label) for label in sentiment.LABELS))
_IRONIC = (("emotion", "anger"), ("emotion", "sadness"), ("emotion", "disgust"), ("sentiment", "negative"))
_WRITERS = {"emotion": emotion.write, "sentiment": sentiment.write}

_GRAMMARS = read_grammars(Path(__file__).parent / "rules" / "sarcasm.rules", LABELS)


def write(label: str, dealer: Dealer) -> Sample:
    """One remark that is `label`."""
    if dealer.random() < _BORROWED:
        return _borrowed(label, dealer)
    kind: Kind = "sarcasm" if label == SARCASTIC else "plain"
    return Sample((typed(_GRAMMARS[label].expand("start", dealer), dealer),), label, kind)


def _borrowed(label: str, dealer: Dealer) -> Sample:
    """A text of another set whose kind says whether it is meant."""
    while True:
        source, theirs = dealer.choice(_IRONIC if label == SARCASTIC else _SOURCES)
        sample = _WRITERS[source](theirs, dealer)
        if (sample.kind == "sarcasm") == (label == SARCASTIC):
            return Sample(sample.fields, label, sample.kind)


SET = SampleSet(
    slug="sarcasm",
    input_fields=("text",),
    label_field="label",
    labels=LABELS,
    description="Whether a remark means what it says.",
    write=write,
)
