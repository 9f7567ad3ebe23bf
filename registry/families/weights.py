"""The weights that learn, in a file and back: all that a checkpoint needs beside the base model. Imports torch."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS_NAME = "model.safetensors"


def save_trainable(model: torch.nn.Module, folder: Path) -> None:
    """Write the weights that learn to `folder`; what is frozen is the base model's and pinned by its SHA-256."""
    learning = {name: each.detach().contiguous() for name, each in model.named_parameters() if each.requires_grad}
    save_file(learning, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def load_trainable(model: torch.nn.Module, folder: Path) -> None:
    """Read them back in place. Raises `KeyError` or `RuntimeError` where they are another model's."""
    saved = load_file(folder / WEIGHTS_NAME)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(saved[name])
