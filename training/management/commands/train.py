"""`manage.py train SLUG`: one training run, here and now or through the queue."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand, one_line
from kalimtak.core.errors import InvalidInput
from kalimtak.core.foreground import refuse_unless_succeeded, run_here
from kalimtak.core.models import Job
from registry import services as registry
from registry import store
from registry.families import FAMILIES
from registry.models import Classifier
from registry.recipe import Entry, RecipeError, parse_file
from training.history import EpochRow, epoch_rows
from training.management.bars import run_progress
from training.management.figures import duration, overall_rows, per_label_rows, run_seconds, trainer_rows
from training.models import TrainingRun
from training.services import run_resume, run_start

ACTOR = "system"
NOT_JUDGED = (
    "There is no golden set to judge it on; `manage.py import_dataset FILE --classifier {slug}` loads examples, then "
    "`manage.py evaluate {slug}`."
)
VALIDATION = ("Epoch", "Training loss", "Validation loss", "Accuracy", "Macro-F1", "")


class Command(KalimtakCommand):
    help = "Trains a classifier on its approved examples, shows the figures and says where the model was saved."
    example = "manage.py train emotion --set training_config.num_epochs=2 --deploy"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the classifier")
        parser.add_argument(
            "--type", default="", help=f"{', '.join(sorted(FAMILIES))}, instead of the classifier's own type"
        )
        parser.add_argument("--config", type=Path, metavar="FILE", help="take type and recipe from this models.yaml")
        parser.add_argument(
            "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE",
            help="change the recipe for this run, such as training_config.num_epochs=2",
        )  # fmt: skip
        parser.add_argument("--queue", action="store_true", help="leave the run to a worker and return at once")
        parser.add_argument(
            "--resume", action="store_true", help="go on with the last run that failed or was cancelled"
        )
        parser.add_argument("--deploy", action="store_true", help="deploy the version if the gate agrees")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["resume"] and (options["type"] or options["config"] or options["overrides"]):
            raise CommandError(
                "--resume goes on with the run's own recipe; leave out the options that change it.", returncode=2
            )
        classifier = registry.classifier_get(options["slug"])
        try:
            run = self._start(classifier, options)
        except InvalidInput as error:  # of --type, --config or --set
            raise CommandError(one_line(error), returncode=2) from error
        if options["queue"]:
            self._print_queued(run, as_json=options["json"])
            return
        with run_progress(run) as report:
            job = run_here(run.job, report)
        how_to_go_on = "Cancelled. `--resume` goes on from the last checkpoint."
        refuse_unless_succeeded(job, what="run", if_cancelled=how_to_go_on)
        run.refresh_from_db()
        self._print_json(run, job) if options["json"] else self._print_report(run, job)

    def _start(self, classifier: Classifier, options: dict[str, Any]) -> TrainingRun:
        then = TrainingRun.Then.DEPLOY if options["deploy"] else TrainingRun.Then.NONE
        if options["resume"]:
            return run_resume(classifier, actor=ACTOR, then=then if options["deploy"] else "", ring=options["queue"])
        entry = _entry(options["config"], classifier.slug) if options["config"] else None
        if entry and entry.loader and entry.loader != classifier.loader:
            raise InvalidInput("A loader takes effect through models.yaml alone; run `manage.py sync_models` first.")
        return run_start(
            classifier,
            actor=ACTOR,
            overrides=options["overrides"],
            family=options["type"] or (_family(entry) if entry else ""),
            recipe=entry.recipe if entry else None,
            then=then,
            ring=options["queue"],
        )

    def _print_queued(self, run: TrainingRun, *, as_json: bool) -> None:
        job = str(run.job_id)
        self.stdout.write(json.dumps({"job": job, "run": run.pk}) if as_json else f"Queued as job {job}.")

    def _print_json(self, run: TrainingRun, job: Job) -> None:
        assert run.version is not None
        folder = store.version_folder(run.classifier.slug, run.version.number)
        outcome = {"job": str(job.pk), "run": run.pk, "state": job.state, **(job.result or {})}
        self.stdout.write(json.dumps(outcome | {"scores": _scores(run), "folder": str(folder)}, indent=2))

    def _print_report(self, run: TrainingRun, job: Job) -> None:
        assert run.version is not None
        scores = _scores(run)
        if scores is None:
            self._print_ending(run, job, NOT_JUDGED.format(slug=run.classifier.slug))
            return
        if evaluations := [row for row in epoch_rows(run.history) if row.eval_macro_f1 is not None]:
            self.table("Validation", VALIDATION, [_validation_row(row) for row in evaluations])
        self.table(f"{run.version.ref} on {scores['n']} held-out texts", ("Figure", "Value"), overall_rows(scores))
        self.table("Per label", ("Label", "Precision", "Recall", "F1", "Texts"), per_label_rows(scores))
        self.table(f"Evaluation of {run.version.ref}", ("Figure", "Value"), trainer_rows(scores))
        self._print_ending(run, job)

    def _print_ending(self, run: TrainingRun, job: Job, *remarks: str) -> None:
        assert run.version is not None
        result = job.result or {}
        gate = f"Gate: {result['verdict']}. {' '.join(result['reasons'])}"
        for line in (_taken(run, job), *remarks, *result.get("notes", ()), gate):
            self.stdout.write(line)
        if run.then == TrainingRun.Then.DEPLOY:
            self.stdout.write("Deployed to production." if result["deployed"] else result["deployment"])
        self.stdout.write(f"Saved in {store.version_folder(run.classifier.slug, run.version.number)}")


def _scores(run: TrainingRun) -> dict[str, Any] | None:
    """The figures of the run's version on its golden set; None where there was none to judge it on."""
    assert run.version is not None
    found = run.version.evaluations.filter(data_digest=run.snapshot.golden_digest).exclude(scores={}).first()
    return found.scores if found else None


def _validation_row(row: EpochRow) -> tuple[str, ...]:
    figures = (row.loss, row.eval_loss, row.eval_accuracy, row.eval_macro_f1)
    return (str(row.epoch), *map(_figure, figures), "best" if row.is_best else "")


def _taken(run: TrainingRun, job: Job) -> str:
    """How long it took, and on what."""
    device, precision = (run.facts.get(name) for name in ("device", "precision"))
    on = f" on {device}" + (f" in {precision}" if precision else "") if device else ""
    return f"Took {duration(run_seconds(job))}{on}."


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def _family(entry: Entry) -> str:
    return "custom" if entry.loader else entry.type


def _entry(path: Path, slug: str) -> Entry:
    """The entry for `slug` in a models.yaml. Raises `InvalidInput`."""
    try:
        entries = parse_file(path.read_text(encoding="utf-8"), where=path.name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"{path} cannot be read: {reason}.") from error
    except RecipeError as error:
        raise InvalidInput(str(error)) from error
    for entry in entries:
        if entry.route == slug:
            return entry
    listed = ", ".join(entry.route for entry in entries) or "nothing"
    raise InvalidInput(f"{path} has no entry for {slug}; it describes {listed}.")
