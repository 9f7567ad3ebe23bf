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


def imported(classifier, text, **values):
    digest = sha256(text.encode()).hexdigest()
    row = {"fields": {"text": text}, "label": "glad", "status": "approved", "content_hash": digest} | values
    return TrainingDataItem.objects.create(classifier=classifier, **row)


def domains_by_text(classifier):
    rows = TrainingDataItem.objects.filter(classifier=classifier).values_list("fields__text", "domain")
    return dict(rows)


def test_what_came_while_the_domain_classifier_could_not_answer_is_told_when_it_can(mood, guard, request):
    with_policy(mood, domains="guard")
    imported(mood, "a snarl")
    services.examples_curate(classifier=mood)
    assert domains_by_text(mood) == {"a snarl": ""}
    request.getfixturevalue("live_guard")
    services.examples_curate(classifier=mood)
    assert domains_by_text(mood) == {"a snarl": "insult"}
    imported(mood, "explode with a snarl")
    imported(mood, "a snarl again")
    services.examples_curate(classifier=mood)
    assert domains_by_text(mood)["a snarl again"] == ""
    TrainingDataItem.objects.filter(fields__text="explode with a snarl").delete()
    services.examples_curate(classifier=mood)
    assert domains_by_text(mood) == {"a snarl": "insult", "a snarl again": "insult"}


def test_another_teller_tells_all_items_anew(mood, live_guard):
    item = imported(mood, "a snarl", domain="noise, snarl", compared=True)
    with_policy(mood, domains="guard")
    services.examples_curate(classifier=mood)
    item.refresh_from_db()
    assert item.domain == "insult"
    with_policy(mood)
    services.examples_curate(classifier=mood)
    item.refresh_from_db()
    assert item.domain == "insult"  # who tells none, takes none away
    other = imported(mood, "snarl snarl")
    services.examples_curate(classifier=mood)
    with_policy(mood, domains="guard")
    services.examples_curate(classifier=mood)
    other.refresh_from_db()
    assert other.domain == "insult"


def test_a_policy_that_names_no_reader_is_told(mood, guard):
    from registry.services import classifier_problems

    with_policy(mood, moderation="mood", domains="nobody")
    problems = dict(classifier_problems(mood))
    assert "names mood itself" in problems["review.moderation"]
    assert "there is no classifier 'nobody'" in problems["review.domains"]
    with_policy(mood, moderation="guard", domains="clusters")
    assert classifier_problems(mood) == []
