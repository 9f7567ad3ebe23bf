"""Which bodies are understood, and what the others are told."""

import pytest

from inference.parsing import classifier_named, question_of
from kalimtak.core.errors import InvalidInput, TooLarge


def read(body, fields=("text",)):
    return question_of(body, fields, classifier="demo")


def refusal(body, fields=("text",), error=InvalidInput):
    with pytest.raises(error) as caught:
        read(body, fields)
    return caught.value


def test_a_single_text_is_no_batch():
    question = read({"text": "Hello", "subject": "u1", "top_k": 2, "request_id": "r"})
    assert [item.fields for item in question.items] == [("Hello",)]
    assert (question.is_batch, question.top_k, question.request_id, question.items[0].subject) == (False, 2, "r", "u1")


def test_a_batch_of_one_is_a_batch():
    assert read({"texts": ["Hello"]}).is_batch


def test_items_may_name_a_subject_each():
    question = read({"items": [{"text": "a", "subject": "u1"}, {"text": "b"}], "subject": "u2"})
    assert [item.subject for item in question.items] == ["u1", "u2"]


def test_own_fields_are_read_in_the_classifiers_order():
    question = read({"context": "c", "question": "q"}, ("question", "context"))
    assert question.items[0].fields == ("q", "c")


def test_a_single_field_of_another_name_is_also_known_as_text():
    assert read({"text": "x"}, ("review",)).items[0].fields == ("x",)
    assert read({"review": "x"}, ("review",)).items[0].fields == ("x",)
    assert refusal({"review": "x", "text": "y"}, ("review",)).fields


def test_nul_is_stripped():
    assert read({"text": "a\x00b"}).items[0].fields == ("ab",)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "text"),
        ({"text": 5}, "text"),
        ({"text": None}, "text"),
        ({"text": True}, "text"),
        ({"text": ["x"]}, "text"),
        ({"text": "  \n"}, "text"),
        ({"text": "\x00"}, "text"),
        ({"text": "\u200b"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"texts": []}, "texts"),
        ({"texts": "x"}, "texts"),
        ({"texts": ["x"] * 257}, "texts"),
        ({"texts": ["a", "b", "c", ""]}, "texts.3"),
        ({"texts": ["a", 7]}, "texts.1"),
        ({"items": ["a"]}, "items.0"),
        ({"items": [{"text": "a"}, {"text": ""}]}, "items.1.text"),
        ({"items": [{"text": "a", "colour": "b"}]}, "items.0.colour"),
        ({"items": [{"text": "a", "subject": 5}]}, "items.0.subject"),
        ({"texts": ["a"], "items": [{"text": "a"}]}, "items"),
        ({"texts": ["a"], "text": "a"}, "text"),
        ({"text": "a", "colour": "red"}, "colour"),
        ({"question": "q", "context": "c"}, "question"),
        ({"text": "a", "top_k": 0}, "top_k"),
        ({"text": "a", "top_k": "2"}, "top_k"),
        ({"text": "a", "top_k": True}, "top_k"),
        ({"text": "a", "request_id": "x" * 101}, "request_id"),
        ({"text": "a", "request_id": 7}, "request_id"),
        ({"text": "a", "subject": "\ud800"}, "subject"),
        ({"text": "a", "subject": ""}, "subject"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(body, place):
    assert place in refusal(body).fields


def test_a_wrong_field_is_told_which_ones_are_expected():
    error = refusal({"text": "a"}, ("question", "context"))
    assert "question and context" in error.message
    assert "text" in error.fields


def test_texts_are_for_classifiers_of_one_field():
    assert "items" in refusal({"texts": ["a"]}, ("question", "context")).message


def test_the_longest_text_is_read_and_one_character_more_is_not():
    assert read({"text": "x" * 20_000})
    error = refusal({"texts": ["ok", "x" * 20_001]}, error=TooLarge)
    assert (error.status, error.code, list(error.fields)) == (413, "too_long", ["texts.1"])


def test_a_million_characters_in_all_are_too_many():
    assert refusal({"texts": ["x" * 20_000] * 51}, error=TooLarge).status == 413


@pytest.mark.parametrize("body", [[], "text", None, 5])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidInput):
        classifier_named(body)


def test_a_hostile_key_can_be_shown_back():
    error = refusal({"text": "a", "\ud800<b>": "x"})
    assert error.message.encode()
