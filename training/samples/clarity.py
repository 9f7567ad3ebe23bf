"""Questions, the turn in which they were answered, and whether the answer was one."""

from pathlib import Path

from training.samples.base import Sample, SampleSet
from training.samples.grammar import Dealer, read_grammars
from training.samples.noise import sentence_case, slip

LABELS = ("Clear Reply", "Clear Non-Reply", "Ambivalent")

_TYPES = ("yesno", "when", "number", "who", "why", "where", "choice", "how")
_TYPE_WEIGHTS = (34, 44, 55, 64, 75, 82, 90, 100)
_TURNS = (
    "{asker}: {question} {role}: {answer}",
    "Q: {question} A: {answer}",
    "Question: {question} Answer: {answer}",
    "{asker}: {question}\n{role}: {answer}",
    "- {question} - {answer}",
)
_TURN_WEIGHTS = (45, 65, 75, 90, 100)
_SLIP_SHARE = 0.06

_GRAMMARS = read_grammars(Path(__file__).parent / "rules" / "clarity.rules", LABELS)


def write(label: str, dealer: Dealer) -> Sample:
    """One question and the whole turn as its context, answered as `label` says."""
    grammar = _GRAMMARS[label]
    (question_type,) = dealer.choices(_TYPES, cum_weights=_TYPE_WEIGHTS)
    question = sentence_case(grammar.expand(f"q_{question_type}", dealer) + "?")
    answer = sentence_case(grammar.expand(question_type, dealer))
    if dealer.random() < _SLIP_SHARE:
        answer = slip(answer, dealer)
    (turn,) = dealer.choices(_TURNS, cum_weights=_TURN_WEIGHTS)
    asker, role = grammar.expand("asker", dealer), grammar.expand("role", dealer)
    context = turn.format(asker=asker, role=role, question=question, answer=answer)
    return Sample((question, context), label, "plain")


SET = SampleSet(
    slug="clarity",
    input_fields=("question", "context"),
    label_field="clarity_label",
    labels=LABELS,
    description="Whether an answer replies to its question: clearly, clearly not, or neither.",
    write=write,
)
