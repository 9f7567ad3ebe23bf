"""The admin of the packages we build on, on our own base: accounts, roles, and the schedule of recurring jobs."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldBooleanSwitchWidget

from kalimtak import schedules
from kalimtak.core import audit
from kalimtak.core.admin import BaseModelAdmin, ConfirmedAction, Outcome, actor_of, state_label, when

FIRE = "kalimtak.schedules.fire"

# The queue's own tables hold pickles and say less than the job ledger, so they have no pages here.
for model in (User, Group, Schedule, Success, Failure, OrmQ):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, BaseModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "roles", "is_staff", "is_active", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active", "groups"]
    filter_horizontal = []

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description=_("roles"))
    def roles(self, user: User) -> str:
        return "superuser" if user.is_superuser else ", ".join(group.name for group in user.groups.all())


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, BaseModelAdmin):
    filter_horizontal = []


class ScheduleForm(forms.ModelForm):
    """When a recurring job is due. What it calls is code, so it cannot be typed here."""

    enabled = forms.BooleanField(label=_("Enabled"), required=False, widget=UnfoldBooleanSwitchWidget())

    class Meta:
        model = Schedule
        fields = ["schedule_type", "minutes", "cron", "next_run"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["enabled"].initial = self.instance.repeats != 0

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("schedule_type") == Schedule.CRON and not data.get("cron"):
            self.add_error("cron", _("A cron schedule needs an expression such as 0 2 * * *."))
        if data.get("schedule_type") == Schedule.MINUTES and not data.get("minutes"):
            self.add_error("minutes", _("Say every how many minutes."))
        return data

    def save(self, commit: bool = True) -> Schedule:
        self.instance.repeats = -1 if self.cleaned_data["enabled"] else 0
        return super().save(commit)


class RunNow(ConfirmedAction):
    name = "run"
    label = _("Run now")
    question = _("The job is due at once; its next regular time stays as it is.")
    permission = "django_q.change_schedule"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.func == FIRE

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        return [(_("Job"), obj.name), (_("Next regular run"), when(obj.next_run))]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        job = schedules.fire(obj.name)
        audit.record(actor_of(request), "schedule.run", f"schedule {obj.name}", job=job)
        message = _("“%(name)s” was asked for.") % {"name": obj.name}
        return Outcome(str(message), reverse("admin:core_job_change", args=[job]))


@admin.register(Schedule)
class ScheduleAdmin(BaseModelAdmin):
    form = ScheduleForm
    list_display = ["name", "schedule_type", "rhythm", "state_shown", "next_due"]
    fields = ["name", "func", "enabled", "schedule_type", "minutes", "cron", "next_run"]
    readonly_fields = ["name", "func"]
    confirmed_actions = [RunNow()]
    empty_text = _("No recurring jobs yet. `manage.py setup` makes them.")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        audit.record(actor_of(request), "schedule.change", f"schedule {obj.name}", fields=form.changed_data)

    @admin.display(description=_("rhythm"))
    def rhythm(self, schedule: Schedule) -> str:
        if schedule.schedule_type == Schedule.CRON:
            return schedule.cron or ""
        return str(timedelta(minutes=schedule.minutes)) if schedule.minutes else ""

    @admin.display(description=_("state"))
    def state_shown(self, schedule: Schedule) -> SafeString:
        return state_label("ok", _("on")) if schedule.repeats else state_label("", _("off"))

    @admin.display(description=_("next run"), ordering="next_run")
    def next_due(self, schedule: Schedule) -> Any:
        overdue = schedule.repeats and schedule.next_run and schedule.next_run < timezone.now() - timedelta(minutes=5)
        return state_label("failed", _("overdue: is a worker running?")) if overdue else when(schedule.next_run)
