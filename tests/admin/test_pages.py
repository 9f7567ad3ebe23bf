"""Every page of the admin, as everybody of the cast."""

import re

import pytest
from django.contrib import admin
from django.urls import reverse

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
CAST = ("olga", "rami", "tala", "dina", "vera", "nadia")


def page(model, kind, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args)


def first_of(model):
    row = model._default_manager.order_by("pk").first()
    assert row is not None, f"the world lacks a {model._meta.label}"
    return row


def may_see(user, model):
    return user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")


@pytest.mark.parametrize("name", CAST)
def test_lists_open_for_those_who_may_see_them_and_nobody_else(world, sign_in, people, name):
    client, user = sign_in(name), getattr(people, name)
    found = {model: client.get(page(model, "changelist")).status_code for model in MODELS}
    assert found == {model: 200 if may_see(user, model) else 403 for model in MODELS}
    if name == "nadia":
        assert set(found.values()) == {403}


@pytest.mark.parametrize("name", CAST)
def test_pages_of_objects_open_for_those_who_may_see_them_and_nobody_else(world, sign_in, people, name):
    client, user = sign_in(name), getattr(people, name)
    found = {model: client.get(page(model, "change", first_of(model).pk)).status_code for model in MODELS}
    assert found == {model: 200 if may_see(user, model) else 403 for model in MODELS}
    if name == "nadia":
        assert set(found.values()) == {403}


def test_add_pages_open_for_olga_or_are_forbidden(world, sign_in):
    client = sign_in("olga")
    for model in MODELS:
        assert client.get(page(model, "add")).status_code in (200, 302, 403), model


def test_nadia_cannot_add_change_or_delete_anything(world, sign_in):
    client = sign_in("nadia")
    for model in MODELS:
        pk = first_of(model).pk
        for address in (page(model, "add"), page(model, "change", pk), page(model, "delete", pk)):
            assert client.post(address, {"post": "yes"}).status_code in (302, 403), address
        assert model._default_manager.filter(pk=pk).exists()


@pytest.fixture
def crowd(world, people):
    """Thirty rows more of the tables whose lists show related rows."""
    from django.contrib.auth.models import Group, User
    from django.utils import timezone

    from interactions.models import Feedback, UserInteraction
    from kalimtak.core.models import Job
    from registry.models import Classifier, Deployment, Evaluation
    from training.models import Dataset, TrainingDataItem, TrainingRun

    def copies(row, **values):
        fields = {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields if not f.primary_key}
        made = [{name: value(n) for name, value in values.items()} for n in range(30)]
        return type(row).objects.bulk_create(type(row)(**{**fields, **changes}) for changes in made)

    copies(Evaluation.objects.exclude(baseline=None).first())
    copies(Deployment.objects.first(), ended_at=lambda n: timezone.now())
    copies(Dataset.objects.first())
    copies(UserInteraction.objects.first())
    copies(Feedback.objects.first(), source=lambda n: f"key:{n}")
    copies(TrainingDataItem.objects.first(), content_hash=lambda n: f"copy{n}")
    jobs = copies(Job.objects.first(), key=lambda n: f"copy:{n}")
    copies(TrainingRun.objects.first(), job_id=lambda n: jobs[n].pk, version_id=lambda n: None)
    classifiers = copies(Classifier.objects.first(), slug=lambda n: f"copy-{n}", is_default=lambda n: False)
    copies(Deployment.objects.live().first(), classifier_id=lambda n: classifiers[n].pk)
    for number in range(30):
        User.objects.create(username=f"copy{number}").groups.add(Group.objects.first())
    return world


def test_no_list_takes_more_than_twelve_queries(crowd, sign_in, django_assert_max_num_queries):
    client = sign_in("olga")
    for model in MODELS:
        with django_assert_max_num_queries(12, info=model._meta.label):
            assert client.get(page(model, "changelist")).status_code == 200


@pytest.mark.parametrize("name", ["olga", "vera"])
def test_the_overview_takes_at_most_twelve_queries(crowd, sign_in, django_assert_max_num_queries, name):
    client = sign_in(name)
    with django_assert_max_num_queries(12):
        response = client.get(reverse("admin:index"))
    assert "emotion/1" in response.text


def test_the_overview_shows_a_classifier_that_has_no_version_yet(people, sign_in):
    from registry.models import Classifier

    Classifier.objects.create(
        slug="fresh", name="Fresh", family="classic", labels=[], input_fields=["text"], recipe={}, policy={}
    )
    text = sign_in("olga").get(reverse("admin:index")).text
    assert "Fresh" in text
    assert "no version yet" in text


def test_the_overview_shows_nadia_nothing_but_how_to_get_a_role(world, sign_in):
    text = sign_in("nadia").get(reverse("admin:index")).text
    assert "You have no role yet" in text
    assert "emotion" not in text.lower()
    assert "Recent jobs" not in text


def test_the_sidebar_lists_only_what_one_may_see(world, sign_in):
    text = sign_in("rami").get(reverse("admin:index")).text
    assert reverse("admin:training_trainingdataitem_changelist") in text
    assert reverse("admin:core_apikey_changelist") not in text
    assert reverse("admin:core_auditevent_changelist") not in text


def test_the_queues_own_tables_have_no_pages():
    """They hold pickles; the job ledger says more."""
    assert not [model for model in MODELS if model._meta.app_label == "django_q" and model.__name__ != "Schedule"]


def test_hostile_text_is_inert_and_nothing_comes_from_other_hosts(world, sign_in):
    client = sign_in("olga")
    for model in MODELS:
        pk = first_of(model).pk
        for address in (page(model, "changelist"), page(model, "change", pk), page(model, "history", pk)):
            text = client.get(address).text
            assert '<script>alert("x")' not in text, address
            assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', text), address


def test_only_those_who_may_see_personal_records_see_addresses(world, sign_in):
    url = reverse("admin:interactions_userinteraction_change", args=[world.interaction.pk])
    assert "203.0.113.9" in sign_in("olga").get(url).text
    for name in ("rami", "tala", "dina", "vera"):
        assert "203.0.113.9" not in sign_in(name).get(url).text


def test_a_list_without_rows_says_what_to_do_next(people, sign_in):
    text = sign_in("olga").get(reverse("admin:training_trainingrun_changelist")).text
    assert "press “Train now”" in text


def test_an_address_without_its_slash_leads_to_the_page(client, db):
    assert client.get("/admin").headers["Location"] == "/admin/"


def test_a_visitor_is_sent_to_the_sign_in_page(client, world):
    response = client.get(reverse("admin:registry_classifier_changelist"))
    assert response.status_code == 302
    assert reverse("admin:login") in response.url


def test_the_search_of_the_sidebar_finds_pages_that_one_may_see(world, sign_in):
    address = reverse("admin:search")
    assert "Classifiers" in sign_in("olga").get(address, {"s": "classif"}).text
    assert "Classifiers" not in sign_in("nadia").get(address, {"s": "classif"}).text
    assert sign_in("olga").get(address).status_code == 200


def test_a_data_set_whose_import_died_each_time_is_shown_as_what_became_of_its_job(sign_in, world):
    world.dataset.job.state = "quarantined"
    world.dataset.job.error = "Its process died 3 times."
    world.dataset.job.save()
    olga = sign_in("olga")
    assert "quarantined" in olga.get("/admin/training/dataset/").content.decode()
    page = olga.get(f"/admin/training/dataset/{world.dataset.pk}/change/").content.decode()
    assert "Its process died 3 times." in page
