"""From a torch module to an ONNX graph with free batch and length, compared with torch before anything serves it.

Imports torch. Only the newer exporter (`dynamo=True`) is used; the older one gave silently wrong answers at other
lengths or with padding.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from registry.families.architecture import reads_token_types
from registry.families.base import FamilyError
from registry.families.graph_cache import GraphCache, fingerprint, optimise, without_traces
from registry.families.graph_files import MOST_BYTES_IN_ONE
from registry.families.onnx_predictor import Graph

PARITY = 1e-4  # between torch and the fp32 graph, of the largest number where that is over 1
_TRACED_TOKENS = 7


class OneResult(torch.nn.Module):
    """A transformers model that gives one tensor: what `result` makes of its output and the attention mask."""

    def __init__(self, model: torch.nn.Module, result: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self.result = result

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.result(self.model(input_ids=input_ids, attention_mask=attention_mask, **types), attention_mask)


@dataclass(frozen=True)
class Inputs:
    """What an encoder is fed: the `names` of its inputs, how many token ids there are, and the one that pads."""

    names: tuple[str, ...]
    vocabulary: int
    pad_id: int

    @classmethod
    def of(cls, tokenizer: Any, model: Any) -> "Inputs":
        types = ("token_type_ids",) if reads_token_types(model, tokenizer) else ()
        return cls(("input_ids", "attention_mask", *types), model.config.vocab_size, tokenizer.pad_token_id)

    def sample(self, length: int) -> dict[str, torch.Tensor]:
        """Three random texts, one of them padded to half of `length`, one of two parts."""
        generator = torch.Generator().manual_seed(length)
        ids = torch.randint(0, self.vocabulary, (3, length), generator=generator)
        mask, types = torch.ones_like(ids), torch.zeros_like(ids)
        mask[1, (length + 1) // 2 :] = 0
        ids[1, (length + 1) // 2 :] = self.pad_id
        types[2, length // 2 :] = 1
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: every[name] for name in self.names}


def write_graph(
    module: OneResult, inputs: Inputs, target: Path, *, output: str, max_length: int, cache: Path | None = None
) -> None:
    """Write `module`, whose result is named `output`, with free batch and length; raise FamilyError if it differs.

    It is compared with torch at three lengths up to `max_length`, with padding. `cache` is where graphs of earlier
    models lie: one of the same shape spares tracing this one.
    """
    large = 4 * sum(parameter.numel() for parameter in module.parameters()) > MOST_BYTES_IN_ONE
    graphs = GraphCache(cache, fingerprint(module, inputs.names, output)) if cache and not large else None
    if graphs and graphs.write(target, module.state_dict()):
        if _difference(module, inputs, target, max_length) is None:
            return
        graphs.forget()
    program = _traced(module, inputs, output)
    if graphs:
        graphs.keep(program.model, module.state_dict())
    optimise(program.model)
    program.save(str(target), external_data=large)
    if told := _difference(module, inputs, target, max_length):
        raise FamilyError(f"{told}; this base model cannot be served, take another one such as minilm.")


def _traced(module: OneResult, inputs: Inputs, output: str) -> torch.onnx.ONNXProgram:
    sample = inputs.sample(_TRACED_TOKENS)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about operators of libraries that are not installed
        program = torch.onnx.export(
            module,
            tuple(sample.values()),
            input_names=inputs.names,
            output_names=[output],
            dynamic_shapes=tuple(free for _ in inputs.names),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    without_traces(program.model)
    return program


def _difference(module: OneResult, inputs: Inputs, graph_file: Path, max_length: int) -> str | None:
    """How the graph differs from torch, in a sentence without its full stop; None where it does not."""
    graph = Graph(graph_file)
    for length in sorted({3, max(3, max_length // 4), max_length}):
        sample = inputs.sample(length)
        with torch.inference_mode():
            expected = module(*sample.values()).numpy()
        got = graph.run_batch({name: value.numpy() for name, value in sample.items()})
        if told := compared(expected, got):
            return f"The converted model differs from torch by {told} at {length} tokens"
    return None


def compared(expected: NDArray[np.float32], got: NDArray[np.float32]) -> str:
    """The largest difference where it is too large, or no number; otherwise nothing."""
    distance = float(np.abs(expected - got).max())
    return "" if distance <= PARITY * max(1.0, float(np.abs(expected).max())) else f"{distance:.2g}"
