"""Editing a classifier: read as strictly as models.yaml, each mistake shown at its field."""

import json

import pytest
from django.urls import reverse

from kalimtak.core.models import AuditEvent


@pytest.fixture
def save(world, sign_in):
    """Post the classifier's form with changes; the response, and the row as it is afterwards."""

    def save(**changes):
        emotion = world.emotion
        data = {
            "name": emotion.name,
            "description": "",
            "family": "classic",
            "enabled": "on",
            "is_default": "on",
            "label_config": json.dumps(emotion.label_config),
            "recipe": json.dumps(emotion.recipe),
            "policy": json.dumps(emotion.policy),
        } | {name: value if isinstance(value, str) else json.dumps(value) for name, value in changes.items()}
        response = sign_in("olga").post(reverse("admin:registry_classifier_change", args=[emotion.pk]), data)
        emotion.refresh_from_db()
        return response, emotion

    return save


def test_a_changed_recipe_is_kept_with_its_defaults_and_audited(save):
    response, emotion = save(recipe={"training_config": {"num_epochs": 5}})
    assert response.status_code == 302
    assert emotion.recipe["training_config"]["num_epochs"] == 5
    assert emotion.recipe["training_config"]["batch_size"] == 32
    assert AuditEvent.objects.filter(action="classifier.change", actor="olga").exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("recipe", {"training_config": {"num_epoch": 5}}, "training_config.num_epoch"),
        ("recipe", {"traning_config": {}}, "Use the sections"),
        ("recipe", [1], "Use the sections"),
        ("policy", {"confidence_floor": 3}, "policy.confidence_floor"),
        ("label_config", {"labels": ["one"]}, "label_config.labels"),
        ("policy", "{", "Enter a valid JSON"),
        ("policy", {"backup": "emotion"}, "policy.backup: names emotion itself"),
        (
            "policy",
            {"backup": "nobody"},
            "policy.backup: there is no classifier &#x27;nobody&#x27;; add it, or name one",
        ),
        ("policy", {"cascade": "nobody"}, "policy.cascade: there is no classifier"),
        ("policy", {"sarcasm": "nobody"}, "policy.sarcasm: needs a backup"),
        ("policy", {"cache": -1}, "policy.cache: expected a whole number"),
        ("recipe", {"model_config": {"members": ["a", "b"]}}, "goes with type ensemble only"),
    ],
)
def test_a_mistake_is_shown_at_its_field_and_nothing_is_kept(save, field, value, says):
    response, emotion = save(**{field: value})
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == [field]
    assert says in str(response.context["adminform"].form.errors[field])
    assert emotion.recipe["training_config"]["num_epochs"] == 3
    assert emotion.family == "classic"


def test_a_loader_of_own_code_cannot_be_named_here(save):
    response, emotion = save(recipe={"loader": "os:system"})
    assert response.status_code == 200
    assert emotion.loader == ""
    response, emotion = save(loader="os:system")
    assert response.status_code == 302
    assert emotion.loader == ""
    response, emotion = save(family="custom", loader="os:system")
    assert response.status_code == 200
    assert "loader: is missing" in str(response.context["adminform"].form.errors)
    assert (emotion.family, emotion.loader) == ("classic", "")


def test_a_classifier_with_a_loader_can_be_edited_and_keeps_it(save, world):
    from registry.models import Classifier

    mine = {"family": "custom", "loader": "mine.models:load"}
    Classifier.objects.filter(pk=world.emotion.pk).update(**mine)
    world.emotion.refresh_from_db()
    response, emotion = save(family="custom", name="Mine", loader="os:system")
    assert response.status_code == 302
    assert (emotion.name, emotion.loader) == ("Mine", "mine.models:load")


def test_a_second_default_is_refused_by_name(save, world):
    from registry.models import Classifier

    world.emotion.is_default = False
    world.emotion.save()
    Classifier.objects.create(slug="intent", name="Intent", family="classic", input_fields=["text"], is_default=True)
    response, _emotion = save()
    assert "“intent” is the default" in str(response.context["adminform"].form.errors["is_default"])


def test_a_trained_classifier_keeps_its_number_of_labels_per_text(save, world):
    response, emotion = save(label_config=world.emotion.label_config | {"multi_label": True})
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == ["label_config"]
    assert not emotion.multi_label


def test_an_ensemble_names_its_members_in_the_recipe(save):
    response, emotion = save(family="ensemble")
    assert "members: is missing" in str(response.context["adminform"].form.errors["recipe"])
    response, emotion = save(family="ensemble", recipe={"model_config": {"members": ["intent", "mood"]}})
    assert response.status_code == 302
    assert (emotion.family, emotion.recipe["model_config"]["members"]) == ("ensemble", ["intent", "mood"])
