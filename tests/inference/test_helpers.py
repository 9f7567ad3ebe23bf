"""Backup, sarcasm, cascade and cache of a policy, asked through the API and from Python, on real rows and artefacts."""

import json
import time

import pytest

from inference import create_classifier
from inference.live import LIVE
from interactions.models import UserInteraction
from kalimtak.core.findings import Look
from registry import store
from registry.manifest import ArtefactCorrupt
from registry.models import Cascade
from tests.inference.conftest import LABELS


def obey(classifier, **policy):
    """Give the classifier this policy, and let this process know."""
    classifier.policy = policy
    classifier.save()
    LIVE.refresh()


@pytest.fixture
def second(make_classifier, publish, go_live):
    """Of the same labels in another order; it says `joy` where nothing is named, as its first label is anger."""
    classifier = make_classifier("second", labels=["anger", "sadness", "joy"])
    go_live(publish(classifier, confidence=0.7))
    return classifier


@pytest.fixture
def irony(make_classifier, publish, go_live):
    """Finds sarcastic whatever holds that word."""
    classifier = make_classifier("irony", labels=["sincere", "sarcastic"])
    go_live(publish(classifier, confidence=0.95))
    return classifier


def ask(carla, text="joy", **more):
    response = carla.predict({"text": text, **more})
    assert response.status_code == 200, response.content
    return response.json()


def row(result):
    return UserInteraction.objects.select_related("version__classifier", "deployment__version").get(
        pk=result["interaction_id"]
    )


def given(result):
    return result["label"], result["source"], result["model_version"], result["flags"]


# The backup --------------------------------------------------------------------------------------------------------


@pytest.fixture
def strict(emotion, publish, go_live):
    """emotion/2 is right with 0.6, under the floor that `obey(…, confidence_floor=0.65)` sets."""
    go_live(publish(emotion, confidence=0.6))
    return emotion


def test_a_backup_that_is_surer_answers_and_is_named(carla, strict, second):
    obey(strict, backup="second", confidence_floor=0.65)
    result = ask(carla, "what a joy")
    assert given(result) == ("joy", "backup", "second/1", [])
    assert result["confidence"] == pytest.approx(0.7)
    assert (result["classifier"], result["deployment"], result["abstained"]) == ("emotion", "production", False)
    assert set(result["scores"]) == set(LABELS)
    kept = row(result)
    assert (kept.classifier.slug, kept.version.ref, kept.source) == ("emotion", "second/1", "backup")
    assert kept.deployment.version.ref == "emotion/2"


def test_a_backup_that_is_no_surer_leaves_the_answer_as_it_is(carla, emotion, second):
    obey(emotion, backup="second")
    assert ask(carla, "perhaps joy")["source"] == "model"  # both say 0.4
    result = ask(carla, "joy")
    assert given(result)[1:3] == ("model", "emotion/1")


def test_the_backup_answers_where_the_model_fails_and_without_one_that_is_a_503(carla, emotion, second, publish):
    assert carla.predict({"text": "boom joy"}).status_code == 503
    obey(emotion, backup="second")
    folder = store.version_folder("second", 1) / "serving" / "settings.json"
    assert folder.exists()
    assert carla.predict({"text": "boom joy"}).status_code == 503  # the backup fails on it too


def test_one_odd_text_of_a_batch_is_answered_by_the_backup(carla, emotion, second, monkeypatch):
    from tests.inference.keyword_family import KeywordPredictor

    obey(emotion, backup="second")
    tolerant = KeywordPredictor._answer

    def fails_on_boom(self, text):
        return tolerant(self, text if self.labels[0] == "joy" else text.replace("boom", ""))

    monkeypatch.setattr(KeywordPredictor, "_answer", fails_on_boom)
    results = carla.predict({"texts": ["joy", "boom sadness", "anger"]}).json()["results"]
    assert [(each["label"], each["source"]) for each in results] == [
        ("joy", "model"),
        ("sadness", "backup"),
        ("anger", "model"),
    ]
    assert [row(each).version.ref for each in results] == ["emotion/1", "second/1", "emotion/1"]


def test_feedback_on_a_backups_answer_is_checked_by_the_classifier_that_was_asked(carla, strict, second):
    obey(strict, backup="second", confidence_floor=0.65)
    result = ask(carla)
    assert (
        carla.post("/api/feedback", {"interaction_id": result["interaction_id"], "correct_label": "anger"}).status_code
        == 201
    )
    assert (
        carla.post("/api/feedback", {"interaction_id": result["interaction_id"], "correct_label": "bliss"}).status_code
        == 400
    )


def test_fsck_finds_nothing_wrong_with_an_answer_of_another_version(carla, strict, second):
    from interactions.invariants import interactions_fit_their_versions

    obey(strict, backup="second", confidence_floor=0.65)
    kept = row(ask(carla))
    assert list(interactions_fit_their_versions(Look())) == []
    UserInteraction.objects.filter(pk=kept.pk).update(source="model")
    assert "version that answered is one of another" in str(list(interactions_fit_their_versions(Look())))


def test_a_deployment_of_the_backup_is_noticed_and_never_mixed(carla, strict, second, publish, go_live):
    obey(strict, backup="second", confidence_floor=0.65)
    assert ask(carla)["model_version"] == "second/1"
    go_live(publish(second, confidence=0.8), refresh=False)
    confidences = {"second/1": 0.7, "second/2": 0.8}
    until = time.monotonic() + 1.0
    while (result := ask(carla))["model_version"] == "second/1":
        assert result["confidence"] == pytest.approx(confidences["second/1"])
        assert time.monotonic() < until, "a second is long enough"
        time.sleep(0.02)
    assert (result["model_version"], round(result["confidence"], 4)) == ("second/2", confidences["second/2"])


def test_a_change_of_the_policy_is_noticed_within_a_second(carla, strict, second):
    assert ask(carla)["source"] == "model"
    strict.policy = {"backup": "second", "confidence_floor": 0.65}
    strict.save()
    until = time.monotonic() + 1.0
    while ask(carla)["source"] == "model":
        assert time.monotonic() < until, "a second is long enough"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "change", [{"enabled": False}, {"labels": ["x", "y"]}, {"input_fields": ["question", "context"]}]
)
def test_a_backup_that_cannot_help_costs_the_model_nothing(carla, strict, second, publish, go_live, change):
    for name, value in change.items():
        setattr(second, name, value)
    second.save()
    if "enabled" not in change:
        go_live(publish(second, confidence=0.9))
    obey(strict, backup="second", confidence_floor=0.65)
    assert given(ask(carla)) == ("joy", "model", "emotion/2", ["low_confidence"])


def test_a_backup_whose_policy_points_back_is_asked_once(carla, strict, second):
    obey(second, backup="emotion", confidence_floor=0.99)
    obey(strict, backup="second", confidence_floor=0.65)
    assert given(ask(carla))[:3] == ("joy", "backup", "second/1")
    assert ask(carla, classifier="second")["model_version"] == "second/1"


def test_a_version_that_cannot_be_loaded_is_stood_in_for_until_it_can(carla, emotion, second, monkeypatch):
    path = store.version_folder("emotion", 1) / "serving" / "settings.json"
    content = path.read_bytes()
    path.write_bytes(b"{}")
    LIVE.stop()  # as in a process that starts now
    assert carla.predict({"text": "joy"}).status_code == 503
    obey(emotion, backup="second")
    result = ask(carla)
    assert given(result) == ("joy", "backup", "second/1", [])
    assert row(result).deployment.version.ref == "emotion/1"
    assert carla.get("/readyz").status_code == 200
    assert emotion.deployments.live().get().health == "degraded"
    assert carla.predict({"text": "boom"}).status_code == 503  # the backup fails too
    path.write_bytes(content)
    monkeypatch.setattr(LIVE, "_retry_at", 0.0)
    LIVE.refresh()
    assert given(ask(carla))[1:3] == ("model", "emotion/1")


# Sarcasm -----------------------------------------------------------------------------------------------------------


def test_sarcasm_is_flagged_and_answered_by_the_backup(carla, emotion, second, irony):
    obey(emotion, backup="second", sarcasm="irony")
    assert given(ask(carla, "a sarcastic joy")) == ("joy", "backup", "second/1", ["sarcasm"])
    assert given(ask(carla, "a sincere joy")) == ("joy", "model", "emotion/1", [])
    assert row(ask(carla, "sarcastic anger")).flags == ["sarcasm"]


# The cascade -------------------------------------------------------------------------------------------------------


def measured(emotion, second, threshold):
    pair = {"version": emotion.versions.last(), "cheap": second.versions.last()}
    return Cascade.objects.update_or_create(**pair, defaults={"threshold": threshold})[0]


def test_a_cascade_answers_only_once_its_pair_was_measured(carla, emotion, second):
    obey(emotion, cascade="second")
    assert ask(carla)["source"] == "model"
    measured(emotion, second, 0.69)
    until = time.monotonic() + 1.0
    while (result := ask(carla))["source"] == "model":
        assert time.monotonic() < until, "a second is long enough"
        time.sleep(0.02)
    assert given(result) == ("joy", "cascade", "second/1", [])
    assert (row(result).version.ref, row(result).source) == ("second/1", "cascade")
    assert ask(carla, "perhaps joy")["source"] == "model"  # not sure enough


def test_another_version_on_either_side_ends_the_cascade_until_it_is_measured(carla, emotion, second, publish, go_live):
    measured(emotion, second, 0.5)
    obey(emotion, cascade="second")
    assert ask(carla)["source"] == "cascade"
    go_live(publish(second, confidence=0.8))
    assert ask(carla)["source"] == "model"


def test_a_pair_without_a_threshold_is_not_used(carla, emotion, second):
    measured(emotion, second, None)
    obey(emotion, cascade="second")
    assert ask(carla)["source"] == "model"


# The cache ---------------------------------------------------------------------------------------------------------


def test_equal_texts_come_from_memory_and_are_recorded_each(carla, emotion, publish, go_live):
    obey(emotion, cache=True)
    first, again = ask(carla, "joy"), ask(carla, "joy")
    assert (first["source"], again["source"]) == ("model", "cache")
    assert first["interaction_id"] != again["interaction_id"]
    assert again["model_version"] == "emotion/1"
    assert first["scores"] == again["scores"]
    assert list(UserInteraction.objects.order_by("created_at").values_list("source", flat=True)) == ["model", "cache"]
    go_live(publish(emotion, confidence=0.7))
    assert given(ask(carla, "joy"))[1:3] == ("model", "emotion/2")


def test_a_deployment_elsewhere_leaves_the_memory_as_it_is(carla, emotion, second, publish, go_live):
    obey(emotion, cache=5)
    ask(carla, "joy")
    go_live(publish(second, confidence=0.8))
    assert ask(carla, "joy")["source"] == "cache"


def test_what_a_backup_answered_comes_from_memory_as_the_backups(carla, strict, second):
    obey(strict, backup="second", confidence_floor=0.65, cache=5)
    assert [ask(carla)["source"] for _ in range(2)] == ["backup", "cache"]
    kept = UserInteraction.objects.latest("created_at")
    assert (kept.version.ref, kept.source) == ("second/1", "cache")


# Without a server --------------------------------------------------------------------------------------------------


def test_python_asks_the_backup_only_where_it_is_wanted(strict, second):
    strict.policy = {"backup": "second", "confidence_floor": 0.65}
    strict.save()
    result = create_classifier("emotion", enable_backup=True).classify("what a joy")
    assert (result["final_label"], result["source"], result["model_version"]) == ("joy", "backup", "second/1")
    assert row(result).version.ref == "second/1"
    alone = create_classifier("emotion", enable_backup=False).classify("what a joy")
    assert (alone["source"], alone["model_version"], alone["abstained"]) == ("model", "emotion/2", True)


def test_python_answers_without_a_backup_that_cannot_be_loaded(strict, second):
    strict.policy = {"backup": "second", "confidence_floor": 0.65}
    strict.save()
    path = store.version_folder("second", 1) / "serving" / "settings.json"
    path.write_text(json.dumps({"confidence": 0.71, "seconds": 0}))
    assert create_classifier("emotion", enable_backup=True).classify("joy")["source"] == "model"


def test_python_lets_the_backup_stand_in_for_a_version_that_cannot_be_loaded(strict, second):
    strict.policy = {"backup": "second", "confidence_floor": 0.65}
    strict.save()
    path = store.version_folder("emotion", 2) / "serving" / "settings.json"
    path.write_text(json.dumps({"confidence": 0.71, "seconds": 0}))
    result = create_classifier("emotion", enable_backup=True).classify("what a joy")
    assert (result["final_label"], result["source"], result["model_version"]) == ("joy", "backup", "second/1")
    assert row(result).version.ref == "second/1"
    with pytest.raises(ArtefactCorrupt):
        create_classifier("emotion", enable_backup=False)
    strict.policy = {}
    strict.save()
    with pytest.raises(ArtefactCorrupt):
        create_classifier("emotion", enable_backup=True)


def test_the_predict_command_says_who_answered(strict, second, capsys):
    from django.core.management import call_command

    strict.policy = {"backup": "second", "confidence_floor": 0.65}
    strict.save()
    call_command("predict", "emotion", "what a joy")
    assert capsys.readouterr().out.splitlines()[0] == "joy (70.00%)  [by the backup]"
