"""Steps of fine-tuning as CUDA graphs: recorded once for each shape of a batch, then replayed. Imports torch.

A step over short texts starts some 650 kernels, each computed within microseconds and each announced by Python: on an
NVIDIA H200 the GPU computed in 8 % of the time, with 128 texts a step. A graph announces them all at once (CUDA C++
Programming Guide, section CUDA Graphs). Batches are of few shapes, since they are padded to `batching.CUDA_MULTIPLE`.

Gradients are kept in buffers of their own, the same for all graphs, and what a pass needs besides lies in one pool of
memory that the graphs share, since never two of them run at once.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from registry.families.architecture import is_like_bert
from registry.families.devices import Machine

SEEN_BEFORE = 2  # batches of a shape that are computed as usual: a rare shape is not worth recording
MOST_GRAPHS = 64
_WARM_UPS = 2

_log = logging.getLogger(__name__)

Batch = Mapping[str, torch.Tensor]
Run = Callable[[], torch.Tensor]
"""A forward and a backward pass over the same tensors each time; the loss, without its graph of gradients."""


class Recorder(Protocol):
    """Makes what computes `run` anew and leaves its result in the tensor that comes beside."""

    def __call__(self, run: Run) -> tuple[Callable[[], None], torch.Tensor]: ...


@dataclass(frozen=True)
class _Recorded:
    inputs: dict[str, torch.Tensor]
    replay: Callable[[], None]
    loss: torch.Tensor


class Replays:
    """Steps of `model`, whose mean loss over a batch is `loss_of(batch)`; it takes the tensors out of a dict."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        loss_of: Callable[[dict[str, torch.Tensor]], torch.Tensor],
        recorder: Recorder,
    ) -> None:
        self._learning = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients: list[torch.Tensor] = []
        self._loss_of, self._recorder = loss_of, recorder
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}
        self.given_up = False

    def step(self, batch: Batch) -> torch.Tensor | None:
        """The loss () of `batch`, its gradients in `.grad`; None where the step is to be computed as usual."""
        shape = tuple((name, tuple(values.shape)) for name, values in batch.items())
        self._seen[shape] += 1
        if self.given_up or self._seen[shape] <= SEEN_BEFORE:
            return None
        recorded = self._recorded.get(shape)
        if recorded is None:
            if len(self._recorded) == MOST_GRAPHS or (recorded := self._record(batch)) is None:
                return None
            self._recorded[shape] = recorded
        for name, values in batch.items():
            recorded.inputs[name].copy_(values, non_blocking=True)
        self._lend_gradients()
        recorded.replay()
        return recorded.loss.clone()

    def _record(self, batch: Batch) -> _Recorded | None:
        """None where it cannot be done, for want of memory or because something waits for the GPU in between."""
        inputs = {name: values.clone() for name, values in batch.items()}
        if (mask := inputs.get("attention_mask")) is not None:
            mask[:1, -1] = 0  # a model may ask whether anything is masked, but not while it is recorded
        self._gradients = self._gradients or [torch.zeros_like(parameter) for parameter in self._learning]
        self._lend_gradients()

        def run() -> torch.Tensor:
            torch._foreach_zero_(self._gradients)
            loss = self._loss_of(dict(inputs))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        try:
            return _Recorded(inputs, *self._recorder(run))
        except RuntimeError as error:
            said = str(error).strip().partition("\n")[0]
            _log.warning("Steps are computed one kernel at a time, as they cannot be recorded: %s", said)
            self._forget()
            return None

    def _lend_gradients(self) -> None:
        for parameter, gradient in zip(self._learning, self._gradients, strict=True):
            parameter.grad = gradient  # Trainer takes them away after each step

    def _forget(self) -> None:
        self.given_up = True
        self._recorded.clear()
        self._gradients = []
        for parameter in self._learning:
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class CudaRecorder:
    """`torch.cuda.CUDAGraph`s. What was drawn at random while recording is drawn again by the first replay."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def __call__(self, run: Run) -> tuple[Callable[[], None], torch.Tensor]:
        drawn = torch.cuda.get_rng_state()
        aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(aside)
        torch.cuda.set_rng_state(drawn)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss = run()
        return graph.replay, loss


def can_replay(model: Any, machine: Machine, *, steps_per_update: int) -> bool:
    """Whether every step of `model` may be one replay.

    Not so where gradients of several steps add up or of several processes, where fp16 has its scale, where the base is
    in 8 bits, and in architectures that read what they compute.
    """
    return (
        machine.device == "cuda"
        and machine.precision != "fp16"
        and machine.processes == steps_per_update == 1
        and is_like_bert(model.config)
        and not getattr(model, "is_loaded_in_8bit", False)
    )
