"""What an examination finds in a data set: planted duplicates, leaks and wrong labels, with the items behind them."""

import io
import random

import pytest

from kalimtak.core import jobs
from kalimtak.core.errors import Conflict
from tests.training.conftest import WORDS, sentence
from training import services
from training.examination import Distributions, Item, examine, leaks, twins
from training.label_doubts import doubts
from training.models import TrainingDataItem
from training.resemblance import pairs

LONG = "the quick brown fox jumps over the lazy dog while seven wizards watch from the old stone bridge"


def nearly(text, number=3):
    words = text.split()
    words[number] = "purple"
    return " ".join(words).upper() + "!"


def test_near_copies_are_found_and_others_are_not():
    texts = [LONG, "something else entirely that nobody has said before in this very room", nearly(LONG)]
    found = pairs(texts)
    assert [(pair.text, pair.twin) for pair in found] == [(2, 0)]
    assert 0.7 <= found[0].resemblance < 1
    assert [(pair.text, pair.twin, pair.resemblance) for pair in pairs([LONG.title()], texts)] == [(0, 0, 1.0)]
    assert pairs([], [LONG]) == []
    assert pairs([LONG], []) == []
    assert pairs(["", "a", "b"]) == []


def test_planted_near_copies_are_recalled():
    random.seed(5)
    vocabulary = [f"word{number}" for number in range(3_000)]
    texts = [" ".join(random.choices(vocabulary, k=25)) for _ in range(800)]
    copies = [nearly(text, random.randrange(25)) for text in texts[:400]]
    found = pairs(copies, texts)
    assert sum(pair.text == pair.twin for pair in found) >= 390
    assert len(pairs(texts)) == 0


def test_a_flood_of_the_same_text_costs_no_square():
    assert len(pairs([LONG] * 5_000)) == 4_999


def test_wrong_labels_are_in_doubt():
    rows = [(sentence(label, number), label) for label in WORDS for number in range(120)]
    random.Random(3).shuffle(rows)
    wrong = set(range(30))
    labels = list(WORDS)
    given = [
        labels[(labels.index(label) + 1) % 3] if place in wrong else label for place, (_, label) in enumerate(rows)
    ]
    found = doubts([text for text, _ in rows], given)
    assert {doubt.text for doubt in found[:25]} <= wrong
    assert all(doubt.likelier == rows[doubt.text][1] for doubt in found[:25])
    assert doubts(["a"] * 10, ["x", "y"] * 5) == []
    assert doubts(["a"] * 100, ["x"] * 100) == []


def test_figures_name_the_items_behind_them():
    distributions = Distributions()
    for item in (
        Item(7, "short", ("glad",)),
        Item(8, "مرحبا بالعالم", ("sad",)),
        Item(9, "write to anna@example.org, my dear friend, and then we go on", ("glad",)),
    ):
        distributions.add(item)
    told = distributions.to_dict()
    assert told["labels"] == {"glad": 2, "sad": 1}
    assert told["scripts"]["Arabic"] == {"count": 1, "ids": [8]}
    assert (told["personal"]["ids"], told["personal"]["kinds"]) == ([9], {"EMAIL": 1})
    assert [bar["ids"] for bar in told["lengths"] if bar["count"]] == [[7, 8], [9]]
    assert sum(bar["count"] for bar in told["lengths"]) == 3


def test_twins_with_another_label_are_told_apart_and_leaks_named():
    items = [Item(1, LONG, ("glad",)), Item(2, nearly(LONG), ("sad",)), Item(3, nearly(LONG, 5), ("glad",))]
    told = twins(items)
    assert told["other_label"] == {"count": 1, "ids": [2]}
    assert told["same_label"] == {"count": 1, "ids": [3]}
    assert told["pairs"][0]["item"] == 2
    found = leaks(items[1:], [Item(50, LONG, ("glad",), "golden.csv")])
    assert found["near"]["count"] == 2
    assert found["sources"] == {"golden.csv": 2}


def test_nothing_is_too_little_to_examine():
    told = examine([], [], [], [], one_label=True, progress=lambda share, note: None)
    assert (told["items"], told["doubtful"]["count"]) == (0, 0)
    assert examine([], [], [], [], one_label=False, progress=lambda share, note: None)["doubtful"] is None


@pytest.mark.django_db
def test_the_job_examines_a_data_set_against_the_golden_set_and_the_others(mood):
    def load(name, rows, **values):
        body = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
        dataset = services.dataset_add(mood, source=io.BytesIO(body.encode()), name=name, actor="olga", **values)
        return services.dataset_load(dataset)

    load("other.csv", [(nearly(LONG, 7), "glad")])
    rows = [(sentence(label, number), label) for label in WORDS for number in range(40)]
    dataset = load("rows.csv", [(nearly(LONG), "glad"), *rows])
    load("golden.csv", [(LONG, "glad")], role="golden")  # later, or the copy of it would not have been loaded
    empty = services.dataset_add(mood, source=io.BytesIO(b"x"), name="a.csv", actor="olga")
    with pytest.raises(Conflict, match="no items"):
        services.dataset_examine_queue(empty, actor="olga")
    job = services.dataset_examine_queue(dataset, actor="olga")
    assert services.dataset_examine_queue(dataset, actor="olga") == job
    assert jobs.run(job.pk) == "succeeded"
    job.refresh_from_db()
    dataset.refresh_from_db()
    copy = TrainingDataItem.objects.get(dataset=dataset, fields__text=nearly(LONG))
    assert job.result["items"] == 121
    assert job.result["in_golden_set"] == 1
    assert dataset.findings["golden"]["near"]["ids"] == [copy.pk]
    assert dataset.findings["golden"]["sources"] == {"golden.csv": 1}
    assert dataset.findings["others"]["sources"] == {"other.csv": 1}
    assert dataset.findings["labels"]["glad"] == 41
