"""`manage.py list_models`: classifiers, their versions, and what answers now."""

import json
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.models import Classifier, Deployment, ModelVersion

COLUMNS = ("model", "type", "status", "live", "macro-F1", "accuracy")


class Command(KalimtakCommand):
    help = "Lists classifiers with their versions, live roles and figures."
    example = "manage.py list_models --json"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="disabled classifiers and archived versions too")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        classifiers = Classifier.objects.all() if options["all"] else Classifier.objects.serving()
        found = [_described(classifier, everything=options["all"]) for classifier in classifiers]
        if options["json"]:
            self.stdout.write(json.dumps(found, ensure_ascii=False, indent=2))
        elif not found:
            self.stdout.write("No classifier yet; `manage.py sync_models` reads models.yaml.")
        else:
            self.table("Models", COLUMNS, [row for classifier in found for row in _rows(classifier)])
            if any(classifier["multi_label"] for classifier in found):
                self.stdout.write("Accuracy of a multi-label classifier: the share of texts answered by the exact set.")
            default = next((classifier["classifier"] for classifier in found if classifier["default"]), "none")
            self.stdout.write(f"Default classifier: {default}")


def _described(classifier: Classifier, *, everything: bool) -> dict[str, Any]:
    """One classifier in JSON types, its versions from the newest on."""
    live: dict[int, list[Deployment]] = {}
    for deployment in classifier.deployments.live():
        live.setdefault(deployment.version_id, []).append(deployment)
    versions = classifier.versions.all()
    if not everything:
        versions = versions.exclude(status=ModelVersion.Status.ARCHIVED)
    return {
        "classifier": classifier.slug,
        "name": classifier.name,
        "type": classifier.family,
        "enabled": classifier.enabled,
        "default": classifier.is_default,
        "labels": classifier.labels,
        "multi_label": classifier.multi_label,
        "input_fields": classifier.input_fields,
        "versions": [
            {
                "version": f"{classifier.slug}/{version.number}",
                "type": version.family,
                "status": version.status,
                "live": {deployment.role: deployment.share for deployment in live.get(version.pk, ())},
                "metrics": {name: version.metrics.get(name) for name in ("macro_f1", "accuracy")},
                "labels": len(version.labels),
                "created": version.created_at.isoformat(timespec="seconds"),
            }
            for version in versions
        ],
    }


def _rows(classifier: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Lines of the table: one per version, or one that says there is none."""
    if not classifier["versions"]:
        yield classifier["classifier"], classifier["type"], "no version", _live(classifier, {}), "–", "–"
    for version in classifier["versions"]:
        live = _live(classifier, version["live"])
        figures = ("–" if figure is None else f"{figure:.3f}" for figure in version["metrics"].values())
        yield version["version"], version["type"], version["status"], live, *figures


def _live(classifier: dict[str, Any], roles: dict[str, int]) -> str:
    """Such as `production`, or `canary 5 %`."""
    if not classifier["enabled"]:
        return "disabled"
    return ", ".join(role if share == 100 else f"{role} {share} %" for role, share in roles.items())
