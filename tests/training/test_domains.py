"""Domains by clusters: found once, told of every item, and what a curation says where there are none."""

from hashlib import sha256

import pytest

from kalimtak.core.crashpoints import crashpoint
from training import services
from training.models import DomainMap, TrainingDataItem
from training.services import curation, domains, neighbours

pytestmark = pytest.mark.django_db

SUBJECTS = {
    "money": "refund invoice payment charge",
    "travel": "airport luggage flight ticket",
    "food": "pasta cheese salad kitchen",
    "music": "guitar concert album singer",
    "sport": "football trophy referee goalkeeper",
    "garden": "tulips watering compost hedges",
    "school": "teacher homework lesson pencil",
    "health": "doctor fever tablet hospital",
}


@pytest.fixture
def clustered(mood):
    mood.policy = {"review": {"domains": "clusters"}}
    mood.save()
    return mood


def items_make(classifier, each, subjects=SUBJECTS, first=0, **values):
    """Approved items, `each` of a subject, as if imported."""
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=classifier,
            fields={"text": " ".join([*words.split()[:3], words.split()[number % 4], f"thing{number % 7}"])},
            label=("glad", "sad", "calm")[number % 3],
            status="approved",
            content_hash=sha256(f"{subject}{number}".encode()).hexdigest(),
            **values,
        )
        for subject, words in ((subject, SUBJECTS[subject]) for subject in subjects)
        for number in range(first, first + each)
    )


def untold(classifier):
    return TrainingDataItem.objects.filter(classifier=classifier, domain="").count()


def test_clusters_are_found_once_and_kept(clustered, ask, judge):
    items_make(clustered, 40)
    judge(ask("my luggage missed the flight"), rating=5)
    judge(ask("qwxz"), rating=5)
    services.examples_curate(classifier=clustered, dry_run=True)
    assert not DomainMap.objects.exists()
    stats = services.examples_curate(classifier=clustered)
    known = DomainMap.objects.get().clusters
    assert len(known) == 8
    assert stats.notes == {}
    domain = TrainingDataItem.objects.get(fields__text="my luggage missed the flight").domain
    assert domain in known
    assert {"luggage", "flight"} <= set(known[domain])
    assert TrainingDataItem.objects.get(fields__text="qwxz").domain == ""
    services.examples_curate(classifier=clustered)
    assert DomainMap.objects.get().clusters == known


@pytest.mark.parametrize("compared", [False, True])
def test_imported_items_get_their_domain_and_shares_tell_of_them(clustered, compared):
    items_make(clustered, 40, compared=compared)
    looked = services.examples_curate(classifier=clustered, dry_run=True)
    assert untold(clustered) == 320
    stats = services.examples_curate(classifier=clustered)
    assert untold(clustered) == 0
    assert looked.shares == stats.shares
    told = stats.shares["mood"]["domain"]
    assert told.pop("") == [1.0, 0.0]
    assert told == {name: [0.0, 0.125] for name in DomainMap.objects.get().clusters}
    again = services.examples_curate(classifier=clustered).shares["mood"]["domain"]
    assert again == {name: [0.125, 0.125] for name in told}


def test_praise_of_a_crowded_domain_of_imports_is_left_out(clustered, ask, judge):
    items_make(clustered, 40)
    services.examples_curate(classifier=clustered)
    items_make(clustered, 200, subjects=["travel"], first=40)
    judge(ask("their luggage took another flight"), rating=5)
    judge(ask("a singer with a guitar"), rating=5)
    stats = services.examples_curate(classifier=clustered)
    assert (stats.over_represented, stats.approved) == (1, 1)
    assert stats.reasons["domain over-represented"] == 1


def test_a_day_pays_for_the_day(clustered, django_assert_num_queries):
    items_make(clustered, 40, compared=True)
    services.examples_curate(classifier=clustered)
    marker = domains.DomainMarker(clustered, "clusters", dry_run=False)
    with django_assert_num_queries(0):
        assert marker.tell_earlier() == []


def test_an_interrupted_pass_goes_on_where_it_was(clustered, monkeypatch):
    items_make(clustered, 40, compared=True)
    for module in (domains, curation, neighbours):
        monkeypatch.setattr(module, "BATCH", 100)
    times = []

    def die(name):
        times.append(name)
        if times.count("curation.after_telling") == 2:
            raise RuntimeError(name)
        crashpoint(name)

    monkeypatch.setattr(curation, "crashpoint", die)
    with pytest.raises(RuntimeError):
        services.examples_curate(classifier=clustered)
    assert untold(clustered) == 120
    monkeypatch.setattr(curation, "crashpoint", crashpoint)
    marker = domains.DomainMarker(clustered, "clusters", dry_run=False)
    assert marker.earlier().count() == 120
    services.examples_curate(classifier=clustered)
    assert untold(clustered) == 0


def test_a_curation_says_why_it_tells_no_domains(clustered, mood):
    items_make(clustered, 2)
    said = services.examples_curate(classifier=clustered).to_dict()["notes"]["mood"]
    assert said == "No domains are told: the set has 16 texts, and clusters are found from 200 on."
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=mood, fields={"text": f"{number}"}, label="sad", status="approved", content_hash=number
        )
        for number in range(200)
    )
    said = services.examples_curate(classifier=clustered).notes["mood"]
    assert said == "No domains are told: the texts share too few words to find clusters by."
    assert untold(clustered) == 216
