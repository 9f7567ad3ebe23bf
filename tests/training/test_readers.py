"""Classifiers that read what is being curated: a second opinion on its fitness, and what it is about."""

from hashlib import sha256

import pytest

from kalimtak.core.models import Alert
from registry.models import Classifier
from training import services
from training.models import TrainingDataItem
from training.services.readers import Reader, SecondOpinion

pytestmark = pytest.mark.django_db


@pytest.fixture
def guard(store):
    """A classifier without a version."""
    return Classifier.objects.create(
        slug="guard", name="Guard", family="classic", labels=["ok", "insult"], input_fields=["text"], policy={}
    )


@pytest.fixture
def live_guard(guard, monkeypatch):
    """The guard with a version that calls a text with `snarl` an insult, and of one with `hiss` is unsure."""
    import numpy as np

    from registry.calibration import Calibration
    from registry.families.base import Answer

    class Words:
        labels, input_fields, calibration = ("ok", "insult"), ("text",), Calibration()

        def predict(self, inputs):
            if any("explode" in fields[0] for fields in inputs):
                raise RuntimeError("boom")
            rows = [0.9 if "snarl" in fields[0] else 0.4 if "hiss" in fields[0] else 0.1 for fields in inputs]
            return [Answer(np.array([1 - insult, insult], dtype=np.float32), truncated=False) for insult in rows]

    def load(reader):
        reader._predictor, reader._floor = Words(), 0.5

    monkeypatch.setattr(Reader, "_load", load)
    return guard


def with_policy(classifier, **review):
    classifier.policy = {"review": review}
    classifier.save()
    return classifier


def test_what_the_moderating_classifier_objects_to_waits_and_nothing_is_dropped(mood, live_guard, ask, judge):
    with_policy(mood, moderation="guard")
    judge(ask("a snarl at you"), rating=5)
    judge(ask("a flower for you"), rating=5)
    judge(ask("a hiss perhaps"), rating=5)
    stats = services.examples_curate(classifier=mood)
    assert (stats.approved, stats.for_review, stats.filtered) == (2, 1, 0)
    item = TrainingDataItem.objects.get(classifier=mood, status="review")
    assert item.reason == "The classifier guard calls it 'insult' (90%)."


def test_a_classifier_that_judges_language_is_asked_no_second_time(live_guard):
    assert SecondOpinion(live_guard, "guard")._reader is None


@pytest.mark.parametrize("slug", ["guard", "nobody"])
def test_without_a_version_curation_goes_on_and_an_alert_tells(mood, guard, ask, judge, slug):
    with_policy(mood, moderation=slug)
    judge(ask("a snarl at you"), rating=5)
    assert services.examples_curate(classifier=mood).approved == 1
    alert = Alert.objects.get(kind="reader_unavailable")
    assert f"The classifier {slug} could not read" in alert.message


def test_a_model_that_fails_on_a_text_holds_nobody_up(mood, live_guard, ask, judge):
    with_policy(mood, moderation="guard")
    judge(ask("explode"), rating=5)
    judge(ask("a snarl"), rating=5)
    assert services.examples_curate(classifier=mood).loaded == 2
    assert "boom" in Alert.objects.get().message


def test_a_domain_classifier_names_what_texts_are_about(mood, live_guard, ask, judge):
    with_policy(mood, domains="guard")
    judge(ask("a snarl at you"), rating=5)
    services.examples_curate(classifier=mood)
    assert TrainingDataItem.objects.get(classifier=mood).domain == "insult"


def test_clusters_are_found_once_and_kept(mood, ask, judge):
    from training.models import DomainMap

    with_policy(mood, domains="clusters")
    subjects = {"money": "refund invoice payment charge", "travel": "airport luggage flight ticket"}
    subjects |= {"food": "pasta cheese salad kitchen", "music": "guitar concert album singer"}
    subjects |= {"sport": "football trophy referee goalkeeper", "garden": "tulips watering compost hedges"}
    subjects |= {"school": "teacher homework lesson pencil", "health": "doctor fever tablet hospital"}
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=mood,
            fields={"text": " ".join([*words.split()[:3], words.split()[number % 4], f"thing{number % 7}"])},
            label=("glad", "sad", "calm")[number % 3],
            status="approved",
            content_hash=sha256(f"{name}{number}".encode()).hexdigest(),
        )
        for name, words in subjects.items()
        for number in range(40)
    )
    judge(ask("my luggage missed the flight"), rating=5)
    judge(ask("qwxz"), rating=5)
    services.examples_curate(classifier=mood, dry_run=True)
    assert not DomainMap.objects.exists()
    stats = services.examples_curate(classifier=mood)
    known = DomainMap.objects.get().clusters
    assert len(known) == 8
    domain = TrainingDataItem.objects.get(fields__text="my luggage missed the flight").domain
    assert domain in known
    assert {"luggage", "flight"} <= set(known[domain])
    assert TrainingDataItem.objects.get(fields__text="qwxz").domain == ""
    assert stats.shares["mood"]["domain"][domain][1] > 0
    services.examples_curate(classifier=mood)
    assert DomainMap.objects.get().clusters == known


def test_a_policy_that_names_no_reader_is_told(mood, guard):
    from registry.services import classifier_problems

    with_policy(mood, moderation="mood", domains="nobody")
    problems = dict(classifier_problems(mood))
    assert "names mood itself" in problems["review.moderation"]
    assert "there is no classifier 'nobody'" in problems["review.domains"]
    with_policy(mood, moderation="guard", domains="clusters")
    assert classifier_problems(mood) == []
