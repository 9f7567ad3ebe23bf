"""Files that were loaded, and feedback seen as one."""

from django.db import models
from django.utils.translation import gettext_lazy as _


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
    checkpoint = models.JSONField(_("how far it was loaded"), default=dict, blank=True)
    findings = models.JSONField(_("examination"), default=dict, blank=True)
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
