"""Whether an int8 graph answers the validation texts as its fp32 one does: the rule by which one of them serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.families.base import Example, FitRequest
from registry.families.targets import validation_scores

MIN_AGREEMENT, MAX_F1_DROP = 0.98, 0.005
MAX_COMPARED = 4000  # validation texts; more would only take time
FEW = 50  # texts that show little


@dataclass(frozen=True)
class Verdict:
    """`note` says for people which graph answers, and why."""

    is_as_good: bool
    note: str


def judge_int8(
    request: FitRequest, fp32: NDArray[np.floating[Any]], int8: NDArray[np.floating[Any]], examples: Sequence[Example]
) -> Verdict:
    """Compare the logits (n, k) of both graphs for the same validation `examples`."""
    agreement = _agreement(request, fp32, int8)
    drop = _macro_f1(request, fp32, examples) - _macro_f1(request, int8, examples)
    is_as_good = agreement >= MIN_AGREEMENT and drop <= MAX_F1_DROP
    shown = f"{len(examples):,} validation texts" + (", which is few" if len(examples) < FEW else "")
    answers = "int8 answers" if is_as_good else "fp32 answers, int8 is not as good"
    points = f"macro-F1 {-100 * drop:+.2f} points"
    return Verdict(is_as_good, f"{answers}: int8 agrees with fp32 on {agreement:.1%} of {shown}; {points}.")


def evenly(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, evenly spread over all."""
    step = max(1, -(-len(examples) // most))
    return list(examples[::step])


def _agreement(request: FitRequest, one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """The share of texts answered alike; of single decisions where labels are independent."""
    same = (one > 0) == (other > 0) if request.multi_label else one.argmax(axis=1) == other.argmax(axis=1)
    return float(same.mean())


def _macro_f1(request: FitRequest, logits: NDArray[np.floating[Any]], examples: Sequence[Example]) -> float:
    return validation_scores(request, logits, examples)["eval_macro_f1"]
