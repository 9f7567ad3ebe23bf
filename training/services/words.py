"""The word lists in force: what is shipped, what staff added, what they allow."""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import Q

from kalimtak.core import audit
from kalimtak.core.errors import InvalidInput
from registry.models import Classifier
from training.etl.content import WordList, shipped_lines, shipped_words, word_problem
from training.models import BlockedWord

Effect = BlockedWord.Effect
MOST_WORDS = 20_000  # rows, so that lists stay in memory


def words_in_force(classifier: Classifier) -> WordList:
    """The lists for texts of `classifier`; where staff changed nothing, the shipped ones."""
    rows = list(BlockedWord.objects.filter(Q(classifier=None) | Q(classifier=classifier)).values_list("word", "effect"))
    if not rows:
        return shipped_words()
    blocked = [word for word, effect in rows if effect == Effect.BLOCK]
    return WordList([*shipped_lines(), *blocked], [word for word, effect in rows if effect == Effect.ALLOW])


def words_add(words: Sequence[str], *, effect: str, classifier: Classifier | None, actor: str) -> int:
    """Block or allow `words` for one classifier or for all (None); how many rows are new or changed.

    A word that is listed already gets the new effect. Raises `InvalidInput` for a word that cannot be listed, and
    nothing is changed.
    """
    if effect not in Effect.values:
        raise InvalidInput(f"Use one of {', '.join(Effect.values)}.", fields={"effect": ["Not an effect."]})
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
                word=word, classifier=classifier, defaults={"effect": effect, "added_by": actor}
            )
            if not is_new and row.effect != effect:
                row.effect, row.added_by = effect, actor
                row.save(update_fields=["effect", "added_by"])
            elif not is_new:
                continue
            changed += 1
        target = classifier.slug if classifier else "all classifiers"
        audit.record(actor, f"words.{effect}", target, words=len(wanted), first=wanted[0])
    return changed


def word_remove(row: BlockedWord, *, actor: str) -> None:
    """Take a word of our own off the lists; a shipped one that it allowed is blocked again."""
    with transaction.atomic():
        row.delete()
        target = row.classifier.slug if row.classifier else "all classifiers"
        audit.record(actor, "words.remove", target, word=row.word, effect=row.effect)
