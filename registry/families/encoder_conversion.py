"""From a base model to the files of a frozen encoder.

Imports torch: reached from `frozen_encoder` where the cache holds no conversion.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from registry.families.architecture import longest_input
from registry.families.base import FamilyError, first_line
from registry.families.base_models import BaseModel
from registry.families.graph_export import Inputs, OneResult, write_graph
from registry.families.graph_files import MOST_BYTES_IN_ONE
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME
from registry.families.quantisation import CALIBRATION_TEXTS, quantise
from registry.families.tokenisation import Tokens

_MOST_TOKENS = 8192  # where nothing limits the model; no recipe asks for more
_COMPARED_TOKENS = 512  # with torch; a text of thousands would take gigabytes
_LENGTHS = (6, 40)  # tokens of the texts that int8 is calibrated on


def convert_encoder(base: BaseModel, folder: Path) -> dict[str, int]:
    """Write both graphs and the tokenizer of `base`; `width`, `parameters` and `tokens` (the most it can read).

    Raises FamilyError for what is not a text encoder with a fast tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
        model, told = AutoModel.from_pretrained(
            base.folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
        _check_whole(tokenizer, model, told["missing_keys"])
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise FamilyError(
            f"{base.id} cannot be used as a text encoder: {first_line(error)}. Take a BERT-like model such as minilm."
        ) from error
    model.train(False)
    inputs = Inputs.of(tokenizer, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if 4 * parameters > MOST_BYTES_IN_ONE:
        raise FamilyError(f"{base.id} is too large to be used as a frozen encoder; take a smaller one such as minilm.")
    tokens = longest_input(model, tokenizer) or _MOST_TOKENS
    pooled = OneResult(model, _pooled)
    write_graph(pooled, inputs, folder / FP32_NAME, output="vector", max_length=min(tokens, _COMPARED_TOKENS))
    quantise(folder / FP32_NAME, folder / INT8_NAME, _random_texts(inputs))
    (folder / TOKENIZER_NAME).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    return {"width": int(model.config.hidden_size), "parameters": parameters, "tokens": tokens}


def _check_whole(tokenizer: Any, model: Any, missing: Iterable[str]) -> None:
    """transformers fills weights that are missing with random numbers. Raises ValueError; a pooler is not needed."""
    if lost := sorted(name for name in missing if "pooler" not in name):
        raise ValueError(f"its files lack {len(lost)} of its weights, such as {lost[0]}")
    if (
        not tokenizer.is_fast
        or tokenizer.pad_token_id is None
        or tokenizer.vocab_size <= len(tokenizer.all_special_ids)
    ):
        raise ValueError("it has no fast tokenizer with a vocabulary and a padding token")
    if model.config.is_encoder_decoder:
        raise ValueError("it writes text")


def _pooled(answer: Any, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the last layer over the tokens that are there, scaled to length 1."""
    there = mask.unsqueeze(-1).to(answer.last_hidden_state.dtype)
    mean = (answer.last_hidden_state * there).sum(dim=1) / there.sum(dim=1).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, dim=1)


def _random_texts(inputs: Inputs) -> list[Tokens]:
    """Tokens drawn from the whole vocabulary.

    One conversion serves every classifier and language, so it cannot be calibrated on the texts of one. Channels that
    are large are so whatever the text says.
    """
    chooser = np.random.default_rng(0)
    ids = (
        chooser.integers(0, inputs.vocabulary, size=length) for length in chooser.integers(*_LENGTHS, CALIBRATION_TEXTS)
    )
    return [Tokens(each.astype(np.int64), np.zeros(len(each), dtype=np.int64), truncated=False) for each in ids]
