"""The generator behind the samples: rules, weights, bindings, errors, and how people type."""

import re
from collections import Counter
from pathlib import Path

import pytest

from training.samples.grammar import Dealer, Grammar, GrammarError, read_grammars
from training.samples.noise import sentence_case, slip, typed


def sentences(rules: dict[str, str], count: int = 40) -> Counter[str]:
    grammar, dealer = Grammar(rules), Dealer("test")
    return Counter(grammar.expand("start", dealer) for _ in range(count))


def test_alternatives_slots_and_inline_choices_multiply() -> None:
    found = sentences({"start": "{who} [sings|hums]\nsilence", "who": "Ana | Ben"})
    assert set(found) == {"Ana sings", "Ana hums", "Ben sings", "Ben hums", "silence"}


def test_a_weight_says_how_often_an_alternative_comes_up() -> None:
    assert sentences({"start": "often *3 | seldom"}, 40) == {"often": 30, "seldom": 10}


def test_every_alternative_comes_up_before_any_comes_up_again() -> None:
    assert set(sentences({"start": "a1 | b2 | c3 | d4 | e5 | f6 | g7"}, 7).values()) == {1}


def test_nothing_is_an_alternative_too() -> None:
    assert set(sentences({"start": "[very|] good | {end} day", "end": "[] | fine"})) == {
        "very good",
        "good",
        "fine day",
        "day",
    }


def test_a_line_break_inside_brackets_is_a_blank() -> None:
    assert set(sentences({"start": "red [wine\n    glass|\n    car]"})) == {"red wine glass", "red car"}


def test_blanks_and_articles_are_put_right() -> None:
    assert set(sentences({"start": "a apple , a unicorn and a  pear !"})) == {"an apple, a unicorn and a pear!"}


def test_words_bound_by_the_caller_agree_within_a_sentence() -> None:
    grammar = Grammar({"start": "{I} lost {my} key"}, bound=("I", "my"))
    assert grammar.expand("start", Dealer("test"), {"I": "she", "my": "her"}) == "she lost her key"


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("{nobody} knows", "nobody"),
        ("one [two|three", "opening bracket"),
        ("one two] three", "closing bracket"),
        ("one {two", "brace"),
        ("[one *2|two] *3 .", "weight"),
        ("  \n ", "no alternative"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_at_once(rule: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        Grammar({"start": rule})


def test_a_rules_file_shares_rules_and_lets_a_label_replace_them(tmp_path: Path) -> None:
    path = tmp_path / "tiny.rules"
    path.write_text(
        "# greetings\n@any\nstart: {word}!\nword: hello\n\n@late\nword:\n    good night\n", encoding="utf-8"
    )
    grammars = read_grammars(path, ["early", "late"])
    assert {label: grammar.expand("start", Dealer("test")) for label, grammar in grammars.items()} == {
        "early": "hello!",
        "late": "good night!",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("@any\nstart: a\nstart: b\n", "tiny.rules:3: 'start' is defined twice"),
        ("@any\n    lost line\n", "tiny.rules:2"),
        ("@noon\nstart: a\n", "no such label: noon"),
    ],
)
def test_a_slip_in_a_rules_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "tiny.rules"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GrammarError, match=re.escape(complaint)):
        read_grammars(path, ["early"])


def test_sentences_and_the_first_person_get_capitals() -> None:
    assert sentence_case("well. i think i'm late. are you?") == "Well. I think I'm late. Are you?"


def test_a_slip_of_the_finger_touches_one_longer_word_only() -> None:
    text, dealer = "the weather was wonderful on sunday", Dealer("test")
    for _ in range(30):
        slipped = slip(text, dealer).split(" ")
        changed = [word for word, other in zip(text.split(" "), slipped, strict=True) if word != other]
        assert len(changed) <= 1 and all(len(word) > 4 for word in changed)
    assert slip("no big one", dealer) == "no big one"


def test_people_type_in_many_ways_and_mark_questions() -> None:
    dealer = Dealer("test")
    asked = {typed("where is the key", dealer) for _ in range(200)}
    assert {"Where is the key?", "where is the key", "Where is the key"} <= asked
    assert any(text.isupper() for text in asked)
    told = {typed("what a day", dealer) for _ in range(200)}
    assert not [text for text in told if "?" in text]
