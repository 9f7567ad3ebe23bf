"""Eight emotions in short messages, with emoji, sarcasm and mixed feelings among them."""

from pathlib import Path

from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import sentence_case, typed

LABELS = ("joy", "sadness", "anger", "fear", "love", "surprise", "neutral", "disgust")

# (pronoun, object, possessive, reflexive, "to be", "to feel") of whoever a text is about.
_PERSONS = (
    ("I", "me", "my", "myself", "am", "feel"),
    ("we", "us", "our", "ourselves", "are", "feel"),
    ("she", "her", "her", "herself", "is", "feels"),
    ("he", "him", "his", "himself", "was", "felt"),
    ("they", "them", "their", "themselves", "are", "feel"),
    ("my brother", "him", "his", "himself", "is", "feels"),
    ("our neighbour", "her", "her", "herself", "was", "felt"),
    ("the whole class", "them", "their", "themselves", "was", "felt"),
)
_PERSON_WEIGHTS = (70, 76, 82, 87, 91, 94, 97, 100)
_KINDS: tuple[Kind, ...] = ("plain", "emoji", "mixed", "sarcasm")
_KIND_WEIGHTS = {"anger": (68, 78, 86, 100), "disgust": (76, 86, 94, 100), "sadness": (76, 86, 96, 100)}
_KIND_WEIGHTS_WITHOUT_SARCASM = (80, 90, 100, 100)
_EMOJI_ALONE = 0.4

_GRAMMARS = read_grammars(
    Path(__file__).parent / "rules" / "emotion.rules",
    LABELS,
    bound=("I", "me", "my", "myself", "am", "feel", "before"),
)


def write(label: str, dealer: Dealer) -> Sample:
    """One text of emotion `label`; in a mixed one that emotion has the last word."""
    (kind,) = dealer.choices(_KINDS, cum_weights=_KIND_WEIGHTS.get(label, _KIND_WEIGHTS_WITHOUT_SARCASM))
    if kind == "emoji" and dealer.random() < _EMOJI_ALONE:
        return Sample((_GRAMMARS[label].expand("faces", dealer),), label, kind)
    return Sample((typed(_sentence(label, kind, dealer), dealer),), label, kind)


def _sentence(label: str, kind: Kind, dealer: Dealer) -> str:
    bindings = _person(dealer)
    if kind == "mixed":
        bindings["before"] = _other_feeling(label, dealer)
    return sentence_case(_GRAMMARS[label].expand(kind, dealer, bindings))


def _other_feeling(label: str, dealer: Dealer) -> str:
    """A clause in the first person about an emotion other than `label`."""
    other = dealer.choice([name for name in LABELS if name not in (label, "neutral")])
    feeling, deed = (_GRAMMARS[other].expand(rule, dealer, _bindings(_PERSONS[0])) for rule in ("feeling", "deed"))
    return dealer.choice((f"I was {feeling} at first", f"I'm {feeling}", f"yesterday I was {feeling}", deed))


def _person(dealer: Dealer) -> dict[str, str]:
    (person,) = dealer.choices(_PERSONS, cum_weights=_PERSON_WEIGHTS)
    return _bindings(person)


def _bindings(person: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(("I", "me", "my", "myself", "am", "feel"), person, strict=True))


SET = SampleSet(
    slug="emotion",
    input_fields=("text",),
    label_field="label",
    labels=LABELS,
    description="The emotion that dominates a short message.",
    write=write,
)
