"""The stored order of what waits, and the random sample drawn beside it."""

import pytest

from interactions.models import UserInteraction
from kalimtak.core import jobs
from kalimtak.core.models import AuditEvent, Job
from registry.families.base import FamilyError
from tests.training.conftest import sentence
from training import services
from training.estimates import word_vectors
from training.etl.duplicates import content_hash
from training.models import AuditDraw, TrainingDataItem
from training.services import opinions, queue

pytestmark = pytest.mark.django_db
Why = TrainingDataItem.Why
LABELS = ("glad", "sad", "calm")


@pytest.fixture
def wait(mood):
    """An item that waits for review."""

    def wait(text, label="glad", **values):
        return TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": text},
            label=label,
            status="review",
            content_hash=content_hash([text]),
            **values,
        )

    return wait


def rank(classifier, **how):
    return services.queue_rank(classifier, with_encoder=False, **how)


def desk_order(classifier):
    waiting = TrainingDataItem.objects.filter(classifier=classifier, status="review")
    return list(waiting.order_by("-priority", "id"))


def scores(glad, sad):
    return {"glad": glad, "sad": sad, "calm": round(1 - glad - sad, 3)}


def test_an_answer_the_model_was_torn_over_comes_before_one_it_was_sure_of(taught_mood, wait, ask):
    sure = wait("a sure thing entirely", interaction=ask("a", scores=scores(0.98, 0.01)))
    torn = wait("neither here nor there", interaction=ask("b", scores=scores(0.45, 0.44)))
    ranking = rank(taught_mood)
    assert [item for item in desk_order(taught_mood) if item.label] == [torn, sure]
    assert (ranking.waited, ranking.ranked, ranking.vectors) == (2, 2, "words")
    torn.refresh_from_db()
    assert (torn.why, torn.script, torn.priority) == (Why.UNSURE, "Latin", 1.0)
    assert len(torn.queue_facts["near"]) == 3
    assert AuditEvent.objects.filter(action="queue.rank").count() == 1


def test_a_label_that_the_words_speak_against_is_doubtful_and_the_likely_one_is_named(taught_mood, wait):
    for number in range(60, 66):
        wait(sentence("calm", number), "calm")
    wrong = wait(sentence("sad", 70), "glad")
    rank(taught_mood)
    wrong.refresh_from_db()
    assert (wrong.why, wrong.queue_facts["likely"]) in [(Why.DOUBTFUL, "sad"), (Why.UNSURE, "sad")]
    assert not TrainingDataItem.objects.filter(why=Why.DOUBTFUL).exclude(pk=wrong.pk).exists()


def test_of_near_copies_one_is_in_the_batch_and_the_others_come_behind_everything_else(mood, wait, monkeypatch):
    monkeypatch.setattr(queue, "BATCH", 30)
    copies = [wait(f"the very same long complaint about a parcel that was late, number {n}") for n in range(60)]
    others = [wait(sentence(LABELS[n % 3], n), LABELS[n % 3]) for n in range(12)]
    rank(mood)
    first = desk_order(mood)[:13]
    assert sum(item in copies for item in first) == 1
    assert set(others) < set(first)


def test_texts_of_a_rare_label_are_among_the_first(taught_mood, wait, ask):
    TrainingDataItem.objects.filter(label="calm").delete()
    sure = {"glad": 0.99, "sad": 0.005, "calm": 0.005}
    for number in range(40, 60):
        wait(sentence("glad", number), "glad", interaction=ask(str(number), scores=sure))
    rare = wait(sentence("calm", 41), "calm", interaction=ask("rare", scores={"calm": 0.99, "glad": 0.01}))
    rank(taught_mood)
    assert rare in desk_order(taught_mood)[:5]


def test_ranking_again_changes_nothing_and_what_fell_out_of_the_pool_loses_its_place(taught_mood, wait, monkeypatch):
    items = [wait(sentence("sad", number), "sad") for number in range(50, 60)]
    rank(taught_mood)
    before = list(TrainingDataItem.objects.order_by("pk").values("pk", "priority", "why", "queue_facts", "script"))
    rank(taught_mood)
    assert before == list(TrainingDataItem.objects.order_by("pk").values(*before[0]))
    monkeypatch.setattr(queue, "POOL", 5)
    assert rank(taught_mood).ranked == 5
    assert TrainingDataItem.objects.filter(pk__in=[i.pk for i in items], priority__gt=0).count() == 5


def test_what_reviewers_began_on_keeps_its_place(taught_mood, wait):
    dispute = wait(sentence("sad", 80), "sad", priority=opinions.DISPUTED, why=Why.DISPUTE)
    wait(sentence("sad", 81), "sad")
    rank(taught_mood)
    assert desk_order(taught_mood)[0] == dispute
    dispute.refresh_from_db()
    assert dispute.why == Why.DISPUTE


def test_an_empty_queue_and_one_with_several_labels_are_ranked_too(mood, wait):
    assert rank(mood).ranked == 0
    mood.label_config = {"labels": list(LABELS), "multi_label": True}
    mood.save()
    wait("a and b", "glad|calm")
    wait("nothing", "|")
    assert rank(mood).ranked == 2


# The random sample -------------------------------------------------------------------------------------------------


def test_answers_are_drawn_once_and_wait_without_the_answer(mood, ask):
    for number in range(30):
        ask(f"question {number} of jo@example.com")
    assert rank(mood).drawn == 10
    items = TrainingDataItem.objects.filter(why=Why.AUDIT)
    assert set(items.values_list("label", "status", "origin")) == {("", "review", "audit")}
    assert UserInteraction.objects.filter(audit_slice=True).count() == 10
    assert "jo@example.com" not in str(list(items.values_list("fields", flat=True)))
    assert {(draw.seen, draw.drawn) for draw in AuditDraw.objects.all()} == {(30, 10)}
    assert rank(mood).drawn == 0
    ask("one more")
    assert rank(mood).drawn == 1


def test_the_same_text_drawn_twice_is_read_once_and_counts_for_both_answers(mood, ask, rami):
    first, second = ask("twice", label="sad"), ask("twice", label="glad")
    assert services.audit_draw(mood) == 2
    item = TrainingDataItem.objects.get(why=Why.AUDIT)
    services.item_review(item, reviewer=rami, verdict="relabel", label="glad")
    for interaction in (first, second):
        interaction.refresh_from_db()
        assert interaction.reviewed_label == "glad"


def test_a_policy_may_draw_none(mood, ask):
    mood.policy = {"review": {"audit": 0}}
    mood.save()
    ask("a")
    assert services.audit_draw(mood) == 0


def test_drawn_items_stand_at_every_tenth_place(taught_mood, wait, ask):
    for number in range(40, 65):
        wait(sentence("sad", number), "sad")
    for number in range(3):
        ask(f"question {number}")
    rank(taught_mood)
    places = [place for place, item in enumerate(desk_order(taught_mood)) if item.why == Why.AUDIT]
    assert places == [10, 21, 27]


def test_an_item_without_a_label_makes_no_conflict_for_what_people_say(mood, ask, judge):
    interaction = ask("a long enough sentence about the weather")
    services.audit_draw(mood)
    judge(interaction, rating=5)
    assert services.examples_curate(classifier=mood).approved == 1


# The job -----------------------------------------------------------------------------------------------------------


def test_a_curation_is_followed_by_a_ranking(taught_mood, wait):
    wait(sentence("sad", 90), "sad")
    jobs.run(jobs.enqueue("curate", {"classifier": "mood"}, ring=False).pk)
    job = Job.objects.get(kind="rank")
    assert job.params == {"classifier": "mood"}
    jobs.run(job.pk)
    job.refresh_from_db()
    assert job.state == "succeeded"
    assert (job.result["mood"]["ranked"], job.result["mood"]["vectors"]) == (1, "words")


def test_looking_only_ranks_nothing(taught_mood):
    jobs.run(jobs.enqueue("curate", {"classifier": "mood", "dry_run": True}, ring=False).pk)
    assert not Job.objects.filter(kind="rank").exists()


def test_much_that_waits_is_compared_by_the_encoder(taught_mood, wait, monkeypatch):
    monkeypatch.setattr(queue, "ENCODER_FROM", 3)
    asked = []

    def encode(texts, cache, reporter):
        asked.append(len(texts))
        reporter.progress(0.5, "Encoding")
        return word_vectors([text for (text,) in texts])

    monkeypatch.setattr("training.services.queue.embedding.encode", encode)
    items = [wait(sentence("sad", number), "sad") for number in range(90, 92)]
    assert services.queue_rank(taught_mood).vectors == "words"
    items.append(wait(sentence("sad", 93), "sad"))
    assert services.queue_rank(taught_mood).vectors == "encoder"
    assert asked == [3 + 90]


def test_where_the_encoder_cannot_be_had_words_compare_the_texts(taught_mood, wait, monkeypatch):
    def encode(*_):
        raise FamilyError("no base model here")

    monkeypatch.setattr(queue, "ENCODER_FROM", 1)
    monkeypatch.setattr("training.services.queue.embedding.encode", encode)
    wait(sentence("sad", 90), "sad")
    told = []
    assert services.queue_rank(taught_mood, progress=lambda _, note: told.append(note)).vectors == "words"
    assert "The encoder cannot be had; comparing words" in told
