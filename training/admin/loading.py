"""From a file to a data set: sent in, looked at, its columns and labels settled, then loaded in the background."""

import hashlib
from collections.abc import Collection
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from kalimtak.core.admin import ConfirmedAction, Outcome, actor_of
from kalimtak.core.errors import KalimtakError
from registry.models import Classifier
from training import services
from training.models import Dataset, TrainingDataItem, TrainingRun
from training.services.files import Preview
from training.streams import ENCODINGS

AFTERWARDS = [
    ("none", _("only load it")),
    ("train", _("train")),
    (TrainingRun.Then.DEPLOY, _("train, and deploy if the gate agrees")),
]
SPLITS = [("", _("decide by itself")), *TrainingDataItem.Split.choices]
UNKNOWN = [
    ("report", _("list their rows as bad ones, and load the others")),
    ("drop", _("leave their rows out and count them")),
    ("refuse", _("refuse the file")),
]
LEAVE_OUT = "\x1f"  # no label is that
LABELS_MAPPED = 30


def dataset_url(dataset: Dataset) -> str:
    return reverse("admin:training_dataset_change", args=[dataset.pk])


class UploadForm(forms.Form):
    """A file or where it lies, whose it is and what it is for."""

    file = forms.FileField(
        label=_("File"),
        required=False,
        widget=UnfoldAdminFileFieldWidget(),
        help_text=_(
            "CSV, TSV, JSON, JSONL or Parquet, each optionally gzipped. You see what it holds before it is loaded."
        ),
    )
    url = forms.CharField(
        label=_("Or its address"),
        required=False,
        max_length=2_000,
        widget=UnfoldAdminTextInputWidget(attrs={"dir": "ltr", "placeholder": "https://"}),
        help_text=_(
            "From a host that KALIMTAK_DATASET_HOSTS allows. It is fetched in the background, and its columns are "
            "found by themselves."
        ),
    )
    classifier = forms.ModelChoiceField(
        Classifier.objects.filter(enabled=True), label=_("Classifier"), widget=UnfoldAdminSelectWidget()
    )
    role = forms.ChoiceField(
        label=_("Role"),
        choices=Dataset.Role.choices,
        widget=UnfoldAdminSelectWidget(),
        help_text=_(
            "Golden rows are held out: every version is judged on them, none learns from them. Rehearsal rows are "
            "mixed into each training, in the share that replay_share says."
        ),
    )
    split = forms.ChoiceField(label=_("Split"), choices=SPLITS, required=False, widget=UnfoldAdminSelectWidget())
    then = forms.ChoiceField(label=_("Afterwards"), choices=AFTERWARDS, widget=UnfoldAdminSelectWidget())

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors and bool(data.get("file")) == bool(data.get("url")):
            raise forms.ValidationError(_("Choose a file, or give an address: one of the two."))
        return data


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
        require_training(request, data["then"])
        told = {"role": data["role"], "split": data["split"], "actor": actor_of(request)}
        if data["url"]:
            dataset = services.dataset_add_url(data["classifier"], url=data["url"].strip(), then=data["then"], **told)
            return Outcome(str(_("The file will be fetched and loaded.")), dataset_url(dataset))
        file = data["file"]
        dataset = services.dataset_add(data["classifier"], source=file, name=file.name, **told)
        services.dataset_look(dataset)
        url = reverse("admin:training_dataset_load", args=[dataset.pk])
        return Outcome(str(_("The file was stored. Look at it and say how to load it.")), f"{url}?then={data['then']}")


def require_training(request: HttpRequest, then: str) -> None:
    if then != "none" and not request.user.has_perm("registry.train_classifier"):
        raise PermissionDenied


class LoadForm(forms.Form):
    """Which column is what, and what becomes of labels that the classifier does not have.

    Its fields follow the file: an encoding where it is text, a column for each input, a line for each unknown label.
    """

    def __init__(self, *args: Any, dataset: Dataset, preview: Preview | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dataset, self.preview = dataset, preview
        self.names = list(dataset.classifier.input_fields)
        if preview is None or preview.source.encoding:
            choices = [("", _("as the file says, else UTF-8")), *ENCODINGS.items()]
            self._choice("encoding", _("Encoding"), choices)
        if preview is not None:
            self._columns(preview)
            self._labels(preview)
        self._choice("split", _("Split"), SPLITS)
        self.fields["redact"] = forms.BooleanField(
            label=_("Replace personal data"),
            required=False,
            widget=UnfoldBooleanWidget(),
            help_text=_("E-mail addresses, telephone numbers and the like become placeholders, as in the curation."),
        )
        self._choice("then", _("Afterwards"), AFTERWARDS)

    def _choice(self, name: str, label: Any, choices: Any, help_text: Any = "") -> None:
        self.fields[name] = forms.ChoiceField(
            label=label, choices=choices, required=False, widget=UnfoldAdminSelectWidget(), help_text=help_text
        )

    def _columns(self, preview: Preview) -> None:
        columns = [(name, name[:100]) for name in preview.source.columns]
        by_itself = [("", _("find it by name and content"))]
        for number, name in enumerate(self.names):
            title = _("Column of the text") if len(self.names) == 1 else _("Column of “%(name)s”") % {"name": name}
            self._choice(f"input_{number}", title, [*by_itself, *columns])
        self._choice("label_field", _("Column of the label"), [*by_itself, *columns])
        self._choice("split_field", _("Column of the split"), [*by_itself, *columns])

    def _labels(self, preview: Preview) -> None:
        if not self.dataset.classifier.labels:
            return
        choices = [("", _("as said below")), (LEAVE_OUT, _("leave its rows out"))]
        choices += [(label, label) for label in self.dataset.classifier.labels]
        for label in self.mapped():
            self._choice(_key(label), _("Label “%(label)s” means") % {"label": label[:60]}, choices)
        self._choice("unknown_labels", _("Other labels that the classifier does not have"), UNKNOWN)

    def mapped(self) -> list[str]:
        """The unknown labels among the first rows, the most frequent ones first, and those that were mapped before."""
        found = list(self.preview.foreign)[:LABELS_MAPPED] if self.preview else []
        return list(dict.fromkeys([*found, *(self.dataset.options.get("labels") or {})]))

    def options(self) -> dict[str, Any]:
        """What was chosen, as `dataset_load_queue` takes it."""
        chosen = {name: self.cleaned_data.get(name) for name in self.fields}
        inputs = [chosen.get(f"input_{number}") or "" for number in range(len(self.names))]
        names = ("encoding", "label_field", "split_field", "split", "redact", "unknown_labels")
        options = {name: chosen[name] for name in names if chosen.get(name)}
        if all(inputs):
            options["text_fields"] = inputs
        labels = {label: chosen.get(_key(label)) for label in self.mapped()} if self.dataset.classifier.labels else {}
        if told := {found: "" if label == LEAVE_OUT else label for found, label in labels.items() if label}:
            options["labels"] = told
        return options

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        chosen = [bool(data.get(f"input_{number}")) for number in range(len(self.names))]
        if any(chosen) and not all(chosen):
            raise forms.ValidationError(_("Choose a column for each text, or for none of them."))
        return data


def _key(label: str) -> str:
    """The name of the field that maps a label; the label itself could be anything."""
    return f"map_{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


class Load(ConfirmedAction):
    """The page between a file and its items: its first rows, what was recognised, and what can be said of it."""

    name = "load"
    label = _("Load it")
    permission = "training.add_dataset"
    icon = "playlist_add"
    template = "admin/training/load.html"

    def is_offered(self, request: HttpRequest, obj: Any) -> bool:
        is_idle = obj.job is None or obj.job.is_finished
        is_file = bool(obj.digest or obj.options.get("url")) and obj.origin != Dataset.Origin.FEEDBACK
        return is_idle and is_file and obj.state != Dataset.State.READY

    def make_form(self, request: HttpRequest, obj: Any) -> forms.Form:
        posted = request.POST if request.method == "POST" else None
        preview, refusal = None, ""
        try:
            preview = services.dataset_preview(obj) if posted is None else _posted_preview(obj, request)
        except KalimtakError as error:
            refusal = error.message
        form = LoadForm(posted, initial=self.initial(request, obj), dataset=obj, preview=preview)
        form.refusal = refusal or (preview.refusal if preview else "")
        return form

    def initial(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        options = obj.options
        inputs = {f"input_{number}": name for number, name in enumerate(options.get("text_fields") or ())}
        labels = {_key(found): label or LEAVE_OUT for found, label in (options.get("labels") or {}).items()}
        then = request.GET.get("then", "none")
        return {**options, **inputs, **labels, "then": then if then in dict(AFTERWARDS) else "none"}

    def view(self, model_admin: Any, request: HttpRequest, obj: Any) -> HttpResponse:
        if not self.is_allowed(request):
            raise PermissionDenied
        if request.method == "POST" and "again" in request.POST:  # another encoding or column: show, load nothing
            return self.ask(model_admin, request, obj, self.make_form(request, obj))
        return super().view(model_admin, request, obj)

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        return [(_("Classifier"), obj.classifier), (_("Role"), obj.get_role_display())]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        require_training(request, data["then"] or "none")
        form = LoadForm(request.POST, dataset=obj, preview=_preview_or_none(obj, request))
        form.full_clean()
        services.dataset_load_queue(obj, form.options(), actor=actor_of(request), then=data["then"] or "none")
        return Outcome(str(_("The file waits to be loaded.")), dataset_url(obj))


def _posted_options(dataset: Dataset, request: HttpRequest) -> dict[str, Any]:
    """What decides how the beginning of the file is read, from a form that is not checked yet."""
    names = [request.POST.get(f"input_{number}", "") for number in range(len(dataset.classifier.input_fields))]
    told = ("encoding", "label_field", "split_field", "unknown_labels")
    options = {name: request.POST.get(name, "") for name in told}
    return {name: value for name, value in options.items() if value} | ({"text_fields": names} if all(names) else {})


def _posted_preview(dataset: Dataset, request: HttpRequest) -> Preview:
    """The beginning of the file with what the form says of it and of its labels. Raises `InvalidInput`."""

    def meanings(labels: Collection[str]) -> dict[str, str]:
        chosen = {label: request.POST.get(_key(label), "") for label in labels}
        known = {LEAVE_OUT, *dataset.classifier.labels}
        return {found: "" if label == LEAVE_OUT else label for found, label in chosen.items() if label in known}

    return services.dataset_preview(dataset, _posted_options(dataset, request), meanings)


def _preview_or_none(dataset: Dataset, request: HttpRequest) -> Preview | None:
    try:
        return _posted_preview(dataset, request)
    except KalimtakError:
        return None
