"""What needs a person, and what needed one."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from kalimtak.core import alerts
from kalimtak.core.admin.base import ReadOnlyModelAdmin
from kalimtak.core.admin.confirm import ConfirmedAction, Outcome
from kalimtak.core.admin.display import actor_of, state_label, when
from kalimtak.core.models import Alert


class OpenFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("open", _("open")), ("closed", _("closed"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() not in ("open", "closed"):
            return queryset
        return queryset.filter(closed_at__isnull=self.value() == "open")


class Close(ConfirmedAction):
    name = "close"
    label = _("Mark as done")
    question = _("Say that somebody has seen to it. If it is still wrong, a new alert will follow.")
    permission = "core.change_alert"
    icon = "check"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.closed_at is None

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        return [(_("About"), obj.target), (_("Message"), obj.message)]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        alerts.alert_close(obj, actor=actor_of(request))
        return Outcome(str(_("Marked as done.")))


@admin.register(Alert)
class AlertAdmin(ReadOnlyModelAdmin):
    list_display = ["message", "kind", "target", "state_shown", "times", "last_seen"]
    list_filter = [OpenFilter, "kind"]
    search_fields = ["=target"]
    fields = ["message", "kind", "target", "state_shown", "count", "opened_at", "last_at", "closed_at", "closed_by"]
    confirmed_actions = [Close()]
    empty_text = _("Nothing needs you.")

    @admin.display(description=_("state"))
    def state_shown(self, alert: Alert) -> SafeString:
        return state_label("ok", _("closed")) if alert.closed_at else state_label("failed", _("open"))

    @admin.display(description=_("times"))
    def times(self, alert: Alert) -> int:
        return alert.count

    @admin.display(description=_("last seen"), ordering="last_at")
    def last_seen(self, alert: Alert) -> Any:
        return when(alert.last_at)
