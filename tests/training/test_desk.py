"""Who gets which item next, what is taken back, and what two reviewers make of one text."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from kalimtak.core.errors import Conflict
from kalimtak.core.models import AuditEvent
from training import services
from training.models import Review, ReviewLease, ReviewSkip, TrainingDataItem
from training.services import desk

pytestmark = pytest.mark.django_db


@pytest.fixture
def tala(db):
    return User.objects.create_user("tala", is_staff=True)


@pytest.fixture
def dina(db):
    return User.objects.create_user("dina", is_staff=True)


def everything():
    """Every row that a verdict may touch."""
    from interactions.models import UserInteraction

    columns = ("pk", "label", "status", "reason", "split", "priority", "why", "decided_at")
    notes = UserInteraction.objects.order_by("pk").values_list("pk", "reviewed_label", "reviewed_at")
    return (
        list(TrainingDataItem.objects.order_by("pk").values_list(*columns)),
        list(Review.objects.order_by("pk").values_list()),
        list(notes),
    )


# The queue ---------------------------------------------------------------------------------------------------------


def test_the_highest_priority_comes_first_and_then_the_oldest(add, rami):
    second, third = add("b", priority=0.5), add("c")
    first = add("a", priority=0.9)
    assert list(services.waiting_for(rami)) == [first, second, third]


def test_two_reviewers_get_different_items_until_the_lease_is_over(add, rami, tala):
    first, second = add("a", priority=0.9), add("b")
    assert services.desk_next(rami) == first
    assert services.desk_next(rami) == first
    assert services.desk_next(tala) == second
    assert services.lease_holder(first) == "rami"
    assert not services.desk_lease(first, tala)
    ReviewLease.objects.filter(item=first).update(until=timezone.now() - timedelta(seconds=1))
    assert services.desk_next(tala) == first
    assert ReviewLease.objects.count() == 2


def test_a_verdict_frees_the_item_and_the_next_one_is_besides_the_one_ahead(add, rami):
    first, second, third = add("a"), add("b"), add("c")
    assert services.desk_next(rami, besides=(first.pk,)) == second
    services.item_review(second, reviewer=rami, verdict="reject")
    assert not ReviewLease.objects.filter(item=second).exists()
    assert services.desk_next(rami, besides=(first.pk,)) == third


def test_skipping_leaves_the_item_as_it_is_and_to_others(add, rami, tala):
    first, second = add("a", priority=0.9), add("b")
    before = everything()
    services.desk_skip(first, rami)
    services.desk_skip(first, rami)
    assert everything() == before
    assert services.desk_next(rami) == second
    assert services.desk_next(tala) == first
    assert services.desk_progress(rami).skipped == 1
    assert services.skips_forget(rami) == 1
    ReviewLease.objects.all().delete()
    assert services.desk_next(rami) == first
    assert not ReviewSkip.objects.exists()


def test_progress_counts_what_waits_and_the_own_pace(add, rami, tala, mood):
    items = [add(str(number)) for number in range(30)]
    for item in items[:10]:
        services.item_review(item, reviewer=rami, verdict="approve")
    services.item_review(items[10], reviewer=tala, verdict="approve")
    now = timezone.now()
    for number, review in enumerate(Review.objects.filter(reviewer=rami).order_by("-pk")):
        Review.objects.filter(pk=review.pk).update(created_at=now - timedelta(seconds=6 * number))
    progress = services.desk_progress(rami, mood)
    assert (progress.left, progress.more) == (19, False)
    assert progress.per_minute == pytest.approx(10, rel=0.01)
    Review.objects.filter(reviewer=rami).update(created_at=now - timedelta(days=2))
    progress = services.desk_progress(rami, mood)
    assert (progress.today, progress.per_minute) == (0, None)


def test_who_asked_at_the_same_moment_goes_on_to_the_next(add, rami, tala, monkeypatch):
    """Both looked at the queue before either had taken anything from it."""
    first, second = add("a", priority=0.9), add("b")
    as_both_saw_it = services.waiting_for(tala)
    monkeypatch.setattr(desk, "waiting_for", lambda *_: TrainingDataItem.objects.order_by("-priority"))
    assert list(as_both_saw_it) == [first, second]
    assert services.desk_next(rami) == first
    assert services.desk_next(tala) == second
    assert services.desk_next(User.objects.create_user("dina")) is None


# Conflicts and undo ------------------------------------------------------------------------------------------------


def test_a_verdict_on_what_somebody_decided_meanwhile_is_a_conflict(add, rami, tala):
    item = add("a")
    seen = services.item_state(item)
    services.item_review(item, reviewer=tala, verdict="reject", seen=seen)
    before = everything()
    with pytest.raises(Conflict, match=r"Somebody decided item \d+ meanwhile. Rejected by tala.") as refusal:
        services.item_review(item, reviewer=rami, verdict="approve", seen=seen)
    assert refusal.value.code == "decided_meanwhile"
    assert everything() == before


@pytest.mark.parametrize("verdict", ["approve", "reject", "relabel"])
def test_undo_restores_everything_a_verdict_changed(add, ask, rami, verdict):
    interaction = ask("a", reviewed_label="calm", reviewed_at=timezone.now())
    add("a", "calm", "approved", split="test")
    item = add("a", "glad", interaction=interaction, priority=0.7, why="unsure", reason="two sources disagree")
    before = everything()
    services.item_review(item, reviewer=rami, verdict=verdict, label="sad" if verdict == "relabel" else "")
    assert everything() != before
    restored = services.review_undo(rami)
    assert restored == item
    assert everything() == before
    assert AuditEvent.objects.filter(action="item.undo", target=f"item {item.pk}", actor="rami").count() == 1


def test_undo_of_a_relabel_to_an_item_that_was_there_puts_that_one_back(add, rami):
    add("a", "sad", "review", reason="waited itself")
    item = add("a", "glad")
    before = everything()
    services.item_review(item, reviewer=rami, verdict="relabel", label="sad")
    services.review_undo(rami)
    assert everything() == before


def test_undo_goes_back_step_by_step_through_the_own_verdicts_only(add, rami, tala):
    first, second, third = add("a"), add("b"), add("c")
    before = everything()
    services.item_review(first, reviewer=rami, verdict="approve")
    services.item_review(second, reviewer=rami, verdict="reject")
    services.item_review(third, reviewer=tala, verdict="reject")
    assert services.review_undo(rami) == second
    assert services.review_undo(rami) == first
    services.review_undo(tala)
    assert everything() == before
    with pytest.raises(Conflict, match="no verdict") as refusal:
        services.review_undo(rami)
    assert refusal.value.code == "nothing_to_undo"


def test_undo_is_refused_once_somebody_decided_anew(add, rami, tala):
    item = add("a")
    services.item_review(item, reviewer=rami, verdict="approve")
    services.item_review(item, reviewer=tala, verdict="reject")
    before = everything()
    with pytest.raises(Conflict) as refusal:
        services.review_undo(rami)
    assert refusal.value.code == "changed_since"
    assert everything() == before


def test_undo_is_refused_once_a_training_has_used_what_the_verdict_made(taught_mood, add, rami):
    item = add("a")
    services.item_review(item, reviewer=rami, verdict="relabel", label="sad")
    services.snapshot_freeze(taught_mood, seed=1)
    before = everything()
    with pytest.raises(Conflict, match="is in use since then"):
        services.review_undo(rami)
    assert everything() == before


def test_undo_of_a_bulk_verdict_is_refused(add, rami):
    add("a")
    services.items_review(TrainingDataItem.objects.all(), reviewer=rami, verdict="approve")
    with pytest.raises(Conflict) as refusal:
        services.review_undo(rami)
    assert refusal.value.code == "bulk_verdict"


# Second opinions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(mood):
    mood.policy = {"review": {"second_share": 1.0}}
    mood.save()


def test_two_who_agree_decide(pairs, add, rami, tala):
    item, other = add("a"), add("b", priority=1.0)
    waiting = services.item_review(item, reviewer=rami, verdict="approve")
    assert (waiting.status, waiting.why) == ("review", "second")
    assert "approve" not in waiting.reason
    assert "glad" not in waiting.reason
    assert list(services.waiting_for(tala)) == [item, other]
    assert list(services.waiting_for(rami)) == [other]
    assert services.item_review(item, reviewer=tala, verdict="approve").status == "approved"


@pytest.mark.parametrize("third", [("approve", ""), ("relabel", "calm"), ("reject", "")])
def test_a_third_decides_where_two_disagree(pairs, add, rami, tala, dina, third):
    item = add("a")
    services.item_review(item, reviewer=rami, verdict="approve")
    dispute = services.item_review(item, reviewer=tala, verdict="relabel", label="sad")
    assert (dispute.pk, dispute.status, dispute.why) == (item.pk, "review", "dispute")
    for one in (rami, tala):
        assert item not in services.waiting_for(one)
        with pytest.raises(Conflict) as refusal:
            services.item_review(item, reviewer=one, verdict="reject")
        assert refusal.value.code == "own_dispute"
    assert services.waiting_for(dina).first() == item
    decided = services.item_review(item, reviewer=dina, verdict=third[0], label=third[1])
    assert decided.status == ("rejected" if third[0] == "reject" else "approved")
    assert decided.label == (third[1] or "glad")


def test_undo_of_one_opinion_of_two(pairs, add, rami, tala):
    item = add("a", priority=0.3, why="rare")
    before = everything()
    services.item_review(item, reviewer=rami, verdict="approve")
    between = everything()
    services.item_review(item, reviewer=tala, verdict="reject")
    with pytest.raises(Conflict):
        services.review_undo(rami)
    services.review_undo(tala)
    assert everything() == between
    services.review_undo(rami)
    assert everything() == before


def test_about_the_share_that_the_policy_names_gets_a_second_reviewer(mood, add):
    from training.services.opinions import wants_second

    items = [TrainingDataItem(pk=number) for number in range(5000)]
    assert sum(wants_second(item, 0.2) for item in items) == pytest.approx(1000, rel=0.1)
    assert not any(wants_second(item, 0.0) for item in items)
    assert all(wants_second(item, 1.0) for item in items)


# The random sample -------------------------------------------------------------------------------------------------


def test_a_drawn_text_can_be_labelled_or_rejected_but_not_approved(mood, ask, rami):
    from kalimtak.core.errors import InvalidInput

    interaction = ask("a", label="sad")
    services.audit_draw(mood)
    item = TrainingDataItem.objects.get(why="audit")
    with pytest.raises(InvalidInput, match="what this text is"):
        services.item_review(item, reviewer=rami, verdict="approve")
    assert services.items_review(TrainingDataItem.objects.all(), reviewer=rami, verdict="approve") == 0
    before = everything()
    decided = services.item_review(item, reviewer=rami, verdict="relabel", label="glad")
    assert (decided.label, decided.reason) == ("glad", "Labelled by rami.")
    interaction.refresh_from_db()
    assert (interaction.reviewed_label, interaction.audit_slice) == ("glad", True)
    services.review_undo(rami)
    assert everything() == before
