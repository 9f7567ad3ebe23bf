"""What a reviewer gets next: the front of the stored queue, less what others have on their screens."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from kalimtak.core.jobs import in_future
from registry.models import Classifier
from training.models import ItemSource, Review, ReviewLease, ReviewSkip, TrainingDataItem
from training.services.trust import own_sources

LEASE = timedelta(minutes=5)
COUNTED = 1_000  # of what waits; a desk that says "more than a thousand" opens as fast as any other
_VERDICTS_READ = 10_000
_TRIES = 20
_PACE_OF = 20


def waiting_for(reviewer: Any, classifier: Classifier | None = None) -> "QuerySet[TrainingDataItem]":
    """What waits for this reviewer, in the order of the queue: unjudged and unskipped by them, on no other's screen.

    Nobody's own word comes to them.
    """
    waiting = TrainingDataItem.objects.filter(status=TrainingDataItem.Status.REVIEW)
    own = own_sources(reviewer)
    said = ItemSource.objects.filter(item=OuterRef("pk"), source__in=own)
    waiting = waiting.exclude(source__in=own).filter(~Exists(said))
    if classifier is not None:
        waiting = waiting.filter(classifier=classifier)
    theirs = {"item": OuterRef("pk"), "reviewer": reviewer}
    elsewhere = ReviewLease.objects.filter(item=OuterRef("pk"), until__gt=Now()).exclude(reviewer=reviewer)
    free = waiting.filter(
        ~Exists(Review.objects.filter(**theirs)), ~Exists(ReviewSkip.objects.filter(**theirs)), ~Exists(elsewhere)
    )
    return free.order_by("-priority", "id")


def desk_next(
    reviewer: Any, *, classifier: Classifier | None = None, besides: tuple[int, ...] = ()
) -> TrainingDataItem | None:
    """The first item that waits for `reviewer`, leased to them; None where nothing waits.

    Two who ask at the same moment get different items: the lease's unique row says whose it is.
    """
    candidates = waiting_for(reviewer, classifier).exclude(pk__in=besides).select_related("classifier")
    for item in candidates[:_TRIES]:
        if desk_lease(item, reviewer):
            return item
    return None


def desk_lease(item: TrainingDataItem, reviewer: Any) -> bool:
    """Note that `reviewer` has the item before them for the next five minutes; False where somebody else has it."""
    try:
        with transaction.atomic():
            return _lease(item, reviewer)
    except IntegrityError:  # the item was deleted this moment
        return False


def _lease(item: TrainingDataItem, reviewer: Any) -> bool:
    ReviewLease.objects.filter(until__lte=Now()).delete()
    until: Any = in_future(LEASE)
    if ReviewLease.objects.filter(item=item, reviewer=reviewer).update(until=until):
        return True
    ReviewLease.objects.bulk_create([ReviewLease(item=item, reviewer=reviewer, until=until)], ignore_conflicts=True)
    return ReviewLease.objects.filter(item=item, reviewer=reviewer).exists()


def lease_holder(item: TrainingDataItem) -> str:
    """Who has the item before them; empty where nobody has."""
    lease = ReviewLease.objects.filter(item=item, until__gt=Now()).select_related("reviewer").first()
    return str(lease.reviewer.get_username()) if lease else ""


def desk_skip(item: TrainingDataItem, reviewer: Any) -> None:
    """Leave an item to others. It does not come back to this reviewer until `skips_forget`."""
    ReviewSkip.objects.bulk_create([ReviewSkip(item=item, reviewer=reviewer)], ignore_conflicts=True)
    ReviewLease.objects.filter(item=item, reviewer=reviewer).delete()


def skips_forget(reviewer: Any) -> int:
    """Let everything that `reviewer` skipped come to them again; how many items."""
    return ReviewSkip.objects.filter(reviewer=reviewer).delete()[0]


@dataclass(frozen=True)
class DeskProgress:
    """`left` items wait (`more` than that where it is `COUNTED`), of which this reviewer `skipped` some; they gave
    `today` verdicts today, the last twenty at `per_minute`, None where they paused for over ten minutes."""

    left: int
    more: bool
    skipped: int
    today: int
    per_minute: float | None


def desk_progress(reviewer: Any, classifier: Classifier | None = None) -> DeskProgress:
    waiting = TrainingDataItem.objects.filter(status=TrainingDataItem.Status.REVIEW)
    skipped = ReviewSkip.objects.filter(reviewer=reviewer, item__status=TrainingDataItem.Status.REVIEW)
    if classifier is not None:
        waiting, skipped = waiting.filter(classifier=classifier), skipped.filter(item__classifier=classifier)
    left = waiting.order_by()[: COUNTED + 1].count()
    own = Review.objects.filter(reviewer=reviewer).order_by("-pk")
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    moments = list(own.values_list("created_at", flat=True)[:_VERDICTS_READ])
    today = sum(moment >= midnight for moment in moments)
    last = moments[:_PACE_OF]
    seconds = (last[0] - last[-1]).total_seconds() if len(last) > 1 else 0.0
    paused = not last or timezone.now() - last[0] > timedelta(minutes=10) or not 0 < seconds < _PACE_OF * 600
    pace = None if paused else 60 * (len(last) - 1) / seconds
    return DeskProgress(min(left, COUNTED), left > COUNTED, skipped[:COUNTED].count(), today, pace)
