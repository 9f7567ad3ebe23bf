"""Words that say what a number beside them is. Pure."""

import re
from bisect import bisect_left, bisect_right
from functools import cached_property


class Words:
    """Where `pattern` matches in `text`, looked up once and when first asked for: asking at many places stays linear.

    `before` and `after` are how many characters a word may stand off: the gap between the nearer ends.
    """

    def __init__(self, pattern: re.Pattern[str], text: str, *, before: int, after: int) -> None:
        self.pattern, self.text, self.before, self.after = pattern, text, before, after

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        return [match.span() for match in self.pattern.finditer(self.text)]

    @cached_property
    def starts(self) -> list[int]:
        return [start for start, _ in self.spans]

    @cached_property
    def ends(self) -> list[int]:
        return [end for _, end in self.spans]

    def beside(self, match: re.Match[str]) -> bool:
        """Whether a word ends shortly before `match` begins, or begins shortly after its end."""
        return self._before(match.start()) or self._after(match.end())

    def _before(self, place: int) -> bool:
        index = bisect_right(self.ends, place)
        return index > 0 and self.ends[index - 1] >= place - self.before

    def _after(self, place: int) -> bool:
        index = bisect_left(self.starts, place)
        return index < len(self.starts) and self.starts[index] < place + self.after
