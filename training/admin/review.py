"""The review desk: one item after the other, judged by a button or a key.

A page shows one item; what is pressed goes by `review.js` to the same addresses as without it, and the answer brings
the next item and the one after that, so that nobody waits for a page. Taking an item is a POST, since it is noted who
has it before them.
"""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from interactions.admin import score_rows
from kalimtak.core.errors import KalimtakError
from registry.models import Classifier
from training import services
from training.admin.beside import Told, beside, label_choices, why_here
from training.models import Review, TrainingDataItem

REVIEW = "training.review_trainingdataitem"
WAITING = TrainingDataItem.Status.REVIEW
SKIP = "skip"
BY_SCRIPT = "X-Desk"  # the header of requests that want the next items and no page


class ReviewDesk:
    """Adds `review/` (the first item that waits) and `<pk>/review/` (one item); POST only are `<pk>/verdict/`,
    `<pk>/hold/` (who has it before them), `review/undo/` and `review/again/` (what was skipped)."""

    admin_site: Any
    opts: Any
    media: Any

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        stem = "training_trainingdataitem"
        return [
            path("review/", view(self.desk_view), name=f"{stem}_desk"),
            path("review/undo/", view(self.undo_view), name=f"{stem}_undo"),
            path("review/again/", view(self.again_view), name=f"{stem}_again"),
            path("<int:item_id>/review/", view(self.review_view), name=f"{stem}_review"),
            path("<int:item_id>/verdict/", view(self.verdict_view), name=f"{stem}_verdict"),
            path("<int:item_id>/hold/", view(self.hold_view), name=f"{stem}_hold"),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(REVIEW)

    def require_reviewer(self, request: HttpRequest) -> None:
        if not self.has_review_permission(request):
            raise PermissionDenied

    # Pages ---------------------------------------------------------------------------------------------------------

    def desk_view(self, request: HttpRequest) -> HttpResponse:
        """To the first item that waits; where there is none, a page that says so and what was skipped."""
        self.require_reviewer(request)
        slug = request.GET.get("classifier", "").replace("\x00", "")
        classifier = Classifier.objects.filter(slug=slug).first() if slug else None
        first = None
        if classifier or not slug:
            first = services.waiting_for(request.user, classifier).first()
        if first is not None:
            return self.redirect_to_review(first.pk)
        progress = services.desk_progress(request.user, classifier)
        context = {**self.page_context(request), "title": _("Review"), "progress": progress, "classifier": classifier}
        return TemplateResponse(request, "admin/training/review_empty.html", context)

    def review_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        self.require_reviewer(request)
        item: Any = self.visible_object(request, str(item_id))  # type: ignore[attr-defined]
        context = {**self.page_context(request), "title": _("Review"), **self.item_context(request, item)}
        context["progress"] = services.desk_progress(request.user, item.classifier)
        return TemplateResponse(request, "admin/training/review.html", context)

    def page_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}

    def item_context(self, request: HttpRequest, item: TrainingDataItem) -> dict[str, Any]:
        """What the desk shows of one item. Of a random one nothing that could lead the eye: the answer least of all."""
        told = Told.of(item)
        answer = item.interaction if told.answer else None
        return {
            "item": item,
            "why": why_here(item, told),
            "interaction": answer,
            "scores": score_rows(answer.scores) if answer else [],
            "labels": label_choices(item, answer),
            "seen": services.item_state(item),
            "reviews": item.reviews.select_related("reviewer") if told.reviews else [],
            "beside": beside(item) if told.others else [],
        }

    # What is pressed -----------------------------------------------------------------------------------------------

    def verdict_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        """Approve, reject, relabel or skip. A verdict on what somebody else decided meanwhile is refused (409)."""
        self.require_reviewer(request)
        if request.method != "POST":
            return self.post_only()
        item: Any = self.visible_object(request, str(item_id))  # type: ignore[attr-defined]
        try:
            said = self.decide(request, item)
        except KalimtakError as error:
            return self.refused(request, item, error)
        return self.go_on(request, item, said)

    def decide(self, request: HttpRequest, item: TrainingDataItem) -> str:
        """Call the service behind the button; what was done, in words."""
        verdict, label = request.POST.get("verdict", ""), item.classifier.label_of(request.POST.getlist("label"))
        if verdict == SKIP:
            services.desk_skip(item, request.user)
            return _("Skipped.")
        if verdict == Review.Verdict.RELABEL and label == item.label:
            verdict, label = Review.Verdict.APPROVE, ""
        seen = request.POST.get("seen")
        decided = services.item_review(item, reviewer=request.user, verdict=verdict, label=label, seen=seen)
        if decided.status == WAITING:
            return _("Noted; it waits for another reviewer.")
        done = {Review.Verdict.APPROVE: _("Approved."), Review.Verdict.REJECT: _("Rejected.")}
        return done.get(Review.Verdict(verdict), _("Relabelled."))

    def undo_view(self, request: HttpRequest) -> HttpResponse:
        """Take back this reviewer's last verdict and show its item again."""
        self.require_reviewer(request)
        if request.method != "POST":
            return self.post_only()
        current = self.posted_item(request, "item")
        try:
            item = services.review_undo(request.user)
        except KalimtakError as error:
            return self.refused(request, current, error)
        services.desk_lease(item, request.user)
        said = _("Your last verdict was taken back.")
        if BY_SCRIPT not in request.headers:
            messages.success(request, said)
            return self.redirect_to_review(item.pk)
        ahead = services.desk_next(request.user, classifier=item.classifier, besides=(item.pk,))
        return self.answer(request, item.classifier, said=said, now=item, ahead=ahead)

    def again_view(self, request: HttpRequest) -> HttpResponse:
        self.require_reviewer(request)
        if request.method != "POST":
            return self.post_only()
        count = services.skips_forget(request.user)
        told = ngettext("%d item comes to you again.", "%d items come to you again.", count) % count
        messages.success(request, told)
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_desk"))

    def hold_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        """Note that this reviewer has the item before them, and bring the next one. Repeated while they look at it."""
        self.require_reviewer(request)
        if request.method != "POST":
            return self.post_only()
        item: Any = self.visible_object(request, str(item_id))  # type: ignore[attr-defined]
        said = ""
        if item.status == WAITING and not services.desk_lease(item, request.user):
            said = _("%(name)s has this item before them as well.") % {"name": services.lease_holder(item)}
        ahead = self.posted_item(request, "ahead")
        if ahead is not None and services.desk_lease(ahead, request.user):
            return self.answer(request, item.classifier, said=said)
        following = services.desk_next(request.user, classifier=item.classifier, besides=(item.pk,))
        return self.answer(request, item.classifier, said=said, ahead=following)

    # Answers -------------------------------------------------------------------------------------------------------

    def go_on(self, request: HttpRequest, item: TrainingDataItem, said: str) -> HttpResponse:
        """The next item; with the script, the one after it as well, or only that where it shows the next already."""
        shown = self.posted_item(request, "ahead")
        besides = (item.pk, shown.pk) if shown else (item.pk,)
        following = services.desk_next(request.user, classifier=item.classifier, besides=besides)
        if BY_SCRIPT not in request.headers:
            return self.redirect_to_next(request, following)
        if shown is not None:
            return self.answer(request, item.classifier, said=said, ahead=following)
        if following is None:
            return self.answer(request, item.classifier, said=said, is_done=True)
        ahead = services.desk_next(request.user, classifier=item.classifier, besides=(*besides, following.pk))
        return self.answer(request, item.classifier, said=said, now=following, ahead=ahead)

    def refused(self, request: HttpRequest, item: TrainingDataItem | None, error: KalimtakError) -> HttpResponse:
        if BY_SCRIPT not in request.headers:
            messages.error(request, error.message)
            return self.redirect_to_review(item.pk) if item else self.redirect_to_desk()
        shown = self.posted_item(request, "ahead")
        ahead = None
        if item is not None and shown is not None:
            ahead = services.desk_next(request.user, classifier=item.classifier, besides=(item.pk, shown.pk))
        classifier = item.classifier if item else None
        failed = {"failed": item if shown else None, "error": error.message}
        return self.answer(request, classifier, ahead=ahead, status=error.status, **failed)

    def answer(
        self, request: HttpRequest, classifier: Classifier | None, *, status: int = 200, **parts: Any
    ) -> HttpResponse:
        """Pieces for `review.js`: `said` or `error`, the item `now` to show, the one `ahead`, the progress."""
        for name in ("now", "ahead"):
            item = parts.get(name)
            parts[name] = self.item_context(request, item) if item else None
        context = {**parts, "progress": services.desk_progress(request.user, classifier)}
        return TemplateResponse(request, "admin/training/review_answer.html", context, status=status)

    def posted_item(self, request: HttpRequest, name: str) -> TrainingDataItem | None:
        """The item whose key was posted under this name, if there is one that may be seen."""
        key = request.POST.get(name, "")
        if not key.isascii() or not key.isdecimal() or len(key) > 18:
            return None
        rows: Any = self.get_queryset(request)  # type: ignore[attr-defined]
        return rows.filter(pk=int(key)).first()

    def buttons(self, request: HttpRequest, obj: Any) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = super().buttons(request, obj)  # type: ignore[misc]
        if obj is None and self.has_review_permission(request):
            desk = {"label": _("Review what waits"), "icon": "fact_check"}
            many = {"label": _("Judge many at once"), "icon": "checklist"}
            shown.insert(0, {"action": desk, "url": reverse("admin:training_trainingdataitem_desk")})
            agreement = {"label": _("Agreement"), "icon": "handshake"}
            shown.insert(1, {"action": many, "url": reverse("admin:training_trainingdataitem_waiting")})
            shown.insert(2, {"action": agreement, "url": reverse("admin:training_trainingdataitem_agreement")})
        return shown

    def post_only(self) -> HttpResponse:
        return HttpResponseNotAllowed(["POST"])

    def redirect_to_next(self, request: HttpRequest, following: TrainingDataItem | None) -> HttpResponse:
        if following is None:
            messages.success(request, _("That was the last one that waited."))
            return self.redirect_to_desk()
        return self.redirect_to_review(following.pk)

    def redirect_to_review(self, item_id: int) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_review", args=[item_id]))

    def redirect_to_desk(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_desk"))

    def redirect_to_list(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_trainingdataitem_changelist"))
