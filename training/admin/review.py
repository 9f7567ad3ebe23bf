"""The review desk: one item after the other, judged by a button or a key."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from interactions.admin import score_rows
from kalimtak.core.errors import KalimtakError
from training import services
from training.models import Review, TrainingDataItem

REVIEW = "training.review_trainingdataitem"
WAITING = TrainingDataItem.Status.REVIEW
KEYS = 9  # labels that a digit chooses


def why(item: TrainingDataItem) -> str:
    """Why the item is where it is, in a sentence; where no reason was noted, where it came from."""
    return item.reason or str(item.get_origin_display())


def label_choices(item: TrainingDataItem) -> list[dict[str, Any]]:
    """The classifier's labels with their descriptions, and the digit that chooses each of the first nine.

    `current` are those that the item has.
    """
    described = item.classifier.get_label_config().descriptions
    return [
        {
            "label": label,
            "description": described.get(label, ""),
            "key": str(number) if number <= KEYS else "",
            "current": label in item.label_parts,
        }
        for number, label in enumerate(item.classifier.labels, start=1)
    ]


class ReviewDesk:
    """Adds `review/` (the first item that waits), `<pk>/review/` (one item) and `<pk>/verdict/` (POST only)."""

    admin_site: Any
    opts: Any
    media: Any

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        stem = "training_trainingdataitem"
        return [
            path("review/", view(self.desk_view), name=f"{stem}_desk"),
            path("<int:item_id>/review/", view(self.review_view), name=f"{stem}_review"),
            path("<int:item_id>/verdict/", view(self.verdict_view), name=f"{stem}_verdict"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(REVIEW)

    def require_reviewer(self, request: HttpRequest) -> None:
        if not self.has_review_permission(request):
            raise PermissionDenied

    def desk_view(self, request: HttpRequest) -> HttpResponse:
        self.require_reviewer(request)
        slug = request.GET.get("classifier", "").replace("\x00", "")
        first = waiting_for(request.user, **({"classifier__slug": slug} if slug else {})).first()
        if first is None:
            messages.info(request, _("Nothing waits for review."))
            return self.redirect_to_list()
        return self.redirect_to_review(first.pk)

    def review_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        self.require_reviewer(request)
        item: Any = self.visible_object(request, str(item_id))  # type: ignore[attr-defined]
        following = next_item(item, request.user)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Review"),
            "opts": self.opts,
            "media": self.media,
            "item": item,
            "why": why(item),
            "interaction": item.interaction,
            "scores": score_rows(item.interaction.scores) if item.interaction else [],
            "labels": label_choices(item),
            "reviews": item.reviews.select_related("reviewer"),
            "rivals": rivals(item),
            "left": waiting_for(request.user, classifier=item.classifier).count(),
            "next_url": reverse("admin:training_trainingdataitem_review", args=[following.pk]) if following else "",
        }
        return TemplateResponse(request, "admin/training/review.html", context)

    def verdict_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        self.require_reviewer(request)
        if request.method != "POST":
            return self.post_only()
        item: Any = self.visible_object(request, str(item_id))  # type: ignore[attr-defined]
        following = next_item(item, request.user)
        verdict, label = request.POST.get("verdict", ""), item.classifier.label_of(request.POST.getlist("label"))
        if verdict == Review.Verdict.RELABEL and label == item.label:
            verdict, label = Review.Verdict.APPROVE, ""
        try:
            services.item_review(item, reviewer=request.user, verdict=verdict, label=label)
        except KalimtakError as error:
            messages.error(request, error.message)
            return self.redirect_to_review(item.pk)
        if following is None:
            messages.success(request, _("That was the last one that waited."))
            return self.redirect_to_list()
        return self.redirect_to_review(following.pk)

    def buttons(self, request: HttpRequest, obj: Any) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = super().buttons(request, obj)  # type: ignore[misc]
        if obj is None and self.has_review_permission(request):
            desk = {"label": _("Review what waits"), "icon": "fact_check"}
            shown.insert(0, {"action": desk, "url": reverse("admin:training_trainingdataitem_desk")})
        return shown

    def post_only(self) -> HttpResponse:
        return HttpResponseNotAllowed(["POST"])

    def redirect_to_review(self, item_id: int) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_review", args=[item_id]))

    def redirect_to_list(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_changelist"))


def waiting_for(reviewer: Any, **narrower: Any) -> QuerySet[TrainingDataItem]:
    """What waits and has no verdict of this reviewer yet: where several must agree, each item comes to each once.

    Nobody's own word comes to them.
    """
    waiting = TrainingDataItem.objects.filter(status=WAITING, **narrower)
    waiting = waiting.exclude(source__in=services.own_sources(reviewer))
    return waiting.exclude(reviews__reviewer=reviewer).order_by("pk")


def next_item(item: TrainingDataItem, reviewer: Any) -> TrainingDataItem | None:
    """The item of the same classifier that waits after this one; behind the last comes the first."""
    waiting = waiting_for(reviewer, classifier=item.classifier).exclude(pk=item.pk)
    return waiting.filter(pk__gt=item.pk).first() or waiting.first()


def rivals(item: TrainingDataItem) -> list[TrainingDataItem]:
    """Other items with the same text: what else people said it is."""
    same = TrainingDataItem.objects.filter(classifier=item.classifier, content_hash=item.content_hash)
    return list(same.exclude(pk=item.pk).select_related("classifier").order_by("-pk")[:5])
