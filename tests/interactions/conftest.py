"""A classifier with a version that once answered, and the people who judge its answers."""

import pytest


@pytest.fixture
def version(db):
    from registry.models import Classifier, ModelVersion

    classifier = Classifier.objects.create(
        slug="emotion", name="emotion", family="classic", labels=["joy", "sadness", "anger"], input_fields=["text"]
    )
    return ModelVersion.objects.create(classifier=classifier, number=1, family="classic", labels=classifier.labels)


@pytest.fixture
def make_caller(db):
    from kalimtak.core.auth import Caller, key_create

    def make(name="Carla"):
        key, _ = key_create(name, ["predict", "feedback"], actor="olga")
        return Caller("key", f"key:{key.prefix}", key_id=key.pk)

    return make


@pytest.fixture
def carla(make_caller):
    return make_caller()


@pytest.fixture
def rami(django_user_model, db):
    from kalimtak.core.auth import Caller

    return Caller("user", "rami", user=django_user_model.objects.create_user("rami", is_staff=True))


@pytest.fixture
def nobody():
    from kalimtak.core.auth import Caller

    return Caller("anonymous", "anonymous", address="203.0.113.7")


@pytest.fixture
def make_row(version):
    from interactions.services import NewInteraction

    def make(**values):
        defaults = {
            "classifier_id": version.classifier_id,
            "version_id": version.pk,
            "deployment_id": None,
            "fields": {"text": "what a day"},
            "label": "joy",
            "confidence": 0.8,
            "scores": {"joy": 0.8, "sadness": 0.2},
            "threshold": 0.5,
            "abstained": False,
        }
        return NewInteraction(**defaults | values)

    return make


@pytest.fixture
def answer(make_row, carla):
    """An answer that Carla's key asked for."""
    from interactions.models import UserInteraction
    from interactions.services import interactions_record

    row = make_row(api_key_id=carla.key_id)
    interactions_record([row])
    return UserInteraction.objects.get(pk=row.id)
