"""Positive, negative and neutral reviews and remarks."""

from pathlib import Path

from training.samples import emotion
from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import typed

LABELS = ("positive", "negative", "neutral")

_KINDS: tuple[Kind, ...] = ("plain", "emoji", "mixed", "sarcasm")
_KIND_WEIGHTS = {"positive": (82, 91, 100, 100), "negative": (76, 84, 92, 100), "neutral": (88, 94, 100, 100)}
_EMOJI_ALONE = 0.3

# A part of the texts is no review at all: whoever feels like this speaks well, badly or soberly of something.
_EMOTIONS = {"positive": ("joy", "love"), "negative": ("anger", "sadness", "disgust"), "neutral": ("neutral",)}
_EMOTION_SHARE = 0.15

_GRAMMARS = read_grammars(Path(__file__).parent / "rules" / "sentiment.rules", LABELS, bound=("before",))


def write(label: str, dealer: Dealer) -> Sample:
    """One remark of sentiment `label`; in a mixed one that sentiment has the last word."""
    if dealer.random() < _EMOTION_SHARE:
        felt = emotion.write(dealer.choice(_EMOTIONS[label]), dealer)
        return Sample(felt.fields, label, felt.kind)
    (kind,) = dealer.choices(_KINDS, cum_weights=_KIND_WEIGHTS[label])
    grammar = _GRAMMARS[label]
    if kind == "emoji" and dealer.random() < _EMOJI_ALONE:
        return Sample((grammar.expand("faces", dealer),), label, kind)
    other = dealer.choice([name for name in LABELS if name != label])
    before = _GRAMMARS[other].expand(dealer.choice(("trait", "event", "verdict")), dealer) if kind == "mixed" else ""
    return Sample((typed(grammar.expand(kind, dealer, {"before": before}), dealer),), label, kind)


SET = SampleSet(
    slug="sentiment",
    input_fields=("text",),
    label_field="label",
    labels=LABELS,
    description="Whether a review or remark is positive, negative or neutral.",
    write=write,
)
