"""Texts with several labels: read from files, drawn, corrected, curated, reviewed and checked."""

import io
import json
from collections import Counter

import pytest
from django.core.management import call_command
from django.utils import timezone
from rest_framework.test import APIClient

from interactions.models import Feedback, UserInteraction
from kalimtak.core.auth import cache_clear, key_create
from kalimtak.core.errors import InvalidInput
from kalimtak.core.findings import Look
from registry.models import Classifier, ModelVersion
from training import services
from training.analysis import LabelRules
from training.invariants import items_have_known_labels
from training.models import TrainingDataItem
from training.services.snapshots import strata

pytestmark = pytest.mark.django_db
LABELS = ["money", "politics", "sport"]
KNOWN = LabelRules(("money", "politics", "sport, mostly"), {"0": "money"}, multi_label=True)


@pytest.fixture
def topics(store):
    return Classifier.objects.create(
        slug="topics",
        name="Topics",
        family="classic",
        labels=LABELS,
        input_fields=["text"],
        label_config={"multi_label": True, "mapping": {"0": "money"}},
    )


@pytest.fixture
def load(topics):
    def load(content, name="rows.csv", classifier=None):
        classifier = classifier or topics
        dataset = services.dataset_add(classifier, source=io.BytesIO(content.encode()), name=name, actor="olga")
        return services.dataset_load(dataset)

    return load


@pytest.fixture
def answer(topics):
    """Record that `topics` gave these labels to a text."""
    version = ModelVersion.objects.create(classifier=topics, number=1, family="classic", artefact_digest="0" * 64)

    def answer(text, labels, **values):
        values = {"label": "money", "confidence": 0.9, "created_at": timezone.now(), **values}
        return UserInteraction.objects.create(
            classifier=topics, version=version, fields={"text": text}, labels=labels, **values
        )

    return answer


@pytest.fixture
def carla():
    """Her key, and what posts her feedback."""
    cache_clear()
    key, plain = key_create("carla", ["feedback"], actor="olga")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {plain}")
    return key, lambda body: client.post("/api/feedback", body, format="json")


def labels_of(**values):
    return list(TrainingDataItem.objects.filter(**values).order_by("pk").values_list("label", flat=True))


# Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("politics", "politics"),
        ("politics|money", "money|politics"),
        ("politics; money", "money|politics"),
        ("politics,0", "money|politics"),
        ("sport, mostly", "sport, mostly"),
        ("sport, mostly|money|money", "money|sport, mostly"),
        ('["politics", "money"]', "money|politics"),
        ("['politics', 'money']", "money|politics"),
        (["politics", 0], "money|politics"),
        ("[]", "|"),
        ([], "|"),
        ("|", "|"),
        (0.0, "money"),
    ],
)
def test_a_cell_holds_one_label_several_or_none(cell, label):
    assert KNOWN.read(cell) == (label, "")


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (None, "No label."),
        ("  ", "No label."),
        ("money|weather", "Unknown label 'weather'."),
        ("money, weather", "Unknown label 'money, weather'."),
        (["Money"], "Unknown label 'Money'; did you mean 'money'?"),
        ([["money"]], "A label within the list is no text."),
        ({"money": 1}, "The labels are an object; give a list."),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(cell, problem):
    assert KNOWN.read(cell)[1] == problem


def test_a_set_that_no_column_holds_is_refused():
    names = tuple(f"{number:03d}" + "x" * 60 for number in range(10))
    label, problem = LabelRules(names, multi_label=True).read(list(names))
    assert (label, problem) == ("", "The labels have more than 500 characters together.")


def test_a_list_for_a_single_label_classifier_names_the_remedy():
    assert "multi_label" in LabelRules(("a",)).read(["a"])[1]


def test_a_file_becomes_items_with_sets_and_the_report_counts_labels(load):
    content = "text,label\nthe bank vote,politics|money\nvote,politics\nrain,[]\nbank,0\nsnow,weather\n"
    report = load(content).report
    assert labels_of() == ["money|politics", "politics", "|", "money"]
    assert report["labels"] == {"money": 2, "politics": 2}
    assert (report["labels_per_text"], report["without_labels"]) == (1.0, 1)
    assert report["errors"] == [{"line": 6, "reason": "Unknown label 'weather'."}]
    assert load(content).report["outcome"]["loaded"] == 0


def test_another_set_for_the_same_text_waits_for_review(load):
    load("text,label\nthe bank vote,politics|money\nthe bank vote,money;politics\nThe bank vote,money\n")
    assert labels_of(status="approved") == ["money|politics"]
    item = TrainingDataItem.objects.get(status="review")
    assert (item.label, item.reason) == ("money", "The same text is already labelled 'money|politics'.")


def test_the_label_column_is_found_by_what_it_holds(load):
    rows = [{"words": f"text number {number}", "about": ["money", "politics"][: number % 3]} for number in range(6)]
    report = load("\n".join(map(json.dumps, rows)), "rows.jsonl").report
    assert report["fields"]["label"] == "about"
    assert labels_of() == ["|", "money", "money|politics"] * 2


def test_labels_come_from_the_data_where_none_are_listed(store, load):
    blank = Classifier.objects.create(
        slug="blank", name="b", family="classic", input_fields=["text"], label_config={"multi_label": True}
    )
    load('text,label\none,b;a\ntwo,"a, as such"\nthree,b\n', classifier=blank)
    assert sorted(blank.labels) == ["a", "a, as such", "b"]
    assert labels_of()[0] == blank.label_of(["a", "b"])


# Drawing ---------------------------------------------------------------------------------------------------------


def fill(topics, sets):
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=topics,
            fields={"text": f"text {number}"},
            label=label,
            status="approved",
            content_hash=f"{number:064x}",
        )
        for number, label in enumerate(sets)
    )


def test_a_snapshot_holds_sets_and_draws_rare_ones_with_their_rarest_label(topics):
    fill(topics, ["money"] * 200 + ["|"] * 60 + ["money|politics", "politics", "money|politics|sport"] * 6)
    assert services.golden_reserve(topics) == 50
    golden = Counter(labels_of(split="test"))
    assert golden["|"] and golden["money"] and sum("politics" in text for text in golden)
    snapshot = services.snapshot_freeze(topics, seed=1)
    assert set(snapshot.rows.values_list("label", flat=True)) == {
        *("money", "|", "money|politics", "politics", "money|politics|sport")
    }
    assert sum(snapshot.counts["test"].values()) == 50


def test_strata_of_rare_sets_are_their_rarest_label(topics):
    fill(topics, ["money"] * 12 + ["money|politics"] * 3 + ["|"] * 2)
    from training.services.snapshots import _rows

    rows = strata(list(_rows(topics, correction_weight=1.0)), topics)
    assert {row.label: row.stratum for row in rows} == {"money": "money", "money|politics": "politics", "|": "|"}


# Feedback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"correct_labels": ["sport", "money", "money"]}, "money|sport"),
        ({"correct_labels": []}, "|"),
        ({"correct_label": "sport"}, "sport"),
        ({"correct_label": "sport", "correct_labels": ["sport"]}, "sport"),
    ],
)
def test_several_correct_labels_none_or_one(answer, carla, given, kept):
    key, post = carla
    asked = answer("a bank", "money", api_key=key)
    assert post({"interaction_id": str(asked.pk), **given}).status_code == 201
    asked.refresh_from_db()
    assert (Feedback.objects.get().correct_label, asked.correction) == (kept, kept)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"correct_labels": ["money", "weather"]}, "correct_labels"),
        ({"correct_label": "money|sport"}, "correct_label"),
        ({"correct_label": "money", "correct_labels": ["sport"]}, "correct_labels"),
        ({"correct_labels": "money"}, "correct_labels"),
        ({"correct_labels": [["money"]]}, "correct_labels"),
        ({"correct_labels": None}, "correct_labels"),
    ],
)
def test_labels_that_cannot_be_meant_are_a_400_naming_the_field(answer, carla, given, field):
    key, post = carla
    response = post({"interaction_id": str(answer("a bank", "money", api_key=key).pk), **given})
    assert response.status_code == 400
    assert any(name.startswith(field) for name in response.json()["error"]["fields"])
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("labels", [[], ["glad", "sad"]])
def test_a_single_label_classifier_takes_one_label(ask, carla, labels):
    key, post = carla
    response = post({"interaction_id": str(ask("a sunny day", api_key=key).pk), "correct_labels": labels})
    assert response.status_code == 400
    assert list(response.json()["error"]["fields"]) == ["correct_labels"]


def test_an_example_has_several_labels(topics, carla):
    body = {"classifier": "topics", "text": "They vote about the bank.", "correct_labels": ["politics", "money"]}
    assert carla[1](body).status_code == 201
    assert labels_of(status="candidate") == ["money|politics"]
    response = carla[1]({**body, "correct_labels": ["weather"]})
    assert (response.status_code, list(response.json()["error"]["fields"])) == (400, ["correct_labels"])
    del body["correct_labels"]
    assert list(carla[1](body).json()["error"]["fields"]) == ["correct_label"]


# Curation --------------------------------------------------------------------------------------------------------


def test_a_good_rating_confirms_the_answered_set_and_a_correction_proposes_another(topics, answer, judge):
    judge(answer("the bank lost its vote", "money|politics"), rating=5)
    judge(answer("nothing of that kind here", "|"), rating=4)
    judge(answer("they played at the bank", "money"), rating=1, correct_label="money|sport")
    judge(answer("a match for money", "money|sport"), correct_label="money|sport")
    stats = services.examples_curate(classifier=topics)
    assert (stats.loaded, stats.approved) == (4, 4)
    origins = {item.label: item.origin for item in TrainingDataItem.objects.exclude(label="money|sport")}
    assert origins == {"money|politics": "confirmed", "|": "confirmed"}
    same = TrainingDataItem.objects.filter(label="money|sport").order_by("pk")
    assert [item.origin for item in same] == ["corrected", "confirmed"]


def test_two_people_who_name_different_sets_leave_it_to_a_reviewer(topics, answer, judge):
    asked = answer("the bank lost its vote", "money")
    judge(asked, "key:a", correct_label="money|politics")
    judge(asked, "key:b", correct_label="politics")
    assert services.examples_curate(classifier=topics).for_review == 2


def test_what_holds_a_label_that_is_gone_is_left_out(topics, answer, judge):
    judge(answer("the bank lost its vote", "money|weather"), rating=5)
    stats = services.examples_curate(classifier=topics)
    assert dict(stats.reasons) == {"label not in the set any more": 1}


# Review and checks -----------------------------------------------------------------------------------------------


def test_a_reviewer_gives_another_set_in_whatever_order(topics, rami):
    fill(topics, ["money"])
    item = services.item_review(TrainingDataItem.objects.get(), reviewer=rami, verdict="relabel", label="sport|money")
    assert (item.label, item.status) == ("money|sport", "approved")
    for label in ("weather", "money|weather", "", "money|sport"):
        with pytest.raises(InvalidInput):
            services.item_review(item, reviewer=rami, verdict="relabel", label=label)
    assert services.item_review(item, reviewer=rami, verdict="relabel", label="|").label == "|"


def test_an_export_writes_sets_that_an_import_reads_back(topics, load, tmp_path):
    load("text,label\nthe bank vote,politics|money\nrain,[]\n")
    path = tmp_path / "topics.csv"
    call_command("export_dataset", "topics", str(path), stdout=io.StringIO())
    assert "the bank vote,money|politics,train,approved" in path.read_text(encoding="utf-8")
    assert load(path.read_text(encoding="utf-8")).report["outcome"]["duplicates"] == 2


def test_sets_of_unknown_labels_or_out_of_order_are_findings(topics):
    fill(topics, ["money|sport", "|", "sport|money", "money|weather"])
    found = " ".join(sorted(str(finding) for finding in items_have_known_labels(Look())))
    assert found.count("classifier topics") == 2
    assert "labelled 'weather'" in found and "'sport|money', out of order" in found
