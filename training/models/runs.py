"""What a run sees and what became of it: snapshots with their rows, runs."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from registry.labels import MOST_CHARACTERS
from training.models.items import TrainingDataItem


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
    split = models.CharField(max_length=6, choices=TrainingDataItem.Split)
    weight = models.FloatField(default=1.0)

    class Meta:
        verbose_name = _("snapshot row")
        verbose_name_plural = _("snapshot rows")
        constraints = [models.UniqueConstraint(fields=["snapshot", "item"], name="item_once_per_snapshot")]
        indexes = [models.Index(fields=["snapshot", "content_hash"], name="snapshot_row_content")]

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
