"""A tiny random BERT with a tokenizer, written as any base model is: what encoder tests fine-tune."""

from collections.abc import Sequence
from pathlib import Path


def write_tiny_bert(
    folder: Path, words: Sequence[str], *, dropout: float = 0.0, seed: int = 0, layers: int = 2, width: int = 32
) -> Path:
    """Of 64 positions; knows `words` and single letters, the rest is unknown to it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{x}" for x in letters)]
    )
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,  # by its usual 0.02 so narrow a random model hardly tells texts apart
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    return folder
