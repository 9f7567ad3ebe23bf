"""The version's page says from when the cascade answers, how much it saves, or why it is not used."""

import pytest
from django.urls import reverse

from kalimtak.core import jobs
from kalimtak.core.models import Job
from registry.models import Cascade, Classifier
from registry.services import version_deploy
from tests.admin.conftest import LABELS, make_version

FIGURES = {"texts": 400, "early": 0.625, "accuracy": 0.9125, "main_accuracy": 0.91, "main_ms": 6.5, "cheap_ms": 0.4}


@pytest.fixture
def cheap(world):
    cheap = Classifier.objects.create(
        slug="quick", name="Quick", family="classic", labels=list(LABELS), input_fields=["text"]
    )
    world.emotion.policy = world.emotion.policy | {"cascade": "quick"}
    world.emotion.save()
    return cheap


@pytest.fixture
def page(world, sign_in):
    def page(name="olga"):
        version = world.emotion.versions.get(number=1)
        response = sign_in(name).get(reverse("admin:registry_modelversion_change", args=[version.pk]))
        assert response.status_code == 200
        return response.content.decode()

    return page


def test_without_a_cascade_the_page_says_nothing_of_one(page):
    assert "Answered early" not in page()
    assert "measure-cascade" not in page()


def test_the_page_says_what_is_missing(cheap, page):
    assert "of which no version answers yet" in page()
    version_deploy(make_version(cheap, right=80), actor="dina", reason="first")
    assert "Not measured with quick/1 yet" in page()


def test_threshold_share_and_saving_stand_on_the_page(world, cheap, page):
    version_deploy(make_version(cheap, right=80), actor="dina", reason="first")
    pair = {"version": world.emotion.versions.get(number=1), "cheap": cheap.versions.get()}
    Cascade.objects.create(**pair, threshold=0.8437, figures=FIGURES | {"saving": 0.5635})
    shown = page("vera")
    for text in ("quick/1 · live", "0.8437", "62.5 %", "56.4 %", "0.40 ms / 6.50 ms", "91.2 %", "91.0 %"):
        assert text in shown, text
    Cascade.objects.update(threshold=None, figures={"texts": 12, "reason": "only <12> texts"})
    assert "Not used: only &lt;12&gt; texts" in page()


def test_the_button_queues_a_measurement_once(world, cheap, sign_in, monkeypatch):
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    version_deploy(make_version(cheap, right=80), actor="dina", reason="first")
    Job.objects.filter(kind="cascade").delete()
    version = world.emotion.versions.get(number=1)
    address = reverse("admin:registry_modelversion_change", args=[version.pk]).replace("change", "measure-cascade")
    for _ in range(2):
        assert sign_in("dina").post(address).status_code == 302
    assert Job.objects.get(kind="cascade").params == {"classifier": "emotion", "pair": ["emotion/1", "quick/1"]}
    assert sign_in("vera").post(address).status_code == 403


def test_a_version_without_a_cascade_has_nothing_to_measure(world, sign_in):
    version = world.emotion.versions.get(number=1)
    address = reverse("admin:registry_modelversion_change", args=[version.pk]).replace("change", "measure-cascade")
    assert sign_in("dina").get(address).status_code == 200
    response = sign_in("dina").post(address, follow=True)
    assert "There is no cascade to measure" in response.content.decode()
    assert not Job.objects.filter(kind="cascade").exists()
