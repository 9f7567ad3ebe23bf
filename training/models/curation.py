"""What staff and the set itself tell curation: blocked words, domains."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class BlockedWord(models.Model):
    """A word that staff added to the shipped lists (`training/etl/content.py`), or one that they allow.

    `word` may end with an asterisk. Without a classifier it holds for all of them, without a language for texts of
    every one.
    """

    class Effect(models.TextChoices):
        BLOCK = "block", _("block")
        ALLOW = "allow", _("allow")

    class Language(models.TextChoices):
        """Those that have a list (`training/etl/languages.py`)."""

        ARABIC = "ar", _("Arabic")
        DUTCH = "nl", _("Dutch")
        ENGLISH = "en", _("English")
        FRENCH = "fr", _("French")
        GERMAN = "de", _("German")
        ITALIAN = "it", _("Italian")
        PORTUGUESE = "pt", _("Portuguese")
        RUSSIAN = "ru", _("Russian")
        SPANISH = "es", _("Spanish")
        TURKISH = "tr", _("Turkish")

    word = models.CharField(_("word"), max_length=60)
    language = models.CharField(_("language"), max_length=2, choices=Language, blank=True)
    effect = models.CharField(_("effect"), max_length=5, choices=Effect, default=Effect.BLOCK)
    classifier = models.ForeignKey(
        "registry.Classifier",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="blocked_words",
        verbose_name=_("classifier"),
    )
    added_by = models.CharField(_("added by"), max_length=150)
    added_at = models.DateTimeField(_("added"), auto_now_add=True)

    class Meta:
        verbose_name = _("blocked word")
        verbose_name_plural = _("blocked words")
        ordering = ["word", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["word", "language"], condition=Q(classifier__isnull=True), name="blocked_word_once_for_all"
            ),
            models.UniqueConstraint(fields=["word", "language", "classifier"], name="blocked_word_once_per_classifier"),
        ]

    def __str__(self) -> str:
        return self.word


class DomainMap(models.Model):
    """The domains that were found among a classifier's texts (`training/etl/domains.py`), {name: {word: weight}}.

    `teller` tells the domains of its items ("clusters", or the slug of a classifier). Those from before, up to the key
    `told_until`, are told up to the key `told_to`; whatever came later was told as it came.
    """

    classifier = models.OneToOneField(
        "registry.Classifier", models.CASCADE, related_name="domain_map", verbose_name=_("classifier")
    )
    clusters = models.JSONField(_("clusters"), default=dict)
    teller = models.CharField(_("told by"), max_length=63, blank=True)
    told_to = models.BigIntegerField(default=0)
    told_until = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(_("found"), auto_now_add=True)

    class Meta:
        verbose_name = _("domain map")
        verbose_name_plural = _("domain maps")

    def __str__(self) -> str:
        return str(self.classifier)
