"""What is the same text, however it is written, and what is mended in what people typed."""

import time

import pytest

from training.etl.duplicates import content_hash, skeletons
from training.etl.folding import comparable, mend, skeleton


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello  World", "hello\u200b world "),
        ("أحمد إلى آخر", "احمد الي اخر"),  # forms of alef and ya
        ("مدرسة", "مدرسه"),  # ta marbuta
        ("الســـلام", "السلام"),  # tatweel
        ("مُحَمَّد", "محمد"),  # vowel signs
        ("الطلب ٤٢", "الطلب 42"),
        ("الطلب ۴۲", "الطلب 42"),
        ("ﷲ ﻻ", "الله لا"),  # presentation forms
        ("ＦＵＬＬ　ｗｉｄｔｈ ①", "full width 1"),
        ("straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("schÃ¶n", "schön"),
    ],
)
def test_ways_of_writing_a_text_are_one_text(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)
    assert content_hash((one,)) == content_hash((other,))


@pytest.mark.parametrize(
    ("one", "other"), [("resume", "résumé"), ("हिन्दी", "हनद"), ("C++", "C"), ("really?", "really!"), ("?!", "...")]
)
def test_what_means_something_else_is_another_text(one: str, other: str) -> None:
    assert content_hash((one,)) != content_hash((other,))


def test_punctuation_makes_no_difference_to_near_duplicates_unless_there_is_nothing_else() -> None:
    assert skeletons(["So, really?!", "«سؤال؟»"]) == ("so really", "سؤال")
    assert skeleton("?!") == "?!"
    assert skeletons(["हिन्दी।"]) == ("हिन्दी",)


@pytest.mark.parametrize(
    ("typed", "mended"),
    [
        ("schÃ¶n und gut", "schön und gut"),
        ("Voilà le travail Ã©tÃ©", "Voilà le travail été"),
        ("100Â°C", "100°C"),
    ],
)
def test_mojibake_is_mended(typed: str, mended: str) -> None:
    assert mend(typed) == mended


@pytest.mark.parametrize("typed", ["naïve Ã", "l’humanité", "ＦＵＬＬ", "&amp; <b>", "مُحَمَّد", "ﬁne", "🙂"])
def test_what_people_type_stays_as_it_is(typed: str) -> None:
    assert mend(typed) == typed


@pytest.mark.parametrize("piece", ["Ã", "Ã¶", "â€œ", "\u064b", "\u0640", "!", "ﷺ", "\u0301"])
def test_folding_takes_time_in_proportion_to_the_text(piece: str) -> None:
    text = piece * (10_000 // len(piece))
    comparable(text)
    began = time.process_time()
    skeleton(comparable(text))
    assert time.process_time() - began < 0.25  # most of it on a machine that does much else; 10 ms on a quiet one
