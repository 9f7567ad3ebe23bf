"""What a text is written in. Pure."""

import unicodedata
from collections import Counter
from functools import lru_cache

CHARACTERS_READ = 200


def script_of(text: str) -> str:
    """The script that most letters of a text's beginning are of, as Unicode names it: `Latin`, `Arabic`, `CJK`.

    Empty where there is no letter.
    """
    counts = Counter(map(_script_of, text[:CHARACTERS_READ]))
    counts.pop("", None)
    return max(counts, key=counts.__getitem__) if counts else ""


@lru_cache(maxsize=20_000)
def _script_of(character: str) -> str:
    """The first word of a letter's name, of its plain form: there are full-width and mathematical Latin letters.

    Combining marks and digits go with no script.
    """
    if not character.isalpha():
        return ""
    plain = unicodedata.normalize("NFKC", character)[0]
    name = unicodedata.name(plain, "").partition(" ")[0].partition("-")[0]
    return name if name == "CJK" else name.capitalize()
