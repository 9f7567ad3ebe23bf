"""Blocked words: what staff add to the shipped lists, and what they allow."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from kalimtak.core.admin import ConfirmedAction, Outcome, ReadOnlyModelAdmin, actor_of, labels_shown, state_label, when
from registry.models import Classifier
from training import services
from training.models import BlockedWord

WORD_ASKED = 60  # characters that a link may fill in


class WordsForm(forms.Form):
    words = forms.CharField(
        label=_("Words"),
        max_length=20_000,
        widget=UnfoldAdminTextareaWidget(attrs={"dir": "auto", "rows": 6}),
        help_text=_("One per line, in any language. An asterisk at the end stands for any ending: word*"),
    )
    language = forms.ChoiceField(
        label=_("Language"),
        choices=[("", _("every language")), *BlockedWord.Language.choices],
        required=False,
        widget=UnfoldAdminSelectWidget(),
        help_text=_(
            "It holds for texts of this language, and for those too short to tell theirs. "
            "What is said for one language goes before what is said for all."
        ),
    )
    effect = forms.ChoiceField(label=_("Effect"), choices=BlockedWord.Effect.choices, widget=UnfoldAdminSelectWidget())
    classifier = forms.ModelChoiceField(
        Classifier.objects.all(),
        label=_("Classifier"),
        required=False,
        empty_label=_("all of them"),
        widget=UnfoldAdminSelectWidget(),
    )


class AddWords(ConfirmedAction):
    name = "words"
    label = _("Add words")
    question = _(
        "What is blocked is not learnt from praise alone and waits for a reviewer where somebody corrected it. "
        "The next curation reads the lists anew; items that exist stay as they are."
    )
    permission = "training.add_blockedword"
    icon = "playlist_add"
    per_object = False
    form_class = WordsForm

    def initial(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What a link beside a shipped word says."""
        asked = {"words": request.GET.get("words", "")[:WORD_ASKED].replace("\x00", "")}
        if request.GET.get("effect") in BlockedWord.Effect.values:
            asked["effect"] = request.GET["effect"]
        return asked

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        count = services.words_add(
            data["words"].splitlines(),
            effect=data["effect"],
            classifier=data["classifier"],
            language=data["language"],
            actor=actor_of(request),
        )
        return Outcome(ngettext("%d word was listed.", "%d words were listed.", count) % count)


class RemoveWord(ConfirmedAction):
    name = "remove"
    label = _("Remove from the list")
    question = _("The shipped lists hold again for this word.")
    permission = "training.delete_blockedword"
    icon = "playlist_remove"
    dangerous = True

    def facts(self, request: HttpRequest, obj: Any) -> list[tuple[Any, Any]]:
        language = obj.get_language_display() or _("every language")
        return [(_("Word"), obj.word), (_("Language"), language), (_("Effect"), obj.get_effect_display())]

    def perform(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> Outcome:
        services.word_remove(obj, actor=actor_of(request))
        return Outcome(str(_("The word was removed.")), reverse("admin:training_blockedword_changelist"))


@admin.register(BlockedWord)
class BlockedWordAdmin(ReadOnlyModelAdmin):
    list_display = ["word_shown", "language_shown", "effect_shown", "for_whom", "added_by", "added"]
    list_filter = ["language", "effect", "classifier"]
    list_select_related = ["classifier"]
    search_fields = ["word"]
    fields = ["word", "language", "effect", "classifier", "added_by", "added_at"]
    confirmed_actions = [AddWords(), RemoveWord()]
    list_intro = _("Words of your own beside the lists that come with Kalimtak.")
    list_after_template = "admin/training/shipped_words.html"
    empty_text = _("The shipped lists alone hold. Add words to block, or allow one of theirs.")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, and below it the shipped words that its language filter and its search leave."""
        asked = {"language": request.GET.get("language__exact", ""), "search": request.GET.get("q", "")}
        context = {
            "shipped": services.shipped_lists(**asked),
            "shipped_is_asked": any(asked.values()),
            "may_add_words": request.user.has_perm(AddWords.permission),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @admin.display(description=_("word"), ordering="word")
    def word_shown(self, row: BlockedWord) -> SafeString:
        return labels_shown([row.word])

    @admin.display(description=_("language"), ordering="language")
    def language_shown(self, row: BlockedWord) -> Any:
        return row.get_language_display() or _("every language")

    @admin.display(description=_("effect"), ordering="effect")
    def effect_shown(self, row: BlockedWord) -> SafeString:
        return state_label("failed" if row.effect == BlockedWord.Effect.BLOCK else "ok", row.get_effect_display())

    @admin.display(description=_("classifier"))
    def for_whom(self, row: BlockedWord) -> Any:
        return row.classifier or _("all of them")

    @admin.display(description=_("added"), ordering="added_at")
    def added(self, row: BlockedWord) -> Any:
        return when(row.added_at)
