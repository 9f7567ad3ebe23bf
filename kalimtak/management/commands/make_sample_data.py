"""`manage.py make_sample_data`: the synthetic sets of the demo classifiers as CSV files."""

import csv
import os
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand
from training.samples import CLASSIFIERS, Sample, SampleSet, splits

DEFAULT_ROWS = 2_000
FULL_SIZES = {"train": 24_000, "valid": 2_400, "test": 1_600}


class Command(KalimtakCommand):
    help = (
        "Writes balanced synthetic sets for the demo classifiers to <output>/<classifier>/{train,valid,test}.csv; "
        "the same options give the same files."
    )
    example = "manage.py make_sample_data --full --classifier emotion"

    def add_arguments(self, parser: CommandParser) -> None:
        size = parser.add_mutually_exclusive_group()
        size.add_argument(
            "--full", action="store_true", help="24,000 / 2,400 / 1,600 rows (emotion: 3,000 / 300 / 200 per class)"
        )
        size.add_argument(
            "--rows",
            type=_positive,
            default=DEFAULT_ROWS,
            help="rows per classifier, split 80/10/10 (default: %(default)s)",
        )
        parser.add_argument(
            "--classifier", nargs="+", choices=sorted(CLASSIFIERS), metavar="SLUG", help="only these (default: all)"
        )
        parser.add_argument("--seed", type=int, default=0, help="another seed, other texts (default: %(default)s)")
        parser.add_argument("--output", type=Path, help="folder to write to (default: var/samples)")

    def handle(self, *args: Any, **options: Any) -> None:
        output: Path = options["output"] or settings.KALIMTAK_VAR / "samples"
        sizes = FULL_SIZES if options["full"] else split_sizes(options["rows"])
        slugs: list[str] = list(dict.fromkeys(options["classifier"] or CLASSIFIERS))
        made: dict[str, dict[str, list[Sample]]] = {}
        with self.progress("Sample data") as report:
            for done, slug in enumerate(slugs):
                report(done / len(slugs), slug)
                made[slug] = splits(slug, **sizes, seed=options["seed"])
        for slug, drawn in made.items():
            try:
                write_splits(output / slug, CLASSIFIERS[slug], drawn)
            except OSError as error:
                raise CommandError(
                    f"Cannot write to {output / slug}: {error.strerror}. Choose another folder with --output."
                ) from error
            self.report(CLASSIFIERS[slug], drawn, output / slug)
        self.stdout.write(self.style.SUCCESS(f"Done: {len(made)} sample set(s) in {output}"))

    def report(self, sample_set: SampleSet, drawn: Mapping[str, Sequence[Sample]], folder: Path) -> None:
        """Split sizes, rows per class and the share of special cases."""
        per_label = {split: Counter(sample.label for sample in samples) for split, samples in drawn.items()}
        rows = [(label, *(per_label[split][label] for split in drawn)) for label in sample_set.labels]
        rows.append(("total", *(len(samples) for samples in drawn.values())))
        self.table(f"{sample_set.slug}: {folder}", (sample_set.slug, *drawn), rows)
        kinds = Counter(sample.kind for samples in drawn.values() for sample in samples)
        self.stdout.write("of these " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))


def split_sizes(rows: int) -> dict[str, int]:
    """`rows` as 80 % for training and a tenth each for validation and test."""
    tenth = rows // 10
    return {"train": rows - 2 * tenth, "valid": tenth, "test": tenth}


def write_splits(folder: Path, sample_set: SampleSet, drawn: Mapping[str, Sequence[Sample]]) -> None:
    """Write one CSV file per split; each appears whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        for split, samples in drawn.items():
            part = folder / f".{split}.csv.{os.getpid()}"
            written.append((part, folder / f"{split}.csv"))
            with part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow((*sample_set.input_fields, sample_set.label_field))
                writer.writerows((*sample.fields, sample.label) for sample in samples)
        for part, final in written:
            part.replace(final)
    finally:
        for part, _ in written:
            part.unlink(missing_ok=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
