"""The lora family: low-rank adapters on a frozen base model, an encoder or one that writes text, with a head on top.

`package/` holds the adapter, its head and what describes them, a few megabytes; the base model is pinned by id and
SHA-256. `serving/` is the encoder family's: the adapter is merged into the base model and converted. Nothing here
imports torch until `fit` is called.
"""

import os
from functools import partial
from importlib.util import find_spec

from registry.families.base import FamilyError, FitRequest, FitResult
from registry.families.encoder import load, prepare, tune_and_serve
from registry.recipe.sections import TrainingConfig

__all__ = ["fit", "load"]


def fit(request: FitRequest) -> FitResult:
    """Train adapters, write them, merge, convert, calibrate. Raises Stopped (resumable) or FamilyError."""
    base = prepare(request)
    settings = request.recipe.model
    if settings.use_8bit:
        check_8bit(request.recipe.training)
    from registry.families import adapters

    return tune_and_serve(
        request,
        base,
        adapt=partial(adapters.adapt, settings=settings.lora, base=base),
        write=adapters.write_package,
        loading=adapters.eight_bit_loading(settings.use_8bit),
        read=partial(adapters.load_merged, base=base),
    )


def check_8bit(training: TrainingConfig) -> None:
    """Raise FamilyError unless bitsandbytes and the device it computes on are here, for a single process."""
    if training.num_processes > 1:
        raise FamilyError("An 8-bit base model cannot be shared; set training_config.num_processes to 1.")
    remedy = "set model_config.use_8bit to false, or train"
    import torch

    device = training.device
    wanted = os.environ.get("KALIMTAK_DEVICE", "auto") or "auto" if device == "auto" else device
    if not torch.cuda.is_available() or wanted not in ("auto", "cuda"):
        raise FamilyError(f"use_8bit needs a CUDA device, and this run has none; {remedy} on a machine with one.")
    if find_spec("bitsandbytes") is None:
        raise FamilyError(f"use_8bit needs bitsandbytes; {remedy} after: pip install -r requirements-gpu.txt")
