"""Padding is left out of graphs of the shapes that people use most, and where it is, no answer changes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry.families import adapters, export, unpadding
from registry.families.onnx_predictor import LEFT_OUT, PADDING, Graph, padded
from registry.families.quantisation import quantise
from registry.families.tokenisation import Tokens
from registry.families.unpadding import without_padding
from tests.registry.families.shapes import POSITIONS, SHAPES
from tests.registry.families.test_shapes import Adapted

KNOWN = ("deberta-v2", "distilbert", "roberta")
OTHERS = sorted(set(SHAPES) - set(KNOWN))
LENGTHS = (5, 31, 2, 12, 12, 7)
WIDTH, LABELS = 6, 4


def texts(lengths: Sequence[int] = LENGTHS) -> list[Tokens]:
    chooser = np.random.default_rng(0)
    return [Tokens(chooser.integers(5, 60, each), np.zeros(each, np.int64), truncated=False) for each in lengths]


def says(model: onnx.ModelProto) -> bool:
    return {each.key: each.value for each in model.metadata_props}.get(PADDING) == LEFT_OUT


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The int8 graph of a tiny model of some shape."""

    def of(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        subject = Adapted(folder, name)
        fp32, made = folder / "model.onnx", folder / "model.int8.onnx"
        read = lambda package: adapters.load_merged(package, subject.base)  # noqa: E731
        export.export_onnx(subject.package, fp32, POSITIONS, read)
        quantise(fp32, made, texts(), static=True)
        return made

    return of


@pytest.mark.parametrize("name", KNOWN)
def test_texts_of_any_length_are_answered_in_company_as_alone_and_as_with_padding(
    name: str, int8: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = int8(name)
    assert says(onnx.load(path))
    graph = Graph(path)
    alone = np.stack([graph.run(text) for text in texts()])
    assert np.ptp(alone, axis=0).max() > 0.01  # the texts are told apart
    np.testing.assert_allclose(graph.run_batch(padded(texts())), alone, rtol=0, atol=1e-5)
    for pair in ((0, 1), (2, 3), (4, 5)):
        together = graph.run_batch(padded([texts()[each] for each in pair]))
        np.testing.assert_allclose(together, alone[list(pair)], rtol=0, atol=1e-5)
    monkeypatch.setattr("registry.families.quantisation.without_padding", lambda model, texts: model)
    quantise(path.with_name("model.onnx"), path.with_name("with.onnx"), texts(), static=True)
    with_padding = Graph(path.with_name("with.onnx"))
    assert not says(onnx.load(path.with_name("with.onnx")))
    np.testing.assert_allclose(np.stack([with_padding.run(text) for text in texts()]), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["distilbert", "roberta"])  # DeBERTa multiplies positions as well
def test_products_get_a_row_for_each_token_and_none_for_padding(name: str, int8: Callable[[str], Path]) -> None:
    model = onnx.load(int8(name))
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(node.output[0]) for node in products)
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {each.name for each in run.get_inputs()}
    feeds = {name: array for name, array in padded(texts()).items() if name in known}
    shapes = [array.shape for array in run.run([node.output[0] for node in products], feeds)]
    assert (sum(LENGTHS), 32) in shapes
    assert all(np.prod(shape[:-1]) in (sum(LENGTHS), len(LENGTHS)) for shape in shapes)  # or one for each text


@pytest.mark.parametrize("name", OTHERS)
def test_other_shapes_keep_their_padding(name: str, int8: Callable[[str], Path]) -> None:
    path = int8(name)
    assert not says(onnx.load(path))
    assert np.isfinite(Graph(path).run(texts()[0])).all()


# ---- graphs by hand --------------------------------------------------------------------------------------------------


def by_hand(*steps: onnx.NodeProto) -> onnx.ModelProto:
    """A look-up, a product, `steps` from `inner` to `outer`, and the first token's `outer` as logits."""
    chooser = np.random.default_rng(1)
    arrays = {
        "table": chooser.normal(size=(60, WIDTH)).astype(np.float32),
        "first": chooser.normal(size=(WIDTH, LABELS)).astype(np.float32),
        "bias": chooser.normal(size=LABELS).astype(np.float32),
        "zero": np.array(0),
        "length": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="look_up"),
        helper.make_node("Cast", ["attention_mask"], ["there"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["embedded", "first"], ["inner"], name="product"),
        *steps,
        helper.make_node("Gather", ["outer", "zero"], ["logits"], name="select", axis=1),
    ]
    shown = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    told = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])
    initialisers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "classifier", shown, [told], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


ADD = helper.make_node("Add", ["inner", "bias"], ["outer"], name="add")
MEAN = helper.make_node("ReduceMean", ["inner", "length"], ["mean"], name="mean")
MINUS_MEAN = helper.make_node("Sub", ["inner", "mean"], ["outer"], name="sub")
NORM = helper.make_node("LayerNormalization", ["inner", "bias"], ["outer"], name="norm", axis=1)


def test_steps_on_each_token_alone_lose_their_padding() -> None:
    model = by_hand(ADD)
    changed = without_padding(model, texts())
    assert says(changed)
    assert not says(model)
    assert {each.name for each in changed.graph.initializer} >= {"table", "first", "bias"}


@pytest.mark.parametrize("steps", [(MEAN, MINUS_MEAN), (NORM,)], ids=["mean of a text", "norm of a text"])
def test_a_step_that_looks_at_other_tokens_keeps_the_padding(steps: tuple[onnx.NodeProto, ...]) -> None:
    model = by_hand(*steps)
    assert without_padding(model, texts()) is model


def test_a_graph_without_a_mask_keeps_its_padding() -> None:
    model = by_hand(ADD)
    del model.graph.node[1], model.graph.input[1]
    assert without_padding(model, texts()) is model


def test_a_graph_that_would_answer_otherwise_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = by_hand(ADD)
    monkeypatch.setattr(unpadding._Unpadding, "_firsts", lambda self: self._numbers([0, 0, 0]))
    assert without_padding(model, texts()) is model


def test_a_graph_that_cannot_be_run_without_padding_is_not_changed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = by_hand(ADD)
    monkeypatch.setattr(unpadding._Unpadding, "_firsts", lambda self: "nowhere")
    assert without_padding(model, texts()) is model
    assert "Padding is not left out" in caplog.text
