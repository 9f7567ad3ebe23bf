"""What this process serves now: an immutable picture of the live deployments and their loaded models.

Requests read one reference and nothing else. A background thread asks the database twice a second whether anything was
deployed, rolled back or reconfigured; what is new is loaded beside the old, verified and warmed, and then the reference
is swapped. Requests under way keep the predictor they chose; a replaced one is freed with its last request.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import close_old_connections
from django.db.models import Max

from inference.helpers import Absent, can_answer, cascade_thresholds, own_model, policy_of, with_helpers
from kalimtak.core.alerts import alert_open, alert_over
from kalimtak.core.cores import PLACE
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import NotFound, Unavailable, WouldWait
from registry.families import load
from registry.families.base import Answer, Predictor
from registry.families.probes import PROBES_NAME, compare_probes
from registry.manifest import ArtefactCorrupt, manifest_digest
from registry.models import Cascade, Classifier, Deployment, ModelVersion
from registry.recipe import RecipeError
from registry.store import version_folder

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 15.0  # before a version that failed to load is tried again
PROBE_TOLERANCE = 0.02  # of a probability: another processor or a GPU rounds otherwise, a broken model is far off
ALERT = "version_load"
WARM_UP = ("Is this thing on?", "A second, somewhat longer sentence, so that no first caller pays for it.")


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """A deployment that answers, with its model loaded. `ref` is `<classifier>/<number>`.

    `predictor` lets the helpers of the classifier's policy answer where it has some; `others` are these, by `ref`.
    """

    deployment_id: int
    role: str
    share: int
    version_id: int
    ref: str
    predictor: Predictor
    others: "Mapping[str, LiveVersion]" = field(default_factory=dict)

    def who_gave(self, answer: Answer) -> "LiveVersion":
        """The version that the answer's label comes from: this one, or one that answered in its place."""
        return self.others[answer.by] if answer.by else self


@dataclass(frozen=True, slots=True)
class Served:
    """An enabled classifier as requests see it; `live` is empty where nothing can answer yet.

    `threshold` is the policy's confidence floor. A version may bring its own (`inference.results.result_of`).
    """

    id: int
    slug: str
    name: str
    description: str
    input_fields: tuple[str, ...]
    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    label_field: str
    multi_label: bool
    threshold: float
    is_default: bool
    live: tuple[LiveVersion, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it at one moment. `failed` maps a classifier's slug to why a deployed version cannot be loaded."""

    fingerprint: tuple[Any, ...]
    classifiers: Mapping[str, Served]
    default: str
    failed: Mapping[str, str] = field(default_factory=dict)

    def get(self, slug: str) -> Served:
        """The classifier called `slug`, or the default one for an empty slug. Raises `NotFound`."""
        served = self.classifiers.get(slug or self.default)
        if served is None:
            raise NotFound(f"There is no classifier {slug[:60]!r}." if slug else "There is no default classifier.")
        return served


EMPTY = Picture((), {}, "")


class LiveModels:
    """Keeps the picture of one process fresh."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._picture = EMPTY
        self._refreshed = float("-inf")  # monotonic seconds
        self._retry_at = float("inf")
        self._refreshing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def current(self, *, may_wait: bool = True) -> Picture:
        """The picture; the first call takes it. Raises `Unavailable` if the database cannot be asked for that,
        and without `may_wait` `WouldWait` where it would have to be asked.
        """
        if self._thread is None:
            if not may_wait:
                raise WouldWait
            self._start()
        return self._picture

    @property
    def is_started(self) -> bool:
        """Whether there is a picture, which `current` gives without asking anybody."""
        return self._thread is not None

    @property
    def age(self) -> float:
        """Seconds since the database was last asked with success."""
        return time.monotonic() - self._refreshed

    def refresh(self) -> Picture:
        """Ask the database now; load what is new. What fails to load leaves its classifier as it was served before."""
        with self._refreshing:
            fingerprint = _fingerprint()
            if fingerprint != self._picture.fingerprint or time.monotonic() >= self._retry_at:
                fresh = _paint(fingerprint, self._picture)
                crashpoint("swap.before")
                before, self._picture = self._picture, fresh
                crashpoint("swap.after")
                self._retry_at = time.monotonic() + RETRY_SECONDS if self._picture.failed else float("inf")
                _tell(before, fresh)
            self._refreshed = time.monotonic()
            return self._picture

    def stop(self) -> None:
        """End the thread and forget everything."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        self._forget()

    def _start(self) -> None:
        try:
            self.refresh()
        except Exception as error:
            logger.error("The live deployments cannot be read: %s", error)
            raise Unavailable("The database cannot be reached.", retry_after=1) from error
        with self._refreshing:
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_fresh, name="live-models", daemon=True)
                self._thread.start()

    def _keep_fresh(self) -> None:
        PLACE.leave()
        while not self._stop.wait(POLL_SECONDS):
            try:
                close_old_connections()
                self.refresh()
            except Exception as error:  # the database is away: what is loaded goes on answering
                logger.warning("The live deployments cannot be read: %s", error)
        close_old_connections()


def _fingerprint() -> tuple[Any, ...]:
    """Three cheap queries whose answer changes with every deployment, rollback, edit or measured cascade."""
    classifiers = Classifier.objects.serving().order_by("pk").values_list("pk", "updated_at")
    deployments = Deployment.objects.live().order_by("pk").values_list("pk", "role", "share")
    return tuple(classifiers), tuple(deployments), Cascade.objects.aggregate(last=Max("measured_at"))["last"]


def _paint(fingerprint: tuple[Any, ...], before: Picture) -> Picture:
    """A new picture; models that `before` holds are taken over, the others are loaded."""
    deployments: dict[int, list[Deployment]] = {}
    rows = Deployment.objects.live().select_related("version__classifier").order_by("pk")
    for deployment in rows:
        deployments.setdefault(deployment.classifier_id, []).append(deployment)
    served: dict[str, Served] = {}
    failed: dict[str, str] = {}
    classifiers = list(Classifier.objects.serving())
    for classifier in classifiers:
        old = before.classifiers.get(classifier.slug)
        live, fault = _live_versions(deployments.get(classifier.pk, []), before)
        if fault:
            failed[classifier.slug] = fault
            if not any(version.role == Deployment.Role.PRODUCTION for version in live):
                live = (
                    old.live if old is not None and old.live else (*live, *_absent(deployments[classifier.pk], fault))
                )
        served[classifier.slug] = serve(classifier, live, old)
    served = _introduced(classifiers, served)
    default = next((slug for slug, entry in served.items() if entry.is_default), "")
    return Picture(fingerprint, served, default, failed)


def _introduced(classifiers: list[Classifier], served: Mapping[str, Served]) -> dict[str, Served]:
    """Every live version with those that help it: the versions that their own classifiers have in production."""
    production = {
        slug: version
        for slug, entry in served.items()
        for version in entry.live
        if version.role == Deployment.Role.PRODUCTION and not isinstance(own_model(version.predictor), Absent)
    }
    thresholds, introduced = cascade_thresholds(), {}
    for classifier in classifiers:
        entry, policy = served[classifier.slug], policy_of(classifier)
        live = tuple(
            with_helpers(version, policy, floor=entry.threshold, find=production.get, thresholds=thresholds)
            for version in entry.live
        )
        introduced[classifier.slug] = replace(entry, live=tuple(filter(can_answer, live)))
    return introduced


def _absent(deployments: list[Deployment], fault: str) -> Iterator[LiveVersion]:
    """The production version whose model could not be loaded, in case that it has a backup."""
    for deployment in deployments:
        if deployment.role == Deployment.Role.PRODUCTION:
            version = deployment.version
            absent = Absent(version, fault)
            yield LiveVersion(deployment.pk, deployment.role, deployment.share, version.pk, version.ref, absent)


def _live_versions(deployments: list[Deployment], before: Picture) -> tuple[tuple[LiveVersion, ...], str]:
    """What of these deployments can answer, and what is wrong with the others (empty: nothing)."""
    loaded = {
        version.version_id: version.predictor
        for served in before.classifiers.values()
        for version in served.live
        if not isinstance(own_model(version.predictor), Absent)
    }
    live, fault = [], ""
    for deployment in deployments:
        version = deployment.version
        predictor = loaded.get(version.pk)
        if predictor is None:
            try:
                predictor = load_version(version)
            except Exception as error:  # whatever a library makes of these files, the other classifiers must answer
                fault = str(error)
                logger.error("Version %s cannot be loaded, the one before goes on: %r", version.ref, error)
        _note_health(deployment, "ok" if predictor else "degraded")
        if predictor is not None:
            live.append(
                LiveVersion(deployment.pk, deployment.role, deployment.share, version.pk, version.ref, predictor)
            )
    return tuple(live), fault


def load_version(version: ModelVersion) -> Predictor:
    """Load a version's artefact, every byte verified against its row, and warm it up.

    Raises `ArtefactCorrupt`, `FamilyError`, `OSError`, or what a library makes of files that it cannot read.
    """
    folder = version_folder(version.classifier.slug, version.number)
    if manifest_digest(folder) != version.artefact_digest:
        raise ArtefactCorrupt(f"the artefact of {version.ref} is not the one that was registered")
    crashpoint("swap.loading")
    predictor = load(folder)
    if hasattr(predictor, "accelerate"):
        predictor.accelerate(settings.KALIMTAK_DEVICE)
    for text in WARM_UP:
        predictor.predict([(text,) * len(predictor.input_fields)])
    if (folder / PROBES_NAME).is_file() and (problems := compare_probes(folder, predictor, tolerance=PROBE_TOLERANCE)):
        raise ArtefactCorrupt(f"{version.ref} does not answer here as it was built to: {problems[0]}")
    return predictor


def _tell(before: Picture, fresh: Picture) -> None:
    """Alert staff of classifiers whose deployed version cannot be loaded, and end the alert when it can."""
    for slug, fault in fresh.failed.items():
        goes_on = "The version before goes on answering" if fresh.classifiers[slug].live else "Nothing answers"
        remedy = f"`manage.py verify_model {slug}/…` says more, `manage.py rollback {slug}` brings another version"
        alert_open(ALERT, slug, f"{slug}: the deployed version cannot be loaded ({fault[:200]}). {goes_on}; {remedy}.")
    for slug in fresh.classifiers.keys() - fresh.failed.keys():
        if before is EMPTY or slug in before.failed:
            alert_over(ALERT, slug)


def _note_health(deployment: Deployment, health: str) -> None:
    if deployment.health != health:
        Deployment.objects.filter(pk=deployment.pk).exclude(health=health).update(health=health)


def serve(classifier: Classifier, live: tuple[LiveVersion, ...], old: Served | None = None) -> Served:
    """One classifier; with a policy that cannot be read, the floor it had before."""
    try:
        threshold = classifier.get_policy().confidence_floor
    except RecipeError as error:
        logger.error("The policy of %s cannot be read: %s", classifier.slug, error)
        threshold = old.threshold if old is not None else 0.5
    labels = classifier.labels or (live[0].predictor.labels if live else ())
    return Served(
        id=classifier.pk,
        slug=classifier.slug,
        name=classifier.name,
        description=classifier.description,
        input_fields=tuple(classifier.input_fields) or ("text",),
        labels=tuple(labels),
        descriptions=classifier.label_config.get("descriptions") or {},
        label_field=classifier.label_field,
        multi_label=classifier.multi_label,
        threshold=threshold,
        is_default=classifier.is_default,
        live=live,
    )


LIVE = LiveModels()
