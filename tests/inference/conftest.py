"""Classifiers that answer: real rows, real artefacts, a family that is quick to load, and Carla with her key."""

import json
import threading
import uuid

import pytest

LABELS = ("joy", "sadness", "anger")


@pytest.fixture
def serving(transactional_db, settings, tmp_path, monkeypatch):
    """A store of this test's own, and an engine that is stopped afterwards."""
    from django.core.cache import cache

    from inference import services
    from kalimtak.core import auth
    from registry.families import FAMILIES

    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    monkeypatch.setitem(FAMILIES, "keyword", "tests.inference.keyword_family")
    services.shut_down()
    auth.cache_clear()
    cache.clear()
    yield services
    services.shut_down()


@pytest.fixture
def publish(serving):
    """Publish a verified version of a classifier: `publish(classifier, confidence=0.8)`."""
    from registry import store
    from registry.manifest import Manifest, write_manifest
    from registry.models import ModelVersion

    def publish(classifier, *, confidence=0.9, seconds=0.0, calibration=None, probed_confidence=None):
        number = classifier.versions.count() + 1
        folder = store.staging_folder(uuid.uuid4(), 1)
        (folder / "serving").mkdir(parents=True)
        settings = {"confidence": confidence, "seconds": seconds}
        (folder / "serving" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        manifest = Manifest(
            classifier=classifier.slug,
            family="keyword",
            labels=tuple(classifier.labels),
            input_fields=tuple(classifier.input_fields),
            preprocessing=1,
            max_length=None,
            recipe={},
            calibration=calibration or {},
            metrics={},
            seed=0,
            snapshot_digest=None,
            libraries={},
            parameters={"total": 1, "trainable": 1},
            base_model=None,
            created="2026-01-05T09:30:00+00:00",
        )
        if probed_confidence is not None:  # what the package answered when it was built
            fields = [["joy"] * len(classifier.input_fields)]
            others = (1 - probed_confidence) / (len(classifier.labels) - 1)
            answers = [probed_confidence if label == "joy" else others for label in classifier.labels]
            probes = [{"fields": each, "probabilities": answers} for each in fields]
            described = {"labels": list(classifier.labels), "probes": probes}
            (folder / "probes.json").write_text(json.dumps(described), encoding="utf-8")
        write_manifest(folder, manifest)
        digest = store.publish(folder, classifier.slug, number)
        return ModelVersion.objects.create(
            classifier=classifier,
            number=number,
            family="keyword",
            status=ModelVersion.Status.VERIFIED,
            artefact_digest=digest,
            labels=classifier.labels,
        )

    return publish


@pytest.fixture
def go_live():
    """Put a version into production in place of the one before, as a deployment does in one transaction."""
    from django.db import transaction
    from django.utils import timezone

    from inference.live import LIVE
    from registry.models import Deployment

    def go_live(version, *, refresh=True):
        with transaction.atomic():
            Deployment.objects.live().filter(classifier=version.classifier).update(ended_at=timezone.now())
            deployment = Deployment.objects.create(classifier=version.classifier, version=version, actor="olga")
        if refresh:
            LIVE.refresh()
        return deployment

    return go_live


@pytest.fixture
def make_classifier(transactional_db):
    from registry.models import Classifier

    def make(slug, **values):
        defaults = {"name": slug, "family": "classic", "labels": list(LABELS), "input_fields": ["text"]}
        return Classifier.objects.create(slug=slug, **defaults | values)

    return make


@pytest.fixture
def emotion(make_classifier, publish, go_live):
    """The default classifier, its first version live."""
    classifier = make_classifier("emotion", is_default=True)
    go_live(publish(classifier))
    return classifier


@pytest.fixture
def clarity(make_classifier, publish, go_live):
    labels = ["Clear Reply", "Clear Non-Reply", "Ambivalent"]
    fields = ["question", "context"]
    classifier = make_classifier(
        "clarity",
        labels=labels,
        input_fields=fields,
        label_field="clarity_label",
        label_config={"descriptions": {"Ambivalent": "Leaves it open"}},
    )
    go_live(publish(classifier))
    return classifier


@pytest.fixture
def topics(make_classifier, publish, go_live):
    """A multi-label classifier; `sport` is given from 0.3 on, the others from 0.5."""
    labels = ["money", "politics", "sport"]
    thresholds = {"money": 0.5, "politics": 0.5, "sport": 0.3}
    classifier = make_classifier("topics", labels=labels, label_config={"multi_label": True})
    go_live(publish(classifier, calibration={"temperature": 1.0, "multi_label": True, "thresholds": thresholds}))
    return classifier


def in_threads(*functions):
    """Run every function in a thread of its own, started together; their database connections are closed."""
    from django.db import connections

    def run(function):
        try:
            function()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    return threads


class Client:
    """Posts JSON with a key, the way Carla does."""

    def __init__(self, plain_key="", **defaults):
        from django.test import Client as DjangoClient

        headers = {"authorization": f"Bearer {plain_key}"} if plain_key else {}
        self._client = DjangoClient(raise_request_exception=True, headers=headers, **defaults)

    def post(self, path, body):
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return self._client.post(path, data, content_type="application/json")

    def get(self, path):
        return self._client.get(path)

    def predict(self, body, path="/api/predict"):
        return self.post(path, body)


@pytest.fixture
def make_client(transactional_db):
    from kalimtak.core.auth import key_create

    def make(name="Carla", scopes=("predict", "feedback", "read")):
        return Client(key_create(name, scopes, actor="olga")[1])

    return make


@pytest.fixture
def carla(make_client, serving):
    return make_client()
