"""The review desk: how long ranking takes, and how long the server takes for a page over a million items.

Items are made from the sentences of the other benchmarks; each waiting one comes from an answer with scores, a tenth
are near copies of others. The queue is ranked twice: the first time the encoder reads every text of the pool, the
second time the vectors are known. Then a reviewer works through the desk and the list of what waits, and the server's
time and queries are counted. `DATABASE_URL` names an empty PostgreSQL database; without it, SQLite.

    python bench/review.py --waiting 100000 --approved 900000
    python bench/review.py --check
"""

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

LABELS = ("joy", "sadness", "anger", "fear", "love", "surprise", "neutral", "disgust")
ROWS = 5_000
DISTINCT = 10_000  # approved texts; more are repetitions of these
VISITS = 60
DESK_MS, LIST_MS, LIST_QUERIES = 100, 300, 12

Visit = tuple[float, float, int]
"""Milliseconds by the clock, of this process's processor time (with SQLite that is all), and queries."""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="kalimtak-review-") as folder:
        prepare(Path(folder))
        waiting, approved = (300, 500) if options.check else (options.waiting, options.approved)
        sys.stdout.reconfigure(line_buffering=True)
        print(f"{waiting:,} items wait, {approved:,} are approved")
        classifier = fill(waiting, approved)
        if not options.check:
            from django.db import connection

            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
        for when in () if options.unranked else ("first", "again"):
            rank(classifier, when, with_encoder=not (options.check or options.words))
        walk(classifier, 5 if options.check else VISITS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--approved", type=int, default=900_000)
    parser.add_argument("--unranked", action="store_true", help="only walk the pages")
    parser.add_argument("--words", action="store_true", help="compare texts by words, without the encoder")
    parser.add_argument("--check", action="store_true", help="a few hundred items, for continuous integration")
    return parser.parse_args()


def prepare(folder: Path) -> None:
    """Django with a database and folders of this run's own."""
    os.environ.update(
        KALIMTAK_VAR=str(folder / "var"),
        KALIMTAK_MODELS_STORE=str(folder / "store"),
        SECRET_KEY="bench-" + "x" * 60,
        KALIMTAK_SUBJECT_KEY="bench-" + "y" * 60,
        DJANGO_SETTINGS_MODULE="kalimtak.settings",
        DEBUG="0",
    )
    import django
    from django.conf import settings

    settings.ALLOWED_HOSTS = ["testserver"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    django.setup()
    logging.disable(logging.WARNING)
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


# Filling -----------------------------------------------------------------------------------------------------------


def sentences(count: int) -> Iterator[tuple[str, str]]:
    """(text, label); every tenth is the text before it with a word more."""
    from support.texts import DID, HOW, SO, WHO

    generator = random.Random(5)
    text = ""
    for number in range(count):
        if number % 10 or not text:
            parts = [generator.choice(options) for options in (WHO, DID, HOW, SO)]
            text = " ".join([*parts, *(generator.choice(WORDS) for _ in range(4)), str(number)])
            label = generator.choices(LABELS, weights=range(len(LABELS), 0, -1))[0]
        yield (text if number % 10 else f"{text} really"), label


WORDS = tuple(
    f"{start}{end}" for start in ("ba", "lo", "mi", "ter", "san", "ru") for end in ("nak", "del", "po", "ris")
)


def fill(waiting: int, approved: int) -> Any:
    from registry.models import Classifier, ModelVersion

    classifier = Classifier.objects.create(
        slug="emotion", name="Emotion", family="classic", labels=list(LABELS), input_fields=["text"], enabled=True
    )
    version = ModelVersion.objects.create(classifier=classifier, number=1, family="classic", artefact_digest="0" * 64)
    for start in range(0, min(approved, DISTINCT), ROWS):
        add(classifier, version, start, min(ROWS, approved - start), status="approved")
    repeat(approved)
    for start in range(approved, approved + waiting, ROWS):
        add(classifier, version, start, min(ROWS, approved + waiting - start), status="review")
    return classifier


def repeat(approved: int) -> None:
    """The approved items again and again, each time as other texts, inside the database."""
    from django.db import connection

    from training.models import TrainingDataItem

    table = TrainingDataItem._meta.db_table
    columns = [field.column for field in TrainingDataItem._meta.concrete_fields if not field.primary_key]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT max(id) FROM {table}")
        last = cursor.fetchone()[0]
        for number in range(1, max(1, approved // DISTINCT)):
            values = [f"'{number:04d}' || substr(content_hash, 5)" if one == "content_hash" else one for one in columns]
            names, chosen = ", ".join(columns), ", ".join(values)
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {table} WHERE id <= %s", [last])


def add(classifier: Any, version: Any, start: int, count: int, *, status: str) -> None:
    from django.db import transaction
    from django.utils import timezone

    from interactions.models import UserInteraction
    from training.models import TrainingDataItem

    generator = random.Random(start)
    rows = list(sentences(count))
    answers = []
    if status == "review":
        for text, label in rows:
            weights = [generator.random() ** 3 for _ in LABELS]
            scores = dict(zip(LABELS, [weight / sum(weights) for weight in weights], strict=True))
            answers.append(
                UserInteraction(
                    classifier=classifier,
                    version=version,
                    fields={"text": text},
                    label=label,
                    confidence=max(scores.values()),
                    scores=scores,
                    created_at=timezone.now(),
                )
            )
    with transaction.atomic():
        UserInteraction.objects.bulk_create(answers)
        TrainingDataItem.objects.bulk_create(
            TrainingDataItem(
                classifier=classifier,
                interaction=answers[number] if answers else None,
                origin="corrected" if answers else "import",
                source=f"key:{start + number % 50:08x}",
                fields={"text": f"{text} {start}"},
                label=label,
                domain="shop" if number % 3 else "news",
                status=status,
                reason="two sources disagree" if answers else "",
                content_hash=f"{start + number:064x}",
            )
            for number, (text, label) in enumerate(rows)
        )


# Measuring ---------------------------------------------------------------------------------------------------------


def rank(classifier: Any, when: str, *, with_encoder: bool) -> None:
    import resource

    from training.services import queue_rank

    told: list[tuple[float, str]] = []
    began = time.perf_counter()
    done = queue_rank(
        classifier, with_encoder=with_encoder, progress=lambda _, note: told.append((time.perf_counter(), note))
    )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"Ranking, {when}: {seconds:.1f} s; {done.to_dict()}; peak memory {peak:,} MB")
    ends = [*(moment for moment, _ in told[1:]), began + seconds]
    parts: dict[str, float] = {}
    for (moment, note), end in zip(told, ends, strict=True):
        name = note.split(",")[0].rstrip("0123456789 ")
        parts[name] = parts.get(name, 0.0) + end - moment
    print("  " + "; ".join(f"{name or 'texts'} {spent:.1f} s" for name, spent in parts.items()))


def walk(classifier: Any, visits: int) -> None:
    """A reviewer at the desk and in the lists."""
    from django.contrib.auth.models import User
    from django.test import Client

    from training.models import ReviewSkip
    from training.services import waiting_for

    user = User.objects.create_superuser("olga")
    client = Client()
    client.force_login(user)
    stem = "/admin/training/trainingdataitem"
    first = waiting_for(user, classifier).first()
    skipped = list(waiting_for(user).values_list("pk", flat=True)[1:10_001])
    item = first.pk
    pages: dict[str, Callable[[], Any]] = {
        "Desk, the way in": lambda: client.get(f"{stem}/review/"),
        "Desk, a page": lambda: client.get(f"{stem}/{item}/review/"),
    }
    limits = dict.fromkeys(pages, (DESK_MS, 1_000))
    for name, visit in pages.items():
        show(name, [timed(visit) for _ in range(visits)], *limits[name])
    show("Desk, a verdict and the next two", list(verdicts(client, stem, item, visits)), DESK_MS, 1_000)
    ReviewSkip.objects.bulk_create([ReviewSkip(item_id=key, reviewer=user) for key in skipped], ignore_conflicts=True)
    first = waiting_for(user, classifier).first()
    if first is not None:
        after = list(verdicts(client, stem, first.pk, min(visits, 20)))
        show(f"The same behind {len(skipped):,} that were skipped", after, DESK_MS, 1_000)
    for name, query in LISTS.items():
        found = [timed(lambda query=query: client.get(f"{stem}/{query}")) for _ in range(visits // 3 + 1)]
        show(name, found, LIST_MS, LIST_QUERIES)


LISTS = {
    "List of all items": "",
    "List, what waits": "?status__exact=review",
    "Many at once": "waiting/?classifier=emotion",
    "Many at once, page 40": "waiting/?classifier=emotion&page=40",
    "Many at once, by label and confidence": "waiting/?classifier=emotion&label=disgust&confidence=low&domain=news",
    "Many at once, a filter that finds nothing": "waiting/?classifier=emotion&source=nobody&why=rare",
}


def verdicts(client: Any, stem: str, item: int, count: int) -> Iterator[Visit]:
    import re

    for number in range(count):
        data = {"verdict": "relabel", "label": LABELS[number % len(LABELS)]}
        response: list[Any] = []
        yield timed(
            lambda item=item, data=data, response=response: (
                response.append(client.post(f"{stem}/{item}/verdict/", data, headers={"x-desk": "1"})) or response[0]
            )
        )
        found = re.search(rb'data-part="now"><div[^>]*data-item="(\d+)"', response[0].content)
        if found is None:
            return
        item = int(found[1])


def timed(visit: Callable[[], Any]) -> Visit:
    """A request, which must succeed."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        began, worked = time.perf_counter(), time.process_time()
        response = visit()
        spent, used = (time.perf_counter() - began) * 1000, (time.process_time() - worked) * 1000
    if response.status_code >= 400:
        sys.exit(f"{response.status_code}: {response.content[:300]!r}")
    if os.environ.get("KALIMTAK_BENCH_SQL"):
        for query in sorted(queries.captured_queries, key=lambda query: -float(query["time"]))[:3]:
            print("   ", query["time"], query["sql"][:600])
    return spent, used, len(queries)


def show(name: str, found: list[Visit], limit: float, queries: int) -> None:
    clock, processor = (sorted(visit[number] for visit in found) for number in (0, 1))
    last = min(len(found) - 1, int(len(found) * 0.95))
    most = max(visit[2] for visit in found)
    asked = f"{most} queries" + (f" (limit {queries})" if queries < 100 else "")
    times = f"median {statistics.median(clock):.1f} ms, p95 {clock[last]:.1f} ms (limit {limit:.0f})"
    print(f"{name}: {times}; of the processor {statistics.median(processor):.1f} ms; {asked}")


if __name__ == "__main__":
    main()
