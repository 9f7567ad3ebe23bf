"""The version's page: its figures, the gate's verdict, the comparison with the live version, and its artefact."""

from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from kalimtak.core.admin import ConfirmedAction, Outcome, Panel, ReadOnlyModelAdmin, actor_of, state_label, when
from kalimtak.core.errors import Conflict
from registry import services, store
from registry.admin.cascades import CascadePanel, MeasureCascade
from registry.admin.figures import comparison_rows, confusion_rows, figure, figures, label_rows, outcome_rows
from registry.models import Evaluation, ModelVersion

FORCE = "registry.force_deploy_modelversion"
CARD_BYTES = 200_000


def newest_evaluation(version: ModelVersion, *, with_scores: bool = False) -> Evaluation | None:
    evaluations = version.evaluations.select_related("baseline__classifier")
    return (evaluations.exclude(scores={}) if with_scores else evaluations).first()


def artefact_file(version: ModelVersion, name: str) -> Path | None:
    """A file of the artefact that a page shows, if it is there; `name` is one of ours, never of a request."""
    path = store.version_folder(version.classifier.slug, version.number) / name
    return path if path.is_file() and not path.is_symlink() else None


class VerdictPanel(Panel):
    name = "verdict"
    title = _("Verdict of the gate")
    template = "admin/registry/verdict.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        evaluation = newest_evaluation(obj)
        verdict = evaluation.verdict if evaluation else ""
        shown = state_label(verdict, evaluation.get_verdict_display()) if evaluation and verdict else ""
        return {"evaluation": evaluation, "verdict": shown}


class FiguresPanel(Panel):
    name = "figures"
    title = _("Figures on the golden set")
    template = "admin/registry/figures.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        evaluation = obj if isinstance(obj, Evaluation) else newest_evaluation(obj, with_scores=True)
        scores = evaluation.scores if evaluation else {}
        return {
            "evaluation": evaluation,
            "figures": figures(scores),
            "labels": label_rows(scores),
            "confusion": confusion_rows(scores),
            "outcomes": outcome_rows(scores),
        }


class ComparePanel(Panel):
    """Beside the live version; hidden on the live version's own page."""

    name = "compare"
    title = _("Compared with the live version")
    template = "admin/registry/compare.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        live = services.live_version(obj.classifier)
        return live is not None and live.pk != obj.pk

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        live: Any = services.live_version(obj.classifier)
        comparison = services.versions_compare(live, obj)
        rows = comparison_rows(comparison)
        return {"live_version": live, "rows": rows, "common": comparison.data_digest is not None}


class CardPanel(Panel):
    name = "card"
    title = _("Model card")
    template = "admin/registry/card.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        path = artefact_file(obj, "model_card.md")
        text = path.read_bytes()[:CARD_BYTES].decode("utf-8", "replace") if path else ""
        return {"card": text, "picture": artefact_file(obj, "confusion_matrix.png") is not None}


class DeployForm(forms.Form):
    """Why; and, where the gate did not agree and the user may overrule it, whether to overrule it."""

    reason = forms.CharField(
        label=_("Reason"), max_length=300, required=False, widget=UnfoldAdminTextInputWidget(attrs={"dir": "auto"})
    )
    force = forms.BooleanField(
        label=_("Deploy against the gate"),
        required=False,
        widget=UnfoldBooleanWidget(),
        help_text=_("Recorded with your name and reason."),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("force") and not data.get("reason"):
            self.add_error("reason", _("Say why, to deploy against the gate."))
        return data


class Deploy(ConfirmedAction):
    name = "deploy"
    label = _("Deploy")
    question = _("Every request to this classifier is answered by this version from now on.")
    permission = "registry.deploy_modelversion"
    icon = "rocket_launch"
    form_class = DeployForm
    template = "admin/registry/deploy.html"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        live = services.live_version(obj.classifier)
        return obj.status == ModelVersion.Status.VERIFIED and (live is None or live.pk != obj.pk)

    def make_form(self, request: HttpRequest, obj: Any) -> forms.Form:
        form = super().make_form(request, obj)
        evaluation = newest_evaluation(obj)
        agreed = evaluation is not None and evaluation.verdict == Evaluation.Verdict.PASSED
        if agreed or not request.user.has_perm(FORCE):
            del form.fields["force"]
        return form

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        live = services.live_version(obj.classifier)
        evaluation = newest_evaluation(obj)
        facts = [
            (_("Version"), obj.ref),
            (_("Macro-F1"), figure("macro_f1", obj.metrics.get("macro_f1"))),
            (_("Answers now"), live.ref if live else _("nobody")),
        ]
        if live:
            facts.append((_("Its macro-F1"), figure("macro_f1", live.metrics.get("macro_f1"))))
        if evaluation:
            facts.append((_("Verdict"), state_label(evaluation.verdict, evaluation.get_verdict_display())))
            facts += [(_("Because"), reason) for reason in evaluation.reasons]
        return facts

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        services.version_deploy(
            obj,
            actor=actor_of(request),
            force=data.get("force", False),
            may_force=request.user.has_perm(FORCE),
            reason=data["reason"],
        )
        return Outcome(str(_("%(version)s answers now.") % {"version": obj.ref}))


class Verify(ConfirmedAction):
    name = "verify"
    label = _("Verify")
    question = _("Every file's hash is checked, and a fresh process must reproduce the answers stored with the model.")
    permission = "registry.deploy_modelversion"
    icon = "verified"

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        problems = services.version_verify(obj, actor=actor_of(request))
        if problems:
            raise Conflict(str(_("This version is corrupt.")), fields={"artefact": problems})
        return Outcome(str(_("%(version)s is whole and answers as it did when it was made.") % {"version": obj.ref}))


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyModelAdmin):
    list_display = ["ref_shown", "family", "status_shown", "macro_f1", "accuracy", "created"]
    list_filter = ["classifier", "status"]
    list_select_related = ["classifier"]
    ordering = ["-pk"]
    panels = [VerdictPanel(), FiguresPanel(), ComparePanel(), CascadePanel(), CardPanel()]
    confirmed_actions = [Deploy(), Verify(), MeasureCascade()]
    empty_text = _("No versions yet. Open a classifier and press “Train now”.")
    fieldsets = [
        (
            None,
            {"fields": ["classifier", "number", "family", "status_shown", "problems_shown", "parent", "created_at"]},
        ),
        (
            _("Artefact"),
            {
                "fields": [
                    "artefact_digest",
                    "size_shown",
                    "snapshot_digest",
                    "contains_erased",
                    "seed",
                    "parameters_shown",
                ]
            },
        ),
        (_("Details"), {"classes": ["collapse"], "fields": ["labels", "calibration", "libraries"]}),
    ]

    def get_urls(self) -> list[URLPattern]:
        picture = path(
            "<path:object_id>/confusion_matrix.png",
            self.admin_site.admin_view(self.picture_view),
            name="registry_modelversion_picture",
        )
        return [picture, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier")

    def picture_view(self, request: HttpRequest, object_id: str) -> HttpResponse | FileResponse:
        version: Any = self.visible_object(request, object_id)
        path = artefact_file(version, "confusion_matrix.png")
        if path is None:
            raise Http404
        return FileResponse(path.open("rb"), content_type="image/png")

    @admin.display(description=_("version"), ordering="number")
    def ref_shown(self, version: ModelVersion) -> str:
        return version.ref

    @admin.display(description=_("status"), ordering="status")
    def status_shown(self, version: ModelVersion) -> SafeString:
        return state_label(version.status, version.get_status_display())

    @admin.display(description=_("problems"))
    def problems_shown(self, version: ModelVersion) -> str:
        return "; ".join(map(str, version.problems)) or "–"

    @admin.display(description=_("size"))
    def size_shown(self, version: ModelVersion) -> str:
        return filesizeformat(version.size)

    @admin.display(description=_("parameters"))
    def parameters_shown(self, version: ModelVersion) -> str:
        counts = {name: f"{version.parameters.get(name, 0):,}" for name in ("total", "trainable")}
        return _("%(total)s, of which %(trainable)s were trained") % counts

    @admin.display(description=_("macro-F1"))
    def macro_f1(self, version: ModelVersion) -> str:
        return figure("macro_f1", version.metrics.get("macro_f1"))

    @admin.display(description=_("accuracy"))
    def accuracy(self, version: ModelVersion) -> str:
        return figure("accuracy", version.metrics.get("accuracy"))

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, version: ModelVersion) -> Any:
        return when(version.created_at)
