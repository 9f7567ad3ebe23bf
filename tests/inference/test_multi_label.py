"""Classifiers that give a text several labels or none, and versions that bring a threshold of their own."""

import csv
import io
import json

import numpy as np
import pytest
from django.core.management import call_command

from inference import create_classifier
from inference.results import BrokenScores, ranked_scores
from interactions.models import UserInteraction
from registry.families.base import Answer


def ask(carla, text):
    response = carla.predict({"classifier": "topics", "text": text})
    assert response.status_code == 200
    return response.json()


def test_every_label_that_reaches_its_threshold_is_given_best_first(carla, topics):
    result = ask(carla, "the sport of politics")
    assert result["labels"] == ["politics", "sport"]
    assert (result["label"], result["abstained"], result["alternatives"], result["flags"]) == (
        "politics",
        False,
        [],
        [],
    )
    assert result["confidence"] == result["scores"]["politics"] == pytest.approx(0.9)
    assert sum(result["scores"].values()) > 1.5
    row = UserInteraction.objects.get(pk=result["interaction_id"])
    assert (row.label, row.labels, row.answered) == ("politics", "politics|sport", "politics|sport")


def test_each_label_has_a_threshold_of_its_own(carla, topics):
    result = ask(carla, "perhaps money, perhaps sport")
    assert (result["label"], result["confidence"], result["threshold"]) == ("money", pytest.approx(0.4), 0.5)
    assert (result["labels"], result["abstained"]) == (["sport"], False)


def test_a_text_that_reaches_no_threshold_gets_no_label_and_the_top_one_is_named(carla, topics):
    result = ask(carla, "perhaps politics")
    assert (result["label"], result["labels"], result["abstained"]) == ("politics", [], True)
    assert (result["flags"], result["alternatives"]) == (["low_confidence"], ["money"])
    assert UserInteraction.objects.get(pk=result["interaction_id"]).answered == "|"


def test_near_misses_are_alternatives(carla, topics):
    result = ask(carla, "perhaps politics and sport")
    assert (result["labels"], result["label"]) == (["sport"], "politics")
    result = ask(carla, "perhaps money and politics")
    assert (result["labels"], result["label"], result["alternatives"]) == ([], "money", ["politics"])


def test_models_tell_which_classifiers_give_several_labels(carla, topics, emotion):
    models = {model["classifier"]: model for model in carla.get("/api/models").json()["models"]}
    assert {slug: model["multi_label"] for slug, model in models.items()} == {"topics": True, "emotion": False}
    assert "labels" not in carla.predict({"text": "joy"}).json()


@pytest.mark.parametrize("threshold", [0.2, 0.95])
def test_with_a_target_precision_the_versions_own_threshold_counts(carla, emotion, publish, go_live, threshold):
    go_live(publish(emotion, calibration={"temperature": 1.0, "threshold": threshold}))
    result = carla.predict({"text": "perhaps joy"}).json()
    assert (result["threshold"], result["abstained"]) == (threshold, threshold > 0.4)


@pytest.mark.parametrize("scores", [[0.5, 1.2], [-0.1, 0.5], [np.nan, 0.5], [0.5]])
def test_independent_scores_are_probabilities_each(scores):
    with pytest.raises(BrokenScores):
        ranked_scores(("a", "b"), Answer(np.array(scores, np.float32), truncated=False), independent=True)


def test_in_python_the_result_holds_all_labels(topics):
    result = create_classifier("topics").classify("sport is money")
    assert (result["labels"], result["final_label"]) == (["money", "sport"], "money")


def test_the_command_names_every_label_or_none(topics):
    out = io.StringIO()
    call_command("predict", "topics", "sport is money", "perhaps politics", stdout=out, stderr=io.StringIO())
    lines = [line for line in out.getvalue().splitlines() if not line.startswith(" ")]
    assert lines == ["money (90.00%), sport (90.00%)", "none of the labels  [low_confidence]"]


def test_a_file_gets_a_column_of_labels_that_an_import_reads_back(topics, tmp_path):
    source, table, lines = tmp_path / "texts.csv", tmp_path / "answers.csv", tmp_path / "answers.jsonl"
    source.write_text('text\n""\nsport is money\nperhaps politics\n', encoding="utf-8")
    for target in (table, lines):
        call_command("predict", "topics", file=source, output=target, stderr=io.StringIO())
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["labels"] for row in rows] == ["", "money|sport", "|"]
    assert [row["label"] for row in rows] == ["", "money", "politics"]
    answers = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [answer["labels"] for answer in answers] == [None, ["money", "sport"], []]
