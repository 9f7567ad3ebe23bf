"""A day of `bench/curate.py`, in a process of its own: people are asked and speak up, then their word is curated."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import django

SLUG = "opinion"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = {"review": {"burst": 1_000_000}}  # those who speak up often are no flood here


def prepare() -> dict[str, Any]:
    """An empty database with a classifier and a version that answers."""
    django.setup()
    from django.core.management import call_command

    from registry.models import Classifier, ModelVersion
    from support.logs import LABELS

    call_command("migrate", verbosity=0)
    opinion = Classifier.objects.create(
        slug=SLUG, name="Opinion", family="classic", labels=list(LABELS), input_fields=["text"], policy=POLICY
    )
    ModelVersion.objects.create(classifier=opinion, number=1, family="classic", artefact_digest="0" * 64)
    return {}


def speak(rows: int, seed: int) -> dict[str, Any]:
    """So many answers, each with feedback, evenly over a day: that of `seed`, the first of which was long ago."""
    django.setup()
    from django.db import connection, transaction

    from interactions.insertion import answers_insert
    from interactions.models import Feedback
    from interactions.services import NewInteraction
    from registry.models import ModelVersion
    from support.logs import opinions

    version = ModelVersion.objects.get()
    copies: Counter[str] = Counter()
    begun, step, number = FIRST_DAY + timedelta(days=seed), timedelta(days=1) / rows, 0
    for chunk in opinions(rows, seed):
        moments = [begun + step * (number + place) for place in range(len(chunk))]
        number += len(chunk)
        asked = [
            NewInteraction(
                classifier_id=version.classifier_id,
                version_id=version.pk,
                deployment_id=None,
                fields={"text": opinion.text},
                label=opinion.label,
                confidence=0.9,
                scores={opinion.label: 0.9},
                threshold=0.5,
                abstained=False,
                created_at=moment,
            )
            for opinion, moment in zip(chunk, moments, strict=True)
        ]
        said = [
            Feedback(
                interaction_id=answer.id,
                source=opinion.source,
                trusted=opinion.trusted,
                rating=opinion.rating,
                correct_label=opinion.correction,
                updated_at=answer.created_at,
                said_at=answer.created_at,
            )
            for answer, opinion in zip(asked, chunk, strict=True)
        ]
        copies.update(opinion.copies for opinion in chunk)
        with transaction.atomic():
            answers_insert(asked, {})
            Feedback.objects.bulk_create(said)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    return {"copies": dict(copies)}


def curate(dry_run: bool = False, profile: str = "") -> dict[str, Any]:
    """What is waiting, through the service that the daily job calls; seconds, statistics, and the work it took."""
    django.setup()
    from training.services import examples_curate

    counting = counting_of_the_set()
    began, busy = time.perf_counter(), time.process_time()
    with counted() as work, profiled(profile):
        stats = examples_curate(dry_run=dry_run)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return {"seconds": seconds, "cpu": busy, "stats": stats.to_dict(), **work, "counting": counting, "rows": rows_now()}


def counting_of_the_set() -> dict[str, float]:
    """What a curation takes to count the set's labels and sources when it begins: the one part that grows with it."""
    from registry.models import Classifier
    from training.services.balance import Balance

    classifier = Classifier.objects.get(slug=SLUG)
    began = time.perf_counter()
    with counted() as work:
        Balance(classifier)
    return {"seconds": time.perf_counter() - began, "steps": work["steps"]}


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Queries, and on SQLite thousands of steps of its machine: work that no neighbour on the processor changes."""
    from django.db import connection

    work = {"queries": 0, "steps": 0}

    def query(execute: Callable[..., Any], *arguments: Any) -> Any:
        work["queries"] += 1
        return execute(*arguments)

    def step() -> int:
        work["steps"] += 1
        return 0

    connection.ensure_connection()
    if connection.vendor == "sqlite":
        connection.connection.set_progress_handler(step, 1_000)
    with connection.execute_wrapper(query):
        yield work
    if connection.vendor == "sqlite":
        connection.connection.set_progress_handler(None, 0)


@contextmanager
def profiled(path: str) -> Iterator[None]:
    """Under `cProfile` where a path for its figures is given."""
    if not path:
        yield
        return
    import cProfile

    profile = cProfile.Profile()
    with profile:
        yield
    profile.dump_stats(path)


def rows_now() -> dict[str, int]:
    """How many rows each table holds that a curation writes."""
    from interactions.models import Feedback
    from training.models import DuplicateBand, TrainingDataItem

    statuses = Counter(TrainingDataItem.objects.values_list("status", flat=True).iterator())
    curated = Feedback.objects.exclude(curated_at=None).count()
    return {**statuses, "bands": DuplicateBand.objects.count(), "curated": curated}
