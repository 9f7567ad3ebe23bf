"""Batches of texts of like length: padding is work for nothing, and most of it can be avoided."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from registry.families.tokenisation import Tokens

MULTIPLE, CUDA_MULTIPLE = 2, 8  # tokens; of which batches are long: on CUDA they are to be of few shapes
MEGABATCH = 50  # batches sorted together: enough to pad little, few enough to stay random


@dataclass(frozen=True)
class Item:
    """One training text: its tokens, the index of its label (or 0 and 1 for every label), its weight in the loss."""

    tokens: Tokens
    truth: int | NDArray[np.float32]
    weight: float = 1.0


Draw = tuple[int, float]
"""The index of a text, and by how much its weight is multiplied."""


class Items(Dataset[Item]):
    """Items in memory, as torch wants them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> Item:
        index, factor = draw
        item = self.items[index]
        return item if factor == 1 else replace(item, weight=item.weight * factor)

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


class Shares(Sampler[list[Draw]]):
    """What process `rank` of `processes` reads of `batches`, each batch in `parts` steps.

    Every piece of a batch has as many texts as the others, so that processes are in step; padding weighs nothing.
    Weights are such that the mean over the pieces is the mean over the whole batch: however a batch is cut, the
    gradient is the same.
    """

    def __init__(self, batches: LengthGroupedBatches, *, rank: int = 0, processes: int = 1, parts: int = 1) -> None:
        self._batches, self._rank, self._processes, self._parts = batches, rank, processes, parts

    def set_epoch(self, epoch: int) -> None:
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches) * self._parts

    def __iter__(self) -> Iterator[list[Draw]]:
        pieces = self._processes * self._parts
        for batch in self._batches:
            size = -(-len(batch) // pieces)
            whole = pieces * size
            drawn = [(index, whole / len(batch)) for index in batch] + [(batch[-1], 0.0)] * (whole - len(batch))
            for start in range(self._rank * size, whole, self._processes * size):
                yield drawn[start : start + size]


def sorted_batches(indices: Sequence[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """`indices` cut into batches, the longest first."""
    ordered = sorted(indices, key=lambda index: -lengths[index])
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


@dataclass(frozen=True)
class Collator:
    """Pads items to the longest among them, and that one to a multiple of `multiple` tokens.

    The first batch of each length costs an extra 80 ms on a CPU, in which oneDNN writes code for products of this size;
    half as many lengths halve that, and products of an odd length cost as much as those of the next even one. `types`
    says whether the model reads token types, `most` how many tokens at all.
    """

    pad_id: int
    types: bool
    most: int
    multiple: int = MULTIPLE

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and perhaps `token_type_ids` (items, length); `truth`, `weights` (items,).

        `truth` is (items, labels) where a text may have several labels.
        """
        longest = max(len(item.tokens) for item in items)
        shape = (len(items), min(-(-longest // self.multiple) * self.multiple, max(longest, self.most)))
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
            "truth": torch.from_numpy(np.array([item.truth for item in items])),
            "weights": torch.tensor([item.weight for item in items], dtype=torch.float32),
        }
