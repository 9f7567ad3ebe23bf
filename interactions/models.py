"""Tables of what was asked and answered, what people thought of it, and (apart from both) who they were."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from kalimtak.core.uuid7 import uuid7
from registry.labels import MOST_CHARACTERS


class Subject(models.Model):
    """A person as a pseudonym: the hash of the client's own user id, keyed with `KALIMTAK_SUBJECT_KEY`."""

    pseudonym = models.CharField(_("pseudonym"), max_length=64, unique=True)
    created_at = models.DateTimeField(_("first seen"), auto_now_add=True)

    class Meta:
        verbose_name = _("subject")
        verbose_name_plural = _("subjects")

    def __str__(self) -> str:
        return self.pseudonym[:12]


class UserInteraction(models.Model):
    """One question and the answer it got, written before the answer leaves.

    `rating`, `comment` and `correction` mirror the newest feedback; `reviewed_label` is what a reviewer decided. Of a
    multi-label classifier these two and `labels` hold the text of a set (`registry.labels`), and `label` its top label.
    What was answered elsewhere has no version unless it names one of ours, and confidence 0 unless it says.
    """

    class Kind(models.TextChoices):
        CLASSIFY = "classify", _("classification")
        CHAT = "chat", _("chat")

    class Source(models.TextChoices):
        MODEL = "model", _("model")
        BACKUP = "backup", _("backup")
        CASCADE = "cascade", _("cascade")
        CACHE = "cache", _("cache")
        RULE = "rule", _("rule")
        IMPORTED = "imported", _("answered elsewhere")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    classifier = models.ForeignKey("registry.Classifier", models.PROTECT, verbose_name=_("classifier"))
    version = models.ForeignKey(
        "registry.ModelVersion",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="interactions",
        verbose_name=_("version"),
    )
    deployment = models.ForeignKey(
        "registry.Deployment", models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("deployment")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=Kind, default=Kind.CLASSIFY)
    fields = models.JSONField(_("input"), help_text=_("one text per input field"))
    label = models.CharField(_("label"), max_length=120)
    labels = models.TextField(_("labels"), blank=True, help_text=_("all that were answered, of a multi-label one"))
    confidence = models.FloatField(_("confidence"))
    scores = models.JSONField(_("scores"), default=dict)
    threshold = models.FloatField(_("threshold"), default=0.0)
    abstained = models.BooleanField(_("abstained"), default=False)
    source = models.CharField(_("source"), max_length=10, choices=Source, default=Source.MODEL)
    flags = models.JSONField(_("flags"), default=list, blank=True)
    latency_ms = models.FloatField(_("latency"), default=0.0, help_text=_("milliseconds"))
    subject = models.ForeignKey(
        Subject, models.SET_NULL, null=True, blank=True, related_name="interactions", verbose_name=_("subject")
    )
    api_key = models.ForeignKey(
        "core.ApiKey", models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("API key")
    )
    rating = models.PositiveSmallIntegerField(_("rating"), null=True, blank=True)
    comment = models.TextField(_("comment"), blank=True)
    correction = models.CharField(_("correction"), max_length=MOST_CHARACTERS, blank=True)
    reviewed_label = models.CharField(_("reviewed label"), max_length=MOST_CHARACTERS, blank=True)
    reviewed_at = models.DateTimeField(_("reviewed"), null=True, blank=True)
    audit_slice = models.BooleanField(_("audit slice"), default=False)
    created_at = models.DateTimeField(_("asked"), db_index=True)

    class Meta:
        verbose_name = _("interaction")
        verbose_name_plural = _("interactions")
        indexes = [
            models.Index(fields=["classifier", "-id"], name="interaction_classifier"),
            # For the admin's filters, newest first. Partial where most rows are of the other kind: those cost nothing.
            models.Index(fields=["-id", "rating"], name="interaction_rated", condition=Q(rating__isnull=False)),
            models.Index(fields=["-id"], name="interaction_abstained", condition=Q(abstained=True)),
            models.Index(fields=["source", "-id"], name="interaction_source"),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.confidence:.0%})"

    @property
    def answered(self) -> str:
        """The answer as a truth would be written: the label, or of a multi-label classifier the text of the set."""
        return self.labels or self.label

    @property
    def answered_parts(self) -> tuple[str, ...]:
        """The label, or each of the labels, that was answered."""
        return self.classifier.label_parts(self.answered)

    @property
    def reviewed_parts(self) -> tuple[str, ...]:
        return self.classifier.label_parts(self.reviewed_label)


class PersonalRecord(models.Model):
    """What could tell who asked, in a table of its own: erasable, and gone after the retention time."""

    interaction = models.OneToOneField(
        UserInteraction, models.CASCADE, primary_key=True, related_name="personal", verbose_name=_("interaction")
    )
    address = models.GenericIPAddressField(_("IP address"), null=True, blank=True)
    user_agent = models.CharField(_("user agent"), max_length=300, blank=True)
    created_at = models.DateTimeField(_("recorded"), db_index=True)

    class Meta:
        verbose_name = _("personal record")
        verbose_name_plural = _("personal records")

    def __str__(self) -> str:
        return str(self.pk)


class RequestMemo(models.Model):
    """The answer given to a `request_id` of a key: for 24 hours the same request gets it again, and no second row."""

    api_key = models.ForeignKey("core.ApiKey", models.CASCADE, null=True, blank=True)
    caller = models.CharField(max_length=80, help_text=_("the key's prefix, or the anonymous caller's address hash"))
    request_id = models.CharField(max_length=100)
    body_digest = models.CharField(max_length=64)
    response = models.JSONField()
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("remembered request")
        verbose_name_plural = _("remembered requests")
        constraints = [models.UniqueConstraint(fields=["caller", "request_id"], name="one_answer_per_request_id")]

    def __str__(self) -> str:
        return self.request_id


class Feedback(models.Model):
    """What one source (a subject, else a key, else an anonymous address hash) said about one answer.

    A later word of the same source updates the row; `history` keeps the earlier ones. `curated_at` is older than
    `updated_at`, or empty, while the curation has not yet taken it in. `said_at` is when its source said it, as far as
    that is known: what was imported was said long before it was written down here.
    """

    interaction = models.ForeignKey(
        UserInteraction, models.CASCADE, related_name="feedback", verbose_name=_("interaction")
    )
    source = models.CharField(_("source"), max_length=80, help_text=_("subject:…, key:…, user:… or anonymous:…"))
    trusted = models.BooleanField(_("came with a key or a staff session"), default=False)
    rating = models.PositiveSmallIntegerField(_("rating"), null=True, blank=True)
    comment = models.TextField(_("comment"), blank=True)
    correct_label = models.CharField(_("correct label"), max_length=MOST_CHARACTERS, blank=True)
    correct_response = models.TextField(_("correct response"), blank=True)
    history = models.JSONField(_("earlier versions"), default=list, blank=True)
    created_at = models.DateTimeField(_("given"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"))
    said_at = models.DateTimeField(
        _("said"), null=True, blank=True, default=timezone.now, help_text=_("empty: not told by the file it came from")
    )
    curated_at = models.DateTimeField(_("curated"), null=True, blank=True)

    class Meta:
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["interaction", "source"], name="one_feedback_per_source"),
            models.CheckConstraint(
                condition=Q(rating__isnull=True) | Q(rating__range=(1, 5)), name="rating_from_one_to_five"
            ),
        ]
        indexes = [
            # What was curated is not in it, so that looking for what was not costs the same after years.
            models.Index(
                fields=["id"],
                name="feedback_uncurated",
                condition=Q(curated_at=None) | Q(curated_at__lt=models.F("updated_at")),
            ),
            # For floods: labels that were named since a moment, and when each source was first heard of.
            models.Index(fields=["said_at"], name="feedback_labels", condition=~Q(correct_label="")),
            models.Index(fields=["source", "created_at", "said_at"], name="feedback_of_source"),
        ]

    def __str__(self) -> str:
        return self.correct_label or (f"{self.rating} / 5" if self.rating else str(self.pk))

    @property
    def label_parts(self) -> tuple[str, ...]:
        """The label, or each of the labels, that it says is right."""
        return self.interaction.classifier.label_parts(self.correct_label)
