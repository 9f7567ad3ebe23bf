"""What was asked and answered, and what people said about it: to be read, never edited."""

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from interactions.models import Feedback, PersonalRecord, UserInteraction
from kalimtak.core.admin import Panel, ReadOnlyModelAdmin, labels_shown, state_label, when
from registry.models import Classifier

TEXT_SHOWN = 90
SCORES_SHOWN = 20


def snippet(fields: dict[str, str]) -> SafeString:
    """The `beginning` of a text in its own direction."""
    return format_html('<span dir="auto">{}</span>', beginning(fields))


def beginning(fields: dict[str, str]) -> str:
    """The beginning of a text, or of two joined by a slash."""
    text = " / ".join(str(value) for value in fields.values())
    return Truncator(text).chars(TEXT_SHOWN)


def score_rows(scores: dict[str, float]) -> list[dict[str, Any]]:
    """Labels by falling score, with the share as CSS reads it."""
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])[:SCORES_SHOWN]
    return [{"label": label, "share": f"{score:.4f}", "percent": f"{score:.1%}"} for label, score in ranked]


class AnswerPanel(Panel):
    """The texts as they came, and the answer with its scores."""

    name = "answer"
    title = _("Question and answer")
    template = "admin/interactions/answer.html"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"interaction": obj, "scores": score_rows(obj.scores), "confidence": f"{obj.confidence:.1%}"}


class FeedbackPanel(Panel):
    name = "feedback"
    title = _("What people said")
    template = "admin/interactions/feedback.html"
    permission = "interactions.view_feedback"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"feedback": obj.feedback.all()[:50]}


class PersonalPanel(Panel):
    """Address and user agent: only for those who may see personal records, and gone after the retention time."""

    name = "personal"
    title = _("Personal record")
    template = "admin/interactions/personal.html"
    permission = "interactions.view_personalrecord"

    def context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"record": PersonalRecord.objects.filter(interaction=obj).first()}


class RatedFilter(admin.SimpleListFilter):
    title = _("feedback")
    parameter_name = "rated"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("rated")), ("good", _("4 or 5")), ("bad", _("1 or 2")), ("no", _("not rated"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        conditions: dict[str, dict[str, Any]] = {
            "yes": {"rating__isnull": False},
            "good": {"rating__gte": 4},
            "bad": {"rating__lte": 2},
            "no": {"rating__isnull": True},
        }
        return queryset.filter(**conditions.get(self.value() or "", {}))


@admin.register(UserInteraction)
class UserInteractionAdmin(ReadOnlyModelAdmin):
    list_display = ["text", "label_shown", "confidence_shown", "rating", "version", "asked"]
    list_filter = ["classifier", "abstained", RatedFilter, "source"]
    list_select_related = ["classifier", "version__classifier"]
    search_fields = ["=id"]
    ordering = ["-id"]
    panels = [AnswerPanel(), FeedbackPanel(), PersonalPanel()]
    empty_text = _("Nobody has asked anything yet. Try the playground, or send a request to /api/predict.")
    fieldsets = [
        (
            None,
            {"fields": ["id", "classifier", "version", "deployment", "created_at", "latency_ms", "source", "flags"]},
        ),
        (_("Who"), {"fields": ["subject", "api_key"]}),
        (_("Judged"), {"fields": ["reviewed", "reviewed_at", "audit_slice"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("classifier", "version__classifier")

    @admin.display(description=_("text"))
    def text(self, interaction: UserInteraction) -> SafeString:
        return snippet(interaction.fields)

    @admin.display(description=_("answer"), ordering="label")
    def label_shown(self, interaction: UserInteraction) -> SafeString:
        shown = labels_shown(interaction.answered_parts)
        return format_html("{}{}", shown, _(" (abstained)") if interaction.abstained else "")

    @admin.display(description=_("reviewed label"))
    def reviewed(self, interaction: UserInteraction) -> SafeString | str:
        return labels_shown(interaction.reviewed_parts) if interaction.reviewed_label else "–"

    @admin.display(description=_("confidence"), ordering="confidence")
    def confidence_shown(self, interaction: UserInteraction) -> str:
        is_told = interaction.confidence or interaction.source != UserInteraction.Source.IMPORTED
        return f"{interaction.confidence:.0%}" if is_told else "–"

    @admin.display(description=_("asked"))
    def asked(self, interaction: UserInteraction) -> Any:
        return when(interaction.created_at)


class StarsFilter(admin.SimpleListFilter):
    """One to five, which needs no walk over all feedback to be known."""

    title = _("rating")
    parameter_name = "rating__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(rating), str(rating)) for rating in range(1, 6)]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        rating = self.value() or ""
        return queryset.filter(rating=int(rating)) if rating in ("1", "2", "3", "4", "5") else queryset


class AnsweredByFilter(admin.SimpleListFilter):
    """The classifier that was asked, looked up for the newest feedback first; a join would be sorted as a whole."""

    title = _("classifier")
    parameter_name = "classifier"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(classifier.slug, classifier.name or classifier.slug) for classifier in Classifier.objects.all()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        asked = UserInteraction.objects.filter(pk=OuterRef("interaction"), classifier__slug=self.value())
        return queryset.filter(Exists(asked))


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyModelAdmin):
    list_display = ["text", "answered", "rating", "correction", "taken_in", "given"]
    list_filter = [StarsFilter, "trusted", AnsweredByFilter]
    list_select_related = ["interaction__classifier"]
    search_fields = ["=interaction__id", "=source"]
    empty_text = _("No feedback yet. Clients send it to /api/feedback with the interaction's id.")
    fields = [
        "interaction", "text", "answered", "rating", "comment", "correction", "correct_response",
        "source", "trusted", "history", "created_at", "updated_at", "curated_at",
    ]  # fmt: skip

    @admin.display(description=_("text"))
    def text(self, feedback: Feedback) -> SafeString:
        return snippet(feedback.interaction.fields)

    @admin.display(description=_("answer"))
    def answered(self, feedback: Feedback) -> SafeString:
        return labels_shown(feedback.interaction.answered_parts)

    @admin.display(description=_("correct label"), ordering="correct_label")
    def correction(self, feedback: Feedback) -> SafeString | str:
        return labels_shown(feedback.label_parts) if feedback.correct_label else "–"

    @admin.display(description=_("curation"))
    def taken_in(self, feedback: Feedback) -> SafeString:
        if feedback.curated_at and feedback.curated_at >= feedback.updated_at:
            return state_label("ok", _("taken in"))
        return state_label("", _("waits"))

    @admin.display(description=_("given"), ordering="updated_at")
    def given(self, feedback: Feedback) -> Any:
        return when(feedback.updated_at)
