"""Feedback becomes items: what is evidence, what is dropped, what waits, and why."""

import io

import pytest
from django.utils import timezone

from kalimtak.core import jobs
from kalimtak.core.auth import Caller
from kalimtak.core.errors import InvalidInput
from training import services
from training.models import TrainingDataItem

pytestmark = pytest.mark.django_db

KEYS = {"extracted", "duplicates", "filtered", "pii_redacted", "over_represented", "loaded"}
KEYS |= {"approved", "for_review", "quarantined"}
CARLA = Caller("key", "key:carla")


def curate(**values):
    return services.examples_curate(**values).to_dict()


def items(**values):
    return TrainingDataItem.objects.filter(**values)


def test_a_good_rating_confirms_and_a_correction_proposes(ask, judge):
    judge(ask("a sunny day"), rating=5)
    judge(ask("a rainy day"), rating=1, correct_label="sad")
    stats = curate()
    assert stats.keys() == KEYS | {"reasons", "notes", "shares"}
    assert (stats["extracted"], stats["loaded"], stats["approved"]) == (2, 2, 2)
    assert items(label="glad", origin="confirmed", status="approved").get().fields == {"text": "a sunny day"}
    corrected = items(label="sad", origin="corrected", status="approved").get()
    assert corrected.reason == "A person corrected the answer."
    assert corrected.interaction is not None


def test_a_low_rating_without_a_correction_makes_nothing(ask, judge):
    judge(ask("a sunny day"), rating=3)
    assert curate()["reasons"] == {"low rating without a correction": 1}
    assert not items().exists()


def test_a_low_rating_with_the_answer_as_its_correction_contradicts_itself(ask, judge):
    judge(ask("a sunny day"), rating=1, correct_label="glad")
    stats = curate()
    assert (stats["loaded"], stats["reasons"]) == (0, {"low rating, yet the answer as its correction": 1})
    assert not items().exists()


def test_who_names_the_answer_again_confirms_it_with_or_without_a_rating(ask, judge):
    judge(ask("a sunny day"), correct_label="glad")
    judge(ask("a fine day"), rating=5, correct_label="glad")
    assert curate()["approved"] == 2
    reasons = {item.fields["text"]: item.reason for item in items(origin="confirmed")}
    assert reasons == {
        "a sunny day": "A person confirmed the answer.",
        "a fine day": "A rating confirmed the answer.",
    }


def test_a_confirmation_that_turns_into_a_contradiction_is_taken_back(ask, judge):
    said = judge(ask("a sunny day"), rating=5, correct_label="glad")
    curate()
    said.rating, said.updated_at = 1, timezone.now()
    said.save(update_fields=["rating", "updated_at"])
    curate()
    assert items().get().status == "rejected"


def test_curating_twice_changes_nothing(ask, judge):
    judge(ask("a sunny day"), rating=5)
    curate()
    before = list(items().values())
    assert curate()["extracted"] == 0
    assert list(items().values()) == before


def test_a_dry_run_writes_nothing(ask, judge):
    for number in range(3):
        judge(ask(f"a sunny day {number}"), rating=5)
    judge(ask("a sunny day 0"), rating=5)
    looked = curate(dry_run=True)
    assert not items().exists()
    assert looked == curate()


def test_the_same_evidence_again_is_a_duplicate(ask, judge):
    judge(ask("a sunny day"), rating=5)
    curate()
    judge(ask("A sunny  day"), rating=4)
    stats = curate()
    assert (stats["duplicates"], stats["loaded"]) == (1, 0)
    assert stats["reasons"] == {"exact duplicate": 1}


def test_a_correction_against_an_approved_item_waits(ask, judge, load_item):
    load_item("a sunny day", "glad")
    judge(ask("a sunny day"), correct_label="sad")
    assert curate()["for_review"] == 1
    assert items(label="sad").get().reason == "The same text is already labelled 'glad'."


@pytest.fixture
def load_item(mood):
    from training.etl.duplicates import content_hash

    def load_item(text, label, **values):
        values = {"status": "approved", **values}
        return TrainingDataItem.objects.create(
            classifier=mood, fields={"text": text}, label=label, content_hash=content_hash([text]), **values
        )

    return load_item


def test_personal_data_is_taken_out_before_it_becomes_an_item(ask, judge):
    judge(ask("mail me at jo@example.org today"), rating=5)
    assert curate()["pii_redacted"] == 1
    assert items().get().fields == {"text": "mail me at <EMAIL> today"}


def test_anonymous_evidence_waits_for_a_reviewer(ask, judge):
    judge(ask("a sunny day"), source="anonymous:ab", trusted=False, rating=5)
    assert curate()["for_review"] == 1
    assert items().get().reason == "Anonymous evidence waits for a reviewer."


@pytest.mark.parametrize("approve", ["manual", "agree:2"])
def test_the_policy_may_ask_for_a_reviewer(ask, judge, mood, approve):
    mood.policy = {"review": {"approve": approve}}
    mood.save()
    judge(ask("a sunny day"), rating=5)
    assert curate()["for_review"] == 1


def test_a_flood_from_one_source_waits_beyond_its_first_few(ask, judge):
    for number in range(20):
        judge(ask(f"a lovely day number {number}"), correct_label="sad")
    judge(ask("quite another matter"), source="subject:x", correct_label="sad")
    stats = curate()
    assert (stats["approved"], stats["for_review"], stats["over_represented"]) == (6, 15, 15)
    assert "Its source gave 5 approved items already" in items(status="review").first().reason


def test_praise_of_a_blocked_word_is_filtered_and_shown_with_its_reason(ask, judge):
    judge(ask("what a shit day"), rating=5)
    stats = curate()
    assert (stats["filtered"], stats["loaded"]) == (1, 0)
    assert items(status="rejected").get().reason == "It holds the blocked word 'shit'."


def test_a_changed_mind_replaces_what_it_said_before(ask, judge):
    feedback = judge(ask("a sunny day"), rating=5)
    curate()
    feedback.refresh_from_db()
    feedback.correct_label, feedback.updated_at = "sad", timezone.now()
    feedback.save()
    assert curate()["approved"] == 1
    assert items(label="glad").get().status == "rejected"
    assert items(label="glad").get().reason == "The same person said something else later."
    assert items(label="sad").get().status == "approved"


def test_a_label_that_is_gone_is_not_learnt(ask, judge):
    judge(ask("a sunny day", label="bygone"), rating=5)
    assert curate()["filtered"] == 1


def test_an_example_is_a_candidate_until_it_is_curated(mood):
    item = services.example_add(mood, fields={"text": "x at jo@example.org"}, label="sad", caller=CARLA, source="key:c")
    assert (item.status, item.origin, item.fields) == ("candidate", "example", {"text": "x at <EMAIL>"})
    again = services.example_add(mood, fields={"text": "X at jo@example.org"}, label="sad", caller=CARLA, source="k")
    assert again == item
    assert curate()["approved"] == 1
    item.refresh_from_db()
    assert (item.status, item.reason) == ("approved", "A client gave it as an example.")


def test_an_example_with_a_label_outside_the_set_is_refused(mood):
    with pytest.raises(InvalidInput, match="is not a label of mood"):
        services.example_add(mood, fields={"text": "x"}, label="weird", caller=CARLA, source="key:c")


def test_many_batches_are_taken_in(ask, judge):
    for number in range(1_001):
        judge(ask(f"day number {number} was fine"), source=f"subject:{number}", rating=5)
    assert curate()["loaded"] >= 200  # beyond that the label is over-represented
    assert curate()["extracted"] == 0


def test_source_shares_are_of_the_whole_set_as_the_cap_is(mood, ask, judge):
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=mood, fields={"text": f"{number}"}, label="sad", status="approved", content_hash=f"{number}"
        )
        for number in range(96)
    )
    for text in ("a fine day outside", "the kettle sings at noon", "letters from an old friend", "rain on a tin roof"):
        judge(ask(text), rating=5)
    stats = curate(classifier=mood)
    assert stats["approved"] == 4
    told = stats["shares"]["mood"]["source"]
    assert told.pop("imports") == [1.0, 0.96]
    assert list(told.values()) == [[0.0, 0.04]]


def test_progress_goes_on_where_an_earlier_attempt_stopped(mood, ask, judge, monkeypatch):
    for module in ("training.etl.extract", "training.services.curation", "training.services.neighbours"):
        monkeypatch.setattr(f"{module}.BATCH", 5)
    rows = "".join(f"imported text number {number} of many,glad\n" for number in range(12))
    services.dataset_load(
        services.dataset_add(mood, source=io.BytesIO(b"text,label\n" + rows.encode()), name="r.csv", actor="tala")
    )
    for number in range(12):
        judge(ask(f"day number {number} was fine"), source=f"subject:{number}", rating=5)
    told = []

    def progress(context, fraction, note=""):
        told.append((fraction, note))
        if len(told) in (2, 4):
            raise jobs.JobInterrupted

    monkeypatch.setattr(jobs.JobContext, "progress_or_stop", progress)
    job = jobs.enqueue("curate", {"classifier": "mood"})
    assert [jobs.run(job.pk) for _ in range(3)] == ["queued", "queued", "succeeded"]
    assert told == sorted(told)
    assert [note for _, note in told[:3]] == ["mood: 5 of 24", "mood: 10 of 24", "mood: 17 of 24"]
    assert told[-1][0] < 1
