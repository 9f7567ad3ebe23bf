"""Every page of the admin as everybody: what opens, what a POST may change, and that GET changes nothing."""

import re
from contextlib import contextmanager
from io import BytesIO

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client

from tests.admin.conftest import HOSTILE
from tests.contract.admin_pages import (
    DEPLOY,
    GOVERN,
    LOOK,
    REVIEW,
    ROLES,
    ROOT,
    TABLES,
    TRAIN,
    changed,
    everything,
    expected,
    pages,
)

UNKNOWN = "say in admin_pages.py who may see it, and in verbs() of test_admin_by_role.py what its POST does"
SCRIPT = "<script>alert("  # as in the texts of the world, and in none of our own pages
assert HOSTILE.startswith(SCRIPT)


def test_every_page_is_in_the_tables_and_every_entry_is_a_page(world):
    from tests.contract import admin_pages

    found = pages()
    unknown = []
    for page in found:
        try:
            expected(page, "superuser")
        except KeyError:
            unknown.append(page.pattern)
    assert not unknown, f"New pages {unknown}: {UNKNOWN}"
    assert set(admin_pages.SEES) == set(TABLES)
    names = {page.name for page in found}
    assert set(admin_pages.OWN) | set(admin_pages.SITE) <= names
    assert {f"{table}_add" for table in admin_pages.ADDS} | {
        f"{table}_delete" for table in admin_pages.DELETES
    } <= names


@pytest.mark.parametrize("role", ROLES)
def test_a_page_opens_for_those_it_is_for_and_looking_changes_nothing(cast, role):
    client, found, wanted = cast.clients[role], {}, {}
    before = everything()
    for page in pages():
        response = client.get(page.url)
        found[page.url], wanted[page.url] = response.status_code, expected(page, role)
        if response.status_code == 302 and role in ("anonymous", "outsider") and page.name != "logout":
            assert response.url.startswith("/admin/login/"), page.url
        if response.status_code == 200 and not response.streaming:
            text = response.content.decode()
            assert SCRIPT not in text, page.url
            assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", text), page.url
    assert found == wanted
    assert changed(before) == set()


# Verbs ------------------------------------------------------------------------------------------------------------


def rows_file():
    return SimpleUploadedFile("rows.csv", b"text,label\nwhat a joy,joy\n")


def verbs(cast):
    """Everything that a POST can do: who may, where, and a body that does it."""
    job, item, version = cast.waiting_job.pk, cast.items[1].pk, cast.second.pk
    upload = {"classifier": cast.emotion.pk, "role": "training", "split": "", "then": "none", "url": ""}
    chosen = {"_selected_action": [cast.items[2].pk, cast.items[3].pk]}
    items, words = "/admin/training/trainingdataitem/", "/admin/training/blockedword/"
    datasets = "/admin/training/dataset/"
    schedule = first("django_q_schedule").pk
    key = {"name": "shop", "scopes": ["predict"], "rate": ""}
    weekly = {"enabled": "on", "schedule_type": "I", "minutes": 5, "next_run_0": "2030-01-01", "next_run_1": "00:00"}
    joined = {"date_joined_0": "2026-01-05", "date_joined_1": "09:30"}
    person, group = cast.users["outsider"].pk, first("auth_group").pk
    passwords = {"usable_password": "true", "password1": "quiet-lake-42", "password2": "quiet-lake-42"}
    return {
        "core_alert_close": (TRAIN | DEPLOY, f"/admin/core/alert/{first('core_alert').pk}/close/", {}),
        "core_apikey_revoke": (GOVERN, f"/admin/core/apikey/{cast.key.pk}/revoke/", {}),
        "core_apikey_add": (GOVERN, "/admin/core/apikey/add/", key),
        "core_job_cancel": (TRAIN, f"/admin/core/job/{job}/cancel/", {}),
        "registry_classifier_train": (TRAIN, f"/admin/registry/classifier/{cast.emotion.pk}/train/", {"then": "none"}),
        "registry_classifier_rollback": (
            DEPLOY,
            f"/admin/registry/classifier/{cast.emotion.pk}/rollback/",
            {"reason": "odd"},
        ),
        "registry_classifier_change": (
            GOVERN,
            f"/admin/registry/classifier/{cast.emotion.pk}/change/",
            {"name": "Renamed", "description": "", "family": "classic", "enabled": "on"},
        ),
        "registry_classifier_add": (
            ROOT,
            "/admin/registry/classifier/add/",
            {"slug": "fresh", "name": "Fresh", "description": "", "family": "classic", "enabled": "on"},
        ),
        "registry_modelversion_deploy": (
            DEPLOY,
            f"/admin/registry/modelversion/{version}/deploy/",
            {"reason": "better"},
        ),
        "registry_modelversion_verify": (DEPLOY, f"/admin/registry/modelversion/{version}/verify/", {}),
        "training_blockedword_words": (TRAIN, f"{words}words/", {"words": "drat\ndang*", "effect": "block"}),
        "training_blockedword_remove": (TRAIN, f"{words}{first('training_blockedword').pk}/remove/", {}),
        "training_dataset_upload": (TRAIN, "/admin/training/dataset/upload/", lambda: upload | {"file": rows_file()}),
        "training_dataset_load": (TRAIN, f"{datasets}{cast.loadable.pk}/load/", {"then": "none"}),
        "training_dataset_cancel": (TRAIN, f"{datasets}{cast.dataset.pk}/cancel/", {}),
        "training_dataset_discard": (TRAIN, f"{datasets}{cast.useless.pk}/discard/", {}),
        "training_dataset_examine": (TRAIN, f"{datasets}{cast.loadable.pk}/examine/", {}),
        "training_dataset_role": (TRAIN, f"{datasets}{cast.loadable.pk}/role/", {"role": "golden"}),
        "training_datasetsnapshot_download": (
            LOOK,
            f"/admin/training/datasetsnapshot/{cast.snapshot.pk}/download/",
            {"kind": "csv"},
        ),
        "training_trainingdataitem_curate": (TRAIN, f"{items}curate/", {"classifier": cast.emotion.pk}),
        "training_trainingdataitem_verdict": (REVIEW, f"{items}{item}/verdict/", {"verdict": "approve"}),
        "training_trainingdataitem_hold": (REVIEW, f"{items}{item}/hold/", {}),
        "training_trainingdataitem_undo": (REVIEW, f"{items}review/undo/", {}),
        "training_trainingdataitem_again": (REVIEW, f"{items}review/again/", {}),
        "training_trainingdataitem_relabel": (REVIEW, f"{items}relabel/", chosen | {"label": "joy"}),
        "training_trainingdataitem_judge": (
            REVIEW,
            f"{items}waiting/judge/",
            chosen | {"classifier": "emotion", "verdict": "approve"},
        ),
        "approve_selected": (REVIEW, items, chosen | {"action": "approve_selected"}),
        "reject_selected": (REVIEW, items, chosen | {"action": "reject_selected"}),
        "training_trainingrun_cancel": (TRAIN, f"/admin/training/trainingrun/{cast.waiting_run.pk}/cancel/", {}),
        "django_q_schedule_run": (GOVERN, f"/admin/django_q/schedule/{schedule}/run/", {}),
        "django_q_schedule_change": (GOVERN, f"/admin/django_q/schedule/{schedule}/change/", weekly),
        "auth_user_add": (ROOT, "/admin/auth/user/add/", {"username": "mallory"} | passwords),
        "auth_user_change": (
            ROOT,
            f"/admin/auth/user/{person}/change/",
            {"username": "carl", "is_superuser": "on"} | joined,
        ),
        "auth_user_password_change": (ROOT, f"/admin/auth/user/{person}/password/", passwords),
        "auth_user_delete": (ROOT, f"/admin/auth/user/{person}/delete/", {"post": "yes"}),
        "auth_group_add": (ROOT, "/admin/auth/group/add/", {"name": "guests"}),
        "auth_group_change": (ROOT, f"/admin/auth/group/{group}/change/", {"name": "renamed"}),
        "auth_group_delete": (ROOT, f"/admin/auth/group/{group}/delete/", {"post": "yes"}),
    }


def first(table):
    return TABLES[table]._default_manager.order_by("pk").first()


def body_of(verb):
    body = verb[2]
    return body() if callable(body) else body


@pytest.fixture
def cast_with_work(cast):
    """The cast, a deployment that can be rolled back, a run that waits, a verdict to undo and an item skipped."""
    from registry.services import version_deploy
    from training import services

    third = cast.second
    version_deploy(third, actor="dina", force=True, may_force=True, reason="so that there is one to roll back")
    from tests.admin.conftest import make_version

    cast.second = make_version(cast.emotion, right=95)
    cast.waiting_run = services.run_start(cast.emotion, actor="tala", ring=False)
    cast.loadable = services.dataset_add(
        cast.emotion, source=BytesIO(b"text,label\nwhat a day,joy\n"), name="more.csv", actor="tala"
    )
    cast.useless = services.dataset_add(cast.emotion, source=BytesIO(b"x"), name="useless.csv", actor="tala")
    cast.items[4].dataset = cast.loadable
    cast.items[4].save()
    services.item_review(cast.items[0], reviewer=cast.users["superuser"], verdict="reject")
    services.desk_skip(cast.items[4], cast.users["superuser"])
    return cast


@contextmanager
def undone(client):
    """Whatever happens inside is taken back, the session too, whose key some pages change."""
    session = client.cookies["sessionid"].value
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    client.cookies["sessionid"] = session


def test_every_verb_does_something_for_a_superuser(cast_with_work):
    """Without this the refusals below would prove nothing."""
    client, idle, before = cast_with_work.clients["superuser"], [], everything()
    for name, verb in verbs(cast_with_work).items():
        with undone(client):
            response = client.post(verb[1], body_of(verb))
            if not changed(before):
                idle.append((name, response.status_code, re.findall(r'class="errorlist.*', response.text)))
    assert idle == []
    assert changed(before) == set()


def test_every_page_that_takes_a_post_is_among_the_verbs(cast_with_work):
    """A page that changes something when it is posted to is a verb, and stands in the table."""
    client, before = cast_with_work.clients["superuser"], everything()
    known = verbs(cast_with_work)
    new = []
    for page in pages():
        if not page.table or page.name in known:
            continue
        with undone(client):
            client.post(page.url, {"post": "yes", "reason": "because"})
            if changed(before):
                new.append(page.pattern)
    assert not new, f"{new} change something: {UNKNOWN}"


@pytest.mark.parametrize("role", [role for role in ROLES if role != "superuser"])
def test_a_verb_without_its_permission_is_forbidden_and_changes_nothing(cast_with_work, role):
    client, found, wanted = cast_with_work.clients[role], {}, {}
    before = everything()
    for name, verb in verbs(cast_with_work).items():
        if role in verb[0]:
            continue
        found[name] = client.post(verb[1], body_of(verb)).status_code
        # A list that offers them no such action is shown again.
        offered = 200 if role in ("viewer", "deployer") and name.endswith("_selected") else 403
        wanted[name] = 302 if role in ("anonymous", "outsider") else offered
    assert found == wanted
    assert changed(before) == set()


def test_a_verb_without_the_csrf_token_is_forbidden_and_changes_nothing(cast_with_work):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(cast_with_work.users["superuser"])
    before = everything()
    found = {name: strict.post(verb[1], body_of(verb)).status_code for name, verb in verbs(cast_with_work).items()}
    found |= {page.url: strict.post(page.url).status_code for page in pages()}
    assert {name: status for name, status in found.items() if status != 403} == {}
    assert changed(before) == set()


def test_a_verb_by_get_changes_nothing(cast_with_work):
    before = everything()
    for name, verb in verbs(cast_with_work).items():
        body = {key: value for key, value in body_of(verb).items() if key != "file"}
        assert cast_with_work.clients["superuser"].get(verb[1], body).status_code in (200, 302, 405), name
    assert changed(before) == set()
