"""Filters, ids and choices that make no sense, on every page of the admin: refused or ignored, no fault of ours."""

import pytest

from tests.contract.admin_pages import changed, everything, pages

FILTERS = [
    {"q": "\x00"},
    {"q": "%' OR 1=1 --"},
    {"classifier__id__exact": "²"},
    {"classifier__id__exact": "9" * 40},
    {"label": "\x00"},
    {"state__exact": "\x00"},
    {"status__exact": "\x00"},
    {"classifier": "\x00", "\x00": "x"},
    {"p": "9" * 30},
    {"o": "1.2.-99.²"},
    {"password__startswith": "x"},
    {"user__password__startswith": "x"},
    {"id__in": "1,²,\x00"},
    {"_facets": "\x00", "e": "1", "all": ""},
    {"_to_field": "password", "_popup": "1"},
    {"classifier": "²", "s": "\x00"},
]
IDS = ["\x00", "²", "9" * 40, "-1", "_5F_00", "x" * 500, "0199a0a0-0000-7000-8000-000000000000"]


def test_filters_that_make_no_sense_are_no_fault_of_ours(cast):
    client, failed = cast.clients["superuser"], []
    lists = [page for page in pages() if page.name.endswith(("_changelist", "_desk", "_upload", "search", "index"))]
    for page in lists:
        for rubbish in FILTERS:
            status = client.get(page.url, rubbish).status_code
            if status not in (200, 302, 400, 404):
                failed.append((page.url, rubbish, status))
    assert failed == []


def test_ids_that_cannot_be_are_not_found(cast):
    client, failed = cast.clients["superuser"], []
    of_objects = [page for page in pages() if "<path:object_id>" in page.pattern and page.table]
    for page in of_objects:
        stem = f"/admin/{page.pattern}".replace("<slug:name>", "progress")
        for rubbish in IDS:
            status = client.get(stem.replace("<path:object_id>", rubbish)).status_code
            if status not in (302, 403, 404):
                failed.append((page.pattern, rubbish, status))
    assert failed == []


@pytest.mark.parametrize(
    "keys", [["²"], ["9" * 40], ["\x00"], [""], ["0", "0"], [str(n) for n in range(10_000, 12_000)]]
)
def test_items_that_cannot_be_are_not_judged(cast, keys):
    client, before = cast.clients["annotator"], everything()
    items = "/admin/training/trainingdataitem/"
    assert client.post(f"{items}relabel/", {"_selected_action": keys, "label": "\x00"}).status_code < 500
    assert client.post(items, {"_selected_action": keys, "action": "no_such_action"}).status_code < 500
    assert client.post(items, {"_selected_action": keys, "action": "approve_selected"}).status_code < 500
    body = {"verdict": "\x00", "label": keys[0]}
    assert client.post(f"{items}{cast.items[0].pk}/verdict/", body).status_code < 500
    assert changed(before) == set()
