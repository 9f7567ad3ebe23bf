"""Steps that are recorded once and replayed: what is learnt stays the same. Without a GPU a stand-in computes anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from registry.families import replays
from registry.families.devices import Machine
from registry.families.replays import MOST_GRAPHS, SEEN_BEFORE, Replays, Run, can_replay
from tests.registry.families.material import request_for, settings_of
from tests.registry.families.tuning import logits_of, losses, tune

INPUTS = [("the dog is big",), ("a cup of tea",)]


class Again:
    """Records as CUDA does: the tensors of the first run are read and written by every later one."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Run) -> tuple[Callable[[], None], torch.Tensor]:
        self.recorded += 1
        loss = run()

        def replay() -> None:
            self.replayed += 1
            loss.copy_(run())

        return replay, loss


class Refusing:
    """As a step that waits for the GPU in its middle."""

    def __call__(self, run: Run) -> tuple[Callable[[], None], torch.Tensor]:
        run()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")


def linear() -> tuple[torch.nn.Linear, Callable[[dict[str, torch.Tensor]], torch.Tensor]]:
    layer = torch.nn.Linear(3, 1)
    return layer, lambda batch: layer(batch["x"]).square().mean()


def test_a_shape_is_recorded_when_it_was_seen_before_and_gradients_are_those_of_its_batch() -> None:
    layer, loss_of = linear()
    recorder = Again()
    steps = Replays(layer.parameters(), loss_of, recorder)
    batches = [torch.randn(4, 3) for _ in range(SEEN_BEFORE + 3)]
    for index, x in enumerate(batches):
        layer.zero_grad()
        told = steps.step({"x": x})
        assert (told is None) == (index < SEEN_BEFORE)
        if told is not None:
            expected = loss_of({"x": x})
            (gradient,) = torch.autograd.grad(expected, [layer.weight])
            torch.testing.assert_close(told, expected.detach())
            torch.testing.assert_close(layer.weight.grad, gradient)
    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_shapes_share_their_gradients_and_a_loss_that_was_told_stays() -> None:
    layer, loss_of = linear()
    steps = Replays(layer.parameters(), loss_of, Again())
    told = {}
    for rows in (2, 5, 2, 5, 2, 5, 2):
        x = torch.full((rows, 3), float(rows))
        layer.zero_grad()
        if (loss := steps.step({"x": x})) is not None:
            told[rows] = loss
            (gradient,) = torch.autograd.grad(loss_of({"x": x}), [layer.weight])
            torch.testing.assert_close(layer.weight.grad, gradient)
    torch.testing.assert_close(told[5], loss_of({"x": torch.full((5, 3), 5.0)}).detach())
    assert set(told) == {2, 5}


def test_there_is_an_end_to_what_is_recorded() -> None:
    layer, loss_of = linear()
    recorder = Again()
    steps = Replays(layer.parameters(), loss_of, recorder)
    for rows in range(1, MOST_GRAPHS + 10):
        for _ in range(SEEN_BEFORE + 1):
            steps.step({"x": torch.ones(rows, 3)})
    assert recorder.recorded == MOST_GRAPHS


def test_what_cannot_be_recorded_is_computed_as_usual_from_then_on() -> None:
    layer, loss_of = linear()
    steps = Replays(layer.parameters(), loss_of, Refusing())
    assert [steps.step({"x": torch.ones(2, 3)}) for _ in range(SEEN_BEFORE + 3)] == [None] * (SEEN_BEFORE + 3)
    assert steps.given_up
    assert layer.weight.grad is None, "the gradients of the attempt"


@pytest.mark.parametrize("recorder", [Again, Refusing])
def test_a_fit_learns_the_same(
    recorder: type[Any], tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = *settings_of("encoder", tiny_encoder), "training_config.mixed_precision=no"
    usual = tune(request_for(tmp_path / "usual", *settings))
    made: list[Any] = []
    monkeypatch.setattr(replays, "can_replay", lambda *_, **__: True)
    monkeypatch.setattr(replays, "CudaRecorder", lambda: made.append(recorder()) or made[-1])
    replayed = tune(request_for(tmp_path / "replayed", *settings))
    assert losses(replayed) == pytest.approx(losses(usual), abs=1e-5)
    packages = (tmp_path / name / "artefact" / "package" for name in ("usual", "replayed"))
    first, second = (logits_of(package, INPUTS) for package in packages)
    np.testing.assert_allclose(second, first, atol=1e-4)
    if recorder is Again:
        assert made[0].replayed > 5


def test_where_steps_are_replayed() -> None:
    class Known:
        class config:
            model_type = "bert"

    class Other:
        class config:
            model_type = "gpt2"

    gpu = Machine("cuda", "bf16")
    assert can_replay(Known(), gpu, steps_per_update=1)
    assert can_replay(Known(), Machine("cuda", "fp32"), steps_per_update=1)
    assert not can_replay(Known(), gpu, steps_per_update=2)
    assert not can_replay(Other(), gpu, steps_per_update=1)
    for machine in (Machine("cpu", "bf16"), Machine("cuda", "fp16"), Machine("cuda", "bf16", 2)):
        assert not can_replay(Known(), machine, steps_per_update=1)
