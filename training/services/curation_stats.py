"""What a curation did, counted, and in words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from training.etl import Step
from training.etl.trust import is_held
from training.services.balance import Held

FILTERED = frozenset(
    {"unreadable", "inappropriate", "low_quality", "unknown_label", "too_many_labels", "refused_before", "held_out"}
)
PARTS = ("approved", "for_review", "quarantined")  # of what was loaded
DUPLICATES = frozenset({"duplicate", "near_duplicate"})
REASONS = {
    "low_rating": "low rating without a correction",
    "contradiction": "low rating, yet the answer as its correction",
    "unknown_label": "label not in the set any more",
    "too_many_labels": "too many labels for one text",
    "unreadable": "empty or too long",
    "duplicate": "exact duplicate",
    "near_duplicate": "near-duplicate",
    "held_out": "copy of a held-out text",
    "refused_before": "refused by a reviewer before",
    "inappropriate": "blocked word",
    "low_quality": "too little to learn from",
    "over_represented": "label over-represented",
    "over_domain": "domain over-represented",
    "second_opinion": "the moderating classifier objects",
    "conflict": "another label for the same text",
    "over_share": "its source gave its share already",
    "anonymous": "anonymous evidence",
    "policy": "policy asks for a reviewer",
    "source_burst": "quarantined: many labels of one source at once",
    "copies": "quarantined: many copies of one text at once",
    "coordinated": "quarantined: new sources with the same label at once",
    "newcomers": "many labels of new sources at once",
}


@dataclass
class CurationStats:
    """What a curation did, in the contract's words.

    Each piece of evidence counts once in `extracted`; `loaded` are the items made or decided, `approved`, `for_review`
    and `quarantined` their parts; `over_represented` counts what was left out or held back for the balance of the set.
    `shares` are {classifier: {label, domain, source: {name: [share of the set before, after]}}}, `before` is what each
    classifier's set held when it began. `notes` are {classifier: what staff should know of it}. `looked_at` are the
    items that came another way and were compared, or told their domain.
    """

    extracted: int = 0
    duplicates: int = 0
    filtered: int = 0
    pii_redacted: int = 0
    over_represented: int = 0
    loaded: int = 0
    approved: int = 0
    for_review: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    shares: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    before: dict[str, Held] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    looked_at: int = 0

    def figures(self) -> dict[str, Any]:
        """What is counted, without the shares and notes."""
        names = ("extracted", "duplicates", "filtered", "pii_redacted", "over_represented")
        figures = {name: getattr(self, name) for name in (*names, "loaded", *PARTS)}
        return figures | {"reasons": dict(self.reasons.most_common())}

    def to_dict(self) -> dict[str, Any]:
        return self.figures() | {"notes": self.notes, "shares": self.shares}

    def unfinished(self) -> dict[str, Any]:
        """What another attempt goes on from, with `from_dict`."""
        return self.to_dict() | {"before": self.before, "looked_at": self.looked_at}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Self:
        return cls(**dict(figures) | {"reasons": Counter(figures.get("reasons", {}))})

    def add(self, batch: Self) -> None:
        for each in fields(self):
            if each.name not in ("shares", "before", "notes"):
                setattr(self, each.name, getattr(self, each.name) + getattr(batch, each.name))

    def count(self, extracted: int, step: Step) -> None:
        """Add what became of so much evidence."""
        self.extracted += extracted
        for drop in step.dropped:
            self.duplicates += drop.kind in DUPLICATES
            self.filtered += drop.kind in FILTERED
            self.over_represented += drop.kind in ("over_represented", "over_domain")
            self.reasons[REASONS[drop.kind]] += 1
        for record in step.kept:
            self.pii_redacted += bool(record.redactions)
            self.loaded += 1
            self.approved += not record.doubts
            self.for_review += bool(record.doubts) and not is_held(record)
            self.quarantined += is_held(record)
            for doubt in record.doubts:
                self.over_represented += doubt.kind == "over_share"
                self.reasons[REASONS[doubt.kind]] += 1
