"""Training runs: started on a classifier's page, watched live on their own."""

import math
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from kalimtak.core.admin import ConfirmedAction, Outcome, Panel, ReadOnlyModelAdmin, actor_of, state_label, when
from kalimtak.core.admin.charts import Chart, line_chart
from kalimtak.core.admin.jobs import CancelJob, ProgressPanel
from kalimtak.core.models import Job
from registry.admin import ClassifierAdmin
from registry.admin.figures import figure
from registry.families import FAMILIES
from training import services
from training.history import EpochRow, epoch_rows
from training.models import TrainingDataItem, TrainingRun

STATUS = TrainingDataItem.Status
BEST = "eval_macro_f1"
CHARTS = (  # title, {figure: name of its curve}
    (_("Loss"), {"loss": _("training"), "eval_loss": _("validation")}),
    (_("Validation scores"), {BEST: _("macro-F1"), "eval_accuracy": _("accuracy")}),
    (_("Learning rate"), {"learning_rate": _("learning rate")}),
    (_("Speed"), {"samples_per_second": _("texts per second")}),
)
COLUMNS = (  # figure, title, how it is written
    ("loss", _("Training loss"), ".4f"),
    ("eval_loss", _("Validation loss"), ".4f"),
    ("eval_accuracy", _("Accuracy"), ".4f"),
    (BEST, _("Macro-F1"), ".4f"),
    ("learning_rate", _("Learning rate"), ".2g"),
    ("samples_per_second", _("Texts/s"), ".0f"),
)


class RunProgressPanel(ProgressPanel):
    """How far the run is, on what it trains, and what the trainer had to say."""

    template = "admin/training/progress.html"

    def job(self, obj: Any) -> Job:
        return obj.job

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return super().context(request, obj) | {
            "figures": run_figures(obj),
            "notes": obj.notes,
            "tensorboard": "" if obj.job.is_finished else obj.facts.get("tensorboard", ""),
        }


def run_figures(run: TrainingRun) -> list[tuple[Any, str]]:
    """What is known of the run, by name; a figure that no family reported is left out."""
    facts, last = run.facts, run.history[-1] if run.history else {}
    epochs, steps = facts.get("epochs"), facts.get("steps")
    epoch = min(math.ceil(last.get("epoch", 0) - 1e-6) or 1, epochs) if epochs and last else None
    of = _("%(done)s of %(all)s")
    rates = [point["samples_per_second"] for point in run.history if "samples_per_second" in point]
    figures = {
        _("epoch"): of % {"done": epoch, "all": epochs} if epoch else "",
        _("step"): of % {"done": f"{last.get('step', 0):,}", "all": f"{steps:,}"} if steps and last else "",
        _("texts per second"): f"{rates[-1]:,.0f}" if rates else "",
        _("texts per update"): facts.get("effective_batch", ""),
        _("device"): facts.get("device", ""),
        _("precision"): facts.get("precision", ""),
    }
    return [(name, str(value)) for name, value in figures.items() if value != ""]


class CurvesPanel(Panel):
    """What the run reports, as curves over the epochs and as a table."""

    name = "curves"
    title = _("Curves")
    template = "admin/training/curves.html"
    is_quiet = True

    def is_live(self, obj: Any) -> bool:
        return not obj.job.is_finished

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        drawn = [(title, curves(obj.history, names)) for title, names in CHARTS]
        return {"charts": [(title, chart) for title, chart in drawn if chart], **epoch_table(obj.history)}


def epoch_table(history: list[dict[str, Any]]) -> dict[str, Any]:
    """`titles` of the figures that the history holds, and `rows` of (epoch, step, cells of text and whether best)."""
    rows = epoch_rows(history)
    columns = [column for column in COLUMNS if any(getattr(row, column[0]) is not None for row in rows)]

    def cells(row: EpochRow) -> list[tuple[str, bool]]:
        values = [(name, getattr(row, name), form) for name, _title, form in columns]
        return [
            ("–" if each is None else f"{each:{form}}", name == BEST and row.is_best) for name, each, form in values
        ]

    return {"titles": [title for _name, title, _form in columns], "rows": [(row, cells(row)) for row in rows]}


def curves(history: list[dict[str, Any]], names: dict[str, Any]) -> Chart | None:
    """One curve for each of `names` that the history holds, over epochs; the best evaluation is marked."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, title in names.items():
        points = [(float(point.get("epoch", 0)), float(point[name])) for point in history if name in point]
        if points:
            found[str(title)] = points
    judged = found.get(str(names.get(BEST)), [])
    best = max(judged, key=lambda point: point[1])[0] if len(judged) > 1 else None
    return line_chart(found, (str(names[BEST]), best) if best is not None else None)


class OutcomePanel(Panel):
    """The version a run made, and the gate's verdict on it."""

    name = "outcome"
    title = _("Outcome")
    template = "admin/training/outcome.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return obj.version_id is not None

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        evaluation = obj.version.evaluations.first()
        return {
            "version": obj.version,
            "macro_f1": figure("macro_f1", obj.version.metrics.get("macro_f1")),
            "evaluation": evaluation,
            "verdict": state_label(evaluation.verdict, evaluation.get_verdict_display()) if evaluation else "",
        }


class CancelRun(CancelJob):
    question = _("Training stops within seconds and keeps its checkpoint. No version is made.")

    def job(self, obj: Any) -> Job:
        return obj.job


class TrainForm(forms.Form):
    """What becomes of the version, and what `manage.py train` knows as `--type` and `--set`."""

    then = forms.ChoiceField(label=_("Afterwards"), choices=TrainingRun.Then.choices, widget=UnfoldAdminSelectWidget())
    family = forms.ChoiceField(
        label=_("Model type"),
        choices=[("", _("the classifier's own")), *((name, name) for name in sorted(FAMILIES))],
        required=False,
        widget=UnfoldAdminSelectWidget(),
        help_text=_("For this run alone."),
    )
    settings = forms.CharField(
        label=_("Settings"),
        required=False,
        max_length=4_000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "dir": "ltr", "spellcheck": "false", "class": "k-code"}),
        help_text=_(
            "Changes to the recipe for this run alone, one section.key=value per line, such as "
            "training_config.num_epochs=2"
        ),
    )

    def clean_settings(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["settings"].splitlines() if line.strip()]


class TrainNow(ConfirmedAction):
    """Freeze what there is and queue a run over it."""

    name = "train"
    label = _("Train now")
    question = _("What is approved now is frozen, and a worker trains a new version from it.")
    permission = "registry.train_classifier"
    icon = "model_training"
    form_class = TrainForm

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return bool(obj.enabled)

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        counts = item_counts(obj)
        return [
            (_("Classifier"), obj),
            (_("Type"), obj.family),
            (_("To train and validate on"), counts["trainable"]),
            (_("Held out"), counts["golden"] or _("reserved from these at the first run")),
            (_("Approved since the last version"), services.new_items_count(obj)),
        ]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        run = services.run_start(
            obj, actor=actor_of(request), then=data["then"], family=data["family"], overrides=data["settings"]
        )
        url = reverse("admin:training_trainingrun_change", args=[run.pk])
        return Outcome(str(_("The run waits for a worker.")), url)


def item_counts(classifier: Any) -> dict[str, int]:
    """How many items stand where, in one query."""
    golden = Q(status=STATUS.APPROVED, split=TrainingDataItem.Split.TEST)
    learnt = Q(status=STATUS.APPROVED, selected=True) & ~Q(split=TrainingDataItem.Split.TEST)
    return TrainingDataItem.objects.filter(classifier=classifier).aggregate(
        candidate=Count("pk", filter=Q(status=STATUS.CANDIDATE)),
        review=Count("pk", filter=Q(status=STATUS.REVIEW)),
        trainable=Count("pk", filter=learnt),
        golden=Count("pk", filter=golden),
        rejected=Count("pk", filter=Q(status__in=[STATUS.REJECTED, STATUS.QUARANTINED])),
    )


class LearningPanel(Panel):
    """On the classifier's page: what it could learn from, and its last runs."""

    name = "learning"
    title = _("What it learns from")
    template = "admin/training/learning.html"
    permission = "training.view_trainingrun"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        runs = obj.runs.select_related("job", "version__classifier")[:5]
        rows = [{"run": run, "state": state_label(run.job.state, run.job.get_state_display())} for run in runs]
        return {"classifier": obj, "counts": item_counts(obj), "runs": rows}


ClassifierAdmin.panels.append(LearningPanel())
ClassifierAdmin.confirmed_actions.insert(0, TrainNow())


@admin.register(TrainingRun)
class TrainingRunAdmin(ReadOnlyModelAdmin):
    list_display = ["run_shown", "classifier", "family", "state_shown", "progress_shown", "version", "created"]
    list_filter = ["classifier", "job__state"]
    list_select_related = ["classifier", "job", "version__classifier"]
    panels = [RunProgressPanel(), CurvesPanel(), OutcomePanel()]
    confirmed_actions = [CancelRun()]
    empty_text = _("Nothing was trained yet. Open a classifier and press “Train now”.")
    fields = ["classifier", "family", "snapshot", "then", "job", "created_at", "recipe"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier", "job", "version__classifier", "snapshot")

    @admin.display(description=_("run"), ordering="pk")
    def run_shown(self, run: TrainingRun) -> str:
        return f"#{run.pk}"

    @admin.display(description=_("state"), ordering="job__state")
    def state_shown(self, run: TrainingRun) -> SafeString:
        return state_label(run.job.state, run.job.get_state_display())

    @admin.display(description=_("progress"))
    def progress_shown(self, run: TrainingRun) -> str:
        return f"{run.job.progress:.0%}"

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, run: TrainingRun) -> Any:
        return when(run.created_at)
