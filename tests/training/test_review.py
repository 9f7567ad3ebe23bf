"""What reviewers decide, one by one and in bulk."""

import pytest
from django.contrib.auth.models import User

from kalimtak.core.errors import Conflict, InvalidInput
from kalimtak.core.models import AuditEvent
from training import services
from training.models import TrainingDataItem

pytestmark = pytest.mark.django_db


def status_of(item):
    item.refresh_from_db()
    return item.status


def test_approval_is_recorded_with_its_review_and_audit(add, rami):
    item = services.item_review(add("a"), reviewer=rami, verdict="approve")
    assert (item.status, item.reason) == ("approved", "Approved by rami.")
    assert item.decided_at
    assert item.reviews.get().verdict == "approve"
    assert AuditEvent.objects.filter(actor="rami", action="item.approve").exists()


def test_rejection_takes_an_item_out(add, rami):
    assert services.item_review(add("a", status="approved"), reviewer=rami, verdict="reject").status == "rejected"


def test_a_relabel_makes_a_new_item_and_leaves_the_text_alone(add, rami, ask):
    interaction = ask("a")
    old = add("a", interaction=interaction)
    new = services.item_review(old, reviewer=rami, verdict="relabel", label="sad")
    assert new.pk != old.pk
    assert (new.label, new.status, new.fields, new.origin) == ("sad", "approved", {"text": "a"}, "corrected")
    assert status_of(old) == "rejected"
    interaction.refresh_from_db()
    assert interaction.reviewed_label == "sad"
    assert interaction.reviewed_at


def test_an_approved_correction_replaces_the_old_item(add, rami):
    old, correction = add("a", "glad", "approved"), add("a", "sad", origin="corrected")
    services.item_review(correction, reviewer=rami, verdict="approve")
    old.refresh_from_db()
    assert (old.status, old.reason) == ("rejected", "replaced by a reviewed correction")
    assert status_of(correction) == "approved"


def test_a_correction_of_a_golden_text_inherits_its_place(add, rami):
    golden, correction = add("a", "glad", "approved", split="test"), add("a", "sad")
    assert services.item_review(correction, reviewer=rami, verdict="approve").split == "test"
    assert status_of(golden) == "rejected"


@pytest.mark.parametrize(
    ("verdict", "label"), [("relabel", "weird"), ("relabel", ""), ("relabel", "glad"), ("nod", "")]
)
def test_a_verdict_that_cannot_be_meant_changes_nothing(add, rami, verdict, label):
    item = add("a")
    with pytest.raises(InvalidInput):
        services.item_review(item, reviewer=rami, verdict=verdict, label=label)
    assert status_of(item) == "review"
    assert not item.reviews.exists()


def test_agreement_needs_two_reviewers(add, rami, mood):
    mood.policy = {"review": {"approve": "agree:2"}}
    mood.save()
    item, tala = add("a"), User.objects.create_user("tala")
    services.item_review(item, reviewer=rami, verdict="approve")
    services.item_review(item, reviewer=rami, verdict="approve")
    assert status_of(item) == "review"
    services.item_review(item, reviewer=tala, verdict="reject")
    assert status_of(item) == "review"
    services.item_review(item, reviewer=tala, verdict="approve")
    assert status_of(item) == "approved"


def test_many_are_decided_at_once(add, rami):
    for number in range(130):
        add(f"text {number}")
    add("done", status="approved")
    everything = TrainingDataItem.objects.all()
    assert services.items_review(everything, reviewer=rami, verdict="approve") == 130
    assert not TrainingDataItem.objects.exclude(status="approved").exists()
    assert services.items_review(everything, reviewer=rami, verdict="relabel", label="calm") == 131


def test_what_was_decided_in_bulk_before_an_error_is_in_the_audit_trail(add, rami):
    for number in range(120):
        add(f"text {number}")
    TrainingDataItem.objects.filter(pk=TrainingDataItem.objects.last().pk).update(label="a label of yesterday")
    with pytest.raises(InvalidInput, match="not a label"):
        services.items_review(TrainingDataItem.objects.all(), reviewer=rami, verdict="approve")
    assert TrainingDataItem.objects.filter(status="approved").count() == 100
    assert AuditEvent.objects.get(action="items.approve").target == "100 items"


@pytest.mark.parametrize("verdict", ["relabel", "reject"])
def test_the_golden_set_is_not_changed_in_bulk(add, rami, verdict):
    golden = add("a", status="approved", split="test")
    with pytest.raises(Conflict) as refusal:
        services.items_review(TrainingDataItem.objects.all(), reviewer=rami, verdict=verdict, label="sad")
    assert refusal.value.code == "golden_item"
    assert status_of(golden) == "approved"


def test_an_item_in_quarantine_cannot_be_approved(add, rami):
    with pytest.raises(Conflict):
        services.item_review(add("a", status="quarantined"), reviewer=rami, verdict="approve")


def test_a_rejected_twin_cannot_come_back_beside_the_other(add, rami):
    add("a", status="approved")
    with pytest.raises(Conflict) as refusal:
        services.item_review(add("a", status="rejected"), reviewer=rami, verdict="approve")
    assert refusal.value.code == "duplicate_item"
