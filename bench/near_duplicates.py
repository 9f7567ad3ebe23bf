"""Precision and recall of near-duplicates beside plain MinHash: real pairs of sentences, and pairs with one change.

Precision is taken on the Microsoft Research Paraphrase Corpus (`mrpc_pairs` of `KALIMTAK_BENCH_DATA`), whose pairs were
chosen for being alike while a third of them says something else; recall on sentences of 8 to 30 words, each with one
word changed, left out or misspelt, or written in capitals. The other side is MinHash as libraries offer it: sets of
lower-cased words, 128 permutations, bands for a threshold of 0.7 or 0.5, no look at the texts themselves.

    python bench/near_duplicates.py
"""

import argparse
import csv
import random
import sys
import time
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import PARTS, data_folder

from training.etl.duplicates import skeletons
from training.etl.near_duplicates import Text
from training.etl.sketches import keys_of

PERMUTATIONS, PRIME = 128, (1 << 61) - 1
BANDS = {0.5: (25, 5), 0.7: (14, 9)}  # bands and rows with the fewest errors around each threshold
CHANGES = ("changed", "left out", "misspelt", "capitals")
STEMS = ("parcel", "friday", "door", "letter", "train", "river", "window", "garden", "music", "winter", "bread")
Alike = Callable[[str, str], bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_000, help="planted ones")
    options = parser.parse_args()
    real, made = real_pairs(), planted(options.pairs)
    print(
        "| | Pairs of MRPC called near-duplicates | Precision | Recall, word changed | left out | misspelt | capitals |"
    )
    print("|---" * 7 + "|")
    rows: list[tuple[str, Alike]] = [("Kalimtak", ours), *((f"MinHash, {each}", plain(each)) for each in BANDS)]
    for name, alike in rows:
        began = time.process_time()
        called = [same for one, other, same in real if alike(one, other)]
        found = [alike(one, other) for one, other in made]
        recalls = [sum(found[kind :: len(CHANGES)]) / len(found[kind :: len(CHANGES)]) for kind in range(len(CHANGES))]
        precision = f"{sum(called) / len(called):.1%}" if called else "–"
        counted = f"{len(called):,} of {len(real):,}" if real else "not here"
        print(f"| {name} | {counted} | {precision} | {' | '.join(f'{recall:.1%}' for recall in recalls)} |", flush=True)
        print(f"{name}: {time.process_time() - began:.1f} s of processor time", file=sys.stderr)


def ours(one: str, other: str) -> bool:
    """Found by a band that both have, and verified."""
    texts = [skeletons((one,)), skeletons((other,))]
    first, second = keys_of(texts, salt=1)
    return bool({*first} & {*second}) and Text(texts[0]).resembles(Text(texts[1]))


def plain(threshold: float) -> Alike:
    rng = np.random.default_rng(1)
    functions = [(int(rng.integers(1, PRIME)), int(rng.integers(0, PRIME))) for _ in range(PERMUTATIONS)]
    bands, rows = BANDS[threshold]

    def signature(text: str) -> list[int]:
        hashes = [int.from_bytes(sha1(word.encode()).digest()[:4], "little") for word in {*text.lower().split()}]
        return [min((a * each + b) % PRIME for each in hashes) for a, b in functions]

    def alike(one: str, other: str) -> bool:
        first, second = signature(one), signature(other)
        shared = (first[start : start + rows] == second[start : start + rows] for start in range(0, bands * rows, rows))
        agreeing = sum(mine == theirs for mine, theirs in zip(first, second, strict=True))
        return any(shared) and agreeing / PERMUTATIONS >= threshold

    return alike


def real_pairs() -> list[tuple[str, str, bool]]:
    """(sentence, sentence, whether they say the same); none where the set is not on this machine."""
    pairs = []
    for path in (data_folder() / "mrpc_pairs" / f"{part}.csv" for part in PARTS):
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                pairs += [(row["text"], row["text_b"], row["label"] == "paraphrase") for row in csv.DictReader(file)]
    return pairs


def planted(count: int, seed: int = 11) -> list[tuple[str, str]]:
    """Sentences of 8 to 30 words, and each with one change, the kinds of `CHANGES` in turns."""
    rng, pairs = random.Random(seed), []
    vocabulary = [stem + ending for stem in STEMS for ending in ("", "s", "ly", "ing", "er")]
    for number in range(count):
        words = [rng.choice(vocabulary) for _ in range(rng.randrange(8, 31))]
        other, place = [*words], rng.randrange(len(words))
        match number % len(CHANGES):
            case 0:
                other[place] = rng.choice(vocabulary)
            case 1:
                del other[place]
            case 2:
                other[place] = other[place][:1] + other[place][2:]
            case 3:
                other = [word.upper() for word in other]
        pairs.append((" ".join(words), " ".join(other)))
    return pairs


if __name__ == "__main__":
    main()
