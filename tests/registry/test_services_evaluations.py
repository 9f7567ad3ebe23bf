"""Figures are stored once, the gate's verdicts are kept, and two versions can be set side by side."""

from collections.abc import Callable

import pytest

from kalimtak.core.errors import InvalidInput
from registry.models import Classifier, Evaluation, ModelVersion
from registry.services import version_deploy, version_judge, versions_compare

pytestmark = pytest.mark.django_db
MakeVersion = Callable[..., ModelVersion]


def deployed(version: ModelVersion) -> ModelVersion:
    return version_deploy(version, actor="olga").version


def test_the_first_version_passes_even_without_figures(make_version: MakeVersion) -> None:
    evaluation = version_judge(make_version())
    assert (evaluation.verdict, evaluation.baseline, evaluation.scores) == ("passed", None, {})
    assert version_judge(evaluation.version) == evaluation


def test_a_verdict_goes_onto_the_figures_it_was_drawn_from(make_version: MakeVersion) -> None:
    champion = deployed(make_version(90))
    candidate = make_version(91)
    evaluation = version_judge(candidate)
    assert (evaluation.verdict, evaluation.baseline, evaluation.rows) == ("passed", champion, 100)
    assert candidate.evaluations.count() == 1


def test_a_clear_loss_is_refused_with_figures(make_version: MakeVersion) -> None:
    deployed(make_version(90))
    evaluation = version_judge(make_version(80))
    assert evaluation.verdict == "refused"
    assert "Macro-F1 fell from 90.0 % to 80.0 %" in evaluation.reasons[0]


def test_a_judged_row_stays_and_another_verdict_is_another_row(make_version: MakeVersion) -> None:
    deployed(make_version(80))
    candidate = make_version(85)
    first = version_judge(candidate)
    assert version_judge(candidate) == first
    deployed(make_version(95))
    second = version_judge(candidate)
    assert (second.verdict, second.scores) == ("refused", first.scores)
    first.refresh_from_db()
    assert first.verdict == "passed"
    assert candidate.evaluations.count() == 2


def test_a_changed_policy_is_a_new_verdict(make_version: MakeVersion, emotion: Classifier) -> None:
    deployed(make_version(90))
    candidate = make_version(80)
    assert version_judge(candidate).verdict == "refused"
    emotion.policy["gate"]["max_drop"] = 0.5
    emotion.save()
    candidate.refresh_from_db()
    assert version_judge(candidate).verdict == "passed"


@pytest.mark.parametrize(("figures", "digest"), [(99, "other" * 12), (None, "")])
def test_figures_that_cannot_tell_are_insufficient(make_version: MakeVersion, figures: int | None, digest: str) -> None:
    deployed(make_version(90))
    assert version_judge(make_version(figures, digest=digest)).verdict == "insufficient"


def test_versions_meet_on_the_newest_data_they_share(
    make_version: MakeVersion, score_again: Callable[..., Evaluation]
) -> None:
    champion = deployed(make_version(90, digest="old"))
    candidate = make_version(70, digest="old")
    for version, correct in ((candidate, 95), (champion, 90)):
        score_again(version, correct, digest="new")
    score_again(candidate, 50, digest="only the candidate's")
    evaluation = version_judge(candidate)
    assert (evaluation.verdict, evaluation.data_digest) == ("passed", "new")


def test_two_versions_side_by_side_with_an_interval(make_version: MakeVersion) -> None:
    comparison = versions_compare(make_version(70), make_version(90))
    assert (comparison.a, comparison.b, comparison.rows) == ("emotion/1", "emotion/2", 100)
    assert comparison.metrics["accuracy"] == (0.7, 0.9)
    difference = comparison.differences["accuracy"]
    assert difference.point == pytest.approx(0.2)
    assert 0 < difference.low < 0.2 < difference.high
    assert set(comparison.f1_per_label) == {"joy", "sadness"}


def test_the_interval_of_a_difference_is_newcombes(make_version: MakeVersion) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), method 10: the Wilson intervals combined, here 56/70 and 48/80.

    He gives 0.0524 to 0.3339 for 56/70 - 48/80.
    """
    from registry.metrics import wilson_interval
    from registry.services.comparison import _difference

    old = {"accuracy": 48 / 80, "accuracy_interval": wilson_interval(48, 80)}
    new = {"accuracy": 56 / 70, "accuracy_interval": wilson_interval(56, 70)}
    difference = _difference(old, new, "accuracy")
    assert (round(difference.low, 4), round(difference.high, 4)) == (0.0524, 0.3339)


def test_versions_scored_on_other_texts_have_no_difference(make_version: MakeVersion) -> None:
    comparison = versions_compare(make_version(70, digest="one"), make_version(90, digest="two"))
    assert comparison.metrics["accuracy"] == (0.7, 0.9)
    assert (comparison.differences, comparison.data_digest) == ({}, None)


def test_versions_of_two_classifiers_are_not_compared(make_version: MakeVersion) -> None:
    other = Classifier.objects.create(slug="intent", name="intent", family="classic", input_fields=["text"])
    stranger = ModelVersion.objects.create(classifier=other, number=1, family="classic", artefact_digest="x")
    with pytest.raises(InvalidInput, match="one classifier"):
        versions_compare(make_version(70), stranger)
