"""Turning user text into token ids, the same way in training and in serving, with `tokenizers` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from registry.families.base import Fields
from registry.text import prepare


@dataclass(frozen=True, slots=True)
class Tokens:
    """One input: `ids` and `types` (length,) int64, and whether tokens beyond the maximum were dropped."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Tokenisation:
    """Prepares, encodes and truncates one or two fields; of a pair, the longer one loses tokens first. Never pads.

    Tokenizers of models that write text may put nothing around it. Then a line break parts a pair, and an empty text is
    one special token, since a model needs something to read.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, preprocessing: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, strategy="longest_first")
        self._tokenizer = tokenizer
        self._version = preprocessing
        alone, paired = (tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
        self._parting = "" if paired > alone else "\n"
        special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        self._nothing = min(special, default=0)

    @classmethod
    def read(cls, path: Path, max_length: int, preprocessing: int) -> "Tokenisation":
        """From a `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)), max_length, preprocessing)

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, preprocessing: int) -> "Tokenisation":
        """A copy of what a fast tokenizer of transformers does."""
        return cls(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), max_length, preprocessing)

    def encode(self, fields: Fields) -> Tokens:
        """Tokens of one input of one or two fields."""
        first, second = (*self._prepare(fields), None)[:2]
        return self._tokens(self._tokenizer.encode(first, second))

    def encode_all(self, inputs: Sequence[Fields]) -> list[Tokens]:
        """Many inputs, on all cores."""
        prepared = [self._prepare(fields) for fields in inputs]
        batch = [fields if len(fields) > 1 else fields[0] for fields in prepared]
        return [self._tokens(encoding) for encoding in self._tokenizer.encode_batch(batch)]

    def _prepare(self, fields: Fields) -> Fields:
        first, *others = (prepare(text, self._version) for text in fields)
        return first, *(self._parting + text for text in others)

    def _tokens(self, encoding: Encoding) -> Tokens:
        ids = np.array(encoding.ids or [self._nothing], dtype=np.int64)
        types = np.array(encoding.type_ids or [0], dtype=np.int64)
        return Tokens(ids, types, truncated=bool(encoding.overflowing))
