"""What counts as an independent opinion, and the accuracy that the random sample tells."""

import pytest
from django.contrib.auth.models import User

from training import services
from training.estimates import weighted_share
from training.etl.duplicates import content_hash
from training.models import AuditDraw, Review, TrainingDataItem

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast(mood):
    mood.policy = {"review": {"second_share": 1.0}}
    mood.save()
    return [User.objects.create_user(name) for name in ("rami", "tala", "dina")]


@pytest.fixture
def add(mood):
    def add(text, label="glad", **values):
        return TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": text},
            label=label,
            status="review",
            content_hash=content_hash([text]),
            **values,
        )

    return add


def test_opinions_that_knew_each_other_do_not_count(mood, cast, add):
    rami, tala, dina = cast
    agreed, disputed = add("a"), add("b")
    for item, other in ((agreed, ("approve", "")), (disputed, ("relabel", "sad"))):
        services.item_review(item, reviewer=rami, verdict="approve")
        services.item_review(item, reviewer=tala, verdict=other[0], label=other[1])
    services.item_review(disputed, reviewer=dina, verdict="reject")  # saw both
    services.item_review(agreed, reviewer=dina, verdict="reject")  # it was decided
    assert list(Review.objects.order_by("pk").values_list("opinion", flat=True)) == [1, 2, 1, 2, 0, 0]
    report = services.agreement_report(mood)
    assert (report.figures.texts, report.figures.is_small) == (2, True)
    (pair,) = report.figures.pairs
    assert {report.names[pair.first], report.names[pair.second]} == {"rami", "tala"}
    assert pair.same == 0.5
    assert {label.label for label in report.figures.labels} == {"glad", "sad"}


def test_a_rejection_is_an_answer_of_its_own_and_single_opinions_say_nothing(mood, cast, add):
    rami, tala, _ = cast
    item = add("a")
    services.item_review(item, reviewer=rami, verdict="reject")
    assert services.agreement_report(mood).figures.texts == 0
    services.items_review(TrainingDataItem.objects.all(), reviewer=tala, verdict="reject")  # in bulk
    report = services.agreement_report(mood)
    assert [(label.label, label.texts) for label in report.figures.labels] == [("–", 1)]
    assert TrainingDataItem.objects.get(pk=item.pk).status == "rejected"


def test_an_opinion_that_was_taken_back_is_none(mood, cast, add):
    rami, tala, _ = cast
    item = add("a")
    services.item_review(item, reviewer=rami, verdict="approve")
    services.item_review(item, reviewer=tala, verdict="approve")
    services.review_undo(tala)
    assert services.agreement_report(mood).figures.texts == 0
    services.item_review(item, reviewer=tala, verdict="reject")
    assert services.agreement_report(mood).figures.texts == 1


def test_accuracy_by_the_random_sample_counts_each_window_with_what_it_stood_for(mood, ask, rami):
    assert services.audit_accuracy(mood) is None
    mood.policy = {"review": {"audit": 2}}
    mood.save()
    for number in range(2):
        ask(f"few {number}", label="glad")
    services.audit_draw(mood)
    for number in range(18):
        ask(f"many {number}", label="glad")
    services.audit_draw(mood)
    for draw in AuditDraw.objects.select_related("item"):
        right = "glad" if draw.seen == 2 else "sad"  # right in the small window, wrong in the large one
        services.item_review(draw.item, reviewer=rami, verdict="relabel", label=right)
    found = services.audit_accuracy(mood)
    assert found.texts == 4
    assert found.share == pytest.approx(2 / 20)
    assert found.low < 0.1 < found.high


def test_a_weighted_share_with_equal_weights_has_wilson_s_interval():
    from registry.metrics import wilson_interval

    found = weighted_share([(True, 3.0)] * 8 + [(False, 3.0)] * 2)
    assert (found.low, found.high) == pytest.approx(wilson_interval(8, 10))
    assert weighted_share([]) is None
