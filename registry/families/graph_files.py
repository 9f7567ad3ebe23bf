"""ONNX graphs as files: a protobuf file ends at 2 GiB, so weights beyond that lie in a file beside it."""

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


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The graph, ready to be run on the CPU."""
    if not is_large(model):
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save(model, path)
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the weights that no node takes."""
    taken = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.initializer if each.name not in taken]:
        graph.initializer.remove(each)
