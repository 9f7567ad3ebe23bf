"""The last layer of an encoder for the first token alone, where the head reads nothing else. Imports torch.

BERT and its like classify a text by what the last layer makes of its first token. For every other token that layer's
query, attention and feed-forward block would be thrown away; only their keys and values matter. Leaving them out
changes no answer, and spares a model of six layers an eighth of all products, in training and in serving.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from registry.families.architecture import is_like_bert

_TOLERANCE = 1e-4  # of the largest logit where that is over 1; leaving nothing out differs by rounding alone
_COMPARED_TOKENS = 6

Layer = Callable[[Any, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(layer, states (texts, tokens, width), mask (texts, 1, tokens, tokens) or None) → states (texts, 1, width)."""


def read_first_token_only(model: Any) -> bool:
    """Let the last layer of a classifier compute the first token alone, in place; whether that was done.

    Weights and their names stay. Nothing is changed where the architecture is another one, or where the answers to
    texts drawn at random would not be the same, as with a head that reads the mean of all tokens.
    """
    forward, layers = _known(model)
    if forward is None:
        return False
    before = _answers(model)
    layers[-1].forward = MethodType(_called_as_layers_are(forward), layers[-1])
    if _largest(before - _answers(model)) <= _TOLERANCE * max(1.0, _largest(before)):
        return True
    del layers[-1].forward
    return False


def _known(model: Any) -> tuple[Layer | None, Any]:
    """How the last layer is computed for the first token alone, and all layers; None where that is not known."""
    if not is_like_bert(model.config):
        return None, ()
    if model.config.model_type == "distilbert":
        return _distilbert, model.base_model.transformer.layer
    return _bert, model.base_model.encoder.layer


def _called_as_layers_are(forward: Layer) -> Callable[..., torch.Tensor]:
    def called(layer: Any, states: torch.Tensor, mask: torch.Tensor | None = None, *_: Any, **__: Any) -> torch.Tensor:
        return forward(layer, states, mask)

    return called


def _bert(layer: Any, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    attention, first = layer.attention.self, states[:, :1]
    read = _attend(attention, attention.query(first), attention.key(states), attention.value(states), mask)
    result: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(read, first))
    return result


def _distilbert(layer: Any, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    attention, first = layer.attention, states[:, :1]
    read = _attend(attention, attention.q_lin(first), attention.k_lin(states), attention.v_lin(states), mask)
    attended = layer.sa_layer_norm(attention.out_lin(read) + first)
    result: torch.Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return result


def _attend(
    attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """What the first token (texts, 1, width) reads of all tokens (texts, tokens, width): (texts, 1, width)."""
    queries, keys, values = (_by_head(each, attention.attention_head_size) for each in (query, key, value))
    scores = queries @ keys.transpose(2, 3) * attention.scaling
    if mask is not None:
        seen = mask[:, :, :1]
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min) if seen.dtype == torch.bool else scores + seen
    shares: torch.Tensor = attention.dropout(scores.softmax(dim=-1))
    return (shares.to(values.dtype) @ values).transpose(1, 2).flatten(2)


def _by_head(states: torch.Tensor, width: int) -> torch.Tensor:
    """(texts, tokens, heads * width) → (texts, heads, tokens, width)."""
    return states.view(states.shape[0], states.shape[1], -1, width).transpose(1, 2)


def _answers(model: Any) -> torch.Tensor:
    """Logits (3, labels) for texts of random tokens, one of them half padded; nothing is dropped out."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (3, _COMPARED_TOKENS), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, _COMPARED_TOKENS // 2 :] = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        told = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits.float().cpu()
    model.train(was_training)
    answers: torch.Tensor = told
    return answers


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max())
