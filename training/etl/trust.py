"""Telling floods of evidence from people who differ in opinion. Pure.

A *word* is a label that somebody named: a correction or an example. Ratings only agree with the model, and the caps of
`diversity` hold those. Counted are windows of an hour that begin every half hour. What reaches `burst` words in one is

- `source_burst`: all of one source,
- `copies`: all of nearly the same text, whoever sent it (`training.etl.copies`),
- `coordinated`: all through one key of sources that were first heard of within a day before, over half of them for one
  label: those for that label,
- `newcomers`: the same without such a label.

What staff imported is judged by the moments that its file tells; a word without one is in no window. In a file the
first word of a source is where the file begins, so none of its sources are new (channel `IMPORT`), and rows that name
nobody (sources `import:…`) are not all one source.

The first three are quarantined, as a person who looks at them one by one would see nothing odd; newcomers wait for a
reviewer. Compare OWASP LLM04:2025, data and model poisoning, and Jagielski et al. 2018 on poisoned labels.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from training.etl import Fields, Record
from training.etl.copies import CopyWatch

STEP = timedelta(minutes=30)
WINDOW = 2 * STEP
FRESH = timedelta(days=1)
QUARANTINING = frozenset({"source_burst", "copies", "coordinated"})
IMPORT = "import"  # the channel of what was imported
PEOPLE = ("subject:", "user:")  # sources that are a person; a key alone may be anybody


@dataclass(frozen=True, slots=True)
class Word:
    """One label that somebody named. `key` is the row's ("feedback" or "item", id); `channel` is the API key it came
    through ("": none)."""

    key: tuple[str, int]
    source: str
    channel: str
    at: datetime
    fields: Fields
    label: str

    @property
    def step(self) -> int:
        """The half hour it was said in."""
        return int(self.at.timestamp() // STEP.total_seconds())


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a word is held back; `kind` is one of the four above."""

    kind: str
    reason: str


class FloodWatch:
    """Counts every word first (`count`), then judges those of suspicious times (`judge`)."""

    def __init__(self, burst: int) -> None:
        self.burst = burst
        self._sources: Counter[tuple[str, int]] = Counter()
        self._channels: Counter[tuple[str, int]] = Counter()
        self._copies = CopyWatch(burst)

    def count(self, word: Word) -> None:
        if not _names_nobody(word):
            self._sources[word.source, word.step] += 1
        if word.channel != IMPORT:
            self._channels[word.channel, word.step] += 1
        self._copies.count(word.fields, word.step)

    def suspicious_steps(self) -> set[int]:
        """The half hours in which something reached the burst, alone or with the next one."""
        return self._reached(self._sources) | self._reached(self._channels) | self._copies.suspicious_steps()

    def _reached(self, counted: Counter[tuple[str, int]]) -> set[int]:
        return {step for group, step in list(counted) if _most(counted, group, step) >= self.burst}

    def crowded_sources(self, words: Iterable[Word]) -> set[str]:
        """Sources about which `judge` wants to know when they were first heard of."""
        return {word.source for word in words if _most(self._channels, word.channel, word.step) >= self.burst}

    def judge(self, words: Sequence[Word], first_heard: Mapping[str, datetime]) -> dict[tuple[str, int], Suspicion]:
        """{key: suspicion} of `words`, all those of the suspicious half hours."""
        found = self._crowds(words, first_heard)
        copies = self._copies.copies([(word.fields, word.step) for word in words])
        for number, word in enumerate(words):
            count = _most(self._sources, word.source, word.step)
            if count >= self.burst:
                reason = f"Its source named {count} labels within an hour."
                found[word.key] = Suspicion("source_burst", reason)
                continue
            if number in copies:
                reason = f"Nearly the same text came {copies[number]} times within an hour."
                found[word.key] = Suspicion("copies", reason)
        return found

    def _crowds(self, words: Sequence[Word], first_heard: Mapping[str, datetime]) -> dict[tuple[str, int], Suspicion]:
        fresh: defaultdict[tuple[str, int], list[Word]] = defaultdict(list)
        for word in words:
            if word.channel != IMPORT and first_heard.get(word.source, word.at) >= word.at - FRESH:
                fresh[word.channel, word.step].append(word)
        found: dict[tuple[str, int], Suspicion] = {}
        for channel, step in sorted(fresh):
            crowd = [*fresh[channel, step], *fresh.get((channel, step + 1), [])]
            if len(crowd) < self.burst or len({word.source for word in crowd}) < 2:
                continue
            label, count = Counter(word.label for word in crowd).most_common(1)[0]
            reason = f"{len(crowd)} labels came within an hour from sources that were new"
            for word in crowd:
                if 2 * count <= len(crowd):
                    found.setdefault(word.key, Suspicion("newcomers", f"{reason}."))
                elif word.label == label:
                    found[word.key] = Suspicion("coordinated", f"{reason}, {count} of them for the same label.")
        return found


def _names_nobody(word: Word) -> bool:
    """Whether it came from a file that does not tell whose word it is."""
    return word.source.startswith("import:")


def _most(counted: Counter[tuple[str, int]], group: str, step: int) -> int:
    """The most of a group in an hour that this half hour is part of."""
    return counted[group, step] + max(counted[group, step - 1], counted[group, step + 1])


def hold_back(
    records: Sequence[Record], suspicions: Mapping[tuple[str, int], Suspicion]
) -> tuple[list[Record], list[Record]]:
    """The records that go on, newcomers doubted, and those for quarantine, which shall not touch what others said."""
    going, held = [], []
    for record in records:
        key = ("item", record.item_id) if record.item_id is not None else ("feedback", record.feedback_id or 0)
        suspicion = suspicions.get(key)
        if suspicion is None or not record.is_human_label:
            going.append(record)
        elif suspicion.kind in QUARANTINING:
            held.append(record.doubted(suspicion.kind, suspicion.reason))
        else:
            going.append(record.doubted(suspicion.kind, suspicion.reason))
    return going, held


def is_held(record: Record) -> bool:
    """Whether it belongs into quarantine."""
    return any(doubt.kind in QUARANTINING for doubt in record.doubts)


def is_person(record: Record) -> bool:
    """Whether somebody in particular said it, so that another one who says the same makes two."""
    return record.trusted and record.source.startswith(PEOPLE)
