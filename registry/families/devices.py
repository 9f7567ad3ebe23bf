"""Where training runs and in which numbers: what was asked for, against what this machine has. Imports torch."""

import os
from dataclasses import dataclass
from typing import Any, Self

import torch

from registry.families.base import FamilyError
from registry.recipe import TrainingConfig


@dataclass(frozen=True)
class Machine:
    """`device` is cuda, mps or cpu, `precision` bf16, fp16 or fp32; `processes` share every batch."""

    device: str
    precision: str
    processes: int = 1

    @classmethod
    def choose(cls, training: TrainingConfig) -> Self:
        """What `training` gets here. Raises FamilyError for what this machine cannot do."""
        device = choose_device(training.device)
        _check_processes(training, device)
        return cls(device, choose_precision(training.mixed_precision, device), training.num_processes)

    def __str__(self) -> str:
        shared = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.device} in {self.precision}{shared}"


def choose_device(wanted: str) -> str:
    """`cuda`, `mps` or `cpu`. Raises FamilyError for one this machine does not have."""
    if wanted == "auto":
        wanted = os.environ.get("KALIMTAK_DEVICE", "auto") or "auto"
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in has.items() if available)
    if not has.get(wanted, False):
        raise FamilyError(f"This machine cannot train on {wanted}; set training_config.device to auto or cpu.")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """`bf16`, `fp16` or `fp32`: bfloat16 where the processor computes in it and does not merely emulate it."""
    if wanted == "fp16" and device != "cuda":
        raise FamilyError("mixed_precision fp16 needs a CUDA device; set it to auto.")
    has_bf16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and not has_bf16:
        raise FamilyError("This GPU does not compute in bf16; set training_config.mixed_precision to auto.")
    if wanted != "auto":
        return "fp32" if wanted == "no" else wanted
    if device == "cuda":
        return "bf16" if has_bf16 else "fp16"
    able = torch.cpu.get_capabilities()
    return "bf16" if device == "cpu" and (able.get("avx512_bf16") or able.get("amx_bf16")) else "fp32"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_processes(training: TrainingConfig, device: str) -> None:
    wanted = training.num_processes
    most: dict[str, Any] = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": cores()}
    if wanted > most[device]:
        unit = "processor cores" if device == "cpu" else f"{device} devices"
        raise FamilyError(
            f"training_config.num_processes is {wanted}, but the {unit} here are {most[device]}; "
            f"set it to {most[device]} or less."
        )
    if wanted > training.batch_size:
        raise FamilyError(
            f"{wanted} processes cannot share batches of {training.batch_size}; raise training_config.batch_size or "
            "lower training_config.num_processes."
        )
