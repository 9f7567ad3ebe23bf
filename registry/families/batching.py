"""Batches of texts of like length: padding is work for nothing, and most of it can be avoided."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, Sampler

from registry.families.tokenisation import Tokens

MEGABATCH = 50  # batches sorted together: enough to pad little, few enough to stay random


@dataclass(frozen=True)
class Item:
    """One training text: its tokens, the index of its label, its weight in the loss."""

    tokens: Tokens
    truth: int
    weight: float


class Items(Dataset[Item]):
    """Items in memory, as torch wants them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]

    @property
    def lengths(self) -> list[int]:
        """In tokens."""
        return [len(item.tokens) for item in self.items]


class LengthGroupedBatches(Sampler[list[int]]):
    """Shuffles, sorts every `MEGABATCH` batches by length, cuts them, shuffles the batches.

    An epoch's order follows from `seed` and its number alone, so that a resumed run sees what it would have seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        chooser = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        chooser.shuffle(order)
        mega = MEGABATCH * self.batch_size
        batches = []
        for start in range(0, len(order), mega):
            batches += sorted_batches(order[start : start + mega], self.lengths, self.batch_size)
        chooser.shuffle(batches)
        return iter(batches)


def sorted_batches(indices: Sequence[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """`indices` cut into batches, the longest first."""
    ordered = sorted(indices, key=lambda index: -lengths[index])
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


@dataclass(frozen=True)
class Collator:
    """Pads items to the longest among them; `types` says whether the model reads token types."""

    pad_id: int
    types: bool

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and perhaps `token_type_ids` (items, length); `labels`, `weights` (items,)."""
        shape = (len(items), max(len(item.tokens) for item in items))
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        types = torch.zeros(shape, dtype=torch.long)
        for row, item in enumerate(items):
            length = len(item.tokens)
            ids[row, :length] = torch.from_numpy(item.tokens.ids)
            types[row, :length] = torch.from_numpy(item.tokens.types)
            mask[row, :length] = 1
        return {
            "input_ids": ids,
            "attention_mask": mask,
            **({"token_type_ids": types} if self.types else {}),
            "labels": torch.tensor([item.truth for item in items]),
            "weights": torch.tensor([item.weight for item in items], dtype=torch.float32),
        }
