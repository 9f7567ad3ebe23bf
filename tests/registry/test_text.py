"""`registry.text.prepare`: the one preprocessing of training and serving."""

import sys
import time
import timeit
import unicodedata

import emoji
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.text import _MAYBE_EMOJI, PREPROCESSING_VERSION, _emoji_name, _pieces, _spell_emoji, prepare

EMOJI = st.sampled_from(sorted(emoji.EMOJI_DATA))
NOISE = st.sampled_from(
    "\x00\t\n\r\x0b\x1f\x7f\x85\u00a0\u00ad\u0640\u200b\u200c\u200d\u202e\u2066\ufe0f\ufeff\u20e3🏽1#"
)
ANY_TEXT = st.text(st.characters())  # surrogates included
CROWDED = st.lists(st.one_of(EMOJI, NOISE, st.sampled_from(["سعيد", "e\u0301", "joy", "🇫", "🇷"]))).map("".join)


def test_plain_ascii_comes_back_as_it_is() -> None:
    assert prepare("I am SO happy, really!") == "I am SO happy, really!"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("  \t\n ", ""),
        ("a \t\r\n  b\u00a0\u2003c", "a b c"),
        ("hel\x00lo\x07", "hello"),
        ("e\u0301te\u0301", "été"),
        ("zero\u200bwidth\ufeff \u202etxt\u202c", "zerowidth txt"),
        ("ســـعيد جداً", "سعيد جداً"),
        ("ascii \x1b[31mred", "ascii [31mred"),
    ],
)
def test_noise_is_removed_and_white_space_folded(raw: str, expected: str) -> None:
    assert prepare(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("🙂", "slightly smiling face"),
        ("great👍!", "great thumbs up !"),
        ("👍🏽", "thumbs up"),
        ("❤️", "red heart"),
        ("❤", "red heart"),
        ("👩‍👩‍👧", "family woman woman girl"),
        ("👩🏽‍🚀", "woman astronaut"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "England"),
        ("1️⃣", "keycap 1"),
        ("أحبك ❤️", "أحبك red heart"),
    ],
)
def test_emoji_become_english_words(raw: str, expected: str) -> None:
    assert prepare(raw) == expected


def test_every_emoji_is_noticed_by_the_guard_that_skips_the_look_up() -> None:
    assert [sign for sign in emoji.EMOJI_DATA if not _MAYBE_EMOJI.search(sign)] == []


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, CROWDED))
def test_preparing_twice_is_preparing_once(raw: str) -> None:
    once = prepare(raw)
    assert prepare(once) == once


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, CROWDED))
def test_the_result_is_clean_whatever_came_in(raw: str) -> None:
    result = prepare(raw)
    assert result == " ".join(result.split())
    assert unicodedata.is_normalized("NFC", result)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in result)
    result.encode("utf-8")


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x621, max_codepoint=0x63A), min_size=1))
def test_arabic_letters_are_kept(raw: str) -> None:
    assert prepare(raw) == unicodedata.normalize("NFC", raw)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="preprocessing version 99 is unknown"):
        prepare("text", version=PREPROCESSING_VERSION + 98)


@pytest.mark.clock
def test_plain_text_takes_the_fast_path() -> None:
    """Far under 2 µs on an idle machine; ten times that is allowed here, since the machine may be busy."""
    seconds = min(timeit.repeat(lambda: prepare("I am so happy with this today"), number=2000, repeat=5)) / 2000
    assert seconds < 20e-6


def test_ascii_never_loads_the_emoji_table() -> None:
    import subprocess

    code = "import sys, registry.text; registry.text.prepare('plain \\n text'); sys.exit('emoji' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PARTS = st.sampled_from([*"😀🙂a ", "سعيد", "日本", "🇫🇷", "1️⃣", "❤️", "👨‍👩‍👧‍👦", "👩‍❤️‍👨", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "e\u0301"])


@settings(deadline=None)
@given(st.lists(PARTS, min_size=60, max_size=200).map("".join))
def test_long_texts_are_spelled_in_pieces_as_they_would_be_in_one(raw: str) -> None:
    assert "".join(_pieces(raw)) == raw
    assert _spell_emoji(raw) == emoji.replace_emoji(raw, replace=_emoji_name)


@pytest.mark.parametrize("unit", ["👩\u200d", "👩\u200da", "😀", "🇫🇷", "\u200d", "a\u0301\u0316", "1️⃣", "❤\ufe0f"])
@pytest.mark.clock
def test_the_longest_text_is_prepared_in_a_moment_whatever_it_is_made_of(unit: str) -> None:
    began = time.thread_time()
    prepare((unit * 20_000)[:20_000])
    assert time.thread_time() - began < 1.0
