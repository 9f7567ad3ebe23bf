"""How many reviewers an item needs, and whether those it had have decided it."""

import hashlib
from dataclasses import dataclass
from typing import Any

from kalimtak.core.errors import Conflict
from training.models import Review, TrainingDataItem
from training.services.trust import people_behind

WANTS_SECOND, DISPUTED = 2.0, 3.0  # priorities: before all that nobody has looked at yet
PAIR = 2

Word = tuple[str, str]
Why = TrainingDataItem.Why


@dataclass(frozen=True)
class Standing:
    """Where an item stands once a word is added: decided, or why it waits on and how far in front.

    `opinion` numbers the words that were given without knowing another's; 0 for one that was not.
    """

    is_decided: bool
    opinion: int
    reason: str = ""
    why: str = ""
    priority: float = 0.0


def standing_of(item: TrainingDataItem, reviewer: Any, verdict: str, label: str) -> Standing:
    """What follows from the reviewers' last words so far and this one.

    Raises `Conflict` (`own_dispute`) for the word of one of two who disagree: a third has to decide.
    """
    review = item.classifier.get_policy().review
    agree = int(review.approve.removeprefix("agree:")) if review.approve.startswith("agree:") else 1
    by_pair = agree <= PAIR and wants_second(item, review.second_share)
    needed = max(agree, PAIR) if by_pair else agree
    words = last_words(item)
    if by_pair and item.why == Why.DISPUTE and item.status == TrainingDataItem.Status.REVIEW and reviewer.pk in words:
        raise Conflict(
            "You are one of the two who disagree over this text; a third reviewer decides.", code="own_dispute"
        )
    is_open = item.status == TrainingDataItem.Status.REVIEW and item.why != Why.DISPUTE
    words[reviewer.pk] = (verdict, label)
    opinion = len(words) if is_open else 0
    alike = list(words.values()).count((verdict, label))
    if agree > 1 and not by_pair and verdict == Review.Verdict.APPROVE:
        alike += len(people_behind(item))
    if alike >= needed or (by_pair and len(words) > PAIR):
        return Standing(True, opinion)
    if by_pair and len(words) == PAIR:
        return Standing(False, opinion, "Two reviewers disagree; a third decides.", Why.DISPUTE, DISPUTED)
    return Standing(False, opinion, f"Waits for {needed - alike} more to agree.", Why.SECOND, WANTS_SECOND)


def wants_second(item: TrainingDataItem, share: float) -> bool:
    """Whether the item is among the share that two reviewers judge; a hash of its key says so, the same each time."""
    drawn = int.from_bytes(hashlib.sha256(f"second:{item.pk}".encode()).digest()[:8])
    return drawn < share * 2**64


def last_words(item: TrainingDataItem) -> dict[int, Word]:
    """{reviewer: (verdict, label)}; each reviewer's last word counts."""
    reviews: Any = Review.objects.filter(item=item).order_by("pk")
    return {
        reviewer: (verdict, label)
        for reviewer, verdict, label in reviews.values_list("reviewer_id", "verdict", "label")
    }
