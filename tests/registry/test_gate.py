"""`registry.gate.judge`: whether a version may replace the live one, and what the admin reads about it."""

import numpy as np
import pytest

from registry.gate import judge
from registry.metrics import Scores, score
from registry.recipe import GatePolicy

POLICY = GatePolicy()
LABELS = ("joy", "fear")


def figures(macro_f1: float, *, n: int = 200, **recalls: float) -> dict:
    per_label = {label: {"recall": recall, "support": n // 2} for label, recall in recalls.items()}
    return {"n": n, "macro_f1": macro_f1, "per_label": per_label}


def test_the_first_version_passes() -> None:
    verdict = judge(figures(0.2, n=3), None, POLICY, same_digest=False)
    assert verdict.verdict == "passed"
    assert "first version" in verdict.reasons[0]


def test_figures_of_another_golden_set_decide_nothing() -> None:
    verdict = judge(figures(0.9), figures(0.5), POLICY, same_digest=False)
    assert verdict.verdict == "insufficient"
    assert "another golden set" in verdict.reasons[0]


def test_too_few_golden_texts_decide_nothing() -> None:
    verdict = judge(figures(0.9, n=49), figures(0.5, n=49), POLICY, same_digest=True)
    assert verdict.verdict == "insufficient"
    assert verdict.reasons == ("The golden set holds 49 texts; the policy asks for at least 50.",)


@pytest.mark.parametrize("macro_f1", [0.95, 0.91, 0.905, 0.90])
def test_a_drop_within_the_limit_passes_with_both_figures(macro_f1: float) -> None:
    verdict = judge(figures(macro_f1), figures(0.91), POLICY, same_digest=True)
    assert verdict.verdict == "passed"
    assert f"{macro_f1:.1%}".replace("%", " %") in verdict.reasons[0]
    assert "91.0 % of the live version" in verdict.reasons[0]


@pytest.mark.parametrize("macro_f1", [0.899, 0.5, 0.0, float("nan")])
def test_a_larger_drop_is_refused_with_both_figures(macro_f1: float) -> None:
    verdict = judge(figures(macro_f1), figures(0.91), POLICY, same_digest=True)
    assert verdict.verdict == "refused"
    assert "Macro-F1 fell from 91.0 % to" in verdict.reasons[0]
    assert "a drop of 1 point." in verdict.reasons[0]


def test_a_label_that_suffers_is_named_even_if_the_average_improves() -> None:
    policy = GatePolicy(per_class_drop=0.05)
    verdict = judge(figures(0.95, joy=0.99, fear=0.8), figures(0.9, joy=0.9, fear=0.9), policy, same_digest=True)
    assert verdict.verdict == "refused"
    assert verdict.reasons == (
        "Recall of “fear” fell from 90.0 % to 80.0 %; the policy allows a drop of 5 points for any label.",
    )


def test_a_label_the_candidate_no_longer_knows_has_lost_all_its_recall() -> None:
    policy = GatePolicy(per_class_drop=0.05)
    verdict = judge(figures(0.95, joy=0.99), figures(0.9, joy=0.9, fear=0.9), policy, same_digest=True)
    assert verdict.verdict == "refused"
    assert "“fear” fell from 90.0 % to 0.0 %" in verdict.reasons[0]


def test_a_label_without_texts_cannot_suffer() -> None:
    champion = figures(0.9, joy=0.9) | {"per_label": {"fear": {"recall": 0.0, "support": 0}}}
    verdict = judge(figures(0.9, fear=0.0), champion, GatePolicy(per_class_drop=0.0), same_digest=True)
    assert verdict.verdict == "passed"


def test_labels_are_not_looked_at_one_by_one_unless_the_policy_says_so() -> None:
    verdict = judge(figures(0.9, fear=0.0), figures(0.9, fear=1.0), POLICY, same_digest=True)
    assert verdict.verdict == "passed"


def test_all_objections_are_listed() -> None:
    policy = GatePolicy(per_class_drop=0.0)
    verdict = judge(figures(0.5, joy=0.5, fear=0.5), figures(0.9, joy=0.9, fear=0.9), policy, same_digest=True)
    assert len(verdict.reasons) == 3


def test_real_scores_and_stored_ones_are_judged_alike() -> None:
    truth = ["joy", "fear"] * 50
    right = np.eye(2)[[LABELS.index(label) for label in truth]]
    good, bad = score(LABELS, truth, right), score(LABELS, truth, right[::-1])
    assert isinstance(good, Scores)
    assert judge(bad, good, POLICY, same_digest=True) == judge(bad.to_dict(), good.to_dict(), POLICY, same_digest=True)
    assert judge(bad, good, POLICY, same_digest=True).verdict == "refused"
