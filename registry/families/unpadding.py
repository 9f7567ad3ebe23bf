"""A graph that takes each token by itself wherever attention does not look at others, and pads for attention alone.

Texts that share a pass are padded to the longest. What is done token by token (products with weights, norms, activation
functions) can leave the rows of padding out (Effective Transformer, ByteDance 2020; ByteTransformer, Zhai et al., IPDPS
2023). Going from rows to padded heads and back costs next to nothing, since one `Gather` of a head's numbers does that
and the transposition that stands there anyway. Texts of 14 to 22 tokens, eight in a pass, take 0.9 of the time that
they take in padded passes of about equal length, and the results are the same to the bit (docs/decisions, 31).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from registry.families.graph_files import drop_unused, session, users_of
from registry.families.onnx_predictor import LEFT_OUT, PADDING, padded
from registry.families.tokenisation import Tokens

logger = logging.getLogger(__name__)

MASK = "attention_mask"
TOLERANCE = 1e-4  # of a logit
# Of the pass that tells which results have a place for each token. Heads, widths and labels are hardly 3 by 7.
_LENGTHS = (7, 5, 2)
_PLACES = len(_LENGTHS), max(_LENGTHS)
_TOKEN_BY_TOKEN = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Cast", "LayerNormalization", "QuantizeLinear"),
    *("Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "MatMul", "MatMulIntegerToFloat"),
}
_HEADS_FIRST, _KEYS_FIRST = [0, 2, 1, 3], [0, 2, 3, 1]  # of (texts, length, heads, size)

Shapes = dict[str, tuple[int, ...]]


class _NotKnown(Exception):
    """A step that might look at other tokens."""


def without_padding(model: onnx.ModelProto, texts: Sequence[Tokens]) -> onnx.ModelProto:
    """The same classifier with padding left out, or `model` where it has steps that are not known or answers otherwise.

    Takes padding on the right alone, as `onnx_predictor.padded` makes it, and a token in every text.
    """
    feeds = {name: array for name, array in _probe(texts).items() if name in {each.name for each in model.graph.input}}
    if MASK not in feeds:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    try:
        _Unpadding(changed.graph, _shapes(model, feeds)).run()
        before, after = (session(each).run(None, feeds)[0] for each in (model, changed))
    except _NotKnown:
        return model
    except Exception as error:  # whatever onnxruntime makes of it: the graph served as it is before
        logger.warning("Padding is not left out, since the graph cannot be run without it: %s", error)
        return model
    if before.shape != after.shape or not np.allclose(before, after, rtol=0, atol=TOLERANCE):
        return model
    said = changed.metadata_props.add()
    said.key, said.value = PADDING, LEFT_OUT
    return changed


def _probe(texts: Sequence[Tokens]) -> dict[str, NDArray[np.int64]]:
    """Pieces of `texts`, of `_LENGTHS`."""
    ids = np.resize(np.concatenate([text.ids for text in texts]), sum(_LENGTHS))
    pieces = np.split(ids, np.cumsum(_LENGTHS)[:-1])
    return padded([Tokens(each, np.zeros_like(each), truncated=False) for each in pieces])


def _shapes(model: onnx.ModelProto, feeds: Mapping[str, NDArray[np.int64]]) -> Shapes:
    """Of every result."""
    told = {each.name for each in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in told]
    results = session(model, names).run(names, dict(feeds))
    return {name: result.shape for name, result in zip(names, results, strict=True)}


class _Unpadding:
    """Rewrites a graph, node by node in their order. Its "rows" are results (tokens, …) without padding."""

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes) -> None:
        self._graph, self._shapes = graph, shapes
        self._constants = {each.name: each for each in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._users = users_of(graph)
        self._rows: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._made: set[str] = set()  # what the new nodes give

    def run(self) -> None:
        """Raises `_NotKnown`, with the graph half done."""
        entry = self._entry()
        old = list(self._graph.node)
        self._index()
        for node in old:
            self._take(node)
            if entry in node.output:
                self._pack(entry)
        results = {each.name for each in self._graph.output}
        if results & self._rows:
            raise _NotKnown("a result for each token")
        del self._graph.node[:]
        self._graph.node.extend(_needed(self._nodes, results))
        drop_unused(self._graph)

    def _entry(self) -> str:
        """What the first product of tokens is made from, before it is smoothed and rounded."""
        for node in self._graph.node:
            name = node.input[0] if self._is_product(node) else ""
            while (maker := self._makers.get(name)) and (
                maker.op_type == "QuantizeLinear" or (maker.op_type == "Mul" and maker.input[1] in self._constants)
            ):
                name = maker.input[0]
            if name in self._makers and self._has_places(name):
                return name
        raise _NotKnown("no product of tokens")

    def _is_product(self, node: onnx.NodeProto) -> bool:
        return node.op_type in ("MatMul", "MatMulIntegerToFloat") and node.input[1] in self._constants

    def _has_places(self, name: str) -> bool:
        shape = self._shapes.get(name, ())
        return len(shape) == 3 and shape[:2] == _PLACES

    # Node by node

    def _take(self, node: onnx.NodeProto) -> None:
        """Add what `node` becomes."""
        if node.output[0] in self._made or (self._has_places(node.output[0]) and self._merges(node)):
            return
        if not self._rows.intersection(node.input):
            self._nodes.append(node)
        elif self._goes_by_rows(node):
            self._nodes.append(node)
            self._rows.update(filter(None, node.output))
        elif not (self._splits(node) or self._selects(node)):
            raise _NotKnown(node.op_type)

    def _goes_by_rows(self, node: onnx.NodeProto) -> bool:
        """Whether a row of the result needs the same row of what comes in, and constants that all rows share."""
        others = [name for name in node.input if name and name not in self._rows]
        if node.op_type not in _TOKEN_BY_TOKEN or not all(name in self._constants for name in others):
            return False
        for attribute in node.attribute:
            if attribute.name == "axis" and node.op_type == "LayerNormalization":
                if attribute.i not in (-1, 2):
                    return False
                attribute.i = -1
        weights = {node.input[1]} if self._is_product(node) else set()
        return all(len(self._constants[name].dims) <= (2 if name in weights else 1) for name in others)

    def _pack(self, name: str) -> None:
        """From places to rows."""
        rows = f"{name}_rows"
        self._add("Reshape", [name, self._numbers([-1, self._shapes[name][-1]])], f"{name}_places")
        self._add("Gather", [f"{name}_places", "unpadding_places"], rows)
        self._rows.add(rows)
        for user in self._users[name]:
            for position, each in enumerate(user.input):
                if each == name:
                    user.input[position] = rows

    def _splits(self, node: onnx.NodeProto) -> bool:
        """Rows into padded heads (texts, heads, length, size), or (texts, heads, size, length) for keys."""
        heads = self._shapes.get(node.output[0], ())
        users = self._users.get(node.output[0], [])
        orders = [_attribute(user, "perm") if user.op_type == "Transpose" else None for user in users]
        known = all(order in (_HEADS_FIRST, _KEYS_FIRST) for order in orders)
        if node.op_type != "Reshape" or len(heads) != 4 or heads[:2] != _PLACES or not known:
            return False
        self._add("Reshape", [node.input[0], self._numbers([-1, heads[3]])], f"{node.output[0]}_rows")
        for user, order in zip(users, orders, strict=True):
            target = user.output[0] if order == _HEADS_FIRST else f"{user.output[0]}_heads"
            self._add("Gather", [f"{node.output[0]}_rows", self._split_index(heads[2])], target)
            if order == _KEYS_FIRST:
                self._add("Transpose", [target], user.output[0], perm=[0, 1, 3, 2])
        return True

    def _merges(self, node: onnx.NodeProto) -> bool:
        """Padded heads (texts, heads, length, size) into rows."""
        maker = self._makers.get(node.input[0])
        if node.op_type != "Reshape" or maker is None or maker.op_type != "Transpose" or node.input[0] in self._rows:
            return False
        heads = self._shapes[maker.output[0]]
        if _attribute(maker, "perm") != _HEADS_FIRST or len(heads) != 4 or heads[:2] != _PLACES:
            return False
        flat, gathered = f"{node.output[0]}_heads", f"{node.output[0]}_gathered"
        self._add("Reshape", [maker.input[0], self._numbers([-1, heads[3]])], flat)
        self._add("Gather", [flat, self._merge_index(heads[2])], gathered)
        self._add("Reshape", [gathered, self._numbers([0, -1])], node.output[0])
        self._rows.add(node.output[0])
        return True

    def _selects(self, node: onnx.NodeProto) -> bool:
        """The first token of each text, with or without a dimension of its own."""
        numbers = [self._number(name) for name in node.input[1:]]
        name = node.output[0]
        is_plain = node.op_type == "Gather" and node.input[1] in self._constants
        if is_plain and not self._constants[node.input[1]].dims and _attribute(node, "axis") == 1 and numbers == [0]:
            self._add("Gather", [node.input[0], self._firsts()], name)
        elif node.op_type == "Slice" and numbers in ([0, 1, 1], [0, 1, 1, 1]):  # from, to, axis and perhaps step
            self._add("Gather", [node.input[0], self._firsts()], f"{name}_first")
            self._add("Unsqueeze", [f"{name}_first", self._numbers([1])], name)
        else:
            return False
        return True

    # Which row is whose

    def _index(self) -> None:
        """`unpadding_places` (tokens,): where each token stands; `unpadding_rows` (texts, length): the row of each
        place, in padding that of the token before.
        """
        self._add("Reshape", [MASK, self._numbers([-1])], "unpadding_mask")
        self._add("NonZero", ["unpadding_mask"], "unpadding_found")
        self._add("Reshape", ["unpadding_found", self._numbers([-1])], "unpadding_places")
        self._add("Shape", [MASK], "unpadding_shape")
        self._add("Gather", ["unpadding_shape", self._numbers(1)], "unpadding_length")
        self._add("CumSum", ["unpadding_mask", self._numbers(0)], "unpadding_counted")
        self._add("Sub", ["unpadding_counted", self._numbers(1)], "unpadding_row")
        self._add("Reshape", ["unpadding_row", "unpadding_shape"], "unpadding_rows")

    def _split_index(self, heads: int) -> str:
        """(texts, heads, length): where a head of a place stands among the heads of all rows."""
        name = f"unpadding_split_{heads}"
        if name not in self._made:
            self._add("Unsqueeze", ["unpadding_rows", self._numbers([1])], f"{name}_rows")
            self._add("Mul", [f"{name}_rows", self._numbers(heads)], f"{name}_first")
            self._add("Add", [f"{name}_first", self._numbers(np.arange(heads)[:, np.newaxis])], name)
        return name

    def _merge_index(self, heads: int) -> str:
        """(tokens, heads): where a head of a row stands among those of (texts, heads, length)."""
        name = f"unpadding_merge_{heads}"
        if name not in self._made:
            self._add("Mod", ["unpadding_places", "unpadding_length"], f"{name}_place")
            self._add("Sub", ["unpadding_places", f"{name}_place"], f"{name}_text")
            self._add("Mul", [f"{name}_text", self._numbers(heads)], f"{name}_begin")
            self._add("Add", [f"{name}_begin", f"{name}_place"], f"{name}_first")
            self._add("Unsqueeze", [f"{name}_first", self._numbers([1])], f"{name}_column")
            self._add("Mul", [self._numbers(np.arange(heads)), "unpadding_length"], f"{name}_heads")
            self._add("Add", [f"{name}_column", f"{name}_heads"], name)
        return name

    def _firsts(self) -> str:
        """(texts,): the row of each text's first token."""
        if "unpadding_firsts" not in self._made:
            self._add("Gather", ["unpadding_rows", self._numbers(0)], "unpadding_firsts", axis=1)
        return "unpadding_firsts"

    # Nodes and constants

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"unpadding_{output}", **attributes))
        self._made.add(output)

    def _numbers(self, values: Any) -> str:
        array = np.array(values, np.int64)
        name = "_".join(["unpadding", *map(str, array.shape), "of", *map(str, array.ravel())])
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(array, name)
            self._graph.initializer.append(self._constants[name])
        return name

    def _number(self, name: str) -> int | None:
        """The constant's value where it is one whole number."""
        values = numpy_helper.to_array(self._constants[name]).ravel() if name in self._constants else np.empty(0)
        return int(values[0]) if values.size == 1 and values.dtype.kind == "i" else None


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


def _needed(nodes: Sequence[onnx.NodeProto], results: Iterable[str]) -> list[onnx.NodeProto]:
    """Those that the results are made from, in their order."""
    wanted, kept = set(results), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
