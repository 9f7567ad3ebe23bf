"""The table of near-duplicate bands: what a curation finds in it, what it puts there, and what it takes away."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from training import services
from training.etl.duplicates import content_hash
from training.etl.sketches import BANDS
from training.models import DuplicateBand, TrainingDataItem

pytestmark = pytest.mark.django_db

LONG = "the parcel that was promised for last friday has still not arrived at our door"
TOPICS = ["parcel", "garden", "train", "music", "winter", "river", "coffee", "letter", "stone", "window"]


def curate(**values):
    return services.examples_curate(**values).to_dict()


def items(**values):
    return TrainingDataItem.objects.filter(**values)


def text_of(number: int) -> str:
    """Sentences that do not resemble each other."""
    words = [TOPICS[(number * step + number // 7) % 10] + "abcdefghij"[(number // step) % 10] for step in range(1, 10)]
    return " ".join(words)


@pytest.fixture
def small_batches(monkeypatch):
    for module in ("training.etl.extract", "training.services.neighbours", "training.services.curation"):
        monkeypatch.setattr(f"{module}.BATCH", 7)


@pytest.fixture
def imported(mood):
    def imported(text, label="glad", **values):
        return TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": text},
            label=label,
            content_hash=content_hash([text]),
            **{"status": "approved", **values},
        )

    return imported


def test_a_near_duplicate_of_yesterday_is_dropped_and_shown(ask, judge):
    judge(ask(LONG), rating=5)
    curate()
    first = items().get()
    assert (first.compared, first.bands.count()) == (True, BANDS)
    judge(ask(f"{LONG}, today"), rating=5)
    stats = curate()
    assert (stats["duplicates"], stats["loaded"], stats["reasons"]) == (1, 0, {"near-duplicate": 1})
    dropped = items(status="rejected").get()
    assert dropped.reason == f"Nearly the same text as item {first.pk}, with the same label."
    assert (dropped.cluster, dropped.compared, dropped.bands.count()) == (first.cluster, False, 0)


def test_the_same_near_duplicate_again_is_shown_once(ask, judge):
    for number in range(3):
        judge(ask(LONG if number == 0 else f"{LONG}, today"), rating=5)
        curate()
    assert items(status="rejected").count() == 1


def test_within_a_day_the_reason_names_the_item_that_was_made(ask, judge):
    judge(ask(LONG), rating=5)
    judge(ask(f"{LONG}, today"), rating=5)
    curate()
    kept, dropped = items(status="approved").get(), items(status="rejected").get()
    assert dropped.reason == f"Nearly the same text as item {kept.pk}, with the same label."


def test_with_another_label_it_waits_and_names_the_item(ask, judge, imported):
    first = imported(LONG, "sad")
    judge(ask(f"{LONG}, today"), rating=5)
    stats = curate()
    assert (stats["for_review"], stats["reasons"]) == (1, {"another label for the same text": 1})
    waiting = items(status="review").get()
    assert waiting.reason == f"Nearly the same text is already labelled 'sad' (item {first.pk})."
    first.refresh_from_db()
    assert waiting.cluster == first.cluster is not None


def test_imported_items_are_compared_by_the_next_curation_and_none_is_dropped(imported):
    for text in (LONG, f"{LONG}, today", "short"):
        imported(text)
    curate()
    assert items(compared=True, status="approved").count() == 3
    assert len(set(items().values_list("cluster", flat=True))) == 2
    assert DuplicateBand.objects.count() == 2 * BANDS + 1
    before = list(DuplicateBand.objects.values_list("pk", flat=True))
    curate()
    assert list(DuplicateBand.objects.values_list("pk", flat=True)) == before


def test_what_was_rejected_is_forgotten_and_compared_anew_when_it_comes_back(ask, judge, imported, rami):
    first = imported(LONG)
    curate()
    services.item_review(first, reviewer=rami, verdict="reject")
    judge(ask(f"{LONG}, today"), rating=5)
    assert curate()["approved"] == 1
    assert not first.bands.exists()
    first.refresh_from_db()
    services.item_review(first, reviewer=rami, verdict="approve")
    curate()
    assert first.bands.count() == BANDS
    first.refresh_from_db()
    assert first.cluster == items(interaction__isnull=False).get().cluster


def test_an_approved_near_duplicate_is_kept_from_then_on(ask, judge, rami):
    judge(ask(LONG), rating=5)
    judge(ask(f"{LONG}, today"), rating=5)
    curate()
    services.item_review(items(status="rejected").get(), reviewer=rami, verdict="approve")
    assert curate()["duplicates"] == 0
    assert items(status="approved", compared=True).count() == 2


def test_the_bands_of_an_erased_item_go_with_it(imported):
    item = imported(LONG)
    curate()
    item.delete()
    assert not DuplicateBand.objects.exists()


def test_the_oldest_that_was_reviewed_survives(ask, judge, imported, rami):
    imported(LONG)
    second = imported(f"{LONG}, today")
    services.item_review(second, reviewer=rami, verdict="approve")
    judge(ask(f"{LONG} now"), rating=5)
    curate()
    assert f"item {second.pk}," in items(status="rejected").get().reason


def speak(ask, judge, count):
    """Exact and near-duplicates, conflicts, low ratings, within a batch and across batches."""
    for number in range(count):
        text = text_of(number % (count * 2 // 3))
        text = f"{text} indeed" if number % 4 == 1 else text
        label = ("glad", "sad", "calm")[number % 3 if number % 11 else 0]
        judge(ask(text, label=label), source=f"subject:{number % 9}", rating=5 - number % 5 // 3)


@pytest.mark.usefixtures("small_batches")
def test_a_dry_run_says_what_the_curation_then_does(ask, judge, imported):
    for number in range(20):
        imported(text_of(number), ("glad", "sad")[number % 2])
    speak(ask, judge, 60)
    before = list(items().values())
    looked = curate(dry_run=True)
    assert list(items().values()) == before
    assert not DuplicateBand.objects.exists()
    assert looked == curate()
    assert {"exact duplicate", "near-duplicate", "another label for the same text"} <= looked["reasons"].keys()


@pytest.mark.usefixtures("small_batches")
def test_running_it_again_changes_nothing(ask, judge):
    speak(ask, judge, 60)
    curate()
    before = list(items().values()), list(DuplicateBand.objects.values())
    assert curate()["extracted"] == 0
    assert (list(items().values()), list(DuplicateBand.objects.values())) == before


def test_a_day_costs_as_many_queries_whatever_came_before(ask, judge, imported):
    def queries() -> int:
        speak(ask, judge, 9)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            curate()
        return len(captured)

    queries()
    first = queries()
    for number in range(100, 400):
        imported(text_of(number), ("glad", "sad", "calm")[number % 3])
    curate()
    assert queries() <= first


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="asks SQLite how it would look")
def test_what_is_waiting_is_looked_up_by_an_index_that_holds_nothing_else(mood):
    from training.etl.extract import waiting_candidates, waiting_feedback

    of_mood = items(classifier=mood)
    plans = {
        "feedback_uncurated": waiting_feedback(mood).filter(pk__gt=0).order_by("pk"),
        "item_candidate": waiting_candidates(mood).filter(pk__gt=0).order_by("pk"),
        "item_to_compare": of_mood.filter(pk__gt=0).to_compare().order_by("pk"),
        "item_to_forget": of_mood.to_forget().order_by("pk"),
    }
    for index, queryset in plans.items():
        assert f"INDEX {index}" in queryset[:10].explain(), queryset[:10].explain()
