"""Messages that a board lets through, and insults, threats, hate and spam. Groups that are hated here are invented."""

from pathlib import Path

from training.samples import emotion, intent, sentiment
from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import typed

LABELS = ("ok", "insult", "threat", "hate", "spam")
_EMOJI_SHARE = 0.1

# Everyday talk that is no business of a moderator; anger and disgust are left out as they call people names.
_EVERYDAY_SHARE = 0.45
_EVERYDAY_EMOTIONS = ("joy", "sadness", "fear", "love", "surprise", "neutral", "neutral")

_GRAMMARS = read_grammars(Path(__file__).parent / "rules" / "moderation.rules", LABELS)


def write(label: str, dealer: Dealer) -> Sample:
    """One message that a moderator would file under `label`."""
    if label == "ok" and dealer.random() < _EVERYDAY_SHARE:
        everyday = _everyday(dealer)
        return Sample(everyday.fields, label, everyday.kind)
    kind: Kind = "emoji" if dealer.random() < _EMOJI_SHARE else "plain"
    return Sample((typed(_GRAMMARS[label].expand(kind, dealer), dealer),), label, kind)


def _everyday(dealer: Dealer) -> Sample:
    """A harmless text of another grammar: a feeling, a review (bad ones too) or a customer's question."""
    source = dealer.choice((emotion.SET, emotion.SET, sentiment.SET, intent.SET))
    return source.write(dealer.choice(_EVERYDAY_EMOTIONS if source is emotion.SET else source.labels), dealer)


SET = SampleSet(
    slug="moderation",
    input_fields=("text",),
    label_field="label",
    labels=LABELS,
    description="Whether a message may stand: ok, or an insult, a threat, hate or spam.",
    write=write,
)
