"""Answering from `serving/` with tokenizers and onnxruntime alone.

Texts share a pass. In int8 with static scales (`registry/families/quantisation.py`) and without padding
(`registry/families/unpadding.py`) eight texts of 14 to 22 tokens took a quarter less than one by one, without a bit of
an answer changed; in fp32 a text of 13 tokens among 256 of about equal length took 1.9 ms instead of 3.9 (MiniLM).
With dynamic scales, which are taken over everything in a pass, a text could be answered otherwise in company than
alone, so each has its own.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from registry.calibration import Calibration
from registry.families.base import Answer, FamilyError, Fields
from registry.families.tokenisation import Tokenisation, Tokens
from registry.manifest import Manifest

logger = logging.getLogger(__name__)

FP32_NAME, INT8_NAME, TOKENIZER_NAME = "model.onnx", "model.int8.onnx", "tokenizer.json"
SCALES, STATIC = "scales", "static"  # what a graph with static scales says of itself in its metadata
PADDING, LEFT_OUT = "padding", "left out"  # and one that `registry/families/unpadding.py` has changed
THREADS_VARIABLE = "KALIMTAK_INFERENCE_THREADS"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# By default products on a GPU are of 10 bits (TF32): an NVIDIA H200 gave probabilities that differed by up to 0.0012.
PROVIDER_OPTIONS = {CUDA: {"use_tf32": "0"}}
TOLERANCE = 1e-4  # of a probability, between a text alone and in company
# onnxruntime makes one step of a residual connection's sum and the layer norm behind it, which on a CPU goes through
# the numbers one by one: 33 us of processor time instead of 11 for MiniLM and a text of 17 tokens. Apart they take 12 %
# from a forward pass in int8, 11 % in fp32, and int8 is as close to fp32 as before (docs/decisions, 22).
SLOW_ON_CPU = "SkipLayerNormFusion"
_UNEQUAL = ("short", "a somewhat longer text, so that the short one is padded beside it", "two words")


@dataclass(frozen=True)
class Limits:
    """Of a pass that several texts share: `texts` and their `tokens`, and `places` (with padding) for each token."""

    texts: int
    tokens: float
    places: float


ALONE = Limits(1, float("inf"), 1.0)
# Beyond them a CPU is as fast with passes of their own (texts of 128 tokens gain nothing); on a GPU passes count.
LIMITS = {CPU: Limits(16, 256, 1.1), CUDA: Limits(64, float("inf"), float("inf"))}
WITHOUT_PADDING = Limits(16, 256, 1.5)  # attention alone is padded


class Graph:
    """An ONNX model of one result; `run` may be called from several threads at once.

    `provider` says what actually computes: onnxruntime falls back to the CPU where the one asked for cannot start.
    """

    def __init__(self, path: Path, threads: int = 1, provider: str = CPU) -> None:
        wanted = [(each, PROVIDER_OPTIONS.get(each, {})) for each in dict.fromkeys((provider, CPU))]
        self._session = onnxruntime.InferenceSession(str(path), session_options(threads, provider), providers=wanted)
        self.provider: str = self._session.get_providers()[0]
        self._inputs = {each.name for each in self._session.get_inputs()}
        told = self._session.get_modelmeta().custom_metadata_map
        self.has_static_scales = told.get(SCALES) == STATIC
        self.limits = WITHOUT_PADDING if told.get(PADDING) == LEFT_OUT else LIMITS[self.provider]

    def run(self, tokens: Tokens) -> NDArray[np.float32]:
        """Logits (labels,) of one text."""
        logits: NDArray[np.float32] = self.run_batch(feeds_of(tokens))[0]
        return logits

    def run_batch(self, feeds: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Logits (texts, labels) of padded arrays (texts, length); feeds the graph does not know are left out."""
        known = {name: values for name, values in feeds.items() if name in self._inputs}
        logits: NDArray[np.float32] = self._session.run(None, known)[0]
        return logits


def session_options(threads: int = 1, provider: str = CPU) -> onnxruntime.SessionOptions:
    """How a graph is run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; initialisers the optimiser drops are no news
    if provider == CPU:
        options.add_session_config_entry("optimization.disable_specified_optimizers", SLOW_ON_CPU)
    return options


def feeds_of(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """One text as every input an encoder may have, each (1, length)."""
    feeds = {"input_ids": tokens.ids, "attention_mask": np.ones_like(tokens.ids), "token_type_ids": tokens.types}
    return {name: values[np.newaxis] for name, values in feeds.items()}


def padded(texts: Sequence[Tokens]) -> dict[str, NDArray[np.int64]]:
    """Several texts as every input an encoder may have, each (texts, longest length), masked where a text ended."""
    shape = len(texts), max(map(len, texts))
    ids, mask, types = (np.zeros(shape, np.int64) for _ in range(3))
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)], types[row, : len(text)] = text.ids, 1, text.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def passes(lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Which texts share a pass, by index, longest first."""
    chunks: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        tokens += lengths[index]
        fits = chunks and len(chunks[-1]) < limits.texts and tokens <= limits.tokens
        if fits and lengths[chunks[-1][0]] * (len(chunks[-1]) + 1) <= limits.places * tokens:
            chunks[-1].append(index)
        else:
            chunks.append([index])
            tokens = lengths[index]
    return chunks


class OnnxPredictor:
    """Answers on the CPU, from the int8 graph where training found it as good, else from the fp32 graph."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._serving = folder / "serving"
        if manifest.max_length is None:
            raise FamilyError("The manifest of an encoder must say its max_length; train again.")
        self.labels = manifest.labels
        self.input_fields = manifest.input_fields
        self.calibration = Calibration.from_dict(manifest.calibration)
        self.batches = False  # in company a text costs nearly what it does alone
        tokenizer = self._serving / TOKENIZER_NAME
        self._tokenisation = Tokenisation.read(tokenizer, manifest.max_length, manifest.preprocessing)
        is_int8 = (self._serving / INT8_NAME).is_file()
        self._graph = Graph(self._serving / (INT8_NAME if is_int8 else FP32_NAME), threads=_threads())
        may_share = not is_int8 or self._graph.has_static_scales
        self._limits = self._limits_of(self._graph) if may_share else ALONE

    def accelerate(self, device: str) -> None:
        """Compute in fp32 on a GPU from now on, where `device` (auto, cpu, cuda, mps) allows it and one is there.

        Left to whoever serves: what is verified, scored and measured is computed alike on every machine.
        """
        if device not in ("auto", "cuda") or CUDA not in onnxruntime.get_available_providers():
            return
        onnxruntime.preload_dlls()  # NVIDIA's libraries as pip installs them, where no loader would look for them
        graph = Graph(self._serving / FP32_NAME, provider=CUDA)
        if graph.provider != CUDA:
            logger.warning("The GPU cannot be used, so the CPU answers; see what onnxruntime said above.")
            return
        self._graph, self._limits = graph, self._limits_of(graph)
        self.batches = self._limits != ALONE

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`."""
        if not inputs:
            return []
        tokens = [self._tokenisation.encode(fields) for fields in inputs]
        logits = np.stack(self._logits(self._graph, tokens, self._limits))
        probabilities = self.calibration.probabilities(logits).astype(np.float32)
        return [Answer(each, text.truncated) for each, text in zip(probabilities, tokens, strict=True)]

    def _logits(self, graph: Graph, texts: Sequence[Tokens], limits: Limits) -> list[NDArray[np.float32]]:
        """Of each text (labels,), in the order given."""
        if limits == ALONE or len(texts) == 1:
            return [graph.run(text) for text in texts]
        logits: dict[int, NDArray[np.float32]] = {}
        for chunk in passes([len(text) for text in texts], limits):
            logits |= zip(chunk, graph.run_batch(padded([texts[index] for index in chunk])), strict=True)
        return [logits[index] for index in range(len(texts))]

    def _limits_of(self, graph: Graph) -> Limits:
        """`ALONE` where this model takes padding for text, as one does that reads the last token of a row."""
        texts = [self._tokenisation.encode((text,) * len(self.input_fields)) for text in _UNEQUAL]
        alone = np.stack(self._logits(graph, texts, ALONE))
        try:
            together = graph.run_batch(padded(texts))
        except Exception as error:  # whatever onnxruntime makes of several rows
            logger.warning("Texts are answered one by one, since the graph takes no batch: %s", error)
            return ALONE
        difference = self.calibration.probabilities(alone) - self.calibration.probabilities(together)
        return graph.limits if np.abs(difference).max() <= TOLERANCE else ALONE


def _threads() -> int:
    """One, since a machine is filled with processes; a batch job on an idle machine may ask for more."""
    value = os.environ.get(THREADS_VARIABLE, "1")
    if not value.isdecimal() or not 1 <= int(value) <= 256:
        raise FamilyError(f"{THREADS_VARIABLE} must be a whole number from 1 to 256, got {value!r}.")
    return int(value)
