"""What training and conversion must find out about a model of any architecture. Imports torch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from registry.families.base import FamilyError

# What architectures call the projections of queries and values, apart or fused with that of the keys.
_FUSED = frozenset({"c_attn", "Wqkv", "in_proj", "qkv", "qkv_proj", "query_key_value"})
_APART = frozenset(
    {"query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "query_proj", "value_proj", "q", "v", "query_layer"}
    | {"value_layer", "wq", "wv"}
)

# Their layers are BERT's, or DistilBERT's, which computes the same under other names.
_LIKE_BERT = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})


def is_like_bert(config: Any) -> bool:
    """Whether every token attends to all others by the softmax of plain products, in layers built like BERT's."""
    return config.model_type in _LIKE_BERT and not getattr(config, "is_decoder", False)


def reads_token_types(model: Any, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model tells the parts of an input by token types, and its tokenizer gives them.

    Tokenizers name token types by default, also those of models that have one type (RoBERTa), none (DeBERTa-v2), or
    would look them up among the words (GPT-2).
    """
    types: int = getattr(model.config, "type_vocab_size", None) or 0
    return types > 1 and "token_type_ids" in tokenizer.model_input_names


def longest_input(model: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens the model can read; None where nothing limits them.

    RoBERTa and its like count positions from after the padding token's, so that they read fewer than they have.
    """
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings"):
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    known = [limit for limit in limits if limit and 0 < limit < 10**9]  # tokenizers without a limit say 10^30
    return min(known, default=None)


def head_modules(model: PreTrainedModel) -> list[str]:
    """The names of all modules that a base model does not bring along, and that must be saved with what is learnt.

    Everything outside the body: not only `classifier` or `score`, also DistilBERT's `pre_classifier` and ModernBERT's
    `head`. A pooler inside the body counts too: it was trained for another task or not at all.
    """
    heads = {
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    }
    pooler = getattr(model.base_model, "pooler", None)
    return sorted(heads | ({"pooler"} if isinstance(pooler, torch.nn.Module) else set()))


def attention_targets(model: PreTrainedModel) -> list[str]:
    """The names of the layers that Hu et al. (2021, LoRA, section 4.2) adapt: projections of queries and values.

    Where a model calls them otherwise, all linear layers of its attention blocks. Raises FamilyError without any.
    """
    attending = [name for name, _ in linear_layers(model) if "attn" in name.lower() or "attention" in name.lower()]
    leaves = {name.rpartition(".")[2] for name in attending}
    for known in (_FUSED, _APART):
        if found := leaves & known:
            return sorted(found)
    if not attending:
        raise FamilyError(
            "No attention layers were found in the base model; name the layers to adapt in "
            f"model_config.lora.target_modules. {_listing(model)}"
        )
    # With the block's name, since a layer of another kind of block may be called the same.
    return sorted({".".join(name.split(".")[-2:]) for name in attending})


def checked_targets(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    """`wanted`, each of which is or ends a linear layer's name. Raises FamilyError for one that does not."""
    names = [name for name, _ in linear_layers(model)]
    for each in wanted:
        if not any(name == each or name.endswith(f".{each}") for name in names):
            raise FamilyError(f"model_config.lora.target_modules: no layer is called {each!r}. {_listing(model)}")
    return sorted(set(wanted))


def linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """Names and modules of the body's linear layers."""
    for name, module in model.base_model.named_modules(prefix=model.base_model_prefix):
        if ".pooler." not in name and isinstance(module, torch.nn.Linear | Conv1D):
            yield name, module


def use_linear_layers(model: torch.nn.Module) -> None:
    """Replace GPT-2's transposed layers by equal linear ones in place: these become matrix products that int8 knows."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            linear = torch.nn.Linear(inputs, outputs, device="meta")
            linear.weight = torch.nn.Parameter(module.weight.detach().T.contiguous())
            linear.bias = torch.nn.Parameter(module.bias.detach())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear)


def _listing(model: PreTrainedModel) -> str:
    """What there is to choose from."""
    leaves = sorted({name.rpartition(".")[2] for name, _ in linear_layers(model)})
    return f"This model has: {', '.join(leaves) or 'no linear layers'}."
