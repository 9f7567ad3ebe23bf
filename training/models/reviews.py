"""Reviewers' verdicts, what they have on their screens, what they skipped, and the random sample."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from registry.labels import MOST_CHARACTERS
from training.models.items import TrainingDataItem


class Review(models.Model):
    """One reviewer's verdict on one item."""

    class Verdict(models.TextChoices):
        APPROVE = "approve", _("approve")
        REJECT = "reject", _("reject")
        RELABEL = "relabel", _("relabel")

    item = models.ForeignKey(TrainingDataItem, models.CASCADE, related_name="reviews", verbose_name=_("item"))
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, verbose_name=_("reviewer"))
    verdict = models.CharField(_("verdict"), max_length=10, choices=Verdict)
    label = models.CharField(_("label"), max_length=MOST_CHARACTERS)
    opinion = models.PositiveSmallIntegerField(
        _("independent opinion"), default=0, help_text=_("the how many-th on the item; 0: it knew others' words")
    )
    before = models.JSONField(_("state before"), default=dict, blank=True, help_text=_("what undoing it restores"))
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    class Meta:
        verbose_name = _("review")
        verbose_name_plural = _("reviews")
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["reviewer", "-id"], name="review_of_reviewer"),
            models.Index(fields=["-id"], condition=Q(opinion__gte=2), name="review_second_opinion"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} #{self.item_id}"

    @property
    def label_parts(self) -> tuple[str, ...]:
        """The label, or each of the labels, that it is about."""
        return self.item.classifier.label_parts(self.label)


class ReviewLease(models.Model):
    """Who has a waiting item on the screen, until when: others get another one meanwhile. It forbids nothing."""

    item = models.OneToOneField(TrainingDataItem, models.CASCADE, related_name="lease", verbose_name=_("item"))
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("reviewer"))
    until = models.DateTimeField(_("until"), db_index=True)

    class Meta:
        verbose_name = _("review lease")
        verbose_name_plural = _("review leases")

    def __str__(self) -> str:
        return f"item {self.item_id}"


class ReviewSkip(models.Model):
    """A reviewer left an item to others. The item itself knows nothing of it."""

    item = models.ForeignKey(TrainingDataItem, models.CASCADE, related_name="skips", verbose_name=_("item"))
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("reviewer"))
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    class Meta:
        verbose_name = _("skipped item")
        verbose_name_plural = _("skipped items")
        constraints = [models.UniqueConstraint(fields=["item", "reviewer"], name="skipped_once")]

    def __str__(self) -> str:
        return f"item {self.item_id}"


class AuditDraw(models.Model):
    """An answer that was drawn at random so that a reviewer's label measures how often the model is right.

    It is one of `drawn` among the `seen` answers between the last draw and `window_end`, the newest of them; an
    estimate over several windows weighs each by `seen`.
    """

    interaction = models.OneToOneField(
        "interactions.UserInteraction", models.CASCADE, related_name="audit_draw", verbose_name=_("interaction")
    )
    item = models.ForeignKey(TrainingDataItem, models.CASCADE, related_name="draws", verbose_name=_("item"))
    seen = models.PositiveIntegerField(_("answers in the window"))
    drawn = models.PositiveIntegerField(_("of which drawn"))
    window_end = models.UUIDField(_("last answer of the window"))
    created_at = models.DateTimeField(_("drawn at"), auto_now_add=True)

    class Meta:
        verbose_name = _("audit draw")
        verbose_name_plural = _("audit draws")

    def __str__(self) -> str:
        return str(self.interaction_id)
