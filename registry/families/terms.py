"""The terms of a text as scikit-learn's vectorisers find them, without loading it: a second and more for each process.

`options` are those of a block in `features.json`; the test holds this against scikit-learn, term for term.
"""

import re
from collections.abc import Callable
from typing import Any

Terms = Callable[[str], list[str]]


def terms_of(options: dict[str, Any]) -> Terms:
    """What finds the terms of a text, in their order and as often as they occur."""
    shortest, longest = options["ngram_range"]
    if options["analyzer"] == "word":
        words = re.compile(options["token_pattern"]).findall
        return lambda text: _phrases(words(text.lower()), shortest, longest)
    return lambda text: _parts(text.lower().split(), shortest, longest)


def _phrases(words: list[str], shortest: int, longest: int) -> list[str]:
    """All single words, then all pairs, and so on: `shortest` to `longest` words with a blank between them."""
    found = list(words) if shortest == 1 else []
    for size in range(max(shortest, 2), min(longest, len(words)) + 1):
        found += [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]
    return found


def _parts(words: list[str], shortest: int, longest: int) -> list[str]:
    """`shortest` to `longest` characters of each word with a blank on both sides; once all of it where it is short."""
    found: list[str] = []
    for word in words:
        padded = f" {word} "
        for size in range(shortest, longest + 1):
            if size >= len(padded):
                found.append(padded)
                break
            found += [padded[start : start + size] for start in range(len(padded) - size + 1)]
    return found
