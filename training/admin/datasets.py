"""Data sets: upload a file, see what it holds, follow its import."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from kalimtak.core.admin import ConfirmedAction, Outcome, Panel, ReadOnlyModelAdmin, actor_of, state_label, when
from kalimtak.core.admin.jobs import ProgressPanel
from kalimtak.core.models import Job
from registry.models import Classifier
from training import services
from training.admin.report import report_context
from training.models import Dataset, TrainingDataItem, TrainingRun

AFTERWARDS = [
    ("none", _("only load it")),
    ("train", _("train")),
    (TrainingRun.Then.DEPLOY, _("train, and deploy if the gate agrees")),
]


class UploadForm(forms.Form):
    """A file, whose it is and what it is for. Columns are found by themselves where no name is given."""

    file = forms.FileField(
        label=_("File"),
        widget=UnfoldAdminFileFieldWidget(),
        help_text=_("CSV, TSV, JSON, JSONL or Parquet, each optionally gzipped."),
    )
    classifier = forms.ModelChoiceField(
        Classifier.objects.filter(enabled=True), label=_("Classifier"), widget=UnfoldAdminSelectWidget()
    )
    role = forms.ChoiceField(
        label=_("Role"),
        choices=Dataset.Role.choices,
        widget=UnfoldAdminSelectWidget(),
        help_text=_("Golden rows are held out: every version is judged on them, none learns from them."),
    )
    split = forms.ChoiceField(
        label=_("Split"),
        choices=[("", _("decide by itself")), *TrainingDataItem.Split.choices],
        required=False,
        widget=UnfoldAdminSelectWidget(),
    )
    then = forms.ChoiceField(label=_("Afterwards"), choices=AFTERWARDS, widget=UnfoldAdminSelectWidget())
    text_fields = forms.CharField(
        label=_("Text columns"),
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"dir": "auto"}),
        help_text=_("One per input of the classifier, with commas between. Empty: found by name and content."),
    )
    label_field = forms.CharField(
        label=_("Label column"),
        required=False,
        max_length=64,
        widget=UnfoldAdminTextInputWidget(attrs={"dir": "auto"}),
        help_text=_("Empty: found by name and content."),
    )

    def clean_text_fields(self) -> list[str]:
        return [name.strip() for name in self.cleaned_data["text_fields"].split(",") if name.strip()]


class Upload(ConfirmedAction):
    name = "upload"
    label = _("Load a data set")
    question = _("Labelled rows of a file loaded here are approved items. Bad rows are reported with line and reason.")
    permission = "training.add_dataset"
    icon = "upload_file"
    per_object = False
    form_class = UploadForm

    def initial(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        chosen = request.GET.get("classifier", "")
        default = Classifier.objects.filter(is_default=True).values_list("pk", flat=True).first()
        return {"classifier": int(chosen) if chosen.isdecimal() else default}

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        actor = actor_of(request)
        options = {"text_fields": data["text_fields"], "label_field": data["label_field"]}
        if data["then"] != "none" and not request.user.has_perm("registry.train_classifier"):
            raise PermissionDenied
        dataset = services.dataset_add(
            data["classifier"],
            source=data["file"],
            name=data["file"].name,
            role=data["role"],
            split=data["split"],
            options={name: value for name, value in options.items() if value},
            actor=actor,
            then=data["then"],
        )
        return Outcome(str(_("The file was stored and waits to be loaded.")), dataset_url(dataset))


def dataset_url(dataset: Dataset) -> str:
    return reverse("admin:training_dataset_change", args=[dataset.pk])


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

    def is_live(self, obj: Any) -> bool:
        is_open = obj.state in (Dataset.State.PENDING, Dataset.State.LOADING)
        return is_open and obj.job is not None and not obj.is_given_up

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"dataset": obj, **report_context(obj.report)}


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyModelAdmin):
    list_display = ["name_shown", "classifier", "role", "origin", "state_shown", "rows", "actor", "created"]
    list_filter = ["classifier", "role", "state", "origin"]
    list_select_related = ["classifier"]
    search_fields = ["name", "=digest"]
    panels = [DatasetProgressPanel(), ReportPanel()]
    confirmed_actions = [Upload()]
    empty_text = _("No data sets yet. Load a file, or let `manage.py make_sample_data` write one.")
    fields = ["classifier", "role", "origin", "rows", "job", "actor", "created_at", "digest", "options"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier", "job")

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
