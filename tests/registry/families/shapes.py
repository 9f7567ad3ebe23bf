"""Tiny random base models of the architectures people use, with tokenizers that treat texts as theirs do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.registry.families.material import sentences

POSITIONS = 64


@dataclass(frozen=True)
class Shape:
    """An architecture: its special tokens in the order of their ids, what it puts around a text and a pair, its size.

    `adapted` are the layers that get adapters, `heads` what a base model lacks, `positions` how many tokens it reads.
    """

    specials: tuple[str, ...]
    named: dict[str, str]
    alone: str
    paired: str
    adapted: list[str]
    heads: list[str]
    size: dict[str, Any] = field(default_factory=dict)
    positions: int = POSITIONS


_WIDE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
_CLS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_CLS_NAMED = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
_AROUND = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
_QWEN = (("<|endoftext|>", "<|im_end|>"), {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "", "")
_QWEN_SIZE = {**_WIDE, "max_position_embeddings": POSITIONS, "num_key_value_heads": 1, "eos_token_id": 1}

SHAPES = {
    "distilbert": Shape(
        _CLS,
        _CLS_NAMED,
        *_AROUND,
        ["q_lin", "v_lin"],
        ["classifier", "pre_classifier"],
        {"max_position_embeddings": POSITIONS, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64},
    ),
    # XLM-RoBERTa is the same but for its vocabulary.
    "roberta": Shape(
        ("<s>", "<pad>", "</s>", "<unk>"),
        {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "<s> $A </s>",
        "<s> $A </s> </s> $B:1 </s>:1",
        ["query", "value"],
        ["classifier"],
        {**_WIDE, "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1, "pad_token_id": 1},
    ),
    "deberta-v2": Shape(
        _CLS,
        _CLS_NAMED,
        *_AROUND,
        ["query_proj", "value_proj"],
        ["classifier", "pooler"],
        {
            **_WIDE,
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 0,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    "modernbert": Shape(
        _CLS,
        _CLS_NAMED,
        *_AROUND,
        ["Wqkv"],
        ["classifier", "head"],
        {**_WIDE, "max_position_embeddings": POSITIONS, "pad_token_id": 0, "local_attention": 8}
        | {"cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "num_hidden_layers": 2}
        | {"global_attn_every_n_layers": 2},
    ),
    "gpt2": Shape(
        ("<|endoftext|>",),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        "",
        "",
        ["c_attn"],
        ["score"],
        {"n_positions": POSITIONS, "n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    ),
    "opt": Shape(
        ("<s>", "<pad>", "</s>"),
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "</s> $A",
        "</s> $A </s> $B",
        ["q_proj", "v_proj"],
        ["score"],
        {**_WIDE, "max_position_embeddings": POSITIONS, "ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1},
    ),
    "llama": Shape(
        ("<unk>", "<s>", "</s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "<s> $A",
        "<s> $A <s> $B",
        ["q_proj", "v_proj"],
        ["score"],
        {**_WIDE, "max_position_embeddings": POSITIONS, "num_key_value_heads": 1},
    ),
    "qwen2": Shape(*_QWEN, ["q_proj", "v_proj"], ["score"], _QWEN_SIZE),
    "qwen3": Shape(*_QWEN, ["q_proj", "v_proj"], ["score"], {**_QWEN_SIZE, "head_dim": 16}),
}


def write_base(folder: Path, name: str) -> Path:
    """A base model of shape `name` with random weights, as its publisher would pass it on; its folder."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    shape = SHAPES[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(shape), model_max_length=POSITIONS, **shape.named)
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), initializer_range=0.2, **shape.size)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _tokenizer(shape: Shape) -> Any:
    """Byte pairs learnt from our sentences, so that any text can be read."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(shape.specials), initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([example.fields[0] for example in sentences(200)], trainer)
    if shape.alone:
        known = [(each, made.token_to_id(each)) for each in shape.specials]
        made.post_processor = processors.TemplateProcessing(single=shape.alone, pair=shape.paired, special_tokens=known)
    return made
