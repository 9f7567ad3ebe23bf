"""Graphs without their weights, kept: two models of one shape have the same graph, and tracing it takes seconds.

A retrained classifier differs from the version before it in its weights alone. Its graph, as traced, before any
optimisation, names each weight as torch does; with those of the new model put in, it is what tracing that model again
would give. Converting MiniLM (6 layers) takes 10.4 s of a core with tracing, 2 to 3 s without.

A file is `graphs/<fingerprint>.onnx`. Whatever comes out of the cache is compared with torch like what was traced, so
a file that is not what it should be costs time, never an answer. Imports torch.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
import torch
import transformers
from google.protobuf.message import DecodeError
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter.onnx_fusions import fuse

from registry.families.frozen_encoder import DRAFT, remove_unused
from registry.manifest import fsync_path

_ABOUT_THIS_MODEL = {"_name_or_path", "id2label", "label2id", "problem_type", "dtype", "torch_dtype"}


def fingerprint(module: torch.nn.Module, inputs: Sequence[str], output: str) -> str:
    """SHA-256 of all that decides the graph of a module, whose `model` is of transformers; its weights do not."""
    model: Any = module.model
    config = {name: value for name, value in model.config.to_dict().items() if name not in _ABOUT_THIS_MODEL}
    told = {
        "config": config,
        "replaced": [name for name, part in module.named_modules() if "forward" in vars(part)],
        "weights": [(name, list(value.shape), str(value.dtype)) for name, value in module.state_dict().items()],
        "inputs": list(inputs),
        "output": output,
        "versions": [torch.__version__, transformers.__version__, onnxscript.__version__],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def without_traces(model: ir.Model) -> None:
    """Drop what the exporter notes about each node: the paths of this machine's files among it."""
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()


def optimise(model: ir.Model) -> None:
    """What `torch.onnx.export` does to a graph unless told not to."""
    optimize_ir(model)
    fuse(model)


class GraphCache:
    """The place in `cache` for the graph of one fingerprint."""

    def __init__(self, cache: Path, name: str) -> None:
        self.file = cache / "graphs" / f"{name}.onnx"

    def write(self, target: Path, weights: Mapping[str, torch.Tensor]) -> bool:
        """Write the kept graph with these weights, optimised; False where none is kept that fits them."""
        try:
            model = ir.from_proto(onnx.ModelProto.FromString(self.file.read_bytes()))
        except (OSError, DecodeError):
            return False
        initializers = model.graph.initializers
        wanted = {name for name, value in initializers.items() if _is_empty(value)}
        if not wanted or wanted - weights.keys():
            return False
        with suppress(FileNotFoundError):  # another run may have removed it since
            os.utime(self.file)
        for name in wanted:
            tensor = ir.tensor(weights[name].contiguous().numpy(), name=name)
            value = initializers[name]
            value.const_value, value.shape, value.dtype = tensor, tensor.shape, tensor.dtype
        optimise(model)
        ir.save(model, target)
        return True

    def keep(self, model: ir.Model, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep a graph that was traced and not yet optimised, without its weights."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        remove_unused(self.file.parent)
        with _emptied(model, weights):
            content = ir.to_proto(model).SerializeToString()
        with tempfile.NamedTemporaryFile(dir=self.file.parent, prefix=DRAFT, delete=False) as draft:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).rename(self.file)
        fsync_path(self.file.parent)

    def forget(self) -> None:
        self.file.unlink(missing_ok=True)


def _is_empty(value: ir.Value) -> bool:
    return value.const_value is None or value.const_value.size == 0


@contextmanager
def _emptied(model: ir.Model, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The model with nothing in place of these weights, for as long as it takes to write it down."""
    values = [value for name, value in model.graph.initializers.items() if name in weights]
    held = [value.const_value for value in values]
    try:
        for value in values:
            value.const_value = ir.tensor(np.empty(0, np.float32), name=value.name)
        yield
    finally:
        for value, tensor in zip(values, held, strict=True):
            value.const_value = tensor
