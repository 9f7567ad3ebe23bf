"""What a version's page says of its cascade, and the button that measures it again."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from kalimtak.core.admin import ConfirmedAction, Outcome, Panel, actor_of
from kalimtak.core.errors import Conflict
from registry import services
from registry.models import Cascade


def live_pair(version: Any) -> tuple[Any, Any]:
    """(the classifier that the policy names as cascade, its live version), None where there is none."""
    cheap = services.cascade_of(version.classifier)
    return cheap, services.live_version(cheap) if cheap else None


class CascadePanel(Panel):
    """The threshold, the share answered early and the saving, for each cheap version this one was measured with."""

    name = "cascade"
    title = _("Cascade")
    template = "admin/registry/cascade.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return services.cascade_of(obj.classifier) is not None or obj.cascades.exists()

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        cheap, live = live_pair(obj)
        rows = obj.cascades.select_related("cheap__classifier").order_by("-measured_at")[:10]
        return {
            "cheap": cheap,
            "cheap_version": live,
            "is_measured": live is not None and any(row.cheap_id == live.pk for row in rows),
            "rows": [_row(row, is_live=live is not None and row.cheap_id == live.pk) for row in rows],
        }


def _row(row: Cascade, *, is_live: bool) -> dict[str, Any]:
    figures = row.figures
    shown = {
        "cheap": row.cheap,
        "is_live": is_live,
        "texts": figures.get("texts"),
        "reason": figures.get("reason", ""),
        "measured_at": row.measured_at,
    }
    if row.threshold is None:
        return shown
    shares = {name: f"{100 * figures.get(name, 0):.1f} %" for name in ("early", "saving", "accuracy", "main_accuracy")}
    times = {name: f"{figures.get(name, 0):.2f} ms" for name in ("cheap_ms", "main_ms")}
    return shown | {"threshold": f"{row.threshold:.4f}"} | shares | times


class MeasureCascade(ConfirmedAction):
    """Queue the measurement of the pair that is live."""

    name = "measure-cascade"
    label = _("Measure the cascade")
    question = _("Both versions answer the validation texts again, and the threshold is chosen anew.")
    permission = "registry.deploy_modelversion"
    icon = "speed"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        live = services.live_version(obj.classifier)
        return live is not None and live.pk == obj.pk and live_pair(obj)[1] is not None

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        cheap = live_pair(obj)[1]
        return [(_("Version"), obj.ref), (_("Answers what it is sure of"), cheap.ref if cheap else _("nobody"))]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        if not self.is_offered(request, obj):
            raise Conflict(
                str(_("There is no cascade to measure: this version and that of policy.cascade must be live."))
            )
        services.cascades_queue([obj.classifier], actor=actor_of(request), again=True)
        return Outcome(str(_("The cascade of %(version)s is being measured.") % {"version": obj.ref}))
