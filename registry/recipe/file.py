"""`models.yaml`: from its text to entries. The text is untrusted: safe constructors, capped size, depth and aliases."""

from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from registry.recipe.checks import Place, RecipeError, describe, read_mapping
from registry.recipe.entry import Entry, parse_entry

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 50_000  # after aliases are expanded, so that a few lines cannot stand for billions
MAX_ENTRIES = 500


def parse_file(source: str, *, where: str) -> list[Entry]:
    """Read the text of a `models.yaml`: a list of entries, or a `models:` key that holds one. Raises `RecipeError`."""
    document = load_yaml(source, where=where)
    if isinstance(document, dict):
        document = read_mapping(document, Place(where), known=("models",)).get("models")
    if not isinstance(document, list) or len(document) > MAX_ENTRIES:
        raise RecipeError(f"{where}: expected a list of up to {MAX_ENTRIES} models, got {describe(document)}")
    entries = [parse_entry(raw, where=f"{where}, entry {number}") for number, raw in enumerate(document, start=1)]
    _refuse_twins(entries, where)
    return entries


def _refuse_twins(entries: list[Entry], where: str) -> None:
    """Names and routes tell classifiers apart, disabled ones too: enabling one must not change what another means."""
    for attribute in ("name", "route"):
        first: dict[str, int] = {}
        for number, entry in enumerate(entries, start=1):
            value = getattr(entry, attribute)
            if value in first:
                raise RecipeError(
                    f"{where}, entry {number} ({entry.name}): {attribute}: {value!r} is entry {first[value]}'s already"
                )
            first[value] = number


def load_yaml(source: str, *, where: str) -> Any:
    """Plain data from YAML text. Raises `RecipeError` with the line for anything malformed, oversized or repeated."""
    if len(source) > MAX_CHARACTERS:
        raise RecipeError(f"{where}: is longer than {MAX_CHARACTERS} characters")
    try:
        _check_size(yaml.parse(source, Loader=yaml.SafeLoader))
        loader = _StrictLoader(source)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    except Exception as error:  # PyYAML's constructors let KeyError, IndexError, AttributeError … out of odd scalars
        raise RecipeError(f"{where}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """One line, with the position where PyYAML knows it."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else f"is not valid YAML: {problem}"


def _check_size(events: Iterator[yaml.Event]) -> None:
    """Count the nodes each alias would expand to, and refuse documents too large or too deep to build."""
    expanded: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, nodes counted before it)
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in expanded:
                raise RecipeError(f"the alias {event.anchor} stands before the end of what it names")
            total += expanded[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                expanded[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                expanded[anchor] = total - before
        if total > MAX_NODES or len(open_nodes) > MAX_DEPTH:
            raise RecipeError(f"holds over {MAX_NODES} values, aliases expanded, or is nested over {MAX_DEPTH} deep")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that occurs twice in one mapping (PyYAML keeps the last)."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen: set[Hashable] = set()
        for name, _value in node.value:
            if isinstance(name, yaml.ScalarNode):
                if (name.tag, name.value) in seen:
                    problem = f"the key {name.value!r} occurs twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=name.start_mark)
                seen.add((name.tag, name.value))
        return node
