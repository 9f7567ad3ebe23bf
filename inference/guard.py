"""Anomaly rules over a question and its answer: what a person should look at twice. Pure, and linear in the text.

Rules never change an answer; they flag it. Their thresholds were set by reading, not by training, and err on the side
of silence: an ordinary short message gets no flag.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

FLAGS = (
    "low_confidence",
    "suspicious_tokens",
    "long_prompt",
    "emoji_only",
    "non_text",
    "unknown_language",
    "sarcasm",
    "repetition",
)

KNOWN_SCRIPTS = frozenset({"LATIN", "ARABIC"})
LETTERS_TO_JUDGE = 5
CHARACTER_RUN = 12
WORDS_TO_JUDGE = 8
SHARE_OF_ONE_WORD = 0.6

# Attempts to speak to the machine instead of with it: mark-up and script, template and look-up expressions, database
# commands, a model's own control tokens, and the customary opening of a prompt injection.
_SUSPICIOUS = re.compile(
    r"<\s{0,3}/?\s{0,3}(?:script|iframe|img|svg|object|embed|style)\b|javascript:|\bon(?:error|load)\s{0,3}="
    r"|\$\{|\{\{|\{%|<\?php"
    r"|\b(?:drop|truncate)\s{1,3}table\b|\bunion\s{1,3}(?:all\s{1,3})?select\b|'\s{0,3}or\s{0,3}'?1'?\s{0,3}="
    r"|<\|[a-z_]{1,30}\|>|\[(?:CLS|SEP|MASK|PAD|UNK|INST)\]|</?s>"
    r"|\b(?:ignore|disregard|forget)\s{1,3}(?:(?:all|any|of|the|these|your|my)\s{1,3}){0,4}"
    r"(?:(?:previous|prior|above|earlier|preceding|system)\s{1,3}(?:instructions?|rules?|prompts?)|instructions?)\b"
    r"|\bsystem\s{1,3}prompt\b",
    re.IGNORECASE,
)
# One of these, in small letters, is in every ASCII text that the rule matches. To look for them takes a twentieth of
# the rule's time, and is all that nearly every text takes.
_TELLTALE = ("<", "{", "[", "=", "javascript:", "table", "select", "instruction", "rule", "prompt")
# Bidirectional overrides show another text than the one that is read; tag characters show none at all.
_HIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0020-\U000e007e]")
_FLAG_OF_A_REGION = "\U0001f3f4"  # the one emoji that is spelled with tag characters
_THREE = re.compile(r"(.)\1\1", re.DOTALL)
_RUN = re.compile(rf"([^\s\-=_*#.~])\1{{{CHARACTER_RUN - 1}}}")  # rules and leaders are drawn with the ones left out
_EMOJI = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001fbff]")


def flags_of(text: str, *, abstained: bool, truncated: bool, earned: Collection[str] = ()) -> list[str]:
    """The flags of one answered text, in the order of `FLAGS`. `text` is all input fields, one per line.

    `earned` are those that the models gave it, such as `sarcasm`.
    """
    found = {
        "low_confidence": abstained,
        "suspicious_tokens": is_suspicious(text),
        "long_prompt": truncated,
        "repetition": is_repetitive(text),
    } | dict.fromkeys(earned, True)
    if not any(map(str.isalpha, text)):
        emoji = bool(_EMOJI.search(text)) and not any(map(str.isdigit, text))
        found |= {"emoji_only": emoji, "non_text": not emoji}
    else:
        found["unknown_language"] = not text.isascii() and is_unknown_script(text)
    return [flag for flag in FLAGS if found.get(flag)]


def is_suspicious(text: str) -> bool:
    if text.isascii():
        small = text.lower()
        for sign in _TELLTALE:  # a loop: `any` and its generator take nearly as long again
            if sign in small:
                return bool(_SUSPICIOUS.search(text))
        return False
    return bool(_SUSPICIOUS.search(text) or (_HIDDEN.search(text) and _FLAG_OF_A_REGION not in text))


def is_repetitive(text: str) -> bool:
    """One character many times in a row, or one word making up most of a longer text."""
    if _may_hold_a_run(text) and _RUN.search(text):
        return True
    words = text.casefold().split()
    enough = SHARE_OF_ONE_WORD * len(words)
    if len(words) < WORDS_TO_JUDGE or len(words) - len(set(words)) + 1 < enough:  # even if one made up all repetitions
        return False
    return Counter(words).most_common(1)[0][1] >= enough


def _may_hold_a_run(text: str) -> bool:
    """Whether three in a row are equal of those that stand a third of a run apart, as they are in every run."""
    return bool(_THREE.search(text[:: CHARACTER_RUN // 3]))


def is_unknown_script(text: str) -> bool:
    """Most letters belong to a script that no shipped base model or sample set reads."""
    letters = [character for character in text if character.isalpha()]
    if len(letters) < LETTERS_TO_JUDGE:
        return False
    known = sum(unicodedata.name(letter, "").partition(" ")[0] in KNOWN_SCRIPTS for letter in letters)
    return known * 2 < len(letters)
