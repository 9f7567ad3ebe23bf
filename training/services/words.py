"""The word lists in force: what is shipped, what staff added, what they allow."""

from collections.abc import Sequence
from typing import NamedTuple

from django.db import transaction
from django.db.models import Q

from kalimtak.core import audit
from kalimtak.core.errors import InvalidInput
from registry.models import Classifier
from training.etl.content import (
    ListedWord,
    WordList,
    Words,
    WordsByLanguage,
    shipped_lines,
    shipped_list,
    shipped_words,
    word_problem,
)
from training.models import BlockedWord

Effect = BlockedWord.Effect
MOST_WORDS = 20_000  # rows, so that lists stay in memory


def words_in_force(classifier: Classifier) -> Words:
    """The lists for texts of `classifier`; where staff changed nothing, the shipped ones."""
    rows = BlockedWord.objects.filter(Q(classifier=None) | Q(classifier=classifier))
    listed = [
        ListedWord(word, effect == Effect.BLOCK, language)
        for word, effect, language in rows.values_list("word", "effect", "language")
    ]
    if not listed:
        return shipped_words()
    if any(each.language for each in listed):
        return WordsByLanguage(shipped_lines(), listed)
    blocked = [each.word for each in listed if each.is_blocked]
    return WordList([*shipped_lines(), *blocked], [each.word for each in listed if not each.is_blocked])


def words_add(
    words: Sequence[str], *, effect: str, classifier: Classifier | None, actor: str, language: str = ""
) -> int:
    """Block or allow `words` for one classifier or for all (None); how many rows are new or changed.

    They hold for texts of one `language` (`BlockedWord.Language`), or of every one (""). A word that is listed already
    gets the new effect. Raises `InvalidInput` for a word, an effect or a language that cannot be listed, and then
    nothing is changed.
    """
    if effect not in Effect.values:
        raise InvalidInput(f"Use one of {', '.join(Effect.values)}.", fields={"effect": ["Not an effect."]})
    if language not in ("", *BlockedWord.Language.values):
        message = f"Use one of {', '.join(BlockedWord.Language.values)}."
        raise InvalidInput(message, fields={"language": ["Not a language that has a list."]})
    wanted = list(dict.fromkeys(word.strip().casefold() for word in words if word.strip()))
    if not wanted:
        raise InvalidInput("Name a word.", fields={"words": ["Name a word."]})
    most = BlockedWord._meta.get_field("word").max_length or 0
    for word in wanted:
        if problem := f"At most {most} characters." if len(word) > most else word_problem(word):
            raise InvalidInput(f"{word[:60]!r}: {problem}", fields={"words": [problem]})
    with transaction.atomic():
        if BlockedWord.objects.count() + len(wanted) > MOST_WORDS:
            raise InvalidInput(f"The lists hold at most {MOST_WORDS:,} words of your own; remove some.")
        changed = 0
        for word in wanted:
            row, is_new = BlockedWord.objects.get_or_create(
                word=word,
                language=language,
                classifier=classifier,
                defaults={"effect": effect, "added_by": actor},
            )
            if not is_new and row.effect != effect:
                row.effect, row.added_by = effect, actor
                row.save(update_fields=["effect", "added_by"])
            elif not is_new:
                continue
            changed += 1
        target = classifier.slug if classifier else "all classifiers"
        audit.record(actor, f"words.{effect}", target, words=len(wanted), first=wanted[0], language=language)
    return changed


def word_remove(row: BlockedWord, *, actor: str) -> None:
    """Take a word of our own off the lists; a shipped one that it allowed is blocked again."""
    with transaction.atomic():
        row.delete()
        target = row.classifier.slug if row.classifier else "all classifiers"
        audit.record(actor, "words.remove", target, word=row.word, effect=row.effect, language=row.language)


class ShippedList(NamedTuple):
    """The words that come with Kalimtak for a language, each with whether staff allow it everywhere."""

    language: str
    title: str
    words: list[tuple[str, bool]]


def shipped_lists(*, language: str = "", search: str = "") -> list[ShippedList]:
    """The shipped words by language; of one `language`, or those that hold the letters of `search`, where given."""
    rows = BlockedWord.objects.filter(effect=Effect.ALLOW, classifier=None, language="")
    allowed, letters = set(rows.values_list("word", flat=True)), search.strip().casefold()
    lists = []
    for code, title in BlockedWord.Language.choices:
        words = [(word, word in allowed) for word in shipped_list(code) if letters in word]
        if language in ("", code) and words:
            lists.append(ShippedList(code, str(title), words))
    return lists
