"""What was measured and who answered when, to be read."""

from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from kalimtak.core.admin import ReadOnlyModelAdmin, state_label, when
from registry.admin.figures import figure
from registry.admin.versions import FiguresPanel
from registry.models import Deployment, Evaluation


@admin.register(Evaluation)
class EvaluationAdmin(ReadOnlyModelAdmin):
    list_display = ["version", "verdict_shown", "macro_f1_shown", "rows", "baseline", "created"]
    list_filter = ["version__classifier", "verdict"]
    list_select_related = ["version__classifier", "baseline__classifier"]
    panels = [FiguresPanel()]
    fields = ["version", "verdict_shown", "reasons", "baseline", "data_digest", "rows", "slices", "created_at"]
    empty_text = _("Every training run ends with an evaluation; none has ended yet.")

    @admin.display(description=_("verdict"), ordering="verdict")
    def verdict_shown(self, evaluation: Evaluation) -> SafeString:
        return state_label(evaluation.verdict, evaluation.get_verdict_display())

    @admin.display(description=_("macro-F1"))
    def macro_f1_shown(self, evaluation: Evaluation) -> str:
        return figure("macro_f1", evaluation.macro_f1)

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, evaluation: Evaluation) -> Any:
        return when(evaluation.created_at)


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyModelAdmin):
    list_display = ["version", "role_shown", "started", "ended", "actor", "reason", "forced", "rolled_back"]
    list_filter = ["classifier", "role", "forced"]
    list_select_related = ["version__classifier", "classifier"]
    empty_text = _("Nothing was deployed yet. Open a version and press “Deploy”.")

    @admin.display(description=_("role"), ordering="role")
    def role_shown(self, deployment: Deployment) -> SafeString:
        over = deployment.ended_at is not None
        return state_label("" if over else deployment.role, deployment.get_role_display())

    @admin.display(description=_("started"), ordering="started_at")
    def started(self, deployment: Deployment) -> Any:
        return when(deployment.started_at)

    @admin.display(description=_("ended"), ordering="ended_at")
    def ended(self, deployment: Deployment) -> Any:
        return when(deployment.ended_at) if deployment.ended_at else _("live")
