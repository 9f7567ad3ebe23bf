"""Every address of the admin, found by walking its resolver, and who may see what behind it.

The rules are written out rather than read from the code under test: whoever adds a page adds a line here.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.urls import URLPattern, URLResolver

STAFF = ("nobody", "viewer", "annotator", "trainer", "deployer", "admin", "superuser")
ROLES = ("anonymous", "outsider", *STAFF)
LOOK = {"viewer", "annotator", "trainer", "deployer", "admin", "superuser"}
REVIEW = {"annotator", "trainer", "admin", "superuser"}
TRAIN = {"trainer", "admin", "superuser"}
DEPLOY = {"deployer", "admin", "superuser"}
GOVERN = {"admin", "superuser"}
ROOT = {"superuser"}
NOBODY: set[str] = set()

# Who may look at the rows of a table: its list, its objects, their history and their panels.
SEES = {
    "core_alert": LOOK,
    "core_apikey": GOVERN,
    "core_auditevent": GOVERN,
    "core_job": LOOK,
    "registry_classifier": LOOK,
    "registry_modelversion": LOOK,
    "registry_evaluation": LOOK,
    "registry_deployment": LOOK,
    "interactions_userinteraction": LOOK,
    "interactions_feedback": LOOK,
    "training_dataset": LOOK,
    "training_trainingdataitem": LOOK,
    "training_blockedword": LOOK,
    "training_trainingrun": LOOK,
    "training_datasetsnapshot": LOOK,
    "training_snapshotitem": LOOK,
    "auth_user": GOVERN,
    "auth_group": GOVERN,
    "django_q_schedule": GOVERN,
}
# Who may open a table's page for new rows, and the one for deleting a row. Unnamed: nobody, not even a superuser.
ADDS = {"core_apikey": GOVERN, "registry_classifier": ROOT, "auth_user": ROOT, "auth_group": ROOT}
DELETES = {"auth_user": ROOT, "auth_group": ROOT}
# Pages of our own: who may open them, and what a GET of those gets.
OWN = {
    "core_alert_close": (TRAIN | DEPLOY, 200),
    "core_apikey_revoke": (GOVERN, 200),
    "core_job_cancel": (TRAIN, 200),
    "registry_classifier_train": (TRAIN, 200),
    "registry_classifier_rollback": (DEPLOY, 200),
    "registry_modelversion_deploy": (DEPLOY, 200),
    "registry_modelversion_verify": (DEPLOY, 200),
    "registry_modelversion_measure-cascade": (DEPLOY, 200),
    "registry_modelversion_picture": (LOOK, 200),
    "training_blockedword_words": (TRAIN, 200),
    "training_blockedword_remove": (TRAIN, 200),
    "training_dataset_upload": (TRAIN, 200),
    "training_dataset_load": (TRAIN, 200),
    "training_dataset_cancel": (TRAIN, 200),
    "training_dataset_discard": (TRAIN, 200),
    "training_dataset_examine": (TRAIN, 200),
    "training_dataset_role": (TRAIN, 200),
    "training_dataset_bad_rows": (LOOK, 404),  # where there are none
    "training_datasetsnapshot_download": (LOOK, 200),
    "training_datasetsnapshot_compare": (LOOK, 200),
    "training_trainingdataitem_curate": (TRAIN, 200),
    "training_trainingdataitem_desk": (REVIEW, 302),
    "training_trainingdataitem_review": (REVIEW, 200),
    "training_trainingdataitem_hold": (REVIEW, 405),
    "training_trainingdataitem_undo": (REVIEW, 405),
    "training_trainingdataitem_again": (REVIEW, 405),
    "training_trainingdataitem_relabel": (REVIEW, 405),
    "training_trainingdataitem_waiting": (REVIEW, 200),
    "training_trainingdataitem_agreement": (REVIEW, 200),
    "training_trainingdataitem_judge": (REVIEW, 405),
    "training_trainingdataitem_verdict": (REVIEW, 405),
    "training_trainingrun_cancel": (TRAIN, 200),
    "django_q_schedule_run": (GOVERN, 200),
    "auth_user_password_change": (ROOT, 200),
}
# Pages of the site itself, the same for all staff.
SITE = {
    "index": 200,
    "search": 200,
    "login": 302,  # they are in already
    "logout": 405,
    "password_change": 200,
    "password_change_done": 200,
    "jsi18n": 200,
    "autocomplete": 403,  # no form of ours asks it for anything
    "view_on_site": 404,  # nothing here has a page elsewhere
    "training_dataset_add": 302,  # leads to the upload
}


@dataclass(frozen=True)
class Page:
    """An address with its blanks filled in. `table` is `app_model`, empty for pages of the site."""

    name: str
    table: str
    url: str
    pattern: str


def walk(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern), pattern.name or ""


def table_of(model: type[Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}"


TABLES = {table_of(model): model for model in admin.site._registry}


def pages() -> list[Page]:
    """Every page, with the first row of its table; panels one by one. Needs a row in each table."""
    found = []
    for pattern, name in walk(admin.site.urls[0]):
        table = "_".join(pattern.split("/")[:2])
        table = table if table in TABLES else ""
        model = TABLES.get(table)
        row = model._default_manager.order_by("pk").first() if model else None
        assert model is None or row is not None, f"the world lacks a {table}"
        url = "/admin/" + pattern
        for blank in ("<path:object_id>", "<int:item_id>", "<id>"):
            url = url.replace(blank, str(row.pk) if row else "1")
        url = url.replace("<path:content_type_id>", "1")
        if url.endswith("<slug:name>/"):
            panels = [panel.name for panel in admin.site._registry[model].panels]
            found += [Page("panel", table, url.replace("<slug:name>", panel), pattern) for panel in panels]
        elif name == "app_list":
            apps = sorted({known._meta.app_label for known in TABLES.values()})
            found += [Page(name, "", f"/admin/{app}/", pattern) for app in apps]
        elif name == "" and not table:
            found.append(Page("no such page", "", "/admin/no/such/page/", pattern))
        else:
            found.append(Page(name or "short", table, url, pattern))
    return found


def expected(page: Page, role: str) -> int:
    """The status of a GET. `KeyError` for a page that no rule knows."""
    if role not in STAFF:
        return 200 if page.name == "login" else 302
    if page.name in SITE:
        return SITE[page.name]
    if page.name == "app_list":
        app = page.url.split("/")[2]
        return 200 if any(role in who for table, who in SEES.items() if table.startswith(f"{app}_")) else 404
    if page.name == "no such page":
        return 404
    if page.name == "short":  # the address of an object without its verb leads to its page
        return 302
    who, status = rule(page)
    return status if role in who else 403


def rule(page: Page) -> tuple[set[str], int]:
    """Who may open a page of a table, and what they get."""
    if page.name in OWN:
        return OWN[page.name]
    kind = page.name.removeprefix(f"{page.table}_")
    if kind == "add":
        return ADDS.get(page.table, NOBODY), 200
    if kind == "delete":
        return DELETES.get(page.table, NOBODY), 200
    if page.url.endswith("/panel/personal/"):  # who asked
        return GOVERN, 200
    if kind in ("changelist", "change", "history", "panel"):
        return SEES[page.table], 200
    raise KeyError(page.name)


def everything() -> dict[str, tuple[int, str]]:
    """Each table with the number of its rows and a digest of them; sessions apart, which requests may renew."""
    found = {}
    for model in apps.get_models(include_auto_created=True):
        if model._meta.label != "sessions.Session":
            rows = [repr(row) for row in model._default_manager.order_by("pk").values_list()]
            found[model._meta.label] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


def changed(before: dict[str, tuple[int, str]]) -> set[str]:
    """The tables that are not what they were when `everything` was asked."""
    after = everything()
    return {table for table in before if before[table] != after[table]}
