"""`create_classifier`: the contract's results in Python, without a server."""

import pytest

from inference import create_classifier
from interactions.models import PersonalRecord, UserInteraction
from kalimtak.core.errors import InvalidInput, NotFound, TooLarge, Unavailable


def test_it_answers_like_the_api_and_names_the_final_label(emotion):
    result = create_classifier("emotion", enable_backup=True).classify("what a joy")
    assert (result["label"], result["final_label"], result["source"]) == ("joy", "joy", "model")
    assert result["confidence"] == pytest.approx(0.9)
    row = UserInteraction.objects.get(pk=result["interaction_id"])
    assert (row.label, row.api_key, row.subject) == ("joy", None, None)
    assert not PersonalRecord.objects.exists()


def test_many_texts_are_answered_in_order(emotion):
    results = create_classifier().classify_many(["sadness", "anger", "joy"] * 50)
    assert [result["final_label"] for result in results] == ["sadness", "anger", "joy"] * 50
    assert UserInteraction.objects.count() == 150


def test_it_reads_the_classifiers_own_fields(clarity):
    result = create_classifier("clarity").classify({"question": "Will you?", "context": "Ambivalent"})
    assert result["final_label"] == "Ambivalent"


def test_nothing_is_written_where_that_is_wished(emotion):
    from inference.classifier import LocalClassifier

    result = LocalClassifier("emotion", record=False).classify("joy")
    assert "interaction_id" not in result
    assert not UserInteraction.objects.exists()


def test_it_keeps_answering_by_the_version_it_began_with(emotion, publish, go_live):
    classifier = create_classifier("emotion")
    go_live(publish(emotion, confidence=0.7))
    assert classifier.classify("joy")["model_version"] == "emotion/1"
    assert create_classifier("emotion").classify("joy")["model_version"] == "emotion/2"


@pytest.mark.parametrize(
    ("text", "error"),
    [("", InvalidInput), (5, InvalidInput), ({"colour": "x"}, InvalidInput), ("x" * 20_001, TooLarge)],
)
def test_it_refuses_what_the_api_refuses(emotion, text, error):
    with pytest.raises(error):
        create_classifier("emotion").classify(text)


def test_one_bad_text_of_many_leaves_nothing_behind(emotion):
    with pytest.raises(InvalidInput):
        create_classifier("emotion").classify_many(["joy", " "])
    assert not UserInteraction.objects.exists()


def test_an_unknown_or_untrained_classifier_says_what_to_do(serving, make_classifier):
    with pytest.raises(NotFound):
        create_classifier("nothing")
    make_classifier("fresh")
    with pytest.raises(Unavailable, match="train fresh"):
        create_classifier("fresh")
