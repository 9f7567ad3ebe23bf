"""The page of how far reviewers agree."""

import pytest
from django.urls import reverse

from training import services
from training.models import TrainingDataItem

URL = reverse("admin:training_trainingdataitem_agreement")


@pytest.fixture
def judged(world, people):
    """Rami and Tala agreed on three of four texts."""
    world.emotion.policy = {**world.emotion.policy, "review": {"second_share": 1.0}}
    world.emotion.save()
    for number, item in enumerate(world.items[:4]):
        services.item_review(item, reviewer=people.rami, verdict="approve")
        verdict = ("relabel", "fear") if number == 3 else ("approve", "")
        services.item_review(item, reviewer=people.tala, verdict=verdict[0], label=verdict[1])


def test_it_shows_figures_by_label_and_pair_and_says_that_they_are_few(judged, sign_in):
    text = sign_in("rami").get(URL, {"classifier": "emotion"}).text
    assert "Only 4 texts" in text
    assert "rami · tala" in text
    assert "75%" in text
    assert "few texts" in text
    assert "sadness" in text
    assert "0.00" in text  # one label for all but one word: no better than chance


def test_without_second_opinions_it_says_how_to_get_them(world, sign_in):
    text = sign_in("rami").get(URL).text
    assert "No text was judged by two reviewers yet." in text
    assert "review.second_share (now 0%)" in text
    assert "No answer that was drawn at random has a label yet." in text


def test_the_random_sample_s_accuracy_is_shown(world, sign_in, people):
    services.audit_draw(world.emotion)
    item = TrainingDataItem.objects.get(why="audit")
    services.item_review(item, reviewer=people.rami, verdict="relabel", label="joy")
    text = sign_in("rami").get(URL).text
    assert "<strong>100 %</strong>" in text
    assert "from 1 that was drawn at random" in text


def test_an_installation_without_classifiers_has_a_page_too(people, sign_in):
    assert "There is no classifier yet." in sign_in("olga").get(URL).text


@pytest.mark.parametrize("name", ["vera", "dina", "nadia"])
def test_it_is_for_reviewers(world, sign_in, name):
    assert sign_in(name).get(URL).status_code == 403
