"""Fine-tuning on its own, without the conversion for serving that follows it and takes seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from registry.families.base import Fields, FitRequest
from registry.families.base_models import find_base_model
from registry.families.checkpoints import Checkpoints
from registry.families.encoder import fingerprint
from registry.families.finetune import Tuned, finetune
from registry.families.tokenisation import Tokenisation
from registry.text import PREPROCESSING_VERSION
from tests.registry.families.material import Listener


def tune(request: FitRequest, **own: Any) -> Tuned:
    """What `finetune` leaves, checkpoints included."""
    base = find_base_model(request.recipe.model.model_name)
    checkpoints = Checkpoints(request.checkpoints, fingerprint(request, base))
    if not request.resume:
        checkpoints.clear()
    return finetune(request, base, checkpoints, **own)


def logits_of(package: Path, inputs: Sequence[Fields], max_length: int = 32) -> np.ndarray:
    """Logits (n, k) that plain transformers reads out of a package."""
    tokenizer = AutoTokenizer.from_pretrained(package)
    tokenisation = Tokenisation.of(tokenizer, max_length, PREPROCESSING_VERSION)
    model = AutoModelForSequenceClassification.from_pretrained(package).eval()
    with torch.inference_mode():
        rows = [model(input_ids=torch.from_numpy(tokenisation.encode(each).ids)[None]).logits[0] for each in inputs]
    return torch.stack(rows).numpy()


def losses(tuned: Tuned, name: str = "loss") -> list[float]:
    return [line[name] for line in tuned.history if name in line]


class Crash(Exception):
    """The process died here."""


class Crasher(Listener):
    """A reporter in whose hands the process dies after a number of steps."""

    def stop_requested(self) -> bool:
        self.polls += 1
        if self.polls > (self.stop_after or 0):
            raise Crash
        return False


@dataclass(frozen=True)
class Greedy:
    """Makes a model fail as if memory held no more than `most` texts at a time; can be pickled."""

    most: int
    error: Callable[[], Exception]

    def __call__(self, model: Any) -> Any:
        def refuse(_: torch.nn.Module, inputs: Any, named: dict[str, torch.Tensor]) -> None:
            if model.training and len(named["input_ids"]) > self.most:
                raise self.error()

        model.register_forward_pre_hook(refuse, with_kwargs=True)
        return model
