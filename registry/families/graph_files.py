"""ONNX graphs as they are read, run and written. A protobuf file ends at 2 GiB: weights beyond that lie beside it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime

MOST_BYTES_IN_ONE = 1_900_000_000  # of weights


def is_large(model: onnx.ModelProto) -> bool:
    """Whether its weights are too many for one file."""
    return sum(len(each.raw_data) for each in model.graph.initializer) > MOST_BYTES_IN_ONE


def save(model: onnx.ModelProto, target: Path) -> None:
    """Write `target`, and `<target>.data` where one file does not hold all weights."""
    data = target.with_name(f"{target.name}.data")
    data.unlink(missing_ok=True)  # onnx would write behind what is there
    if is_large(model):
        onnx.save(model, target, save_as_external_data=True, location=data.name)
    else:
        onnx.save(model, target)


def session(model: onnx.ModelProto, also: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    """The graph, ready to be run on the CPU; it gives the inner results named in `also` besides its own."""
    if also:
        plain, model = model, onnx.ModelProto()
        model.CopyFrom(plain)
        model.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, also))
    if not is_large(model):
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save(model, path)
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def users_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """By the name of a result or a weight, the nodes that take it."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    return users


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the weights that no node takes."""
    taken = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.initializer if each.name not in taken]:
        graph.initializer.remove(each)
