"""The first page of the admin: a card per classifier, the loop with what waits at each station, recent jobs, alerts.

A dozen cheap queries at most, whatever the size of the tables: everything is read off an index or capped.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, FilteredRelation, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django_q.models import Schedule

from interactions.models import Feedback, UserInteraction
from kalimtak.core.admin import relative, state_label
from kalimtak.core.alerts import alerts_open
from kalimtak.core.models import Job
from kalimtak.schedules import REAPER
from registry.admin.figures import figure
from registry.models import Classifier, Deployment, ModelVersion
from training.models import TrainingDataItem, TrainingRun

COUNT_AT_MOST = 10_000
JOBS_SHOWN = 6
ALERTS_SHOWN = 5
WORKER_SILENCE = timedelta(minutes=5)  # the reaper's schedule moves on every minute while a worker runs

STATUS, SPLIT = TrainingDataItem.Status, TrainingDataItem.Split


@dataclass
class Card:
    """What a classifier's card says."""

    classifier: Classifier
    live: Deployment | None
    run: TrainingRun | None
    versions: int
    requests: int
    review: int
    approved: int

    @property
    def macro_f1(self) -> str:
        return figure("macro_f1", self.live.version.metrics.get("macro_f1")) if self.live else "–"

    @property
    def run_state(self) -> SafeString | str:
        return state_label(self.run.job.state, self.run.job.get_state_display()) if self.run else "–"

    @property
    def untrained(self) -> int:
        """Approved items beyond those that the last run's snapshot saw or left out."""
        return max(0, self.approved - snapshot_size(self.run)) if self.run else self.approved


def overview(request: HttpRequest) -> dict[str, Any]:
    """Template context for this user: each part only with the permission to see its page."""
    may = request.user.has_perm
    cards = classifier_cards() if may("registry.view_classifier") else []
    return {
        "cards": cards,
        "stations": stations(cards) if cards and may("training.view_trainingdataitem") else [],
        "jobs": recent_jobs() if may("core.view_job") else [],
        "warnings": warnings() if may("core.view_job") else [],
        "alerts": list(alerts_open()[:ALERTS_SHOWN]) if may("core.view_alert") else [],
        "has_role": bool(request.user.get_all_permissions()),
        "today": timezone.localdate(),
    }


def classifier_cards() -> list[Card]:
    """One card per enabled classifier, in four queries."""
    newest_run = TrainingRun.objects.filter(classifier=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    versions = ModelVersion.objects.filter(classifier=OuterRef("pk")).order_by().values("classifier")
    in_production = Q(deployments__ended_at=None, deployments__role=Deployment.Role.PRODUCTION)  # one at the most
    classifiers: list[Any] = list(
        Classifier.objects.serving()
        .annotate(
            run_id=Subquery(newest_run),
            version_count=Coalesce(Subquery(versions.values(n=Count("pk"))), 0),
            live=FilteredRelation("deployments", condition=in_production),
        )
        .select_related("live__version__classifier")
    )
    runs = TrainingRun.objects.select_related("job", "snapshot").in_bulk([c.run_id for c in classifiers if c.run_id])
    items = item_counts()
    requests = requests_today()
    return [
        Card(
            classifier,
            live=getattr(classifier, "live", None),  # Django sets it where there is one
            run=runs.get(classifier.run_id),
            versions=classifier.version_count,
            requests=requests.get(classifier.pk, 0),
            review=items[classifier.pk, STATUS.REVIEW],
            approved=items[classifier.pk, STATUS.APPROVED],
        )
        for classifier in classifiers
    ]


def item_counts() -> defaultdict[tuple[int, str], int]:
    """{(classifier id, status): items}, read off an index."""
    rows = TrainingDataItem.objects.order_by().values_list("classifier", "status").annotate(n=Count("pk"))
    return defaultdict(int, {(classifier, status): n for classifier, status, n in rows})


def requests_today() -> dict[int, int]:
    """{classifier id: interactions since midnight in the visitor's zone}."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    rows = UserInteraction.objects.filter(created_at__gte=midnight).order_by().values_list("classifier")
    return dict(rows.annotate(n=Count("pk")))


def snapshot_size(run: TrainingRun) -> int:
    """How many approved items a run's snapshot saw, those it left out counted in."""
    return sum(count for group in run.snapshot.counts.values() for count in group.values())


def capped(rows: QuerySet[Any]) -> str:
    """A count that stops at 10,000."""
    count = rows.order_by()[: COUNT_AT_MOST + 1].count()
    return f"{COUNT_AT_MOST}+" if count > COUNT_AT_MOST else str(count)


def stations(cards: list[Card]) -> list[dict[str, Any]]:
    """The loop: what waits at each station, and where to go to deal with it."""
    waiting = Feedback.objects.filter(Q(curated_at=None) | Q(curated_at__lt=F("updated_at")))
    items = "training_trainingdataitem"
    rows = [
        (_("answers today"), sum(card.requests for card in cards), "interactions_userinteraction", ""),
        (_("feedback to curate"), capped(waiting), "interactions_feedback", ""),
        (_("to review"), sum(card.review for card in cards), items, "?status__exact=review"),
        (_("new to train on"), sum(card.untrained for card in cards), items, "?status__exact=approved"),
        (_("versions"), sum(card.versions for card in cards), "registry_modelversion", ""),
        (_("live"), sum(card.live is not None for card in cards), "registry_deployment", ""),
    ]
    return [
        {"name": name, "count": str(count), "url": reverse(f"admin:{page}_changelist") + query, "x": 75 + 150 * index}
        for index, (name, count, page, query) in enumerate(rows)
    ]


def recent_jobs() -> list[dict[str, Any]]:
    jobs = Job.objects.defer("result")[:JOBS_SHOWN]
    return [
        {
            "job": job,
            "state": state_label(job.state, job.get_state_display()),
            "about": job.params.get("classifier", ""),
            "percent": f"{100 * job.progress:.0f}",
        }
        for job in jobs
    ]


def warnings() -> list[str]:
    """What keeps the recurring jobs from running, which nobody else would tell."""
    reaper = Schedule.objects.filter(name=REAPER).exclude(repeats=0).only("next_run").first()
    if reaper is None or reaper.next_run is None:
        return [_("The recurring jobs are not set up. Run “manage.py setup”.")]
    if reaper.next_run < timezone.now() - WORKER_SILENCE:
        sign = relative(reaper.next_run)
        return [_("No worker is running; the last sign was %(when)s. Start “manage.py qcluster”.") % {"when": sign}]
    return []
