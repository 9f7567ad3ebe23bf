"""`manage.py import_dataset FILE --classifier SLUG`: analyse a file, say what it is, load it."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.foreground import refuse_unless_succeeded, run_here
from registry.services import classifier_get
from training import services
from training.models import Dataset, TrainingDataItem
from training.services.datasets import UNKNOWN_LABELS
from training.streams import ENCODINGS

ACTOR = "command line"
ERRORS_PRINTED = 20


class Command(KalimtakCommand):
    help = "Loads a CSV, TSV, JSON, JSONL or Parquet file (each optionally gzipped) as items of a classifier."
    example = "manage.py import_dataset tweets.csv.gz --classifier emotion --text-field tweet --label-field feeling"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--classifier", required=True, metavar="SLUG")
        parser.add_argument("--role", choices=Dataset.Role.values, default=Dataset.Role.TRAINING)
        parser.add_argument("--split", choices=TrainingDataItem.Split.values, default="", help="for all rows")
        parser.add_argument(
            "--text-field", action="append", default=[], metavar="COLUMN", help="once for each input, in order"
        )
        parser.add_argument("--label-field", default="", metavar="COLUMN")
        parser.add_argument(
            "--encoding", choices=sorted(ENCODINGS), default="", help="of a text file that is not UTF-8"
        )
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FOUND=LABEL",
            help="a label in the file as one of the classifier's; nothing after the = leaves its rows out",
        )
        parser.add_argument(
            "--unknown-labels",
            choices=UNKNOWN_LABELS,
            default="report",
            help="rows with labels the classifier does not have: list them, refuse the file, or drop them with a count",
        )
        parser.add_argument("--redact", action="store_true", help="replace personal data by placeholders")
        parser.add_argument("--analyse-only", action="store_true", help="say what the file is and load nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"There is no file {path}.")
        dataset = services.dataset_add(
            classifier_get(options["classifier"]),
            source=path,
            name=path.name,
            role=options["role"],
            split=options["split"],
            options=_told(options),
            actor=ACTOR,
            then=None if options["analyse_only"] else "none",
            ring=False,
        )
        if dataset.job is None:
            self._print_report(services.dataset_analyse(dataset))
            return
        with self.progress(f"Loading {path.name}") as progress:
            job = run_here(dataset.job, progress)
        refuse_unless_succeeded(job, what="job", if_cancelled="Cancelled. Load it again to go on.")
        dataset.refresh_from_db()
        self._print_report(dataset.report)
        self._print_outcome(dataset)

    def _print_report(self, report: dict[str, Any]) -> None:
        write = self.stdout.write
        write(f"{report['task']} on {', '.join(report['modalities'])} (says the {report['decided_by']})")
        for sentence in report["why"]:
            write(f"  {sentence}")
        length = report["characters"]
        write(
            f"{report['rows']:,} rows, {report['good']:,} good, {report['duplicates']:,} repeated, "
            f"{report['conflicts']:,} conflicting, {report['empty']:,} empty; "
            f"{length.get('p50', 0):,} characters at the median, {length.get('p95', 0):,} at the 95th percentile"
        )
        if personal := report["personal"]["rows"]:
            kinds = ", ".join(f"{kind.lower()} {count:,}" for kind, count in report["personal"]["kinds"].items())
            looked = report["personal"]["looked_at"]
            write(f"Personal data in {personal:,} of the first {looked:,} rows ({kinds}); --redact replaces it.")
        if dropped := report["dropped_count"]:
            write(f"{dropped:,} rows left out by their label: {_counts(report['dropped'])}.")
        if report["fields"]["status"]:
            skipped = f"; left out {_counts(report['skipped'])}" if report["skipped"] else ""
            write(f"{report['unreviewed']:,} rows are not approved yet and wait for review{skipped}.")
        write(f"Scripts: {_counts(report['scripts'])}. Languages: {_counts(report['languages']) or 'not known'}.")
        rows = [(label, f"{count:,}") for label, count in report["labels"].items()]
        self.table("Labels", ("label", "rows"), rows[:50])
        for error in report["errors"][:ERRORS_PRINTED]:
            write(f"{report['file']['unit']} {error['line']}: {error['reason']}")
        if report["error_count"] > ERRORS_PRINTED:
            write(f"… and {report['error_count'] - ERRORS_PRINTED:,} more rows with errors.")

    def _print_outcome(self, dataset: Dataset) -> None:
        outcome, errors = dataset.report["outcome"], dataset.report["error_count"]
        self.stdout.write(
            f"Data set {dataset.pk}: {outcome['loaded']:,} loaded ({outcome['for_review']:,} wait for review), "
            f"{outcome['duplicates']:,} already there, {outcome['refused_before']:,} refused by a reviewer before, "
            f"{outcome['held_out']:,} copies of held-out texts, "
            f"{errors:,} with errors."
        )


def _told(options: dict[str, Any]) -> dict[str, Any]:
    """What was said of the file, as `options_check` knows it."""
    told: dict[str, Any] = {name: options[name] for name in ("label_field", "encoding", "redact") if options[name]}
    if options["text_field"]:
        told["text_fields"] = options["text_field"]
    if options["unknown_labels"] != UNKNOWN_LABELS[0]:
        told["unknown_labels"] = options["unknown_labels"]
    if pairs := options["map"]:
        if wrong := next((pair for pair in pairs if "=" not in pair), None):
            raise CommandError(f"--map {wrong[:60]!r}: write it as FOUND=LABEL.")
        told["labels"] = {found: label for found, _, label in (pair.partition("=") for pair in pairs)}
    return told


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
