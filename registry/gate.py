"""The gate: stored figures in, verdict with reasons out. It decides whether a version may replace the live one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from registry.metrics import Scores
from registry.recipe import GatePolicy

Figures = Scores | Mapping[str, Any]

_ROUNDING = 1e-9  # 0.91 - 0.90 is a little over 0.01 in binary


@dataclass(frozen=True)
class Verdict:
    """`insufficient`: the figures cannot tell. `reasons` are sentences for the person who decides."""

    verdict: Literal["passed", "refused", "insufficient"]
    reasons: tuple[str, ...]


def judge(candidate: Figures, champion: Figures | None, policy: GatePolicy, *, same_digest: bool) -> Verdict:
    """Compare a candidate's figures with the live version's (None: there is none).

    Figures are `Scores` or what `Scores.to_dict` made of them. `same_digest`: both were scored on the same golden set.
    """
    if champion is None:
        return Verdict("passed", ("This is the first version; there is none to compare it with.",))
    if not same_digest:
        reason = "The live version was scored on another golden set. Score it on this one, then compare."
        return Verdict("insufficient", (reason,))
    new, old = _mapping(candidate), _mapping(champion)
    if new["n"] < policy.min_samples:
        reason = f"The golden set holds {new['n']} texts; the policy asks for at least {policy.min_samples}."
        return Verdict("insufficient", (reason,))
    if objections := tuple(_objections(new, old, policy)):
        return Verdict("refused", objections)
    reason = (
        f"Macro-F1 is {_percent(new['macro_f1'])} against {_percent(old['macro_f1'])} of the live version on the same "
        f"{new['n']} texts; the policy allows a drop of {_points(policy.max_drop)}."
    )
    return Verdict("passed", (reason,))


def _objections(new: Mapping[str, Any], old: Mapping[str, Any], policy: GatePolicy) -> Iterator[str]:
    """A sentence per limit that is not kept; a figure that is not a number keeps none."""
    if not old["macro_f1"] - new["macro_f1"] <= policy.max_drop + _ROUNDING:
        yield (
            f"Macro-F1 fell from {_percent(old['macro_f1'])} to {_percent(new['macro_f1'])}; "
            f"the policy allows a drop of {_points(policy.max_drop)}."
        )
    if policy.per_class_drop is None:
        return
    for label, before in old["per_label"].items():
        if not before["support"]:
            continue
        recall = new["per_label"].get(label, {"recall": 0.0})["recall"]
        if not before["recall"] - recall <= policy.per_class_drop + _ROUNDING:
            yield (
                f"Recall of “{label}” fell from {_percent(before['recall'])} to {_percent(recall)}; "
                f"the policy allows a drop of {_points(policy.per_class_drop)} for any label."
            )


def _mapping(figures: Figures) -> Mapping[str, Any]:
    return figures.to_dict() if isinstance(figures, Scores) else figures


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _points(share: float) -> str:
    """0.01 → `1 point`, of a hundred."""
    points = f"{share * 100:.4g}"
    return f"{points} point" if points == "1" else f"{points} points"
