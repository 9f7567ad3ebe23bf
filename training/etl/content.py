"""Keeping coarse language out of what is learnt from praise alone. Pure.

Shipped word lists lie in `blocked_words/`, one file per language; staff add words and allow others (`BlockedWord`). A
word of theirs holds for texts of one language or of all; the shipped ones hold for all, since people swear in more
languages than they write.

Words are compared as skeletons, so that accents, look-alike characters of other scripts, digits for letters, stretched
letters and separators between letters hide nothing; only whole words count, or beginnings where the list writes
`word*`. Compare Unicode Technical Standard 39, section 4, on confusable skeletons.

One pass over a text: each token is looked up in a table of tokens judged before, as most are common words.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from training.etl import Dropped, Record, Step
from training.etl.languages import LANGUAGES, language_of
from training.etl.scripts import script_of

FOLDER = Path(__file__).parent / "blocked_words"
# Labels of classifiers that judge language itself: for them coarse words are the very thing to learn from.
OFFENCE_LABELS = frozenset(
    {"abuse", "abusive", "hate", "hateful", "insult", "obscene", "offensive", "profanity", "threat", "toxic"}
)
LEAST_LETTERS = 2  # of a listed word
STEM = "*"
LANGUAGE_CHARACTERS = 2_000  # of a text, by which its language is told
_REMEMBERED = 100_000  # tokens, some 10 MB

# What is written for Latin letters: signs and digits, then Cyrillic and Greek letters that look like them.
_LOOK_ALIKES = str.maketrans(
    "@$!|€£013456789" + "авсегикмнопртухуѕіјԁԛѡһ" + "αβγεηικνορτυχ",
    "asiieloieasgtbg" + "abceruкmhonptyxysijdqwh".replace("к", "k") + "abyenikvoptux",
)
_ARABIC = str.maketrans("أإآىةؤئ", "ااايهوي")
_ARABIC_PREFIXES = ("وال", "بال", "فال", "كال", "ال", "لل", "و", "ف", "ب", "يا")
# Letters with their marks, and the signs that stand for letters.
_MARKS = "\u0300-\u036f\u0610-\u061a\u0640\u064b-\u065f\u0670\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_TOKEN = re.compile(rf"[\w@$!|€*{_MARKS}]+")
_SIGNS = re.compile(r"[!|*]+")
_RUN = re.compile(r"(.)\1+")
_LONG_RUN = re.compile(r"(.)\1{2,}")


def judges_language(labels: Collection[str]) -> bool:
    """Whether a classifier with these labels learns from coarse language, so that filtering would blind it."""
    return any(label.casefold() in OFFENCE_LABELS for label in labels)


def filter_content(records: Sequence[Record], labels: Collection[str], words: "Words | None" = None) -> Step:
    """Drop records with a blocked word; where a person named the label, leave it to a reviewer instead.

    `words` are the lists in force, by default those shipped.
    """
    if judges_language(labels):
        return Step(records)
    words = words or shipped_words()
    kept, dropped = [], []
    for record in records:
        word = next(filter(None, map(words.first_in, record.fields)), "")
        reason = f"It holds the blocked word {word!r}."
        if not word:
            kept.append(record)
        elif record.is_human_label:
            kept.append(record.doubted("inappropriate", reason))
        else:
            dropped.append(Dropped(record, "inappropriate", reason))
    return Step(kept, dropped)


def blocked_word(text: str) -> str:
    """The first word of the shipped lists in `text`, as its list writes it; "" where there is none."""
    return shipped_words().first_in(text)


def word_problem(word: str) -> str:
    """Why `word` cannot be listed; "" where it can."""
    stem = word.removesuffix(STEM)
    if not stem or STEM in stem or len(_TOKEN.findall(stem.casefold())) != 1:
        return "One word, without blanks; an asterisk at its end stands for any ending."
    if len(_skeleton(stem.casefold())) < LEAST_LETTERS:
        return f"At least {LEAST_LETTERS} letters."
    return ""


@cache
def shipped_words() -> "WordList":
    return WordList(shipped_lines())


def shipped_lines() -> Iterator[str]:
    """Every word of the files in `blocked_words/`."""
    for language in LANGUAGES:
        yield from shipped_list(language)


@cache
def shipped_list(language: str) -> tuple[str, ...]:
    """The words of the file of `language`, a key of LANGUAGES, in its order."""
    lines = (FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(word for line in lines if (word := line.partition("#")[0].strip()))


class Words(Protocol):
    """Word lists in force."""

    def first_in(self, text: str) -> str:
        """The first blocked word in `text`, as its list writes it; "" where there is none."""


class ListedWord(NamedTuple):
    """What staff say of a word in texts of `language`, a key of LANGUAGES, or of every one ("")."""

    word: str
    is_blocked: bool
    language: str = ""


class WordList:
    """Blocked words but those allowed. `word*` stands for every word that begins so; an allowed word goes before it."""

    def __init__(self, blocked: Iterable[str], allowed: Iterable[str] = ()) -> None:
        self._allowed = {_skeleton(word.removesuffix(STEM).casefold()) for word in allowed}
        self._words: dict[str, str] = {}
        self._stems: dict[str, str] = {}
        self._shortened: dict[str, str] = {}  # words with double letters, as people write them with single ones
        for word in blocked:
            self._add(word)
        self._stem_lengths = sorted({len(stem) for stem in self._stems})
        self._seen: dict[str, str] = {}

    def _add(self, word: str) -> None:
        skeleton = _skeleton(word.removesuffix(STEM).casefold())
        if skeleton in self._allowed:
            return
        if word.endswith(STEM):
            self._stems.setdefault(skeleton, word)
            return
        self._words.setdefault(skeleton, word)
        shortened = _RUN.sub(r"\1", skeleton)
        if len(shortened) > 4:  # "ass" is not "as"
            self._shortened.setdefault(shortened, word)

    def first_in(self, text: str) -> str:
        """The first blocked word in `text`, as its list writes it; "" where there is none."""
        seen, letters = self._seen, 0
        tokens = _TOKEN.findall(text.casefold())
        for token in tokens:
            word = seen.get(token)
            if word is None:
                word = self._judge(token)
            if word:
                return word
            letters += len(token) == 1
        return next(filter(None, map(self._judge, _spelled_out(tokens))), "") if letters > 2 else ""

    def _judge(self, token: str) -> str:
        """The listed word that `token` is, or ""; remembered for the next text."""
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        readings = [] if _skeleton(token) in self._allowed else _readings(token)
        found = next(filter(None, map(self._listed, readings)), "")
        self._seen[token] = found
        return found

    def _listed(self, reading: str) -> str:
        if STEM in reading:
            known = (self._words | self._stems).items()
            return next((word for letters, word in known if _fits(letters, reading)), "")
        if word := self._words.get(reading) or self._shortened.get(reading):
            return word
        stems = (self._stems.get(reading[:length]) for length in self._stem_lengths if length <= len(reading))
        return next(filter(None, stems), "")


class WordsByLanguage:
    """Lists some words of which hold for texts of one language.

    What is said for a language goes before what is said for all. Where a text's language cannot be told, words of each
    language count, and a word that is blocked in one is blocked. Most texts hold nothing that any list blocks, and cost
    no more than with one list: only of the others the language is asked.
    """

    def __init__(self, shipped: Iterable[str], listed: Collection[ListedWord]) -> None:
        self._shipped, self._listed = tuple(shipped), listed
        blocked, allowed = self._said({""})
        languages = {each.language for each in listed} - {""}
        special, spared = self._said(languages)
        everything = [*self._shipped, *blocked, *special]
        least_allowed = _without(allowed, special)
        self._any = WordList(everything, least_allowed)
        self._untold = WordList(
            everything, [*least_allowed, *_without(spared, [*special, *_without(blocked, allowed)])]
        )
        self._told_otherwise = WordList([*self._shipped, *blocked], allowed)
        self._told = {LANGUAGES[language]: self._of(language) for language in languages}

    def _said(self, languages: Collection[str]) -> tuple[list[str], list[str]]:
        """The words blocked and those allowed for any of `languages`."""
        words = [each for each in self._listed if each.language in languages]
        return [each.word for each in words if each.is_blocked], [each.word for each in words if not each.is_blocked]

    def _of(self, language: str) -> "WordList":
        blocked, allowed = self._said({""})
        special, spared = self._said({language})
        return WordList([*self._shipped, *blocked, *special], [*_without(allowed, special), *spared])

    def first_in(self, text: str) -> str:
        """The first blocked word in `text`, as its list writes it; "" where there is none."""
        if not self._any.first_in(text):
            return ""
        language = language_of(text[:LANGUAGE_CHARACTERS].split(), script_of(text))
        words = self._told.get(language, self._told_otherwise) if language else self._untold
        return words.first_in(text)


def _without(words: Iterable[str], others: Iterable[str]) -> list[str]:
    """The `words` that are none of `others`, however they are written."""
    left_out = {_skeleton(word.removesuffix(STEM).casefold()) for word in others}
    return [word for word in words if _skeleton(word.removesuffix(STEM).casefold()) not in left_out]


def _readings(token: str) -> Iterator[str]:
    """What a token may be meant to say: as it is, with stretched letters let go, without an Arabic prefix."""
    skeleton = _skeleton(token)
    yield skeleton
    if _RUN.search(skeleton):
        yield _LONG_RUN.sub(r"\1\1", skeleton)
        yield _RUN.sub(r"\1", skeleton)
    for prefix in _ARABIC_PREFIXES:
        if skeleton.startswith(prefix) and len(skeleton) > len(prefix) + 2:
            yield skeleton.removeprefix(prefix)
    if any(map(token.strip("!*|").__contains__, "!*|")):  # signs between words, rather than for letters
        yield from map(_skeleton, filter(None, _SIGNS.split(token)))


def _fits(word: str, masked: str) -> bool:
    """Whether `masked`, such as f*ck, may hide `word`: its first letter and half of all are shown."""
    if len(word) != len(masked) or masked[0] == STEM or 2 * masked.count(STEM) > len(masked):
        return False
    return all(shown in (STEM, letter) for letter, shown in zip(word, masked, strict=True))


def _skeleton(token: str) -> str:
    """Bare letters: no marks, look-alikes as what they look like. A number stays a number."""
    if not token.isascii():
        decomposed = unicodedata.normalize("NFKD", token)
        token = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf", "Lm")).translate(_ARABIC)
    token = token.strip("!*").replace("_", "")
    if not any(map(str.isalpha, token)) and not set(token) & set("@$"):
        return token
    return token.translate(_LOOK_ALIKES)


def _spelled_out(tokens: Sequence[str]) -> Iterator[str]:
    """Words written with something between their letters: `f o o`, `f.o.o`."""
    run = ""
    for token in [*tokens, ""]:
        if len(token) == 1:
            run += token
            continue
        if len(run) > 2:
            yield run
        run = ""
