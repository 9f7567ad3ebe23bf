"""An installation in which every endpoint has something to answer with, and a key for each scope."""

from types import SimpleNamespace

import pytest

from tests.admin.conftest import people, sign_in, world  # noqa: F401  (fixtures, used by their names)
from tests.inference.conftest import (  # noqa: F401
    LABELS,
    clarity,
    emotion,
    go_live,
    make_classifier,
    publish,
    serving,
)

PLENTY = "1000000/m"  # so many requests are made here that the usual rate would be met


@pytest.fixture
def installation(emotion, clarity, publish, make_classifier, serving, settings):  # noqa: F811
    """Two classifiers that answer and one that cannot yet; a version to deploy and one that the gate refuses; items to
    learn from; a job that waits; an interaction of Carla's. `keys` has a plain key per scope, all of them Carla's."""
    from kalimtak.core import jobs
    from registry.services import evaluation_record

    settings.KALIMTAK_DATASET_HOSTS = ["data.example.org"]
    make_classifier("silent")
    for version, right in ((emotion.versions.get(), 80), (publish(emotion), 90), (publish(emotion), 50)):
        evaluation_record(version, data_digest="g" * 64, scores=scores_of(right))
    teach(emotion)
    keys, everything = make_keys()
    return SimpleNamespace(
        emotion=emotion,
        clarity=clarity,
        keys=keys,
        carla=everything,
        interaction=make_interaction(emotion, everything.key),
        job=jobs.enqueue("curate", {"classifier": "emotion"}, actor="olga", ring=False),
    )


def scores_of(right):
    """Figures of a version that answers `right` of 100 golden texts right."""
    import numpy as np

    from registry.metrics import score

    truth = [LABELS[index % len(LABELS)] for index in range(100)]
    answered = [(index % len(LABELS) + (index >= right)) % len(LABELS) for index in range(100)]
    probabilities = np.full((100, len(LABELS)), 0.05)
    probabilities[np.arange(100), answered] = 0.9
    return score(LABELS, truth, probabilities)


def teach(classifier):
    from training import services
    from training.models import TrainingDataItem

    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=classifier,
            fields={"text": f"{LABELS[number % 3]} number {number}"},
            label=LABELS[number % 3],
            status="approved",
            content_hash=f"{number:064x}",
        )
        for number in range(60)
    )
    services.examples_curate(classifier=classifier)  # the next curation finds nothing to do


def make_keys():
    """A plain key for every scope, and one that holds them all."""
    from kalimtak.core.auth import key_create
    from kalimtak.core.models import Scope

    keys = {scope: key_create(f"carla {scope}", [scope], actor="olga", rate=PLENTY)[1] for scope in Scope.values}
    key, plain = key_create("Carla", Scope.values, actor="olga", rate=PLENTY)
    return keys, SimpleNamespace(key=key, plain=plain)


def make_interaction(classifier, key):
    """An answer that was given to `key`."""
    from django.utils import timezone

    from interactions.models import UserInteraction

    return UserInteraction.objects.create(
        classifier=classifier,
        version=classifier.versions.get(number=1),
        api_key=key,
        fields={"text": "what a joy"},
        label="joy",
        confidence=0.9,
        scores={"joy": 0.9, "sadness": 0.05, "anger": 0.05},
        created_at=timezone.now(),
    )


@pytest.fixture
def cast(world, people):  # noqa: F811
    """A signed-in client for each role, and for nobody in particular."""
    from django.contrib.auth.models import Group, User
    from django.test import Client

    ada = User.objects.create(username="ada", is_staff=True)
    ada.groups.add(Group.objects.get(name="admin"))
    carl = User.objects.create(username="carl")
    users = {
        "outsider": carl,
        "nobody": people.nadia,
        "viewer": people.vera,
        "annotator": people.rami,
        "trainer": people.tala,
        "deployer": people.dina,
        "admin": ada,
        "superuser": people.olga,
    }
    clients = {"anonymous": Client(raise_request_exception=False)}
    for role, user in users.items():
        clients[role] = Client(raise_request_exception=False)
        clients[role].force_login(user)
    return SimpleNamespace(clients=clients, users=users, **vars(world))
