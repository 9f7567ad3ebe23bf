"""Keeping coarse language out of what is learnt from praise alone. Pure.

The word lists lie in `blocked_words/`, one file per language. Words are compared as skeletons, so that accents,
look-alike characters, digits for letters, stretched letters and separators between letters hide nothing; only whole
words count. Compare Unicode Technical Standard 39, section 4, on confusable skeletons.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from registry.text import prepare
from training.etl import Dropped, Record, Step

FOLDER = Path(__file__).parent / "blocked_words"
# Labels of classifiers that judge language itself: for them coarse words are the very thing to learn from.
OFFENCE_LABELS = frozenset(
    {"abuse", "abusive", "hate", "hateful", "insult", "obscene", "offensive", "profanity", "threat", "toxic"}
)

_LOOK_ALIKES = str.maketrans("@$!|0134578аеорсхукіѕ", "asiioieastbaeopcxykis")
_ARABIC = str.maketrans("أإآىة", "ااايه")
_TOKEN = re.compile(r"[\w@$!|]+")
_RUN = re.compile(r"(.)\1+")


def judges_language(labels: Collection[str]) -> bool:
    """Whether a classifier with these labels learns from coarse language, so that filtering would blind it."""
    return any(label.casefold() in OFFENCE_LABELS for label in labels)


def filter_content(records: Sequence[Record], labels: Collection[str]) -> Step:
    """Drop records with a blocked word; where a person named the label, leave it to a reviewer instead."""
    if judges_language(labels):
        return Step(records)
    kept, dropped = [], []
    for record in records:
        if not any(blocked_word(text) for text in record.fields):
            kept.append(record)
        elif record.is_human_label:
            kept.append(record.doubted("inappropriate", "It holds a blocked word."))
        else:
            dropped.append(Dropped(record, "inappropriate", "It holds a blocked word."))
    return Step(kept, dropped)


def blocked_word(text: str) -> str:
    """The first blocked word in `text`, as its list writes it; "" where there is none."""
    blocked = blocked_words()
    return next((blocked[word] for word in _skeletons(text) if word in blocked), "")


@cache
def blocked_words() -> dict[str, str]:
    """{skeleton: word as listed} of all languages."""
    words: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            word = line.partition("#")[0].strip()
            if word:
                words["".join(_skeletons(word))] = word
    return words


def _skeletons(text: str) -> list[str]:
    """The words of `text` as skeletons; single letters in a row count as one word, too."""
    decomposed = unicodedata.normalize("NFKD", prepare(text).casefold())
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    tokens = [_skeleton(token) for token in _TOKEN.findall(bare)]
    return [*tokens, *_spelled_out(tokens)]


def _skeleton(token: str) -> str:
    token = token.strip("!").replace("_", "")
    if any(character.isalpha() for character in token) or not token.isdigit():
        token = token.translate(_LOOK_ALIKES)
    return _RUN.sub(r"\1", token.translate(_ARABIC).removeprefix("ال"))


def _spelled_out(tokens: Sequence[str]) -> list[str]:
    """Words written with something between their letters: `f o o`, `f.o.o`."""
    joined, run = [], ""
    for token in [*tokens, ""]:
        if len(token) == 1:
            run += token
            continue
        if len(run) > 2:
            joined.append(_RUN.sub(r"\1", run))
        run = ""
    return joined
