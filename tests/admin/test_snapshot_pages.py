"""Snapshots: what they hold, what changed between two of them and why, and their rows as a file."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from django.urls import reverse

from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import AuditEvent
from registry.models import Classifier
from training.etl.duplicates import content_hash
from training.models import DatasetSnapshot, SnapshotItem, TrainingDataItem
from training.services import snapshot_freeze
from training.services.comparisons import snapshot_changes, snapshots_compare

pytestmark = pytest.mark.django_db


def url(name, *args):
    return reverse(f"admin:training_datasetsnapshot_{name}", args=args)


def item(classifier, text, label, **values):
    values = {"status": "approved", "reason": f"Because of {text}.", **values}
    return TrainingDataItem.objects.create(
        classifier=classifier, fields={"text": text}, label=label, content_hash=content_hash([text]), **values
    )


@pytest.fixture
def two(world):
    """A snapshot, and one after an item came, one was rejected, one was relabelled and one was deselected."""
    TrainingDataItem.objects.all().delete()
    items = [item(world.emotion, f"text {n}", ("joy", "fear")[n % 2]) for n in range(30)]
    older = snapshot_freeze(world.emotion, seed=1)
    TrainingDataItem.objects.filter(pk=items[0].pk).update(status="rejected", reason="Nonsense.")
    TrainingDataItem.objects.filter(pk=items[1].pk).update(status="rejected", reason="Relabelled.")
    TrainingDataItem.objects.filter(pk=items[2].pk).update(selected=False)
    item(world.emotion, "text 1", "anger", reason="Rami said so.")
    item(world.emotion, "=new()", "joy", reason="Loaded from more.csv.")
    return older, snapshot_freeze(world.emotion, seed=1)


def test_what_came_went_and_changed_and_why(two):
    older, newer = two
    assert snapshots_compare(older, newer) == {"came": 1, "went": 2, "relabelled": 1}
    came = snapshot_changes(older, newer, "came").changes
    assert [(change.row.label, change.why) for change in came] == [("joy", "Loaded from more.csv.")]
    went = {change.row.item.fields["text"]: change.why for change in snapshot_changes(older, newer, "went").changes}
    assert went == {"text 0": "Nonsense.", "text 2": "It is not selected for training any more."}
    (changed,) = snapshot_changes(older, newer, "relabelled").changes
    assert (changed.other_label, changed.row.label, changed.why) == ("fear", "anger", "Rami said so.")


def test_snapshots_of_two_classifiers_are_not_compared(two):
    other = Classifier.objects.create(slug="other", family="classic", input_fields=["text"])
    strange = DatasetSnapshot.objects.create(classifier=other, digest="e" * 64)
    with pytest.raises(InvalidInput):
        snapshots_compare(strange, two[1])


def test_the_pages_show_it_in_few_queries(two, sign_in, django_assert_max_num_queries):
    older, newer = two
    client = sign_in("vera")
    with django_assert_max_num_queries(12):
        page = client.get(url("compare", newer.pk), {"with": older.pk, "kind": "relabelled"}).text
    assert "Rami said so." in page
    with django_assert_max_num_queries(12):
        assert "Loaded from more.csv." in client.get(url("compare", newer.pk)).text
    with django_assert_max_num_queries(12):
        page = client.get(url("change", newer.pk)).text
    assert f"/admin/training/snapshotitem/?snapshot__id__exact={newer.pk}" in page
    with django_assert_max_num_queries(12):
        rows = client.get(f"/admin/training/snapshotitem/?snapshot__id__exact={newer.pk}&split__exact=train")
    assert len(rows.context["cl"].result_list) == newer.rows.filter(split="train").count()
    assert client.get(url("compare", DatasetSnapshot.objects.earliest("pk").pk)).status_code == 200


@pytest.mark.parametrize("query", [{"with": "9" * 30}, {"with": "x"}, {"kind": "odd"}, {"after": "-1"}, {"with": "0"}])
def test_a_comparison_that_makes_no_sense_is_not_found(two, sign_in, query):
    assert sign_in("vera").get(url("compare", two[1].pk), query).status_code == 404


def test_many_changes_come_page_by_page(world):
    TrainingDataItem.objects.all().delete()
    item(world.emotion, "seed", "fear")
    older = DatasetSnapshot.objects.create(classifier=world.emotion, digest="e" * 64)
    newer = DatasetSnapshot.objects.create(classifier=world.emotion, digest="f" * 64)
    SnapshotItem.objects.bulk_create(
        SnapshotItem(snapshot=newer, content_hash=f"{n:064x}", label="joy", split="train") for n in range(120)
    )
    seen, after = [], ""
    while after is not None:
        page = snapshot_changes(older, newer, "came", after=after)
        seen += [change.row.pk for change in page.changes]
        after = page.after
    assert len(set(seen)) == len(seen) == 120
    assert page.changes[0].why == "The item is gone."


def test_the_rows_are_taken_away_as_a_file_and_the_audit_says_by_whom(two, sign_in):
    newer = two[1]
    client = sign_in("vera")
    body = b"".join(client.post(url("download", newer.pk), {"kind": "csv"}).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(body)))
    assert len(rows) == newer.rows.count()
    assert {"text": "'=new()", "label": "joy", "split": "train", "weight": "1.0"} in rows
    lines = b"".join(client.post(url("download", newer.pk), {"kind": "jsonl"}).streaming_content).splitlines()
    assert any(json.loads(line)["text"] == "=new()" for line in lines)
    packed = b"".join(client.post(url("download", newer.pk), {"kind": "parquet"}).streaming_content)
    assert pq.read_table(io.BytesIO(packed)).num_rows == len(rows)
    assert AuditEvent.objects.filter(action="snapshot.download", actor="vera").count() == 3
    assert client.post(url("download", newer.pk), {"kind": "exe"}).status_code == 200
    assert AuditEvent.objects.filter(action="snapshot.download").count() == 3
