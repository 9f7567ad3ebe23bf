"""What people write and say about answers, made up but skewed like real logs; always the same for a seed.

Words follow Zipf's law within each of three languages (one with accents, one in Arabic script), 15 % of the texts are
exact copies of earlier ones, 10 % differ from an earlier one in a word, a letter, case or punctuation, and 2 % hold
personal data. A few people speak up often, most once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LABELS = ("joy", "sadness", "anger", "fear", "love", "surprise")
SHARES = (0.26, 0.22, 0.17, 0.14, 0.12, 0.09)
EXACT, NEAR, PERSONAL = 0.15, 0.10, 0.02
WORDS = 30_000  # of each language
LANGUAGES = (  # share, onsets, nuclei
    (0.6, "b c d f g h k l m n p r s t v w st tr pl", "a e i o u ea ou"),
    (0.2, "b d f g k l m n p r s t w z sch st", "a e i o u ä ö ü ei"),
    (0.2, "ب ت ج ح د ر س ش ع ف ق ك ل م ن ه", "ا و ي َا ة أ"),
)
PEOPLE = 300_000
CHUNK = 20_000
REMEMBERED = 100_000  # texts that later ones copy


@dataclass(slots=True)
class Opinion:
    """One text that was answered with `label`, and what was said of it: a rating, and perhaps another label."""

    text: str
    label: str
    rating: int
    correction: str
    source: str
    trusted: bool
    copies: str  # "", exact or near


def opinions(count: int, seed: int = 1) -> Iterator[list[Opinion]]:
    """So many, in chunks."""
    rng = np.random.default_rng(seed)
    vocabularies = [_vocabulary(np.random.default_rng(7 + number), *each[1:]) for number, each in enumerate(LANGUAGES)]
    memory: list[tuple[str, int]] = []
    for start in range(0, count, CHUNK):
        yield _chunk(rng, min(CHUNK, count - start), vocabularies, memory)


def _vocabulary(rng: np.random.Generator, onsets: str, nuclei: str) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    """Different words of one to three syllables, the short ones first, as in languages the frequent ones are."""
    starts, ends = onsets.split(), nuclei.split()
    words: dict[str, None] = {}
    while len(words) < WORDS:
        syllables = 1 if len(words) < 50 else 2 if len(words) < 2_000 else 3
        picked = rng.integers(0, [len(starts), len(ends)] * syllables)
        words.setdefault("".join((starts, ends)[place % 2][choice] for place, choice in enumerate(picked)))
    return np.array(list(words), dtype=object)


def _chunk(
    rng: np.random.Generator,
    count: int,
    vocabularies: "list[np.ndarray[tuple[int], np.dtype[np.object_]]]",
    memory: list[tuple[str, int]],
) -> list[Opinion]:
    languages = rng.choice(len(LANGUAGES), count, p=[share for share, *_ in LANGUAGES])
    lengths = np.clip(np.exp(rng.normal(2.5, 0.55, count)).astype(int), 2, 120)
    ranks = np.minimum(rng.zipf(1.25, int(lengths.sum())) - 1, rng.integers(0, WORDS, int(lengths.sum())))
    kinds = rng.choice(3, count, p=[EXACT, NEAR, 1 - EXACT - NEAR])
    labels = rng.choice(len(LABELS), count, p=SHARES)
    people = np.minimum(rng.zipf(1.6, count), rng.integers(1, PEOPLE, count))
    ratings = rng.choice([5, 4, 2, 1], count, p=[0.6, 0.2, 0.12, 0.08])
    made, position = [], 0
    for number in range(count):
        words = vocabularies[languages[number]][ranks[position : position + lengths[number]]].tolist()
        position += int(lengths[number])
        label, copies = int(labels[number]), ""
        if kinds[number] < 2 and memory:
            text, label = memory[int(rng.integers(len(memory)))]
            copies = ("exact", "near")[kinds[number]]
            text = _altered(rng, text, words[0]) if copies == "near" else text
        else:
            text = _written(rng, words)
            if len(memory) < REMEMBERED:
                memory.append((text, label))
            else:
                memory[int(rng.integers(REMEMBERED))] = (text, label)
        rating = int(ratings[number])
        corrected = LABELS[(label + 1 + int(rng.integers(len(LABELS) - 1))) % len(LABELS)] if rating == 2 else ""
        answered, label_name = (corrected, LABELS[label]) if corrected else (LABELS[label], "")
        source = f"subject:{int(people[number]):064x}"
        made.append(Opinion(text, answered, rating, label_name, source, bool(rng.random() < 0.97), copies))
    return made


def _written(rng: np.random.Generator, words: list[str]) -> str:
    """A sentence: a capital, a comma now and then, an end; one in fifty with an address or a number in it."""
    if rng.random() < PERSONAL:
        who = int(rng.integers(10**6))
        words.insert(len(words) // 2, (f"{words[0]}.{who}@example.org", f"+49 30 {who:07d}")[who % 2])
    if len(words) > 8:
        words[4] += ","
    text = " ".join(words) + str(rng.choice([".", "!", "?", ""]))
    return text[:1].upper() + text[1:] if rng.random() < 0.7 else text


def _altered(rng: np.random.Generator, text: str, word: str) -> str:
    words = text.split(" ")
    place = int(rng.integers(len(words)))
    match int(rng.integers(4)):
        case 0:
            words[place] = word
        case 1:
            words[place] = words[place][1:] or word
        case 2:
            words.append(word)
        case _:
            words = [each.upper() for each in words] if rng.random() < 0.5 else [*words, "!!"]
    return " ".join(words)
