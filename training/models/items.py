"""Examples a model may learn from, who said so, and the near-duplicates among them."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from registry.labels import MOST_CHARACTERS
from training.models.datasets import Dataset

# Written as alternatives, not as a list: so SQLite sees that a query with parameters asks for what an index holds.
_IS_LIVE = Q(status="approved") | Q(status="review")
_IS_OUT = Q(status="candidate") | Q(status="quarantined") | Q(status="rejected")
_TO_COMPARE = Q(compared=False) & _IS_LIVE
_TO_FORGET = Q(compared=True) & _IS_OUT


class ItemQuerySet(models.QuerySet["TrainingDataItem"]):
    def approved(self) -> "ItemQuerySet":
        return self.filter(status=TrainingDataItem.Status.APPROVED)

    def golden(self) -> "ItemQuerySet":
        """The held-out rows every version of a classifier is compared on; never trained on."""
        return self.approved().filter(split=TrainingDataItem.Split.TEST)

    def evidence(self) -> "ItemQuerySet":
        """Approved items that users and clients gave, not staff."""
        return self.approved().exclude(origin=TrainingDataItem.Origin.IMPORT)

    def to_compare(self) -> "ItemQuerySet":
        """Items that the next curation has yet to compare with the others."""
        return self.filter(_TO_COMPARE)

    def to_forget(self) -> "ItemQuerySet":
        """Items that were compared and have been taken out since."""
        return self.filter(_TO_FORGET)

    def trainable(self) -> "ItemQuerySet":
        return self.approved().exclude(split=TrainingDataItem.Split.TEST)


class TrainingDataItem(models.Model):
    """One example a model may learn from. Its text never changes; a rework is a new item.

    `label` is one label or, for a multi-label classifier, the text of a set of them (`registry.labels`).
    """

    class Status(models.TextChoices):
        CANDIDATE = "candidate", _("candidate")
        REVIEW = "review", _("waiting for review")
        APPROVED = "approved", _("approved")
        REJECTED = "rejected", _("rejected")
        QUARANTINED = "quarantined", _("quarantined")

    class Split(models.TextChoices):
        TRAIN = "train", _("training")
        VALID = "valid", _("validation")
        TEST = "test", _("golden (held out)")

    class Origin(models.TextChoices):
        IMPORT = "import", _("import")
        CONFIRMED = "confirmed", _("confirmed by a rating")
        CORRECTED = "corrected", _("corrected by a person")
        EXAMPLE = "example", _("given as an example")
        AUDIT = "audit", _("drawn at random")

    class Why(models.TextChoices):
        """What brought a waiting item to its place in the queue."""

        DISPUTE = "dispute", _("reviewers disagree")
        SECOND = "second", _("wants a second opinion")
        AUDIT = "audit", _("random sample")
        UNSURE = "unsure", _("the model was unsure")
        DOUBTFUL = "doubtful", _("label is doubtful")
        RARE = "rare", _("rare label")
        UNLIKE = "unlike", _("unlike what is known")

    # No index of its own: those below begin with it, and SQLite would take it for lack of statistics.
    classifier = models.ForeignKey(
        "registry.Classifier", models.CASCADE, related_name="items", db_index=False, verbose_name=_("classifier")
    )
    dataset = models.ForeignKey(
        Dataset, models.CASCADE, null=True, blank=True, related_name="items", verbose_name=_("data set")
    )
    interaction = models.ForeignKey(
        "interactions.UserInteraction",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="items",
        verbose_name=_("source interaction"),
    )
    origin = models.CharField(_("origin"), max_length=10, choices=Origin, default=Origin.IMPORT)
    source = models.CharField(_("source"), max_length=80, blank=True, help_text=_("who said so"))
    fields = models.JSONField(_("input"), help_text=_("one text per input field"))
    label = models.CharField(_("label"), max_length=MOST_CHARACTERS)
    weight = models.FloatField(_("weight"), default=1.0, help_text=_("in the loss; human corrections weigh more"))
    quality = models.FloatField(_("quality score"), default=1.0, help_text=_("0 to 1"))
    domain = models.CharField(_("domain"), max_length=60, blank=True)
    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.CANDIDATE)
    split = models.CharField(_("split"), max_length=6, choices=Split, default=Split.TRAIN)
    selected = models.BooleanField(_("selected for training"), default=True)
    reason = models.CharField(_("reason"), max_length=300, blank=True, help_text=_("why it has this status"))
    content_hash = models.CharField(_("content hash"), max_length=64, help_text=_("of the normalised input"))
    priority = models.FloatField(_("priority"), default=0.0, help_text=_("place in the review queue, high first"))
    why = models.CharField(_("why it is here"), max_length=8, choices=Why, blank=True)
    queue_facts = models.JSONField(_("facts for the reviewer"), default=dict, blank=True)
    script = models.CharField(_("script"), max_length=24, blank=True, help_text=_("of most of its letters"))
    cluster = models.BigIntegerField(
        _("near-duplicate cluster"), null=True, blank=True, help_text=_("shared by texts that are nearly the same")
    )
    compared = models.BooleanField(
        _("compared"), default=False, help_text=_("near-duplicates of it are found, and its bands are in their table")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    left_quarantine_at = models.DateTimeField(
        _("left quarantine"), null=True, blank=True, help_text=_("when a person released it or rejected it there")
    )

    objects = ItemQuerySet.as_manager()

    class Meta:
        verbose_name = _("training item")
        verbose_name_plural = _("training items")
        indexes = [
            models.Index(fields=["classifier", "status", "split", "label"], name="item_status"),
            models.Index(fields=["classifier", "content_hash"], name="item_content"),
            # What waits, in the order of the review desk: of one classifier, and of all.
            models.Index(fields=["classifier", "-priority", "id"], condition=Q(status="review"), name="item_queue"),
            models.Index(fields=["-priority", "id"], condition=Q(status="review"), name="item_queue_of_all"),
            # What of the set came from each source: counted from the index alone, and without sorting.
            models.Index(
                fields=["classifier", "source", "split", "status", "origin"],
                name="item_source",
                condition=Q(status="approved") & ~Q(origin="import"),
            ),
            # What the next curation has to do, however many items there are. Whoever changes a status need not know of
            # bands: it is found here.
            models.Index(fields=["classifier", "id"], name="item_candidate", condition=Q(status="candidate")),
            models.Index(fields=["classifier", "id"], name="item_to_compare", condition=_TO_COMPARE),
            models.Index(fields=["classifier", "id"], name="item_to_forget", condition=_TO_FORGET),
            # For the admin's filters, newest first.
            models.Index(fields=["status", "-id"], name="item_by_status"),
            models.Index(fields=["origin", "-id"], name="item_by_origin"),
            models.Index(fields=["classifier", "label", "-id"], name="item_by_label"),
            models.Index(fields=["-id"], name="item_deselected", condition=Q(selected=False)),
        ]
        constraints = [
            # The same text with the same label is one item: what makes imports and curations repeatable.
            models.UniqueConstraint(
                fields=["classifier", "content_hash", "label"],
                condition=~Q(status__in=["rejected", "quarantined"]),
                name="one_item_per_text_and_label",
            )
        ]
        permissions = [("review_trainingdataitem", _("Can review items"))]

    def __str__(self) -> str:
        return f"{self.label} #{self.pk}"

    @property
    def label_parts(self) -> tuple[str, ...]:
        """Its label, or each of its labels."""
        return self.classifier.label_parts(self.label)


class ItemSource(models.Model):
    """Somebody who said what an item says. Kept where a policy asks for people who agree (`agree:N`)."""

    item = models.ForeignKey(TrainingDataItem, models.CASCADE, related_name="sources", verbose_name=_("item"))
    source = models.CharField(_("source"), max_length=80)

    class Meta:
        verbose_name = _("source of an item")
        verbose_name_plural = _("sources of items")
        constraints = [models.UniqueConstraint(fields=["item", "source"], name="one_word_per_item_and_source")]

    def __str__(self) -> str:
        return self.source


class DuplicateBand(models.Model):
    """One key under which the near-duplicates of a live item are looked for (`training.etl.sketches`)."""

    key = models.BigIntegerField()
    item = models.ForeignKey(TrainingDataItem, models.CASCADE, related_name="bands")

    class Meta:
        verbose_name = _("near-duplicate band")
        verbose_name_plural = _("near-duplicate bands")
        constraints = [models.UniqueConstraint(fields=["key", "item"], name="band_once_per_item")]

    def __str__(self) -> str:
        return f"{self.key:x} #{self.item_id}"
