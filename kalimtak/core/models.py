"""Tables of the floor: the job ledger, API keys, alerts, the audit chain."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .uuid7 import uuid7


class Job(models.Model):
    """One piece of background work. The row is the truth; the queue only rings for it.

    `token` grows with every claim: whoever holds the newest one may commit effects, everybody else is a zombie.
    """

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")
        QUARANTINED = "quarantined", _("quarantined")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(_("kind"), max_length=40)
    params = models.JSONField(_("parameters"), default=dict, blank=True)
    key = models.CharField(
        _("idempotency key"), max_length=200, unique=True, help_text=_("The same key never makes a second job.")
    )
    cluster = models.CharField(_("cluster"), max_length=20, default="default")
    state = models.CharField(_("state"), max_length=12, choices=State, default=State.QUEUED)
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    max_attempts = models.PositiveIntegerField(_("attempts at most"), default=3)
    token = models.PositiveBigIntegerField(_("token"), default=0)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    owner = models.CharField(_("owner"), max_length=200, blank=True, help_text=_("host:pid of the process at work"))
    slot = models.CharField(_("slot"), max_length=200, blank=True, help_text=_("host:device where only one may run"))
    progress = models.FloatField(_("progress"), default=0.0, help_text=_("0 to 1"))
    progress_before = models.FloatField(
        _("progress before"), default=0.0, help_text=_("what earlier attempts had done")
    )
    note = models.CharField(_("note"), max_length=300, blank=True)
    result = models.JSONField(_("result"), null=True, blank=True)
    error = models.TextField(_("error"), blank=True)
    cancel_requested = models.BooleanField(_("cancel requested"), default=False)
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    actor = models.CharField(_("asked by"), max_length=150, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["state", "not_before"], name="job_state")]
        constraints = [
            models.UniqueConstraint(
                fields=["slot"], condition=Q(state="running") & ~Q(slot=""), name="one_running_job_per_slot"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {str(self.pk)[-12:]}"

    @property
    def is_finished(self) -> bool:
        return self.state not in (self.State.QUEUED, self.State.RUNNING)


class Scope(models.TextChoices):
    """What an API key may do."""

    PREDICT = "predict", _("predict")
    FEEDBACK = "feedback", _("feedback")
    READ = "read", _("read")
    ADMIN = "admin", _("admin")
    DEPLOY = "deploy", _("deploy")
    PRIVACY = "privacy", _("privacy")


class ApiKey(models.Model):
    """A client's key `<prefix>.<secret>`: the secret has 256 random bits and only its SHA-256 is kept."""

    name = models.CharField(_("name"), max_length=100)
    prefix = models.CharField(_("prefix"), max_length=12, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(_("scopes"), default=list)
    rate = models.CharField(_("rate"), max_length=20, blank=True, help_text=_("such as 600/m; empty: the default"))
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, verbose_name=_("created by")
    )

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"


class Alert(models.Model):
    """Something that needs a person. Open until it is over or somebody closes it; one open row per kind and target.

    Holds no user text: messages name objects, figures and remedies.
    """

    kind = models.CharField(_("kind"), max_length=40)
    target = models.CharField(_("about"), max_length=200)
    message = models.CharField(_("message"), max_length=500)
    count = models.PositiveIntegerField(_("times"), default=1)
    opened_at = models.DateTimeField(_("since"))
    last_at = models.DateTimeField(_("last seen"))
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)
    closed_by = models.CharField(_("closed by"), max_length=150, blank=True)

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "target"], condition=Q(closed_at__isnull=True), name="one_open_alert_per_target"
            )
        ]

    def __str__(self) -> str:
        return f"{self.target}: {self.kind.replace('_', ' ')}"


class AuditEvent(models.Model):
    """Who did what to which object, each row carrying the hash of the one before; rows are only ever added.

    Holds no user text: `data` has identifiers, figures and reasons given by staff.
    """

    at = models.DateTimeField(_("when"), db_index=True)
    actor = models.CharField(_("who"), max_length=150)
    action = models.CharField(_("what"), max_length=60, db_index=True)
    target = models.CharField(_("object"), max_length=200)
    data = models.JSONField(_("details"), default=dict, blank=True)
    previous_hash = models.CharField(max_length=64, editable=False)
    hash = models.CharField(max_length=64, unique=True, editable=False)

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}"
