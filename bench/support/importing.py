"""A large CSV written on the fly, and its import in a process of its own."""

import hashlib
import random
import time
from pathlib import Path
from typing import Any

LABELS = ("joy", "sadness", "anger", "fear", "love", "surprise", "disgust", "neutral")
WORDS = 50_000
SEED = 13


def write_file(path: Path, size: int) -> int:
    """At least `size` bytes of labelled texts of 5 to 150 words, skewed as real ones; how many rows.

    Of a hundred rows one has a label that nobody knows, one lacks a column, three have line breaks within quotes and
    one repeats an earlier one.
    """
    generator = random.Random(SEED)
    words = [hashlib.sha256(str(number).encode()).hexdigest()[: 2 + number % 9] for number in range(WORDS)]
    rows, earlier = 0, ""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("text,label\n")
        while file.tell() < size:
            block = []
            for _ in range(2_000):
                rows, kind = rows + 1, generator.randrange(100)
                count = min(150, 5 + int(generator.expovariate(1 / 55)))
                text = " ".join(words[int(WORDS * generator.random() ** 3)] for _ in range(count))
                row = f'"{text}",{LABELS[generator.randrange(8)]}\n'
                if kind == 0:
                    row = f'"{text}",unheard-of\n'
                elif kind == 1:
                    row = f'"{text}"\n'
                elif kind < 5:
                    row = row.replace(" ", "\n", 1)
                elif kind == 5 and earlier:
                    row = earlier
                earlier = row
                block.append(row)
            file.write("".join(block))
    return rows


def load(path: str) -> dict[str, Any]:
    """Import the file into the database that the environment names, as `import_dataset` does."""
    import django

    django.setup()
    from django.core.management import call_command

    from registry.models import Classifier
    from training import services

    call_command("migrate", verbosity=0)
    classifier = Classifier.objects.create(
        slug="bench", name="Bench", family="classic", labels=list(LABELS), input_fields=["text"], is_default=True
    )
    started, processor = time.perf_counter(), time.process_time()
    dataset = services.dataset_add(classifier, source=Path(path), name=Path(path).name, actor="bench")
    stored = time.perf_counter()
    services.dataset_load(dataset)
    ended = time.perf_counter()
    report = dataset.report
    return {
        "bytes": Path(path).stat().st_size,
        "rows": report["rows"],
        "errors": report["error_count"],
        "outcome": report["outcome"],
        "store_seconds": stored - started,
        "seconds": ended - started,
        "processor_seconds": time.process_time() - processor,
    }
