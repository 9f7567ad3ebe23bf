"""Text preprocessing, versioned: training and serving call the same function, so they cannot drift apart.

The version a classifier was trained with is written in its manifest. A change to `prepare` that alters any output
gets a new number and leaves the old branch in place, so that published versions keep answering as they were tested.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

PREPROCESSING_VERSION = 1

# C0 and C1 controls, DEL and lone surrogates; those Python counts as white space are folded to a blank instead.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_TATWEEL = "\u0640"
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt) without what emoji sequences are joined by:
# soft hyphen, bidirectional controls, zero-width blanks, fillers, interlinear annotations.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u202a-\u202e"
    f"\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\U000e0000\U000e0001{_TATWEEL}]"
)
# Zero-width joiner, emoji variation selector, tags of flag sequences, supplementary variation selectors.
_EMOJI_JOINER = re.compile("[\u200d\ufe0f\U000e0002-\U000e0fff]")
# Every emoji holds at least one of these; Arabic, Cyrillic or CJK text without any skips the look-up.
_MAYBE_EMOJI = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001fbff]")


# Where a text may be cut without cutting an emoji: before what is no joiner, selector, keycap, flag letter or tag, and
# does not follow a joiner. Each piece is `_PIECE` to twice as many characters long, an even number where it has to be
# cut within flags.
_CUT = re.compile("(?<!\u200d)[^\u200d\ufe0f\u20e3\U0001f1e6-\U0001f1ff\U000e0000-\U000e0fff]")
_PIECE = 64


def prepare(text: str, version: int = PREPROCESSING_VERSION) -> str:
    """Return `text` as the models read it. Never fails on a `str`, is idempotent, does not change the case.

    Control and zero-width characters, bidirectional controls and the Arabic tatweel go; white space is folded to
    single blanks; emoji become their English names ("🙂" → "slightly smiling face", skin tones left out); the rest is
    in Unicode normalisation form C. The result may be empty. Raises `ValueError` for an unknown `version`.
    """
    if version != PREPROCESSING_VERSION:
        raise ValueError(f"preprocessing version {version} is unknown; this release knows {PREPROCESSING_VERSION}")
    if text.isascii():
        if text.isprintable() and "  " not in text:
            return text.strip()
        return " ".join(_CONTROL.sub("", text).split())
    return _prepare_unicode(text)


def _prepare_unicode(text: str) -> str:
    """The slow path. Noise goes before and joiners after the emoji, so removing them cannot leave a new emoji."""
    text = _INVISIBLE.sub("", _CONTROL.sub("", text))
    text = _spell_emoji(text)
    text = unicodedata.normalize("NFC", _EMOJI_JOINER.sub("", text))
    text = _spell_emoji(text)
    return " ".join(text.split())


def _spell_emoji(text: str) -> str:
    """Replace every emoji with its English name between blanks, piece by piece: what joins thousands of emoji would
    cost the package time in the square of their number, seconds for the longest text that is accepted.
    """
    if not _MAYBE_EMOJI.search(text):
        return text
    text, spell = _SKIN_TONE.sub("", text), _emoji_package().replace_emoji
    return "".join([spell(piece, replace=_emoji_name) for piece in _pieces(text)])


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + _PIECE, start + 2 * _PIECE)
        end = cut.start() if cut else start + 2 * _PIECE
        yield text[start:end]
        start = end


def _emoji_name(_characters: str, data: dict[str, Any]) -> str:
    """`{"en": ":red_heart:", …}` → ` red heart `."""
    name: str = data["en"]
    return " " + name.strip(":").replace("_", " ") + " "


@cache
def _emoji_package() -> Any:
    """The emoji table takes some 20 ms to load, which plain text need not pay for."""
    import emoji

    return emoji
