"""What waits, as a list: filter, tick, and judge many at once, after a page that says how many."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from kalimtak.core.errors import KalimtakError
from registry.labels import NOTHING
from registry.models import Classifier
from training import services
from training.admin.beside import Told, why_here
from training.admin.relabel import RelabelForm
from training.models import Review, TrainingDataItem
from training.services.waiting import WINDOW, WaitingFilter, waiting_filter, waiting_window

PER_PAGE = 50
LISTED = 20
ANY = ("", _("any"))
QUESTIONS = {
    Review.Verdict.APPROVE: lambda count: ngettext("Approve %d item?", "Approve %d items?", count),
    Review.Verdict.REJECT: lambda count: ngettext("Reject %d item?", "Reject %d items?", count),
    Review.Verdict.RELABEL: lambda count: ngettext(
        "Give %d item another label?", "Give %d items another label?", count
    ),
}


class FilterForm(forms.Form):
    """Which of the waiting items to show. What cannot be meant is left out, as on every list."""

    classifier = forms.ModelChoiceField(
        Classifier.objects.all(), label=_("Classifier"), to_field_name="slug", widget=UnfoldAdminSelectWidget()
    )
    label = forms.ChoiceField(label=_("Label"), required=False, widget=UnfoldAdminSelectWidget())
    why = forms.ChoiceField(
        label=_("Why it is here"),
        choices=[ANY, *TrainingDataItem.Why.choices],
        required=False,
        widget=UnfoldAdminSelectWidget(),
    )
    confidence = forms.ChoiceField(
        label=_("Confidence of the answer"),
        choices=[ANY, ("low", _("under 50 %")), ("middling", _("50 to 80 %")), ("high", _("80 % and more"))],
        required=False,
        widget=UnfoldAdminSelectWidget(),
    )
    script = forms.ChoiceField(label=_("Script"), required=False, widget=UnfoldAdminSelectWidget())
    domain = forms.ChoiceField(label=_("Domain"), required=False, widget=UnfoldAdminSelectWidget())
    source = forms.CharField(
        label=_("Source"), required=False, max_length=80, widget=UnfoldAdminTextInputWidget(attrs={"dir": "ltr"})
    )
    like = forms.IntegerField(
        label=_("Like item number"),
        required=False,
        min_value=1,
        max_value=2**63 - 1,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric", "dir": "ltr"}),
    )

    def __init__(self, *args: Any, classifier: Classifier, window: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        none = [(NOTHING, _("none of the labels"))] if classifier.multi_label else []
        self.fields["label"].choices = [ANY, *((label, label) for label in classifier.labels), *none]
        pairs = set(window.order_by().values_list("script", "domain").distinct()[:1000])
        for number, name in enumerate(("script", "domain")):
            values = sorted({pair[number] for pair in pairs} - {""})
            self.fields[name].choices = [ANY, *((value, value) for value in values)]

    def wanted(self) -> WaitingFilter:
        self.full_clean()
        data = getattr(self, "cleaned_data", {})
        names = WaitingFilter.__dataclass_fields__
        return WaitingFilter(**{name: data[name] for name in names if data.get(name)})


class WaitingList:
    """Adds `waiting/` (the list, and by POST the page that asks) and `waiting/judge/` (POST only)."""

    admin_site: Any

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        stem = "training_trainingdataitem"
        return [
            path("waiting/", view(self.waiting_view), name=f"{stem}_waiting"),
            path("waiting/judge/", view(self.judge_view), name=f"{stem}_judge"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def waiting_view(self, request: HttpRequest) -> HttpResponse:
        self.require_reviewer(request)  # type: ignore[attr-defined]
        classifier = self.chosen_classifier(request)
        if classifier is None:
            messages.info(request, _("There is no classifier yet."))
            return self.redirect_to_list()  # type: ignore[attr-defined]
        if request.method == "POST":
            return self.ask(request, classifier)
        window = waiting_window(classifier)
        given = {name: value for name, value in request.GET.dict().items() if "\x00" not in value}
        form = FilterForm(given | {"classifier": classifier.slug}, classifier=classifier, window=window)
        found = waiting_filter(window, form.wanted()).select_related("interaction")
        page = Paginator(found, PER_PAGE).get_page(given.get("page"))
        for item in page.object_list:
            item.classifier = classifier
            item.told = Told.of(item)
            item.sentences = why_here(item, item.told)
        context = {
            **self.page_context(request),  # type: ignore[attr-defined]
            "title": _("What waits"),
            "form": form,
            "page": page,
            "window": WINDOW,
            "query": query_of(form),
            "classifier": classifier,
            "key_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/training/waiting.html", context)

    def ask(self, request: HttpRequest, classifier: Classifier) -> HttpResponse:
        """The page between ticking items and judging them: how many, the first of them, and which label."""
        verdict = request.POST.get("verdict", "")
        items = self.ticked(request, classifier)
        count = items.count()
        if verdict not in QUESTIONS or not count:
            messages.error(request, _("Tick what you want to judge first."))
            return HttpResponseRedirect(self.way_back(request, classifier))
        question = QUESTIONS[Review.Verdict(verdict)](count) % count
        first = list(items[:LISTED])
        for item in first:
            item.classifier = classifier
        context = {
            **self.page_context(request),  # type: ignore[attr-defined]
            "title": question,
            "verdict": verdict,
            "form": RelabelForm(classifier=classifier) if verdict == Review.Verdict.RELABEL else None,
            "items": first,
            "more": count - len(first),
            "keys": list(items.values_list("pk", flat=True)),
            "key_name": ACTION_CHECKBOX_NAME,
            "classifier": classifier,
            "query": request.POST.get("query", ""),
            "back": self.way_back(request, classifier),
        }
        return TemplateResponse(request, "admin/training/waiting_confirm.html", context)

    def judge_view(self, request: HttpRequest) -> HttpResponse:
        """The verdict on what the page before listed, less what was decided meanwhile."""
        self.require_reviewer(request)  # type: ignore[attr-defined]
        if request.method != "POST":
            return self.post_only()  # type: ignore[attr-defined]
        classifier = self.chosen_classifier(request)
        back = self.way_back(request, classifier)
        if classifier is None:
            return HttpResponseRedirect(back)
        verdict, label = request.POST.get("verdict", ""), classifier.label_of(request.POST.getlist("label"))
        items = self.ticked(request, classifier)
        try:
            count = services.items_review(items, reviewer=request.user, verdict=verdict, label=label)
        except KalimtakError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(back)
        messages.success(request, ngettext("%d item was judged.", "%d items were judged.", count) % count)
        return HttpResponseRedirect(back)

    def ticked(self, request: HttpRequest, classifier: Classifier) -> Any:
        keys = self.chosen_keys(request)[: 10 * PER_PAGE]  # type: ignore[attr-defined]
        waiting = TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.REVIEW)
        return waiting.filter(pk__in=keys).order_by("-priority", "id")

    def chosen_classifier(self, request: HttpRequest) -> Classifier | None:
        """The one that is named; without a name the one with the most urgent item, else the first."""
        slug = request.POST.get("classifier") or request.GET.get("classifier", "")
        named = Classifier.objects.filter(slug=slug.replace("\x00", "")).first() if slug else None
        if named is not None:
            return named
        waiting = TrainingDataItem.objects.filter(status=TrainingDataItem.Status.REVIEW).order_by("-priority", "id")
        first = waiting.select_related("classifier").first()
        return first.classifier if first else Classifier.objects.order_by("pk").first()

    def way_back(self, request: HttpRequest, classifier: Classifier | None) -> str:
        """The list as it was filtered; of what was posted only known names are taken."""
        address = reverse("admin:training_trainingdataitem_waiting")
        if classifier is None:
            return address
        given = QueryDict(request.POST.get("query", "")[:2000])
        known = {name: given[name] for name in WaitingFilter.__dataclass_fields__ if given.get(name)}
        return f"{address}?{urlencode({'classifier': classifier.slug} | known)}"


def query_of(form: FilterForm) -> str:
    """The form as part of an address, without what is empty or could not be meant."""
    values = {"classifier": form.data["classifier"]}
    data = getattr(form, "cleaned_data", {})
    return urlencode(values | {name: data[name] for name in WaitingFilter.__dataclass_fields__ if data.get(name)})
