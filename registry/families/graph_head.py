"""Putting a linear head onto the ONNX graph of an encoder, so that one forward pass goes from tokens to logits."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_NAMES = ("head_coefficients", "head_intercepts")


def write_with_head(
    source: Path, target: Path, coefficients: NDArray[np.float32], intercepts: NDArray[np.float32]
) -> None:
    """Write `source`, whose one result are vectors (texts, width), with `logits` (texts, labels) as its result."""
    model = onnx.load(source)
    graph = model.graph
    (vector,) = graph.output
    for name, values in zip(_NAMES, (coefficients, intercepts), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))
    graph.node.append(helper.make_node("Gemm", [vector.name, *_NAMES], ["logits"], name="head"))
    texts = vector.type.tensor_type.shape.dim[0].dim_param or "texts"
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [texts, len(intercepts)]))
    onnx.save(model, target)
