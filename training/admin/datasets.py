"""Data sets: follow their import, see what they hold and what is doubtful in it, change their role."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminSelectWidget

from kalimtak.core.admin import ConfirmedAction, Outcome, Panel, ReadOnlyModelAdmin, actor_of, state_label, when
from kalimtak.core.admin.jobs import CancelJob, ProgressPanel
from kalimtak.core.errors import NotFound
from kalimtak.core.models import Job
from registry import store
from training import services
from training.admin.findings import findings_context
from training.admin.loading import Load, Upload
from training.admin.report import log_context, report_context
from training.models import Dataset


class CancelLoad(CancelJob):
    """Stop what loads the data set; what is loaded stays, and loading again goes on from there."""

    question = _("It stops between two chunks. What is loaded stays; loading it again goes on from there.")

    def job(self, obj: Any) -> Job:
        return obj.job

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.job is not None and super().is_offered(request, obj)


class Examine(ConfirmedAction):
    """Look for near duplicates, leakage and doubtful labels."""

    name = "examine"
    label = _("Examine")
    question = _(
        "Its items are counted by length, script and language, compared with each other, with the golden set and with "
        "other data sets, and a model trained on four fifths judges the labels of the last one."
    )
    permission = "training.add_dataset"
    icon = "troubleshoot"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.state == Dataset.State.READY and obj.origin != Dataset.Origin.FEEDBACK

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        job = services.dataset_examine_queue(obj, actor=actor_of(request))
        return Outcome(str(_("The examination waits for a worker.")), reverse("admin:core_job_change", args=[job.pk]))


class Discard(ConfirmedAction):
    """Remove a file of which nothing was loaded."""

    name = "discard"
    label = _("Discard")
    question = _("The data set and its file are removed. Nothing of it was loaded, so no item is touched.")
    permission = "training.add_dataset"
    icon = "delete"
    dangerous = True

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return (obj.job is None or obj.job.is_finished) and services.dataset_is_discardable(obj)

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        facts = [(_("Name"), obj.name), (_("Classifier"), obj.classifier), (_("State"), obj.get_state_display())]
        return [*facts, (_("Error"), obj.error)] if obj.error else facts

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        services.dataset_discard(obj, actor=actor_of(request))
        return Outcome(str(_("The data set was discarded.")), reverse("admin:training_dataset_changelist"))


class RoleForm(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=Dataset.Role.choices, widget=UnfoldAdminSelectWidget())


class ChangeRole(ConfirmedAction):
    """Training, rehearsal or golden: what it means is said before it is done."""

    name = "role"
    label = _("Change the role")
    permission = "training.add_dataset"
    icon = "swap_horiz"
    form_class = RoleForm

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        return obj.origin != Dataset.Origin.FEEDBACK and (obj.job is None or obj.job.is_finished)

    def initial(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"role": obj.role}

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        others = [choice for choice in Dataset.Role.choices if choice[0] != obj.role]
        now = (_("Now"), obj.get_role_display())
        return [now, *((_("As %(role)s") % {"role": title}, consequence(obj, role)) for role, title in others)]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        services.dataset_role_set(obj, data["role"], actor=actor_of(request))
        return Outcome(str(_("The role is now: %(role)s.") % {"role": obj.get_role_display()}))


def consequence(dataset: Dataset, role: str) -> str:
    """What another role means, in words."""
    change = services.dataset_role_preview(dataset, role)
    golden = ngettext("The golden set then has %(n)s row", "The golden set then has %(n)s rows", change.golden)
    golden %= {"n": f"{change.golden:,}"}
    again = _("versions are scored again on it before they are compared")
    if role == Dataset.Role.GOLDEN:
        words = [_("Its rows are held out and teach nothing any more."), f"{golden}; {again}."]
        if change.learnt:
            learnt = ngettext(
                "%(n)d version has learnt from some of these rows, which flatters its score.",
                "%(n)d versions have learnt from some of these rows, which flatters their scores.",
                change.learnt,
            )
            words.append(learnt % {"n": change.learnt})
        return " ".join(map(str, words))
    words = []
    if dataset.role == Dataset.Role.GOLDEN:
        moved = _("%(n)s rows are held out no more and may be learnt from.") % {"n": f"{change.moved:,}"}
        words = [moved, f"{golden}; {again}."]
    if role == Dataset.Role.REHEARSAL:
        words.append(_("Its rows are mixed into each training, in the share that replay_share says."))
    else:
        words.append(_("All its rows are trained on."))
    return " ".join(map(str, words))


class DatasetProgressPanel(ProgressPanel):
    def job(self, obj: Any) -> Job:
        return obj.job

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return obj.job is not None and obj.state != Dataset.State.READY


class ReportPanel(Panel):
    """What the file holds: columns and why, labels, lengths, duplicates, rows left out."""

    name = "report"
    title = _("What it holds")
    template = "admin/training/report.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return obj.origin != Dataset.Origin.FEEDBACK

    def is_live(self, obj: Any) -> bool:
        is_open = obj.state in (Dataset.State.PENDING, Dataset.State.LOADING)
        return is_open and obj.job is not None and not obj.is_given_up

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"dataset": obj, **report_context(obj.report)}


class LogPanel(ReportPanel):
    """What a log of past interactions holds: columns and why, ratings, labels, rows left out."""

    name = "log"
    template = "admin/training/log.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return obj.origin == Dataset.Origin.FEEDBACK

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"dataset": obj, **log_context(obj.report)}


class FindingsPanel(Panel):
    """What the examination found, with links to the items behind each figure."""

    name = "findings"
    title = _("What is striking in it")
    template = "admin/training/findings.html"

    def is_shown(self, request: HttpRequest, obj: Any) -> bool:
        return bool(obj.findings)

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        may_read = request.user.has_perm("training.view_trainingdataitem")
        return {"dataset": obj, **findings_context(obj, with_texts=may_read)}


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyModelAdmin):
    list_display = ["name_shown", "classifier", "role", "origin", "state_shown", "rows", "actor", "created"]
    list_filter = ["classifier", "role", "state", "origin"]
    list_select_related = ["classifier"]
    search_fields = ["name", "=digest"]
    panels = [DatasetProgressPanel(), FindingsPanel(), ReportPanel(), LogPanel()]
    confirmed_actions = [Upload(), Load(), CancelLoad(), Examine(), ChangeRole(), Discard()]
    empty_text = _("No data sets yet. Load a file, or let `manage.py make_sample_data` write one.")
    fields = ["classifier", "role", "origin", "rows", "job", "actor", "created_at", "digest", "options"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier", "job")

    def get_urls(self) -> list[URLPattern]:
        bad_rows = path(
            "<path:object_id>/bad-rows/",
            self.admin_site.admin_view(self.bad_rows_view),
            name="training_dataset_bad_rows",
        )
        return [bad_rows, *super().get_urls()]

    def bad_rows_view(self, request: HttpRequest, object_id: str) -> FileResponse:
        """The list of all rows that were left out, as CSV."""
        dataset: Any = self.visible_object(request, object_id)
        try:
            file = store.dataset_path(str(dataset.report.get("errors_file", "")))
        except NotFound:
            raise Http404(object_id) from None
        name = f"bad-rows-{dataset.pk}.csv"
        return FileResponse(file.open("rb"), as_attachment=True, filename=name, content_type="text/csv; charset=utf-8")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_dataset_upload"))

    @admin.display(description=_("name"), ordering="name")
    def name_shown(self, dataset: Dataset) -> str:
        return dataset.name

    @admin.display(description=_("state"), ordering="state")
    def state_shown(self, dataset: Dataset) -> SafeString:
        if dataset.is_given_up and dataset.job is not None:
            return state_label(dataset.job.state, dataset.job.get_state_display())
        return state_label(dataset.state, dataset.get_state_display())

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, dataset: Dataset) -> Any:
        return when(dataset.created_at)
