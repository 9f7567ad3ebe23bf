"""What of a text tells it apart: the forms in which texts are compared, never stored or learnt from. Pure.

`mend` repairs what is surely damage and is the one thing here that changes stored text. `comparable` is what the
content hash is taken of; `skeleton` leaves out punctuation as well and is what near-duplicates are found by.
"""

import re
import unicodedata
from functools import cache
from typing import Any

from registry.text import prepare

# Letters that writers of Arabic use for one another (Larkey, Ballesteros and Connell, SIGIR 2002, section 3; the same
# as Lucene's ArabicNormalizer), the Persian kaf and ya of other keyboards, and the two rows of digits.
_ARABIC = str.maketrans(
    {"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ی": "ي", "ة": "ه", "ک": "ك"}
    | {chr(0x0660 + digit): str(digit) for digit in range(10)}
    | {chr(0x06F0 + digit): str(digit) for digit in range(10)}
)
# Vowel signs, the superscript alef, and the marks of Quranic text.
_DIACRITICS = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]+")
# Named one by one: `\W` would take the vowel signs of Indic scripts for punctuation as well.
_PUNCTUATION = re.compile(
    "[!-/:-@\\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4-\u00b8\u00bb\u00bf\u00d7\u00f7"
    "\u0589\u05be\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u303f]+"
)


def mend(text: str) -> str:
    """Undo mojibake, UTF-8 that was read as another encoding ("schÃ¶n" → "schön"), where ftfy is sure of it.

    Whatever else people type stays as it is, since that is what models read.
    """
    if text.isascii():
        return text
    fixed: str = _ftfy().fix_encoding(text)
    return fixed


def comparable(text: str) -> str:
    """Mended, as the models read it (`registry.text.prepare`), in Unicode's NFKC form, case folded, and Arabic with one
    form of alef, ya and ta marbuta, ASCII digits and no vowel signs. May be empty.
    """
    if text.isascii():
        return prepare(text).lower()
    folded = unicodedata.normalize("NFKC", prepare(mend(text))).casefold()
    return " ".join(_DIACRITICS.sub("", folded.translate(_ARABIC)).split())


def skeleton(comparable_text: str) -> str:
    """A comparable text without punctuation and symbols; one that is nothing else stays as it is."""
    return " ".join(_PUNCTUATION.sub(" ", comparable_text).split()) or comparable_text


@cache
def _ftfy() -> Any:
    """Its tables take 50 ms to load, which plain text need not pay for."""
    import ftfy

    return ftfy
