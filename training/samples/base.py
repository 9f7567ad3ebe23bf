"""What a sample and a set of samples are; shared by the five grammars."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from training.samples.grammar import Dealer

Kind = Literal["plain", "emoji", "sarcasm", "mixed"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled text: `fields` holds one string per input field of its classifier, in order."""

    fields: tuple[str, ...]
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class SampleSet:
    """A demo classifier and the function that writes one sample of a given label for it."""

    slug: str
    input_fields: tuple[str, ...]
    label_field: str
    labels: tuple[str, ...]
    description: str
    write: Callable[[str, Dealer], Sample]
