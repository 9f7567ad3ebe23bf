"""Each step keeps, doubts or drops records, and says why."""

import time
from dataclasses import replace

import numpy as np
import pytest

from training.etl import Record
from training.etl.clean import clean
from training.etl.conflicts import mark_conflicts
from training.etl.content import blocked_word, filter_content
from training.etl.diversity import SetCounts, cap_domains, cap_labels, cap_sources, shares
from training.etl.domains import Domains, _far_apart, _free_name, find_domains, function_words, mark_domains
from training.etl.duplicates import content_hash, drop_duplicates
from training.etl.quality import quality_of, score_quality, usual_scripts
from training.etl.scripts import script_of
from training.samples import generate

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


@pytest.mark.parametrize(
    ("text", "values", "score"),
    [
        ("a fine day", {}, 1.0),
        ("a fine day", {"rating": 4}, 0.9),
        ("a fine day", {"rating": 4, "origin": "corrected"}, 1.0),
        ("a fine day", {"confidence": 0.5}, 0.85),
        ("a fine day", {"confidence": 0.0, "origin": "corrected"}, 1.0),
        ("a fine day", {"confidence": 0.0, "agreeing": 2}, 0.8),
        ("a fine day", {"confidence": 0.0, "agreeing": 99}, 1.0),
        ("fine", {}, 0.8),
        ("fine", {"rating": 4, "confidence": 0.0}, 0.4),
        ("12 !! ??", {}, 0.8),
        ("!! ??", {}, 0.2),
        ("la " * 20, {}, 0.25),
        ("word " + "1234567890 " * 5, {}, 0.7),
        ("many " * 3 + " ".join(f"word{number}" for number in range(2_001)), {}, 0.8),
        ("يوم جميل", {}, 0.8),
    ],
)
def test_quality_is_the_documented_sum(text, values, score):
    assert quality_of(record(text, **values), {"Latin"})[0] == pytest.approx(score)


def test_a_rare_script_lowers_the_score_only_where_scripts_are_known():
    assert quality_of(record("يوم جميل"))[0] == 1.0
    texts = ["a day"] * 98 + ["يوم"] * 2
    assert usual_scripts(texts) == {"Latin", "Arabic"}
    assert usual_scripts(texts + ["a day"] * 200) == {"Latin"}
    assert usual_scripts(["a day"]) == frozenset()


def test_the_remark_names_what_lowers_the_score_most():
    assert quality_of(record("la " * 20, rating=4))[1] == "It repeats the same words."


def test_a_domain_with_twice_its_share_takes_no_more_praise():
    counts = SetCounts({"glad": 300}, {}, {"money": 200, "food": 20, "music": 20, "garden": 20, "": 400})
    given = [record(domain="money"), record(domain="money", origin="corrected"), record(domain="food"), record()]
    step = cap_domains(given, counts)
    assert [kept.domain for kept in step.kept] == ["money", "food", ""]
    assert step.dropped[0].reason == "'money' already has 200 of 260 items."
    assert step.dropped[0].kind == "over_domain"


def test_a_small_set_or_a_single_domain_caps_none():
    for domains in ({"money": 9, "food": 1}, {"money": 900}, {"money": 900, "": 1}, {}):
        assert not cap_domains([record(domain="money")], SetCounts({"glad": 9}, {}, domains)).dropped


def test_shares_are_told_before_and_after_the_greatest_first():
    told = shares({"a": 1, "b": 3}, {"a": 9, "b": 3, "c": 0})
    assert told == {"a": [0.25, 0.75], "b": [0.75, 0.25], "c": [0.0, 0.0]}
    many = shares({}, {f"source {number:02}": 1 for number in range(20)})
    assert len(many) == 13
    assert many["others"] == [0.0, 0.4]
    assert shares({}, {}) == {}


SUBJECTS = ("refund invoice payment", "airport luggage flight", "pasta cheese salad", "guitar concert album")
SUBJECTS += ("football trophy referee", "tulips watering compost", "teacher homework lesson", "doctor fever tablet")


def test_domains_are_the_same_for_the_same_sample_and_read_back():
    texts = [f"{SUBJECTS[number % 8]} thing{number % 7}" for number in range(320)]
    found = find_domains(texts)
    assert found is not None
    assert found == find_domains(texts)
    assert len({found.of([subject]) for subject in SUBJECTS}) == 8
    assert Domains.from_dict(found.to_dict()) == found
    assert mark_domains([record("an INVOICE came")], found)[0].domain == found.of(["refund"])
    assert found.of(["xyzzy"]) == ""


def test_texts_without_a_usual_word_do_not_hide_the_domains_of_the_others():
    texts = [f"{SUBJECTS[number % 8]} thing{number % 7}" for number in range(320)]
    found = find_domains(["?!", "ok", *(f"unheardof{'abcdefgh'[number % 8]}" for number in range(8)), *texts])
    assert found is not None
    assert len({found.of([subject]) for subject in SUBJECTS}) == 8


def test_equal_texts_begin_one_cluster_and_not_two():
    vectors = np.eye(2, dtype=np.float32)[[0] * 150 + [1] * 150]
    assert len(_far_apart(vectors, 8, np.random.default_rng(0))) == 2


def test_domains_are_named_by_words_that_tell_them_apart():
    often = ("what about this", "when would that", "there were those", "which have they")
    texts = [f"{often[number % 4]} {SUBJECTS[number % 8]} {'wxyz'[number % 3] * 4}" for number in range(400)]
    found = find_domains(texts)
    assert found is not None
    for name in found.clusters:
        assert not function_words() & set(name.split(", "))
        assert len({subject for subject in SUBJECTS for word in name.split(", ") if word in subject}) == 1


def test_clusters_of_the_same_words_have_names_of_their_own():
    assert _free_name(["money", "bank", "loan"], []) == "money, bank"
    assert _free_name(["money", "bank", "loan"], ["money, bank"]) == "bank, loan"


@pytest.mark.parametrize("slug", ["moderation", "intent", "emotion", "sentiment", "clarity"])
def test_every_demo_set_has_domains(slug):
    found = find_domains([" ".join(sample.fields) for sample in generate(slug, 1000, seed=3)])
    assert found is not None
    assert len(found.clusters) > 4


def test_too_few_texts_or_words_make_no_domains():
    assert find_domains(["a fine day"] * 50) is None
    assert find_domains(["x"] * 500) is None


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("so happy today", "Latin"),
        ("سعيد جدا today", "Arabic"),
        ("я рад", "Cyrillic"),
        ("我很高兴", "CJK"),
        ("ｓｏ ｈａｐｐｙ", "Latin"),
        ("12 يوم", "Arabic"),
        ("12:30 !!! 😊", ""),
        ("", ""),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script
