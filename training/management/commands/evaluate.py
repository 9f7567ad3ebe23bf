"""`manage.py evaluate SLUG`: the figures of one version on held-out texts."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import Conflict
from registry import services as registry
from registry.models import Classifier, ModelVersion
from training.management.figures import confusion_rows, overall_rows, per_label_rows
from training.services import labelled_file_read, version_evaluate, version_judgement

ERRORS_SHOWN = 5


class Command(KalimtakCommand):
    help = "Scores a version (the live one, else the newest) on the golden set, whose figures are kept, or a file."
    example = "manage.py evaluate emotion --version 3 --dataset held_out.csv"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the classifier")
        parser.add_argument("--version", dest="number", type=int, metavar="N", help="which version")
        parser.add_argument("--dataset", type=Path, metavar="FILE", help="labelled: CSV, TSV, JSON, JSONL, Parquet")
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """`--version` names a version here, not Django's."""
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        version = _version(registry.classifier_get(options["slug"]), options["number"])
        figures = self._on_file(version, options["dataset"]) if options["dataset"] else self._on_golden_set(version)
        if options["json"]:
            self.stdout.write(json.dumps({"version": version.ref, **figures}, indent=2))
        else:
            self._print_tables(version, figures)

    def _on_golden_set(self, version: ModelVersion) -> dict[str, Any]:
        with self.progress(f"Scoring {version.ref}") as report:
            evaluation = version_evaluate(version, progress=report)
        return {"data": evaluation.data_digest, "scores": evaluation.scores, "slices": evaluation.slices}

    def _on_file(self, version: ModelVersion, path: Path) -> dict[str, Any]:
        file = labelled_file_read(version.classifier, path)
        for error in file.errors[:ERRORS_SHOWN]:
            self.stderr.write(f"Left out line {error.line}: {error.reason}")
        if len(file.errors) > ERRORS_SHOWN:
            self.stderr.write(f"… and {len(file.errors) - ERRORS_SHOWN} more lines.")
        with self.progress(f"Scoring {version.ref}") as report:
            judged = version_judgement(version, file.examples, progress=report)
        return {"data": str(path), "scores": judged.scores.to_dict(), "slices": judged.slices}

    def _print_tables(self, version: ModelVersion, figures: dict[str, Any]) -> None:
        scores = figures["scores"]
        self.table(f"{version.ref} on {scores['n']} texts", ("Figure", "Value"), overall_rows(scores))
        self.table("Per label", ("Label", "Precision", "Recall", "F1", "Texts"), per_label_rows(scores))
        if not scores.get("multi_label"):
            answered = ("Confusion matrix (rows: truth)", *scores["labels"])
            self.table("Which label was answered", answered, confusion_rows(scores))
        slices = [
            (part["slice"], part["n"], f"{part['accuracy']:.4f}", f"{part['macro_f1']:.4f}")
            for part in figures["slices"].get("length", ())
        ]
        exact = "Exact match" if scores.get("multi_label") else "Accuracy"
        self.table("By length", ("Length", "Texts", exact, "Macro-F1"), slices)


def _version(classifier: Classifier, number: int | None) -> ModelVersion:
    if number is not None:
        return registry.version_get(f"{classifier.slug}/{number}")
    version = registry.live_version(classifier) or classifier.versions.first()
    if version is None:
        raise Conflict(f"{classifier.slug} has no version yet; run `manage.py train {classifier.slug}`.")
    return version
