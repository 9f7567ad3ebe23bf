"""Tables of how judgement becomes a version: data sets, items, reviews, snapshots, runs."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from registry.labels import MOST_CHARACTERS


class Dataset(models.Model):
    """A file that was loaded, or the feedback of a classifier seen as one."""

    class Origin(models.TextChoices):
        UPLOAD = "upload", _("upload")
        URL = "url", _("URL")
        FEEDBACK = "feedback", _("feedback")
        SAMPLE = "sample", _("sample")

    class Role(models.TextChoices):
        TRAINING = "training", _("training")
        REHEARSAL = "rehearsal", _("rehearsal")
        GOLDEN = "golden", _("golden")

    class State(models.TextChoices):
        PENDING = "pending", _("waiting")
        LOADING = "loading", _("loading")
        READY = "ready", _("ready")
        FAILED = "failed", _("failed")

    classifier = models.ForeignKey(
        "registry.Classifier", models.CASCADE, related_name="datasets", verbose_name=_("classifier")
    )
    name = models.CharField(_("name"), max_length=200)
    origin = models.CharField(_("origin"), max_length=10, choices=Origin)
    role = models.CharField(_("role"), max_length=10, choices=Role, default=Role.TRAINING)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    digest = models.CharField(_("SHA-256 of the file"), max_length=64, blank=True)
    options = models.JSONField(_("import options"), default=dict, blank=True)
    report = models.JSONField(_("analysis"), default=dict, blank=True)
    rows = models.PositiveIntegerField(_("rows"), default=0)
    error = models.TextField(_("error"), blank=True)
    job = models.ForeignKey("core.Job", models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("job"))
    actor = models.CharField(_("loaded by"), max_length=150, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("data set")
        verbose_name_plural = _("data sets")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_given_up(self) -> bool:
        """Nobody loads it any more, and the processes that did could not say so: they died each time."""
        is_open = self.state in (self.State.PENDING, self.State.LOADING)
        return is_open and self.job is not None and self.job.is_finished


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
    cluster = models.BigIntegerField(
        _("near-duplicate cluster"), null=True, blank=True, help_text=_("shared by texts that are nearly the same")
    )
    compared = models.BooleanField(
        _("compared"), default=False, help_text=_("near-duplicates of it are found, and its bands are in their table")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)

    objects = ItemQuerySet.as_manager()

    class Meta:
        verbose_name = _("training item")
        verbose_name_plural = _("training items")
        indexes = [
            models.Index(fields=["classifier", "status", "split", "label"], name="item_status"),
            models.Index(fields=["classifier", "content_hash"], name="item_content"),
            # What a curation asks of each source that speaks up in a batch.
            models.Index(
                fields=["classifier", "source"],
                name="item_source",
                condition=Q(status="approved") & ~Q(origin="import"),
            ),
            # What the next curation has to do, however many items there are. Whoever changes a status need not know of
            # bands: it is found here.
            models.Index(fields=["classifier", "id"], name="item_candidate", condition=Q(status="candidate")),
            models.Index(fields=["classifier", "id"], name="item_to_compare", condition=_TO_COMPARE),
            models.Index(fields=["classifier", "id"], name="item_to_forget", condition=_TO_FORGET),
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
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    class Meta:
        verbose_name = _("review")
        verbose_name_plural = _("reviews")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.verdict} #{self.item_id}"

    @property
    def label_parts(self) -> tuple[str, ...]:
        """The label, or each of the labels, that it is about."""
        return self.item.classifier.label_parts(self.label)


class DatasetSnapshot(models.Model):
    """What a run really saw, for ever. `digest` is the SHA-256 over its rows in order of item id."""

    classifier = models.ForeignKey(
        "registry.Classifier", models.CASCADE, related_name="snapshots", verbose_name=_("classifier")
    )
    digest = models.CharField(_("digest"), max_length=64)
    golden_digest = models.CharField(_("golden digest"), max_length=64, blank=True)
    counts = models.JSONField(_("counts"), default=dict, help_text=_("rows per split and label"))
    replay_share = models.FloatField(_("rehearsal share"), default=0.0)
    created_at = models.DateTimeField(_("frozen"), auto_now_add=True)

    class Meta:
        verbose_name = _("snapshot")
        verbose_name_plural = _("snapshots")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.classifier} {self.digest[:12]}"


class SnapshotItem(models.Model):
    """A row of a snapshot: item, what it said then, and which split it went to."""

    snapshot = models.ForeignKey(DatasetSnapshot, models.CASCADE, related_name="rows")
    item = models.ForeignKey(TrainingDataItem, models.SET_NULL, null=True, related_name="snapshot_rows")
    content_hash = models.CharField(max_length=64)
    label = models.CharField(max_length=MOST_CHARACTERS)
    split = models.CharField(max_length=6)
    weight = models.FloatField(default=1.0)

    class Meta:
        verbose_name = _("snapshot row")
        verbose_name_plural = _("snapshot rows")
        constraints = [models.UniqueConstraint(fields=["snapshot", "item"], name="item_once_per_snapshot")]

    def __str__(self) -> str:
        return f"{self.label} ({self.split})"


class TrainingRun(models.Model):
    """One attempt to make a version: its job says how far it is, this row says from what and with which figures."""

    class Then(models.TextChoices):
        NONE = "none", _("stop there")
        DEPLOY = "deploy", _("deploy if the gate agrees")

    job = models.OneToOneField("core.Job", models.PROTECT, related_name="run", verbose_name=_("job"))
    classifier = models.ForeignKey(
        "registry.Classifier", models.CASCADE, related_name="runs", verbose_name=_("classifier")
    )
    snapshot = models.ForeignKey(DatasetSnapshot, models.PROTECT, related_name="runs", verbose_name=_("snapshot"))
    family = models.CharField(_("type"), max_length=20)
    recipe = models.JSONField(_("recipe"), default=dict)
    then = models.CharField(_("afterwards"), max_length=10, choices=Then, default=Then.NONE)
    history = models.JSONField(_("metric history"), default=list, blank=True)
    facts = models.JSONField(_("facts"), default=dict, blank=True, help_text=_("device, precision, steps …"))
    notes = models.JSONField(_("notes"), default=list, blank=True, help_text=_("of the trainer, for people"))
    version = models.OneToOneField(
        "registry.ModelVersion", models.SET_NULL, null=True, blank=True, related_name="run", verbose_name=_("version")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("training run")
        verbose_name_plural = _("training runs")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.classifier} run {self.pk}"
