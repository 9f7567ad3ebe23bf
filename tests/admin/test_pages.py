"""Every page of the admin, as everybody of the cast."""

import pytest
from django.contrib import admin
from django.urls import reverse

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
NAMES = [model._meta.label for model in MODELS]
CAST = ("olga", "rami", "tala", "dina", "vera", "nadia")


def page(model, kind, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args)


@pytest.mark.parametrize("name", CAST)
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_a_list_opens_for_those_who_may_see_it_and_nobody_else(world, sign_in, people, model, name):
    may = getattr(people, name).has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
    response = sign_in(name).get(page(model, "changelist"))
    assert response.status_code == (200 if may else 403)
    if name == "nadia":
        assert response.status_code == 403


@pytest.mark.parametrize("name", CAST)
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_an_objects_page_opens_for_those_who_may_see_it_and_nobody_else(world, sign_in, people, model, name):
    row = model._default_manager.first()
    assert row is not None, "the world lacks a row"
    may = getattr(people, name).has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
    response = sign_in(name).get(page(model, "change", row.pk))
    assert response.status_code == (200 if may else 403)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_add_pages_open_for_olga_or_are_forbidden(world, sign_in, model):
    assert sign_in("olga").get(page(model, "add")).status_code in (200, 302, 403)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_a_list_takes_at_most_twelve_queries(world, sign_in, django_assert_max_num_queries, model):
    client = sign_in("olga")
    with django_assert_max_num_queries(12):
        client.get(page(model, "changelist"))


@pytest.mark.parametrize("name", ["olga", "vera"])
def test_the_overview_takes_at_most_twelve_queries(world, sign_in, django_assert_max_num_queries, name):
    client = sign_in(name)
    with django_assert_max_num_queries(12):
        response = client.get(reverse("admin:index"))
    assert "emotion/1" in response.text


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


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_hostile_text_is_inert_on_lists_and_pages(world, sign_in, model):
    client = sign_in("olga")
    row = model._default_manager.first()
    for url in (page(model, "changelist"), page(model, "change", row.pk), page(model, "history", row.pk)):
        assert '<script>alert("x")' not in client.get(url).text


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_pages_load_nothing_from_other_hosts(world, sign_in, model):
    import re

    row = model._default_manager.first()
    for url in (page(model, "changelist"), page(model, "change", row.pk)):
        text = sign_in("olga").get(url).text
        assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', text)


def test_only_those_who_may_see_personal_records_see_addresses(world, sign_in):
    url = reverse("admin:interactions_userinteraction_change", args=[world.interaction.pk])
    assert "203.0.113.9" in sign_in("olga").get(url).text
    for name in ("rami", "tala", "dina", "vera"):
        assert "203.0.113.9" not in sign_in(name).get(url).text


def test_a_list_without_rows_says_what_to_do_next(people, sign_in):
    text = sign_in("olga").get(reverse("admin:training_trainingrun_changelist")).text
    assert "press “Train now”" in text


def test_a_visitor_is_sent_to_the_sign_in_page(client, world):
    response = client.get(reverse("admin:registry_classifier_changelist"))
    assert response.status_code == 302
    assert reverse("admin:login") in response.url
