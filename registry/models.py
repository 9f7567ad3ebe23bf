"""Tables of what can answer: classifiers, their versions, the figures of each, and who answered when."""

from collections.abc import Sequence

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .labels import label_set, label_text
from .recipe import LabelConfig, Policy, Recipe


class ClassifierQuerySet(models.QuerySet["Classifier"]):
    def serving(self) -> "ClassifierQuerySet":
        return self.filter(enabled=True)


class Classifier(models.Model):
    """A named task: which texts go in, which labels come out, how it trains and by which policy it answers."""

    slug = models.SlugField(_("slug"), max_length=60, unique=True, help_text=_("also its route: /api/classify/<slug>"))
    name = models.CharField(_("name"), max_length=120)
    description = models.CharField(_("description"), max_length=300, blank=True)
    family = models.CharField(
        _("type"), max_length=20, help_text=_("classic, embedding, encoder, lora, ensemble or custom")
    )
    labels = models.JSONField(_("labels"), default=list, blank=True, help_text=_("in order; empty: from the data"))
    input_fields = models.JSONField(_("input fields"), default=list, help_text=_('["text"] or two names'))
    label_field = models.CharField(_("label field"), max_length=60, default="label")
    loader = models.CharField(
        max_length=200, blank=True, editable=False, help_text="package.module:function, from models.yaml alone"
    )
    label_config = models.JSONField(_("label configuration"), default=dict, blank=True)
    recipe = models.JSONField(_("recipe"), default=dict, blank=True)
    policy = models.JSONField(_("policy"), default=dict, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    is_default = models.BooleanField(_("default"), default=False)
    config_digest = models.CharField(
        max_length=64, blank=True, editable=False, help_text=_("of the models.yaml entry last applied")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    objects = ClassifierQuerySet.as_manager()

    class Meta:
        verbose_name = _("classifier")
        verbose_name_plural = _("classifiers")
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="one_default_classifier")
        ]
        permissions = [("train_classifier", _("Can start training runs")), ("curate_classifier", _("Can run curation"))]

    def __str__(self) -> str:
        return self.slug

    @property
    def multi_label(self) -> bool:
        """A text may have several labels or none; what holds a label holds the text of a set (`registry.labels`)."""
        return bool(self.label_config.get("multi_label"))

    def label_parts(self, text: str) -> tuple[str, ...]:
        """The labels that the label of an item, an answer or a correction stands for; nothing for an empty text."""
        if self.multi_label:
            return label_set(text)
        return (text,) if text else ()

    def label_of(self, labels: Sequence[str]) -> str:
        """The inverse of `label_parts`, in the classifier's order; unknown labels, to be refused later, come last."""
        if not self.multi_label:
            return labels[0] if labels else ""
        position = {label: index for index, label in enumerate(self.labels)}
        return label_text(sorted(dict.fromkeys(labels), key=lambda label: position.get(label, len(position))))

    def unknown_labels(self, text: str) -> list[str]:
        """What of `label_parts` is no label of the classifier; a classifier without labels knows all."""
        return [label for label in self.label_parts(text) if self.labels and label not in self.labels]

    def get_recipe(self) -> Recipe:
        return Recipe.from_dict(self.recipe, where=self.slug, model_type=self.family)

    def get_policy(self) -> Policy:
        return Policy.from_dict(self.policy, where=self.slug)

    def get_label_config(self) -> LabelConfig:
        return LabelConfig.from_dict(self.label_config, where=self.slug)


class ModelVersion(models.Model):
    """One trained artefact, numbered within its classifier and never changed after it was published."""

    class Status(models.TextChoices):
        REGISTERED = "registered", _("registered")
        VERIFIED = "verified", _("verified")
        CORRUPT = "corrupt", _("corrupt")
        ARCHIVED = "archived", _("archived")

    classifier = models.ForeignKey(Classifier, models.PROTECT, related_name="versions", verbose_name=_("classifier"))
    number = models.PositiveIntegerField(_("number"))
    family = models.CharField(_("type"), max_length=20)
    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.REGISTERED)
    artefact_digest = models.CharField(_("artefact digest"), max_length=64)
    size = models.PositiveBigIntegerField(_("size"), default=0, help_text=_("bytes"))
    labels = models.JSONField(_("labels"), default=list)
    parameters = models.JSONField(_("parameter counts"), default=dict)
    metrics = models.JSONField(_("metrics"), default=dict, help_text=_("on the golden set of its run"))
    calibration = models.JSONField(_("calibration"), default=dict)
    snapshot_digest = models.CharField(_("snapshot digest"), max_length=64, blank=True)
    seed = models.BigIntegerField(_("seed"), default=0)
    libraries = models.JSONField(_("library versions"), default=dict)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, verbose_name=_("parent version"))
    contains_erased = models.BooleanField(_("contains erased data"), default=False)
    problems = models.JSONField(_("problems"), default=list, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("model version")
        verbose_name_plural = _("model versions")
        ordering = ["classifier", "-number"]
        constraints = [models.UniqueConstraint(fields=["classifier", "number"], name="version_number")]
        permissions = [
            ("deploy_modelversion", _("Can deploy a version")),
            ("rollback_modelversion", _("Can roll back")),
            ("force_deploy_modelversion", _("Can deploy against the gate")),
        ]

    def __str__(self) -> str:
        return self.ref

    @property
    def ref(self) -> str:
        """`<classifier>/<number>`, as the API writes a version."""
        return f"{self.classifier.slug}/{self.number}"


class Evaluation(models.Model):
    """The figures of one version on one frozen data set, and the gate's verdict against a baseline."""

    class Verdict(models.TextChoices):
        PASSED = "passed", _("passed")
        REFUSED = "refused", _("refused")
        INSUFFICIENT = "insufficient", _("insufficient")

    version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="evaluations", verbose_name=_("version"))
    data_digest = models.CharField(_("data digest"), max_length=64)
    rows = models.PositiveIntegerField(_("rows"), default=0)
    scores = models.JSONField(_("scores"), default=dict, help_text=_("as Scores.to_dict() writes them"))
    slices = models.JSONField(_("slices"), default=dict, blank=True)
    baseline = models.ForeignKey(
        ModelVersion, models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("baseline version")
    )
    verdict = models.CharField(_("verdict"), max_length=12, choices=Verdict, blank=True)
    reasons = models.JSONField(_("reasons"), default=list, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("evaluation")
        verbose_name_plural = _("evaluations")
        ordering = ["-created_at", "-pk"]
        indexes = [models.Index(fields=["version", "data_digest"], name="evaluation_data")]

    def __str__(self) -> str:
        return f"{self.version} · {self.verdict or self.data_digest[:8]}"

    @property
    def macro_f1(self) -> float | None:
        value: float | None = self.scores.get("macro_f1")
        return value


class Cascade(models.Model):
    """From which confidence version `cheap` answers in place of `version`, and what that costs and saves.

    Measured for exactly this pair on validation texts (`registry.cascade`). Without a threshold the pair is not used;
    `figures` then holds the `reason`. Else it holds `texts`, `early` (the share that `cheap` answers), `accuracy`,
    `main_accuracy`, `cheap_ms` and `main_ms` per text, and `saving`, a share of the computing time.
    """

    version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="cascades", verbose_name=_("version"))
    cheap = models.ForeignKey(ModelVersion, models.CASCADE, related_name="+", verbose_name=_("cheap version"))
    threshold = models.FloatField(_("threshold"), null=True, blank=True)
    figures = models.JSONField(_("figures"), default=dict, blank=True)
    measured_at = models.DateTimeField(_("measured"), auto_now=True)

    class Meta:
        verbose_name = _("cascade")
        verbose_name_plural = _("cascades")
        constraints = [models.UniqueConstraint(fields=["version", "cheap"], name="one_cascade_per_pair")]

    def __str__(self) -> str:
        return f"{self.cheap} → {self.version}"


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    def live(self) -> "DeploymentQuerySet":
        return self.filter(ended_at=None)

    def production(self) -> "DeploymentQuerySet":
        return self.filter(role=Deployment.Role.PRODUCTION)


class Deployment(models.Model):
    """A version's time in front of users. Rows are only added; `ended_at` and `health` are all that ever changes."""

    class Role(models.TextChoices):
        PRODUCTION = "production", _("production")
        CANARY = "canary", _("canary")
        SHADOW = "shadow", _("shadow")
        SPLIT = "split", _("split")

    classifier = models.ForeignKey(Classifier, models.PROTECT, related_name="deployments", verbose_name=_("classifier"))
    version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="deployments", verbose_name=_("version"))
    role = models.CharField(_("role"), max_length=12, choices=Role, default=Role.PRODUCTION)
    share = models.PositiveSmallIntegerField(_("share"), default=100, help_text=_("percent of requests"))
    started_at = models.DateTimeField(_("started"), auto_now_add=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    health = models.CharField(_("health"), max_length=20, default="ok")
    rolled_back = models.BooleanField(_("rolled back from"), default=False)
    actor = models.CharField(_("by"), max_length=150, blank=True)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    forced = models.BooleanField(_("forced"), default=False)

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        verbose_name = _("deployment")
        verbose_name_plural = _("deployments")
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["classifier"],
                condition=Q(role="production", ended_at=None),
                name="one_live_production_per_classifier",
            )
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.role}"
