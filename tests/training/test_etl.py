"""Each step keeps, doubts or drops records, and says why."""

import time
from dataclasses import replace

import pytest

from training.etl import Record
from training.etl.clean import clean
from training.etl.conflicts import mark_conflicts
from training.etl.content import blocked_word, filter_content
from training.etl.diversity import SetCounts, cap_labels, cap_sources
from training.etl.duplicates import content_hash, drop_duplicates
from training.etl.quality import score_quality

RECORD = Record(fields=("a fine day",), label="glad", origin="confirmed", source="key:carla", trusted=True, rating=5)


def record(text="a fine day", **values):
    return replace(RECORD, fields=(text,), content_hash=content_hash((text,)), **values)


def test_cleaning_redacts_and_drops_what_no_model_could_read():
    step = clean([record("mail jo@example.org"), record(" \u200b "), record("x" * 20_001)])
    assert [kept.fields for kept in step.kept] == [("mail <EMAIL>",)]
    assert step.kept[0].redactions == 1
    assert [drop.kind for drop in step.dropped] == ["unreadable", "unreadable"]


def test_texts_that_differ_in_case_space_and_noise_have_one_hash():
    assert content_hash(("Hello  World",)) == content_hash(("hello\u200b world ",))
    assert content_hash(("a", "b")) != content_hash(("ab", ""))


def test_a_duplicate_is_dropped_and_the_first_kept():
    step = drop_duplicates([record(), record("A  fine day"), record("new")], {(content_hash(("new",)), "glad")})
    assert len(step.kept) == 1
    assert [drop.kind for drop in step.dropped] == ["duplicate", "duplicate"]


def test_one_text_with_two_labels_is_doubted():
    step = mark_conflicts([record(), record(label="sad"), record("other")], {content_hash(("other",)): "calm"})
    assert [len(kept.doubts) for kept in step.kept] == [1, 1, 1]
    assert step.kept[2].doubts[0].reason == "The same text is already labelled 'calm'."


@pytest.mark.parametrize("text", ["What a shit day", "sh1t!", "S H I T", "s.h.i.t", "ѕhіt", "shiiiiit", "يا حَقير"])
def test_blocked_words_are_found_however_they_are_written(text):
    assert blocked_word(text)


@pytest.mark.parametrize("text", ["Scunthorpe United", "a shirt", "classic assumption", "50 cents", "I am a b c"])
def test_innocent_words_are_not_blocked(text):
    assert not blocked_word(text)


def test_blocked_words_cost_linear_time():
    start = time.perf_counter()
    blocked_word("a " * 10_000)
    blocked_word("@" * 20_000)
    assert time.perf_counter() - start < 1.0


def test_praise_with_a_blocked_word_is_dropped_and_a_correction_reviewed():
    step = filter_content([record("shit"), record("shit", origin="corrected")], ["glad", "sad"])
    assert [drop.kind for drop in step.dropped] == ["inappropriate"]
    assert step.kept[0].doubts[0].kind == "inappropriate"


def test_a_classifier_that_judges_language_is_not_blinded():
    assert len(filter_content([record("shit")], ["ok", "insult"]).kept) == 1


def test_what_teaches_nothing_scores_low():
    step = score_quality([record(), record("12 !! ??"), record("la " * 20), record("...", origin="corrected")])
    assert step.kept[0].quality == 1.0
    assert [drop.record.fields[0] for drop in step.dropped] == ["la " * 20]
    assert step.kept[-1].doubts


def test_confirmations_of_a_label_that_has_plenty_are_dropped():
    counts = SetCounts({"glad": 180, "sad": 20, "calm": 10}, {})
    step = cap_labels([record(), record(label="sad"), record(origin="corrected")], counts, classes=3)
    assert [drop.kind for drop in step.dropped] == ["over_represented"]
    assert len(step.kept) == 2


def test_a_source_over_its_share_waits_but_may_always_give_a_few():
    records = [record(f"text {number}") for number in range(30)]
    small = cap_sources(records, SetCounts({}, {}), 0.1)
    assert sum(not kept.doubts for kept in small.kept) == 5
    large = cap_sources(records, SetCounts({"glad": 100}, {"key:carla": 2}), 0.1)
    assert sum(not kept.doubts for kept in large.kept) == 8
    assert large.kept[-1].doubts[0].kind == "over_share"
