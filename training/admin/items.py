"""Training items: a list with bulk verdicts, and what each item says."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldBooleanWidget

from interactions.admin import snippet
from kalimtak.core import jobs
from kalimtak.core.admin import (
    ConfirmedAction,
    Outcome,
    Panel,
    ReadOnlyModelAdmin,
    actor_of,
    labels_shown,
    state_label,
    when,
)
from kalimtak.core.errors import KalimtakError
from registry.labels import NOTHING, SEPARATOR
from registry.models import Classifier
from training import services
from training.admin.agreement import AgreementPage
from training.admin.beside import why
from training.admin.relabel import RelabelForm
from training.admin.review import ReviewDesk
from training.admin.waiting import WaitingList
from training.models import Review, TrainingDataItem

VERDICTS = Review.Verdict


class LabelFilter(admin.SimpleListFilter):
    """By the labels of the classifiers, which costs no walk over the items."""

    title = _("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        classifiers = Classifier.objects.all()
        chosen = request.GET.get("classifier__id__exact", "")
        if chosen.isdecimal():
            classifiers = classifiers.filter(pk=chosen)
        labels = {label for labels in classifiers.values_list("labels", flat=True) for label in labels}
        none = [(NOTHING, str(_("none of the labels")))] if self.multi_label_keys() else []
        return [*((label, label) for label in sorted(labels)), *none]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        label = self.value()
        if not label:
            return queryset
        within = Q(label__startswith=label + SEPARATOR) | Q(label__endswith=SEPARATOR + label)
        within |= Q(label__contains=SEPARATOR + label + SEPARATOR)
        if label == NOTHING:
            within = Q(label=NOTHING)
        return queryset.filter(Q(label=label) | Q(classifier__in=self.multi_label_keys()) & within)

    @staticmethod
    def multi_label_keys() -> list[int]:
        return [classifier.pk for classifier in Classifier.objects.only("label_config") if classifier.multi_label]


class CurateForm(forms.Form):
    classifier = forms.ModelChoiceField(
        Classifier.objects.all(),
        label=_("Classifier"),
        required=False,
        empty_label=_("all of them"),
        widget=UnfoldAdminSelectWidget(),
    )
    dry_run = forms.BooleanField(label=_("Only show what would happen"), required=False, widget=UnfoldBooleanWidget())


class CurateNow(ConfirmedAction):
    """The daily curation, now; its statistics appear on the job's page."""

    name = "curate"
    label = _("Curate now")
    question = _("What is new is cleaned, checked and turned into training items. Repeating it changes nothing.")
    permission = "registry.curate_classifier"
    icon = "filter_alt"
    per_object = False
    form_class = CurateForm

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        enabled = Classifier.objects.serving()
        waits = _("Waiting in %(name)s")
        return [(waits % {"name": one.name}, services.evidence_waiting(one)) for one in enabled]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        slug = data["classifier"].slug if data["classifier"] else ""
        params = {"classifier": slug, "dry_run": data["dry_run"]}
        job = jobs.enqueue("curate", params, actor=actor_of(request))
        return Outcome(str(_("The curation waits for a worker.")), reverse("admin:core_job_change", args=[job.pk]))


class ItemPanel(Panel):
    """The texts, and why the item is where it is."""

    name = "item"
    template = "admin/training/item.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"item": obj, "why": why(obj), "reviews": obj.reviews.select_related("reviewer")}


@admin.register(TrainingDataItem)
class TrainingDataItemAdmin(ReviewDesk, WaitingList, AgreementPage, ReadOnlyModelAdmin):
    list_display = ["text", "label_shown", "status_shown", "reason_shown", "origin", "split", "classifier", "created"]
    list_filter = ["classifier", "status", LabelFilter, "origin", "split", "selected"]
    list_select_related = ["classifier"]
    search_fields = ["=id", "=source", "=content_hash"]
    ordering = ["-pk"]
    actions = ["approve_selected", "reject_selected", "relabel_selected", "release_selected", "discard_selected"]
    panels = [ItemPanel()]
    confirmed_actions = [CurateNow()]
    empty_text = _("Nothing to learn from yet. Load a data set, or collect feedback and press “Curate now”.")
    fieldsets = [
        (None, {"fields": ["classifier", "dataset", "interaction", "origin", "source"]}),
        (
            _("In training"),
            {
                "fields": [
                    "split",
                    "selected",
                    "weight",
                    "quality",
                    "domain",
                    "decided_at",
                    "left_quarantine_at",
                    "created_at",
                ]
            },
        ),
        (_("Identity"), {"fields": ["content_hash", "cluster"]}),
    ]

    def get_urls(self) -> list[URLPattern]:
        relabel = path(
            "relabel/", self.admin_site.admin_view(self.relabel_view), name="training_trainingdataitem_relabel"
        )
        return [relabel, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier")

    @admin.action(description=_("Approve the selected items"), permissions=["review"])
    def approve_selected(self, request: HttpRequest, queryset: Any) -> None:
        self.judge(request, queryset, VERDICTS.APPROVE)

    @admin.action(description=_("Reject the selected items"), permissions=["review"])
    def reject_selected(self, request: HttpRequest, queryset: Any) -> None:
        self.judge(request, queryset, VERDICTS.REJECT)

    @admin.action(description=_("Relabel the selected items…"), permissions=["review"])
    def relabel_selected(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self.ask_label(request, queryset)

    @admin.action(description=_("Release the selected items from quarantine"), permissions=["review"])
    def release_selected(self, request: HttpRequest, queryset: Any) -> None:
        left = services.quarantine_release(queryset, reviewer=request.user)
        waiting, repeated = left.waiting, left.duplicates
        told = [
            ngettext(
                "%d item was released and waits for review.", "%d items were released and wait for review.", waiting
            )
            % waiting
        ]
        if repeated:
            duplicates = ngettext(
                "%d was rejected: an item says the same already.",
                "%d were rejected: items say the same already.",
                repeated,
            )
            told.append(duplicates % repeated)
        messages.success(request, " ".join(told))

    @admin.action(description=_("Reject the selected items in quarantine"), permissions=["review"])
    def discard_selected(self, request: HttpRequest, queryset: Any) -> None:
        count = services.quarantine_reject(queryset, reviewer=request.user)
        told = ngettext("%d item in quarantine was rejected.", "%d items in quarantine were rejected.", count)
        messages.success(request, told % count)

    def judge(self, request: HttpRequest, queryset: Any, verdict: str, label: str = "") -> None:
        try:
            count = services.items_review(queryset, reviewer=request.user, verdict=verdict, label=label)
        except KalimtakError as error:
            messages.error(request, error.message)
            return
        messages.success(request, ngettext("%d item was judged.", "%d items were judged.", count) % count)

    def ask_label(self, request: HttpRequest, queryset: Any, form: RelabelForm | None = None) -> HttpResponse | None:
        """The page between choosing items and relabelling them; the items must share one classifier."""
        classifiers = list(Classifier.objects.filter(pk__in=queryset.order_by().values("classifier").distinct())[:2])
        if len(classifiers) != 1:
            messages.error(request, _("Choose items of one classifier: each has labels of its own."))
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Relabel"),
            "opts": self.opts,
            "media": self.media,
            "form": form or RelabelForm(classifier=classifiers[0]),
            "items": queryset.select_related("classifier")[:20],
            "count": queryset.count(),
            "keys": list(queryset.values_list("pk", flat=True)),
            "key_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/training/relabel.html", context)

    def relabel_view(self, request: HttpRequest) -> HttpResponse:
        """Relabel the items that the page before listed; POST only."""
        self.require_reviewer(request)
        back = self.redirect_to_list()
        if request.method != "POST":
            return self.post_only()
        queryset = self.get_queryset(request).filter(pk__in=self.chosen_keys(request))
        first = queryset.first()
        if first is not None:
            label = first.classifier.label_of(request.POST.getlist("label"))
            self.judge(request, queryset, VERDICTS.RELABEL, label)
        return back

    @admin.display(description=_("text"))
    def text(self, item: TrainingDataItem) -> SafeString:
        return snippet(item.fields)

    @admin.display(description=_("label"), ordering="label")
    def label_shown(self, item: TrainingDataItem) -> SafeString:
        return labels_shown(item.label_parts)

    @admin.display(description=_("status"), ordering="status")
    def status_shown(self, item: TrainingDataItem) -> SafeString:
        return state_label(item.status, item.get_status_display())

    @admin.display(description=_("reason"), ordering="reason")
    def reason_shown(self, item: TrainingDataItem) -> SafeString:
        return format_html('<span class="k-clamp" dir="auto" title="{0}">{0}</span>', item.reason)

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, item: TrainingDataItem) -> Any:
        return when(item.created_at)
