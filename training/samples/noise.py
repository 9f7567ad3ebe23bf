"""How people type: casing, punctuation, contractions, chat spelling and slips of the finger."""

import re
from collections.abc import Callable
from random import Random

_SHORTHAND = {
    "you": "u",
    "are": "r",
    "your": "ur",
    "because": "cos",
    "please": "pls",
    "people": "ppl",
    "right now": "rn",
    "thanks": "thx",
    "going to": "gonna",
    "want to": "wanna",
    "oh my god": "omg",
    "really": "rly",
    "tomorrow": "tmrw",
    "tonight": "tonite",
    "and": "n",
    "with": "w",
    "to be honest": "tbh",
    "i do not know": "idk",
}
_SHORTHAND_PATTERN = re.compile(r"\b(" + "|".join(map(re.escape, _SHORTHAND)) + r")\b")
_STRETCHED = re.compile(r"\b(so|no|yes|please|really|hey|wow|ugh|yay|love|hi|ew|why|bye)\b", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(^|[.!?…]\s+)([a-z])")
_QUESTION = re.compile(
    r"(?:^|[.,:!?]\s+)(?:(?:and|so|but)\s+)?"
    r"(?:who|whose|what(?! an?\b)|when|where|why|how(?! lovely| nice)|which|since when"
    r"|can|could|may|do(?! us| yourself)|does|did|is|are|was|were|will|would|has|have(?! an?\b)|should)\b[^.,!?]*$",
    re.IGNORECASE,
)
_LONE_I = re.compile(r"\bi(?=\b(?!\.e))")


def typed(text: str, rng: Random) -> str:
    """`text` (lower case but for names) as one writer might type it; the words stay, the surface varies."""
    (style,) = rng.choices(_STYLES, cum_weights=_STYLE_WEIGHTS)
    return style(text, rng)


def sentence_case(text: str) -> str:
    """First letters of sentences and the pronoun "I" in capitals."""
    text = _LONE_I.sub("I", text)
    return _SENTENCE_START.sub(lambda found: found[1] + found[2].upper(), text)


def _careful(text: str, rng: Random) -> str:
    text = sentence_case(text)
    return text if not text[-1].isalnum() else text + (_asked(text, rng, 0.9) or rng.choice((".", ".", ".", "", "!")))


def _plain(text: str, rng: Random) -> str:
    text = sentence_case(text).rstrip(".")
    return text + _asked(text, rng, 0.6)


def _lower(text: str, rng: Random) -> str:
    text = text.lower().rstrip(".")
    text += _asked(text, rng, 0.3)
    return text.replace("'", "") if rng.random() < 0.4 else text


def _chatty(text: str, rng: Random) -> str:
    text = text.lower().rstrip(".")
    text = _SHORTHAND_PATTERN.sub(lambda found: _SHORTHAND[found[1]] if rng.random() < 0.5 else found[1], text)
    text = _STRETCHED.sub(lambda found: found[1] + found[1][-1] * rng.randint(0, 3), text)
    return text + (_asked(text, rng, 0.5) or rng.choice(("", "", "", "!!", "...", "!")))


def _hasty(text: str, rng: Random) -> str:
    return slip(_plain(text, rng), rng)


def _shouted(text: str, rng: Random) -> str:
    return text.upper().rstrip(".") + rng.choice(("", "!", "!!!"))


def _asked(text: str, rng: Random, probability: float) -> str:
    """A question mark, as often as `probability` says, if `text` ends in what looks like a question."""
    return "?" if _QUESTION.search(text) and rng.random() < probability else ""


def slip(text: str, rng: Random) -> str:
    """One slip of the finger in one longer word: two letters swapped, one dropped, or one doubled."""
    words = text.split(" ")
    long_words = [index for index, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long_words:
        return text
    index = rng.choice(long_words)
    word = words[index]
    at = rng.randrange(1, len(word) - 2)
    words[index] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[: at + 1] + word[at:],
        )
    )
    return " ".join(words)


_STYLES: tuple[Callable[[str, Random], str], ...] = (_careful, _plain, _lower, _chatty, _hasty, _shouted)
_STYLE_WEIGHTS = (34, 58, 82, 92, 98, 100)
