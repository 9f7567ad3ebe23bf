"""Telling a lack of memory from other failures, and making room again. Imports torch."""

import gc

import torch

# What torch and its back ends say where they raise a plain RuntimeError.
_SAID = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "failed to allocate",
)


class OutOfMemory(Exception):
    """A batch does not fit into the memory of the device."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had, on any device."""
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _SAID)


def release_memory() -> None:
    """Give back what a failed attempt left behind. Call it when nothing refers to the model any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
