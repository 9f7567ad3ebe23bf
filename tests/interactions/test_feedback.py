"""Feedback: who may judge which answer, and how a second word joins the first."""

import uuid

import pytest

from interactions.models import Feedback
from interactions.services import feedback_give, interactions_record, review_note
from kalimtak.core.errors import InvalidInput, NotFound


def test_a_first_word_is_recorded_and_shown_on_the_interaction(answer, carla):
    feedback, created = feedback_give(answer.pk, caller=carla, rating=2, comment="no", correct_label="sadness")
    answer.refresh_from_db()
    assert created
    assert (answer.rating, answer.comment, answer.correction) == (2, "no", "sadness")
    assert feedback.trusted and feedback.source == carla.name


def test_a_later_word_updates_keeps_history_and_leaves_the_rest(answer, carla):
    feedback_give(answer.pk, caller=carla, rating=5, comment="good")
    feedback, created = feedback_give(str(answer.pk), caller=carla, correct_label="anger")
    assert not created
    assert (feedback.rating, feedback.comment, feedback.correct_label) == (5, "good", "anger")
    assert [(entry["rating"], entry["correct_label"]) for entry in feedback.history] == [(5, "")]
    assert Feedback.objects.count() == 1


def test_the_same_word_again_changes_nothing(answer, carla):
    before, _ = feedback_give(answer.pk, caller=carla, rating=5)
    after, created = feedback_give(answer.pk, caller=carla, rating=5)
    assert not created
    assert (after.updated_at, after.history) == (before.updated_at, [])


def test_each_subject_has_a_word_of_its_own_and_the_newest_shows(answer, carla):
    feedback_give(answer.pk, caller=carla, rating=1, subject="a")
    feedback_give(answer.pk, caller=carla, rating=4, subject="b")
    feedback_give(answer.pk, caller=carla, rating=3)
    answer.refresh_from_db()
    assert Feedback.objects.count() == 3
    assert answer.rating == 3


def test_another_keys_answer_is_not_there(answer, make_caller, nobody):
    for stranger in (make_caller("Carl"), nobody):
        with pytest.raises(NotFound):
            feedback_give(answer.pk, caller=stranger, rating=5)
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("unknown", [uuid.uuid4(), "nonsense", "", "0199", "\x00"])
def test_an_unknown_interaction_is_not_there(answer, carla, unknown):
    with pytest.raises(NotFound):
        feedback_give(unknown, caller=carla, rating=5)


def test_staff_may_judge_any_answer(answer, rami):
    feedback, _ = feedback_give(answer.pk, caller=rami, correct_label="anger")
    assert feedback.trusted and feedback.source == f"user:{rami.user.pk}"


def test_an_anonymous_word_is_kept_and_not_trusted(make_row, nobody):
    row = make_row()
    interactions_record([row])
    feedback, _ = feedback_give(row.id, caller=nobody, rating=5)
    assert not feedback.trusted
    assert nobody.address not in feedback.source


@pytest.mark.parametrize(
    "word", [{}, {"comment": "hm"}, {"rating": 0}, {"rating": 6}, {"rating": True}, {"correct_label": "envy"}]
)
def test_what_says_nothing_or_the_impossible_is_refused(answer, carla, word):
    with pytest.raises(InvalidInput) as caught:
        feedback_give(answer.pk, caller=carla, **word)
    assert caught.value.fields
    assert not Feedback.objects.exists()


def test_the_same_word_once_more_does_not_hide_what_others_said_meanwhile(answer, carla):
    for subject, rating in (("ann", 5), ("ben", 2), ("ann", 5)):
        feedback_give(answer.pk, caller=carla, rating=rating, subject=subject)
    answer.refresh_from_db()
    assert answer.rating == 2


def test_a_reviewers_decision_is_noted_on_the_interaction(answer):
    review_note(answer.pk, label="anger")
    answer.refresh_from_db()
    assert answer.reviewed_label == "anger"
    assert answer.reviewed_at is not None
    review_note(uuid.uuid4(), label="joy")
