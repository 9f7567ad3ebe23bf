"""A small context-free grammar with weights: rules in, sentences out.

The rules of a classifier stand in ``rules/<slug>.rules``::

    # a comment
    @any                                        rules that every label shares
    start: {who} lost {what} *3 | {what} is gone    *3: three times as likely as its neighbours
    who: my [elder|younger|] sister | the neighbour    [a|b|]: an inline choice, here with nothing as one option
    what:
        a key | a hat
        an umbrella
    @sadness                                    rules of one label; they take the place of shared ones

Alternatives are separated by ``|`` or stand on lines of their own; a line break inside brackets is a blank, ``[]`` is
nothing. ``{name}`` stands for a rule, or for words that the caller binds for one sentence (`bound`), so that "she" and
"her" of one text agree.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

_PIECE = re.compile(r"[\[\]|\n]|\{[^{}]*\}|[^\[\]|\n{}]+")
_WEIGHT = re.compile(r"\s+\*(\d+)\s*$")
_STRAY_WEIGHT = re.compile(r"\s\*\d")
_HEADER = re.compile(r"(\w[\w ]*):(.*)")
_ARTICLE = re.compile(r"\ba (?=[aeiou](?!ne\b|nce\b|ni|se|ro))")


class GrammarError(ValueError):
    """A rule that cannot be read, or a name that no rule and no binding defines."""


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """`cards` holds the index of each option as many times as the option weighs."""

    options: tuple["_Sequence", ...]
    cards: tuple[int, ...]


_Sequence = tuple["str | _Slot | _Choice", ...]


class Dealer(Random):
    """Random numbers, and alternatives dealt like cards.

    Every alternative of a choice comes up, as often as it weighs, before any comes up once more. A small sample so
    shows far more of a grammar than independent draws would.
    """

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self._decks: dict[_Choice, list[int]] = {}

    def deal(self, choice: _Choice) -> "_Sequence":
        deck = self._decks.get(choice)
        if not deck:
            deck = self._decks[choice] = list(choice.cards)
            self.shuffle(deck)
        return choice.options[deck.pop()]


class Grammar:
    """Rules by name. `bound` lists the names that each call of `expand` will bind itself."""

    def __init__(self, rules: Mapping[str, str], *, bound: Sequence[str] = ()) -> None:
        self._rules = {name: _parse(name, text) for name, text in rules.items()}
        known = self._rules.keys() | set(bound)
        for name, choice in self._rules.items():
            for missing in sorted(_slots(choice) - known):
                raise GrammarError(f"rule {name!r} uses {{{missing}}}, which nothing defines")

    def expand(self, name: str, dealer: Dealer, bindings: Mapping[str, str] | None = None) -> str:
        """One sentence from rule `name`, blanks folded and "a" before a vowel turned into "an"."""
        parts: list[str] = []
        self._write(_Slot(name), dealer, bindings or {}, parts)
        text = re.sub(r"\s+", " ", "".join(parts)).strip()
        text = re.sub(r" ([,.!?;:])(?=\s|$)", r"\1", text)
        return _ARTICLE.sub("an ", text)

    def _write(
        self, node: "str | _Slot | _Choice", dealer: Dealer, bindings: Mapping[str, str], parts: list[str]
    ) -> None:
        if isinstance(node, str):
            parts.append(node)
        elif isinstance(node, _Slot):
            if node.name in bindings:
                parts.append(bindings[node.name])
            else:
                self._write(self._rules[node.name], dealer, bindings, parts)
        else:
            for child in dealer.deal(node):
                self._write(child, dealer, bindings, parts)


def read_grammars(path: Path, labels: Sequence[str], *, bound: Sequence[str] = ()) -> dict[str, Grammar]:
    """The rules file `path` as one grammar per label: the rules under ``@any`` and the label's own."""
    scopes: dict[str, dict[str, str]] = {"any": {}}
    rules, rule = scopes["any"], ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("@"):
            rules, rule = scopes.setdefault(line[1:].strip(), {}), ""
        elif line[0].isspace() and rule:
            rules[rule] += f"\n{line.strip()}"
        elif header := _HEADER.match(line):
            rule = header[1]
            if rule in rules:
                raise GrammarError(f"{path.name}:{number}: {rule!r} is defined twice")
            rules[rule] = header[2]
        else:
            raise GrammarError(f"{path.name}:{number}: neither a rule nor the continuation of one")
    if unknown := scopes.keys() - {"any", *labels}:
        raise GrammarError(f"{path.name}: no such label: {', '.join(sorted(unknown))}")
    return {label: Grammar(scopes["any"] | scopes.get(label, {}), bound=bound) for label in labels}


def _parse(name: str, text: str) -> _Choice:
    """The rule `name` as a tree. Blank lines and an empty alternative between two lines count for nothing."""
    pieces = _PIECE.findall(text)
    if "".join(pieces) != text:
        raise GrammarError(f"rule {name!r} has a brace without its partner")
    choice, position = _parse_choice(name, pieces, 0, inline=False)
    if position != len(pieces):
        raise GrammarError(f"rule {name!r} has a closing bracket without its partner")
    return choice


def _parse_choice(name: str, pieces: Sequence[str], position: int, *, inline: bool) -> tuple[_Choice, int]:
    """Read alternatives up to the closing bracket (inline) or the end; returns the choice and where it stopped."""
    options: list[list[str | _Slot | _Choice]] = [[]]
    while position < len(pieces) and pieces[position] != "]":
        piece = pieces[position]
        position += 1
        if piece == "|" or (piece == "\n" and not inline):
            options.append([])
        elif piece == "[":
            nested, position = _parse_choice(name, pieces, position, inline=True)
            options[-1].append(nested)
            position += 1
        elif piece.startswith("{"):
            options[-1].append(_Slot(piece[1:-1]))
        else:
            options[-1].append(" " if piece == "\n" else piece)
    if inline and position == len(pieces):
        raise GrammarError(f"rule {name!r} has an opening bracket without its partner")
    kept = options if inline else [_stripped(option) for option in options if _visible(option)]
    if not kept:
        raise GrammarError(f"rule {name!r} has no alternative")
    weighed = [_weigh(option) for option in kept]
    cards = tuple(index for index, (_, weight) in enumerate(weighed) for _ in range(weight))
    return _Choice(tuple(sequence for sequence, _ in weighed), cards), position


def _visible(option: Sequence[str | _Slot | _Choice]) -> bool:
    return any(not isinstance(node, str) or node.strip() for node in option)


def _stripped(option: list[str | _Slot | _Choice]) -> list[str | _Slot | _Choice]:
    """The alternative without the blanks that set it off from its separators."""
    if isinstance(option[0], str):
        option[0] = option[0].lstrip()
    if isinstance(option[-1], str):
        option[-1] = option[-1].rstrip()
    return option


def _weigh(option: Sequence[str | _Slot | _Choice]) -> tuple[_Sequence, int]:
    """Take the weight (" *3" at the end) off an alternative."""
    if option and isinstance(option[-1], str) and (found := _WEIGHT.search(option[-1])):
        option, weight = (*option[:-1], option[-1][: found.start()]), int(found[1])
    else:
        weight = 1
    if any(isinstance(node, str) and _STRAY_WEIGHT.search(node) for node in option):
        raise GrammarError(f"a weight stands inside an alternative: {option!r}")
    return tuple(option), weight


def _slots(choice: _Choice) -> set[str]:
    names: set[str] = set()
    for sequence in choice.options:
        for node in sequence:
            if isinstance(node, _Slot):
                names.add(node.name)
            elif isinstance(node, _Choice):
                names |= _slots(node)
    return names
