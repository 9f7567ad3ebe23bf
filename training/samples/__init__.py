"""Synthetic texts for the demo classifiers, written by small grammars. Pure Python: no Django, no download.

`generate` makes one balanced set, `splits` makes disjoint training, validation and test sets. Both depend on the seed
alone. The texts are for trying the platform out; scores on their own test split say little about real text.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random

from kalimtak.core.errors import InvalidInput
from training.samples import clarity, emotion, intent, moderation, sarcasm, sentiment
from training.samples.base import Kind, Sample, SampleSet
from training.samples.grammar import Dealer

__all__ = ["CLASSIFIERS", "HELPERS", "SETS", "Kind", "Sample", "SampleError", "SampleSet", "generate", "splits"]

CLASSIFIERS: dict[str, SampleSet] = {
    module.SET.slug: module.SET for module in (emotion, intent, sentiment, moderation, clarity)
}

# Those that help the demo classifiers; the backup learns from other texts of the same grammar.
HELPERS: dict[str, SampleSet] = {"emotion-backup": emotion.SET, "sarcasm": sarcasm.SET}
SETS = CLASSIFIERS | HELPERS

_WORDS = re.compile(r"\w+")
_MAX_VAIN_ATTEMPTS = 2000


class SampleError(InvalidInput):
    """A request that no grammar can serve; the message names the remedy."""


def generate(slug: str, rows: int, seed: int = 0) -> list[Sample]:
    """`rows` different texts for classifier `slug`, as many of each label as of any other (±1), shuffled.

    Two texts count as equal when they have the same words in the same order, whatever their case and punctuation.
    Raises SampleError for an unknown classifier, for fewer rows than labels, and for more than the grammar can write.
    """
    return _draw(slug, {"all": rows}, seed)["all"]


def splits(slug: str, *, train: int, valid: int, test: int, seed: int) -> dict[str, list[Sample]]:
    """Sets "train", "valid" and "test" of the sizes given, each as `generate` would make it, with no text in two."""
    return _draw(slug, {"train": train, "valid": valid, "test": test}, seed)


def _draw(slug: str, sizes: Mapping[str, int], seed: int) -> dict[str, list[Sample]]:
    sample_set = _find(slug)
    labels = sample_set.labels
    for split, size in sizes.items():
        if size < len(labels):
            raise SampleError(f"{slug}: {size} rows ({split}) cannot hold all {len(labels)} labels; ask for more rows.")
    drawn: dict[str, list[Sample]] = {split: [] for split in sizes}
    seen: set[str] = set()
    for position, label in enumerate(labels):
        shares = {split: _share(size, position, len(labels)) for split, size in sizes.items()}
        samples = _distinct(sample_set, label, sum(shares.values()), Dealer(f"{slug}/{label}/{seed}"), seen)
        for split, share in shares.items():
            drawn[split] += samples[:share]
            samples = samples[share:]
    for split, samples in drawn.items():
        Random(f"{slug}/{split}/{seed}").shuffle(samples)
    return drawn


def _find(slug: str) -> SampleSet:
    try:
        return SETS[slug]
    except KeyError:
        raise SampleError(f"No samples for {slug!r}; there are {', '.join(SETS)}.") from None


def _share(size: int, position: int, parts: int) -> int:
    """How much of `size` falls to the part at `position` when it is dealt out to `parts` evenly."""
    return size // parts + (position < size % parts)


def _distinct(sample_set: SampleSet, label: str, count: int, dealer: Dealer, seen: set[str]) -> list[Sample]:
    """`count` samples of `label` whose texts are not in `seen`, which grows by them."""
    samples: list[Sample] = []
    vain_attempts = 0
    while len(samples) < count:
        sample = sample_set.write(label, dealer)
        key = _key(sample.fields)
        if key not in seen:
            seen.add(key)
            samples.append(sample)
            vain_attempts = 0
        elif (vain_attempts := vain_attempts + 1) > _MAX_VAIN_ATTEMPTS:
            raise SampleError(f"{sample_set.slug}: the grammar has no more texts for {label!r}; ask for fewer rows.")
    return samples


def _key(fields: Sequence[str]) -> str:
    """What makes a text different from another: its words, or itself where it has none (emoji)."""
    text = "\n".join(fields)
    words = _WORDS.findall(text.casefold().replace("'", ""))
    return " ".join(words) or text
