"""The golden set is never learnt from: not by any door, and neither is a copy of it."""

import io
from dataclasses import replace

import pytest

from training import services
from training.etl import Record
from training.etl.duplicates import content_hash, skeletons
from training.etl.held_out import HeldOut, drop_held_out
from training.models import SnapshotItem, TrainingDataItem
from training.services.snapshots import golden_digest

HELD = "I really enjoyed the long walk through the park this morning"
COPIES = {
    "case": HELD.upper(),
    "punctuation": "I really enjoyed - the long walk, through the park; this morning!!",
    "a word changed": "I really enjoyed the long walk through the woods this morning",
    "the first word changed": "We really enjoyed the long walk through the park this morning",
    "the last word changed": "I really enjoyed the long walk through the park this evening",
    "a word more": "I really enjoyed the very long walk through the park this morning",
    "a word less": "I really enjoyed the long walk through the park this",
    "all at once": "i REALLY enjoyed the long stroll, through the park this morning...",
    "invisible": "I really enjoyed the lo\u200bng walk through the park this morning",
}
OTHERS = ["It rained all day and nobody went for a walk in the park", "I really enjoyed it", "The long walk"]
RECORD = Record(fields=("",), label="glad", origin="example", source="key:carla", trusted=True)


def record(text: str) -> Record:
    return replace(RECORD, fields=(text,), content_hash=content_hash((text,)), skeletons=skeletons((text,)))


@pytest.mark.parametrize("text", COPIES.values(), ids=COPIES.keys())
def test_a_copy_is_refused_and_says_of_what(text):
    step = drop_held_out([record(text)], HeldOut([(7, skeletons((HELD,)))]))
    assert [drop.kind for drop in step.dropped] == ["held_out"]
    assert step.dropped[0].reason == "A copy of the held-out text of item 7, which versions are measured on."


@pytest.mark.parametrize("text", OTHERS)
def test_another_text_is_not(text):
    assert HeldOut([(7, skeletons((HELD,)))]).find([skeletons((text,))]) == [None]


def test_one_word_more_makes_a_short_text_another():
    held = HeldOut([(7, skeletons(("I feel happy",)))])
    assert held.find([("i feel happy",), ("i feel sad",), ("i feel happy now",)]) == [7, None, None]


@pytest.mark.parametrize("place", range(9))
def test_wherever_the_word_is_changed_added_or_left_out(place):
    words = ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii"]
    held = HeldOut([(1, (" ".join(words),))])
    changed = " ".join([*words[:place], "completelydifferentword", *words[place + 1 :]])
    more = " ".join([*words[:place], "completelydifferentword", *words[place:]])
    less = " ".join([*words[:place], *words[place + 1 :]])
    assert held.find([(changed,), (more,), (less,)]) == [1, 1, 1]
    two = [*words[:place], "completelydifferentword", *words[place + 1 :]]
    two[(place + 4) % 9] = "anothersuchword"
    assert held.find([(" ".join(two),)]) == [None]


def test_a_pair_is_copied_where_each_of_its_fields_is():
    held = HeldOut([(1, skeletons(("Was it good?", HELD)))])
    assert held.find([skeletons(("was it good", COPIES["a word changed"]))]) == [1]
    assert held.find([skeletons(("was it bad", HELD))]) == [None]


@pytest.mark.django_db
class TestDoors:
    @pytest.fixture
    def golden(self, mood, teach):
        teach(mood, 20)
        return TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": HELD},
            label="glad",
            status="approved",
            split="test",
            content_hash=content_hash((HELD,)),
        )

    def learnt(self, mood):
        snapshot = services.snapshot_freeze(mood, seed=1)
        rows = SnapshotItem.objects.filter(snapshot=snapshot).exclude(split="test")
        return {item.fields["text"] for item in TrainingDataItem.objects.filter(snapshot_rows__in=rows)}, snapshot

    def test_curation(self, golden, ask, judge, mood):
        for number, text in enumerate(COPIES.values()):
            judge(ask(text), source=f"subject:{number}", correct_label="sad")
        stats = services.examples_curate().to_dict()
        assert stats["loaded"] == 0
        assert stats["reasons"] == {"copy of a held-out text": len(COPIES) - 1, "exact duplicate": 1}
        assert stats["filtered"] == len(COPIES) - 1
        refused = TrainingDataItem.objects.filter(status="rejected")
        assert {item.reason for item in refused} == {
            f"A copy of the held-out text of item {golden.pk}, which versions are measured on."
        }

    def test_import(self, golden, mood):
        body = "text,label\n" + "".join(f'"{text}",sad\n' for text in [*COPIES.values(), OTHERS[0]])
        dataset = services.dataset_add(mood, source=io.BytesIO(body.encode()), name="rows.csv", actor="olga")
        report = services.dataset_load(dataset).report
        assert (report["outcome"]["loaded"], report["outcome"]["held_out"]) == (1, len(COPIES))
        assert report["error_count"] == len(COPIES)
        first = {
            "line": 2,
            "reason": f"A copy of the held-out text of item {golden.pk}, which versions are measured on.",
        }
        assert report["errors"][0] == first
        again = services.dataset_load(dataset).report
        assert (again["outcome"]["loaded"], again["outcome"]["held_out"]) == (0, len(COPIES))

    def test_golden_rows_are_imported_however_alike(self, golden, mood):
        body = f'text,label\n"{COPIES["a word changed"]}",glad\n'
        dataset = services.dataset_add(
            mood, source=io.BytesIO(body.encode()), name="rows.csv", actor="olga", role="golden"
        )
        assert services.dataset_load(dataset).report["outcome"]["loaded"] == 1

    def test_an_example(self, golden, mood):
        from kalimtak.core.auth import Caller

        caller = Caller("key", "key:carla")
        fields = {"text": COPIES["a word changed"]}
        item = services.example_add(mood, fields=fields, label="sad", caller=caller, source="key:carla")
        services.examples_curate()
        item.refresh_from_db()
        assert (item.status, item.reason[:30]) == ("rejected", "A copy of the held-out text of")

    def test_what_was_there_before_the_golden_set_is_left_out_of_the_snapshot(self, golden, mood, rami):
        digest = golden_digest(mood)
        for text in COPIES.values():
            item = TrainingDataItem.objects.create(
                classifier=mood,
                fields={"text": text},
                label="sad",
                status="review",
                content_hash=content_hash((text,)),
            )
            services.item_review(item, reviewer=rami, verdict="relabel", label="calm")
        texts, snapshot = self.learnt(mood)
        assert not texts & {*COPIES.values(), HELD}
        left_out = snapshot.counts["left_out"]
        assert left_out["nearly the same text in the golden set"] > 0
        # Relabelled exact copies took the golden item's place: the set moved with the reviewer, and says so.
        assert snapshot.golden_digest == golden_digest(mood) != digest

    def test_relabelling_a_golden_item_keeps_it_golden(self, golden, mood, rami):
        new = services.item_review(golden, reviewer=rami, verdict="relabel", label="calm")
        assert new.split == "test"
        texts, _ = self.learnt(mood)
        assert HELD not in texts

    def test_rejecting_it_and_approving_it_again_does_not_make_it_trainable(self, golden, mood, rami):
        services.item_review(golden, reviewer=rami, verdict="reject")
        golden.refresh_from_db()
        services.item_review(golden, reviewer=rami, verdict="approve")
        golden.refresh_from_db()
        assert golden.split == "test"
        texts, _ = self.learnt(mood)
        assert HELD not in texts
