"""What a customer wants from a shop's assistant."""

from pathlib import Path

from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import typed

LABELS = (
    "greeting",
    "goodbye",
    "thanks",
    "help",
    "order_status",
    "refund",
    "cancel_order",
    "delivery_time",
    "account",
    "complaint",
)
_EMOJI_SHARE = 0.1

_GRAMMARS = read_grammars(Path(__file__).parent / "rules" / "intent.rules", LABELS)


def write(label: str, dealer: Dealer) -> Sample:
    """One message to the assistant with intent `label`."""
    kind: Kind = "emoji" if dealer.random() < _EMOJI_SHARE else "plain"
    return Sample((typed(_GRAMMARS[label].expand(kind, dealer), dealer),), label, kind)


SET = SampleSet(
    slug="intent",
    input_fields=("text",),
    label_field="label",
    labels=LABELS,
    description="What a customer wants from a shop's assistant.",
    write=write,
)
