"""TF-IDF features of the classic family: scikit-learn chooses the terms; what answers does without it.

`features.json` holds the blocks (their options and terms, in column order), `model.safetensors` the arrays `idf`
(columns,), `coefficients` (columns, labels) and `intercepts` (labels,). No pickle.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.families.base import FamilyError
from registry.families.scikit import lean_import
from registry.families.terms import terms_of
from registry.recipe import TrainingConfig

FORMAT = 1
FEATURES_NAME, WEIGHTS_NAME = "features.json", "model.safetensors"
MIN_TEXTS = 2  # a term seen in a single text says nothing about others


class Block:
    """One field read one way: its `terms` in column order with their `idf`, and a quick way to the row of a text."""

    def __init__(self, field: int, options: dict[str, Any], terms: list[str], idf: NDArray[np.float32]) -> None:
        self.field, self.options, self.terms, self.idf = field, options, terms, idf
        self._vocabulary = {term: column for column, term in enumerate(terms)}
        self._find_terms = terms_of(options)

    @cached_property
    def vectoriser(self) -> Any:
        """Its equal of scikit-learn's, which is quicker with many texts."""
        with lean_import():
            from sklearn.feature_extraction.text import TfidfVectorizer

        vectoriser = TfidfVectorizer(vocabulary=self.terms, dtype=np.float32, **_arguments(self.options))
        vectoriser.idf_ = self.idf
        return vectoriser

    def row(self, text: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Columns and values of one text: what `vectoriser.transform` gives, without its sparse-matrix overhead."""
        find = self._vocabulary.get
        counts = Counter([column for term in self._find_terms(text) if (column := find(term)) is not None])
        columns = np.fromiter(counts.keys(), dtype=np.intp, count=len(counts))
        values = np.log(np.fromiter(counts.values(), dtype=np.float32, count=len(counts))) + 1
        values *= self.idf[columns]
        norm = np.sqrt(values @ values)
        return columns, values / norm if norm else values


class FieldFeatures:
    """All blocks side by side."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        self._offsets = np.concatenate([[0], np.cumsum([len(block.idf) for block in self.blocks])])

    @property
    def columns(self) -> int:
        return int(self._offsets[-1])

    def row(self, texts: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Columns and values of one input, a prepared text per field."""
        rows = [block.row(texts[block.field]) for block in self.blocks]
        columns = [columns + offset for (columns, _), offset in zip(rows, self._offsets, strict=False)]
        return np.concatenate(columns), np.concatenate([values for _, values in rows])

    def transform(self, inputs: Sequence[Sequence[str]]) -> Any:
        """Sparse matrix (inputs, columns)."""
        from scipy.sparse import hstack

        parts = [block.vectoriser.transform([texts[block.field] for texts in inputs]) for block in self.blocks]
        return hstack(parts, format="csr")


def fit_features(
    fields: Sequence[str], inputs: Sequence[Sequence[str]], training: TrainingConfig
) -> tuple[FieldFeatures, Any]:
    """Learn the terms of prepared `inputs`; the features and the matrix (inputs, columns) of the same inputs.

    Raises FamilyError where the texts hold no term at all.
    """
    from scipy.sparse import hstack

    blocks, parts = [], []
    for field in range(len(fields)):
        texts = [texts[field] for texts in inputs]
        for options in _options(training):
            if (fitted := _fit_vectoriser(texts, options, training.max_features)) is not None:
                vectoriser, part = fitted
                terms = [str(term) for term in vectoriser.get_feature_names_out()]
                blocks.append(Block(field, options, terms, vectoriser.idf_.astype(np.float32)))
                parts.append(part)
    if not blocks:
        raise FamilyError("The training texts hold no words at all; import texts with words.")
    return FieldFeatures(blocks), hstack(parts, format="csr")


def write_features(
    folder: Path,
    features: FieldFeatures,
    coefficients: NDArray[np.float32],
    intercepts: NDArray[np.float32],
    *,
    labels: Sequence[str],
) -> None:
    from safetensors.numpy import save_file

    blocks = [{"field": block.field, "options": block.options, "terms": block.terms} for block in features.blocks]
    described = {"format": FORMAT, "labels": list(labels), "blocks": blocks}
    (folder / FEATURES_NAME).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    idf = np.concatenate([block.idf for block in features.blocks])
    arrays = {"idf": idf, "coefficients": np.ascontiguousarray(coefficients), "intercepts": intercepts}
    save_file(arrays, str(folder / WEIGHTS_NAME))


def read_features(folder: Path) -> tuple[FieldFeatures, NDArray[np.float32], NDArray[np.float32]]:
    """Features, coefficients and intercepts as written. Raises FamilyError where they do not fit together."""
    from safetensors.numpy import load_file

    described = json.loads((folder / FEATURES_NAME).read_text(encoding="utf-8"))
    if described.get("format") != FORMAT:
        raise FamilyError(f"{FEATURES_NAME} has format {described.get('format')!r}; this release reads {FORMAT}.")
    arrays = load_file(str(folder / WEIGHTS_NAME))
    blocks, start = [], 0
    for block in described["blocks"]:
        end = start + len(block["terms"])
        blocks.append(Block(block["field"], block["options"], block["terms"], arrays["idf"][start:end]))
        start = end
    if not start == len(arrays["idf"]) == len(arrays["coefficients"]):
        raise FamilyError(f"{FEATURES_NAME} and {WEIGHTS_NAME} do not belong together; train again.")
    return FieldFeatures(blocks), arrays["coefficients"], arrays["intercepts"]


def _options(training: TrainingConfig) -> list[dict[str, Any]]:
    words = {"analyzer": "word", "ngram_range": list(training.ngram_range), "token_pattern": r"(?u)\b\w\w+\b"}
    characters = {"analyzer": "char_wb", "ngram_range": [3, 5]}
    return [options | {"sublinear_tf": True} for options in (words, characters)]


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return options | {"ngram_range": tuple(options["ngram_range"])}


def _fit_vectoriser(texts: list[str], options: dict[str, Any], max_features: int) -> tuple[Any, Any] | None:
    """The fitted vectoriser and its matrix; with every term where none occurs twice, None where there is none."""
    with lean_import():
        from sklearn.feature_extraction.text import TfidfVectorizer

    for least in (MIN_TEXTS, 1):
        vectoriser = TfidfVectorizer(max_features=max_features, min_df=least, dtype=np.float32, **_arguments(options))
        try:
            return vectoriser, vectoriser.fit_transform(texts)
        except ValueError:  # scikit-learn's word for an empty vocabulary
            continue
    return None
