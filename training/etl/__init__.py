"""From judgement to training items, in steps that can be tried without a database.

A step takes records and returns those it kept and those it dropped, each drop with a sentence. A doubt does not drop a
record: it sends it to a reviewer. Only `extract` and `load` touch rows.

    extract → clean → trust → duplicates → held_out → content → conflicts → quality → domains → diversity →
    near_duplicates → load
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

Fields = tuple[str, ...]
Origin = Literal["confirmed", "corrected", "example"]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a reviewer should look at a record. `kind` groups doubts in statistics, `reason` is the sentence."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """One piece of evidence that `fields` (in the classifier's order) deserve `label`.

    `source` is who said so; `trusted` says it came with a key or a staff session. `feedback_id` or `item_id` names the
    row it comes from. `doubts` send it to a reviewer. `redactions` counts personal data taken out. `confidence` is the
    answer's, where there was one; `agreeing` counts the sources that say the same, with this one; `given_at` is when it
    was said. `domain` is what the text is about ("": not told). `skeletons` are the texts as they are compared
    (`training.etl.folding`), `keys` and `cluster` are for near-duplicates.
    """

    fields: Fields
    label: str
    origin: Origin
    source: str
    trusted: bool
    rating: int | None = None
    feedback_id: int | None = None
    item_id: int | None = None
    interaction_id: UUID | None = None
    content_hash: str = ""
    skeletons: Fields = ()
    keys: tuple[int, ...] = ()
    cluster: int | None = None
    redactions: int = 0
    quality: float = 1.0
    domain: str = ""
    confidence: float | None = None
    agreeing: int = 1
    given_at: datetime | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def is_human_label(self) -> bool:
        """A person named the label; a mere rating only agrees with the model."""
        return self.origin != "confirmed"

    def doubted(self, kind: str, reason: str) -> Self:
        return replace(self, doubts=(*self.doubts, Doubt(kind, reason)))


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that was left out. `kind` groups drops in statistics, `reason` is the sentence for people.

    `twin` is the record that stays in its place, where that has no item yet: its id goes where `{twin}` stands.
    """

    record: Record
    kind: str
    reason: str
    twin: Record | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a step made of its records, in their order."""

    kept: Sequence[Record]
    dropped: Sequence[Dropped] = ()
