"""A database with a million rows in each large table, and how long the admin's pages over them take.

Run in a process of its own (`support.process.measured`), whose environment names the database.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

TURNS = 5
LABELS = ("joy", "sadness", "anger", "fear")


def measure(rows: int) -> dict[str, Any]:
    """Fill the database that the environment names, and get each page `TURNS` times as a superuser."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    facts = fill(rows)
    seconds = time.perf_counter() - started
    return {"pages": [timed(name, path) for name, path in pages(facts).items()], "fill_seconds": seconds}


def timed(name: str, path: str) -> dict[str, Any]:
    """Milliseconds at the median, and the queries of one request."""
    from django.db import connection, reset_queries
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client()
    client.force_login(superuser())
    took = []
    for turn in range(TURNS + 1):
        reset_queries()
        started = time.perf_counter()
        with CaptureQueriesContext(connection) as queries:
            response = client.get(path, HTTP_HOST="localhost")
            size = len(response.content)
        if response.status_code != 200:
            raise SystemExit(f"{path} answered {response.status_code}")
        if turn:  # the first one loads templates
            took.append(1_000 * (time.perf_counter() - started))
    slowest = max(queries.captured_queries, key=lambda query: float(query["time"]))
    return {
        "name": name,
        "path": path,
        "ms": round(statistics.median(took), 1),
        "queries": len(queries),
        "bytes": size,
        "slowest": f"{slowest['time']} s: {slowest['sql'][:2000]}",
    }


def superuser() -> Any:
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username="bench", is_staff=True, is_superuser=True)[0]


def pages(facts: Mapping[str, int]) -> dict[str, str]:
    items, asked = "/admin/training/trainingdataitem/", "/admin/interactions/userinteraction/"
    judged = "/admin/interactions/feedback/"
    snapshot, rows = "/admin/training/datasetsnapshot/", "/admin/training/snapshotitem/"
    held = f"{rows}?snapshot__id__exact={facts['newer']}"
    compared = f"{snapshot}{facts['newer']}/compare/?with={facts['older']}"
    return {
        "Training items": items,
        "– that wait for review": f"{items}?status__exact=review",
        "– of one classifier and label": f"{items}?classifier__id__exact={facts['classifier']}&label=joy",
        "– of one data set": f"{items}?dataset__id__exact={facts['dataset']}",
        "– corrected by people": f"{items}?origin__exact=corrected",
        "– not selected": f"{items}?selected__exact=0",
        "– page 20": f"{items}?p=20",
        "Interactions": asked,
        "– of one classifier": f"{asked}?classifier__id__exact={facts['classifier']}",
        "– with a bad rating": f"{asked}?rated=bad",
        "– not rated": f"{asked}?rated=no",
        "– abstained": f"{asked}?abstained__exact=1",
        "– from the backup": f"{asked}?source__exact=backup",
        "Feedback": judged,
        "– of one rating": f"{judged}?rating__exact=2",
        "– on answers of one classifier": f"{judged}?classifier=emotion",
        "Data sets": "/admin/training/dataset/",
        "– that failed": "/admin/training/dataset/?state__exact=failed",
        "A snapshot": f"{snapshot}{facts['newer']}/change/",
        "– its rows": held,
        "– its rows for validation": f"{held}&split__exact=valid",
        "– what came": compared,
        "– what went": f"{compared}&kind=went",
        "– what changed its label": f"{compared}&kind=relabelled",
    }


# Filling ---------------------------------------------------------------------------------------------------------


def fill(rows: int) -> dict[str, int]:
    """`rows` items, interactions, feedback and rows of each of two snapshots, and a hundredth of that data sets."""
    from django.db import connection

    from registry.models import Classifier, ModelVersion
    from training.models import Dataset, DatasetSnapshot, SnapshotItem, TrainingDataItem

    common: dict[str, Any] = {"family": "classic", "labels": list(LABELS), "input_fields": ["text"]}
    classifier = Classifier.objects.create(slug="emotion", name="Emotion", is_default=True, **common)
    other = Classifier.objects.create(slug="other", name="Other", **common)
    version = ModelVersion.objects.create(classifier=classifier, number=1, family="classic", artefact_digest="0" * 64)
    kinds = f"CASE WHEN n.i % 10 = 0 THEN {other.pk} ELSE {classifier.pk} END"
    sets = max(rows // 100, 10)
    states = "CASE WHEN n.i % 50 = 0 THEN 'failed' ELSE 'ready' END"
    insert(Dataset, sets, classifier_id=kinds, name="'file ' || n.i", origin="'upload'", state=states)
    dataset = Dataset.objects.earliest("pk")
    label = "CASE n.i % 4 " + " ".join(f"WHEN {n} THEN '{label}'" for n, label in enumerate(LABELS)) + " END"
    text = "'message ' || n.i || ' of the long log of what people said on one day or another'"
    about = {"classifier_id": kinds, "fields": json_of(text), "label": label}
    status = "CASE WHEN n.i % 100 = 0 THEN 'review' WHEN n.i % 37 = 0 THEN 'rejected' ELSE 'approved' END"
    origin = "CASE WHEN n.i % 400 = 0 THEN 'corrected' ELSE 'import' END"
    owner = f"{dataset.pk} + n.i % {sets}"
    chosen = "(n.i % 500 <> 0)" if connection.vendor == "postgresql" else "n.i % 500 <> 0"
    item = about | {"dataset_id": owner, "status": status, "origin": origin, "content_hash": hash_of("n.i")}
    insert(TrainingDataItem, rows, **item, selected=chosen)
    fill_interactions(rows, about, version.pk)
    snapshots = [DatasetSnapshot.objects.create(classifier=classifier, digest=letter * 64) for letter in "ab"]
    first = TrainingDataItem.objects.earliest("pk").pk
    for snapshot, shift, parity in zip(snapshots, (0, rows // 100), (4, 5), strict=True):
        # The newer one has lost its first hundredth, gained one, and says another label of some.
        other_label = f"CASE WHEN {parity} = 5 AND n.i % 1000 = 7 THEN 'fear' ELSE 'joy' END"
        split = "CASE WHEN n.i % 10 = 0 THEN 'valid' ELSE 'train' END"
        place = f"(n.i - 1 + {shift})"
        held = {"item_id": f"CASE WHEN {place} < {rows} THEN {first} + {place} ELSE NULL END", "split": split}
        insert(SnapshotItem, rows, snapshot_id=str(snapshot.pk), content_hash=hash_of(place), label=other_label, **held)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    older, newer = (snapshot.pk for snapshot in snapshots)
    return {"classifier": classifier.pk, "dataset": dataset.pk, "older": older, "newer": newer}


def fill_interactions(rows: int, about: Mapping[str, str], version: int) -> None:
    from django.db import connection

    from interactions.models import Feedback, UserInteraction

    key = "lpad(to_hex(n.i), 32, '0')::uuid" if connection.vendor == "postgresql" else "printf('%032x', n.i)"
    rating = "CASE WHEN n.i % 5 = 0 THEN 1 + n.i % 3 WHEN n.i % 7 = 0 THEN 5 ELSE NULL END"
    bare = "n.i % 300 = 0"
    told = {"confidence": "0.5 + (n.i % 50) / 100.0", "rating": rating, "version_id": str(version)}
    source = "CASE WHEN n.i % 1000 = 0 THEN 'backup' ELSE 'model' END"
    now = "CURRENT_TIMESTAMP"
    insert(UserInteraction, rows, id=key, **about, **told, abstained=f"({bare})", source=source, created_at=now)
    judged = {"interaction_id": key, "source": "'key:' || n.i % 40", "rating": "1 + n.i % 5"}
    insert(Feedback, rows, **judged, updated_at=now, created_at=now)


def insert(model: Any, rows: int, **expressions: str) -> None:
    """Rows whose columns are SQL over `n.i`, 1 to `rows`; columns that are not named get their field's default."""
    from django.db import connection

    given, values = {}, []
    for field in model._meta.concrete_fields:
        if field.column in expressions:
            given[field.column] = expressions[field.column]
        elif field.attname in ("created_at", "updated_at"):
            given[field.column] = "CURRENT_TIMESTAMP"
        elif not field.primary_key:
            given[field.column] = "%s"
            values.append(field.get_db_prep_save(field.get_default(), connection))
    numbers = f"generate_series(1, {rows}) AS n(i)"
    if connection.vendor == "sqlite":
        numbers = (
            f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n) AS n"
        )
    columns = ", ".join(f'"{name}"' for name in given)
    chosen = ", ".join(given.values()).replace("%", "%%").replace("%%s", "%s")
    with connection.cursor() as cursor:
        cursor.execute(f'INSERT INTO "{model._meta.db_table}" ({columns}) SELECT {chosen} FROM {numbers}', values)


def json_of(text: str) -> str:
    from django.db import connection

    made = f"""'{{"text": "' || {text} || '"}}'"""
    return f"({made})::jsonb" if connection.vendor == "postgresql" else made


def hash_of(number: str) -> str:
    """64 hexadecimal digits, spread as hashes are, and the same for the same number."""
    from django.db import connection

    if connection.vendor == "postgresql":
        return f"md5(({number})::text) || md5(({number} + 1)::text)"
    return f"printf('%08x%056x', (({number}) * 2654435761) % 4294967296, {number})"
