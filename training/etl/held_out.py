"""No text that models are measured on, nor one that is nearly the same, is learnt from. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from training.etl import Dropped, Fields, Record, Step
from training.etl.near_duplicates import Text
from training.etl.sketches import is_short, keys_of


class HeldOut:
    """The golden set as texts to look for: `items` are (item id, skeletons of its fields)."""

    def __init__(self, items: Iterable[tuple[int, Fields]]) -> None:
        listed = sorted(items)
        self._texts = [Text(fields) for _, fields in listed]
        self._ids = [item_id for item_id, _ in listed]
        self._places: defaultdict[object, list[int]] = defaultdict(list)
        for place, keys in enumerate(keys_of([text.fields for text in self._texts], salt=0)):
            joined = " ".join(self._texts[place].fields)
            for key in {*keys, *(half for more in (-1, 0, 1) for half in _halves(joined, more))}:
                self._places[key].append(place)

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, texts: Sequence[Fields]) -> list[int | None]:
        """For each text, given as skeletons, the item that it is a copy of.

        A copy is equal but for case, punctuation and the like, resembles it (`training.etl.sketches`), or differs by
        one word; a short text has to be equal.
        """
        if not self._texts:
            return [None] * len(texts)
        return [self._copied(fields, keys) for fields, keys in zip(texts, keys_of(texts, salt=0), strict=True)]

    def _copied(self, fields: Fields, keys: Sequence[int]) -> int | None:
        places = {place for key in keys for place in self._places.get(key, ())}
        places.update(place for half in _halves(" ".join(fields)) for place in self._places.get(half, ()))
        text = Text(fields)
        copies = (place for place in sorted(places) if _is_copy(text, self._texts[place]))
        return next((self._ids[place] for place in copies), None)


def drop_held_out(records: Sequence[Record], held_out: HeldOut) -> Step:
    """Drop records that copy a text of the golden set, however they are labelled."""
    kept, dropped = [], []
    for record, item_id in zip(records, held_out.find([record.skeletons for record in records]), strict=True):
        if item_id is None:
            kept.append(record)
        else:
            dropped.append(Dropped(record, "held_out", copy_reason(item_id)))
    return Step(kept, dropped)


def copy_reason(item_id: int) -> str:
    return f"A copy of the held-out text of item {item_id}, which versions are measured on."


def _is_copy(text: Text, held: Text) -> bool:
    if text.resembles(held):
        return True
    differing = [pair for pair in zip(text.fields, held.fields, strict=True) if pair[0] != pair[1]]
    return len(differing) == 1 and not any(map(is_short, differing[0])) and _is_one_word_apart(*differing[0])


def _is_one_word_apart(one: str, other: str) -> bool:
    """One word was changed, added or left out."""
    short, long = sorted((one.split(), other.split()), key=len)
    if len(long) - len(short) > 1:
        return False
    start = 0
    while start < len(short) and short[start] == long[start]:
        start += 1
    return short[start + len(short) + 1 - len(long) :] == long[start + 1 :]


def _halves(text: str, more: int = 0) -> list[tuple[bool, int, str]]:
    """First and last half of the words: a text that is one word apart has the one or the other as well.

    Of a held text also those that one with so many words `more` would have. Short texts have to be equal anyway.
    """
    if is_short(text):
        return []
    words = text.split()
    half = (len(words) + more) // 2
    first, last = " ".join(words[:half]), " ".join(words[len(words) - half :])
    return [(True, len(words) + more, first), (False, len(words) + more, last)]
