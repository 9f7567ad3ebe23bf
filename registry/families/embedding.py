"""The embedding family: a frozen encoder under logistic regression, which learns in seconds from few texts.

Only the head learns, so a text is encoded once in its life: its vector is kept in the cache, and a run over a grown
data set encodes what is new. Where the base model tells the labels apart by itself (topics, intents) that comes close
to fine-tuning; where it does not (emotions), `encoder` and even `classic` do better.

The head learns on fp32 vectors. int8 answers where it agrees with them, which it seldom does where the labels lie close
together: on six emotions 95 % of the answers agreed, so fp32 served.

`package/` holds the head and names the encoder; `serving/` is that of the encoder family, with pooling and head inside
the graph. torch is imported where a base model was never converted on this machine, and nowhere else.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.families.agreement import MAX_COMPARED, evenly, judge_int8
from registry.families.base import (
    Example,
    FamilyError,
    Fields,
    FitRequest,
    FitResult,
    Predictor,
    Reporter,
    Stopped,
    absent_labels,
    check_examples,
    check_length,
    check_pair,
)
from registry.families.base_models import MINILM, BaseModel, find_base_model
from registry.families.frozen_encoder import VERSION, FrozenEncoder, frozen_encoder
from registry.families.linear_head import Head, fit_head
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME, Graph, OnnxPredictor
from registry.families.targets import calibrate, validation_scores
from registry.families.tokenisation import Tokenisation
from registry.families.vector_cache import Embedded, VectorCache
from registry.manifest import Manifest
from registry.text import PREPROCESSING_VERSION, prepare

HEAD_NAME, WEIGHTS_NAME = "head.json", "model.safetensors"
_CHUNK = 256  # texts between two looks at whether to stop; what is encoded by then is kept
_CONVERTED, _ENCODED, _FITTED = 0.1, 0.8, 0.9  # shares of the whole fit


def fit(request: FitRequest) -> FitResult:
    """Encode what is new, fit the head, choose between int8 and fp32, calibrate, write both folders.

    A run that is stopped goes on where it was, as its vectors are kept. Raises Stopped or FamilyError.
    """
    check_examples(request)
    check_pair(request)
    request.reporter.progress(0.0, f"Loading {request.recipe.model.model_name}")
    base = find_base_model(request.recipe.model.model_name)
    with _cache_of(request) as cache:
        encoder = frozen_encoder(base, cache, request.reporter)
        check_length(request, encoder.tokens)
        return _fit_head(request, base, encoder, cache)


def encode(
    texts: Sequence[Fields], cache: Path, reporter: Reporter, *, model_name: str = MINILM, max_length: int = 128
) -> NDArray[np.float32]:
    """Vectors (n, width) of length 1 of texts of one or two fields, outside any training; by the int8 graph.

    `reporter` hears fractions of this work. Vectors are kept in `cache` as those of a training are. Raises Stopped, and
    FamilyError where the base model cannot be had.
    """
    encoder = frozen_encoder(find_base_model(model_name), cache, reporter)
    embedder = _Embedder(encoder, cache, max_length, reporter)
    return embedder.encode([Example(fields, "") for fields in texts], INT8_NAME)


def load(folder: Path, manifest: Manifest) -> Predictor:
    """The predictor of `serving/`; the caller has verified the files."""
    return OnnxPredictor(folder, manifest)


@contextmanager
def _cache_of(request: FitRequest) -> Iterator[Path]:
    """The request's cache, or one for this run alone."""
    if request.cache is not None:
        request.cache.mkdir(parents=True, exist_ok=True)
        yield request.cache
    else:
        with tempfile.TemporaryDirectory(prefix="kalimtak-") as folder:
            yield Path(folder)


def _fit_head(request: FitRequest, base: BaseModel, encoder: FrozenEncoder, cache: Path) -> FitResult:
    request.reporter.describe(device="cpu", epochs=1)
    embedder = _Embedder(encoder, cache, request.recipe.model.max_length, request.reporter)
    valid = evenly(request.valid, MAX_COMPARED)
    vectors, held_out, quantised = (
        embedder.encode(examples, graph)
        for examples, graph in ((request.train, FP32_NAME), (valid, FP32_NAME), (valid, INT8_NAME))
    )
    request.reporter.progress(_ENCODED, "Fitting the head")
    _stop_if_asked(request.reporter)
    head = fit_head(request, vectors)
    _stop_if_asked(request.reporter)
    logits, history = _logits(held_out, head), []
    is_int8, notes = False, ["Without validation texts fp32 answers."]
    if valid:
        values = validation_scores(request, logits, valid)
        request.reporter.metrics(1, 1.0, values)
        history.append({"epoch": 1, **values})
        verdict = judge_int8(request, logits, _logits(quantised, head), valid)
        is_int8, notes = verdict.is_as_good, [verdict.note]
        logits = _logits(quantised, head) if is_int8 else logits
    request.reporter.progress(_FITTED, "Calibrating")
    calibration, calibrating = calibrate(request, logits, valid)
    _write(request, base, encoder, head, is_int8=is_int8)
    request.reporter.progress(1.0, "Model written")
    trainable = sum(part.size for part in head)
    return FitResult(
        calibration=calibration.to_dict(),
        parameters={"total": encoder.parameters + trainable, "trainable": trainable},
        base_model=base.to_dict(),
        max_length=request.recipe.model.max_length,
        notes=(*embedder.notes(), *notes, *calibrating, *absent_labels(request)),
        history=history,
    )


def _logits(vectors: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    coefficients, intercepts = head
    return vectors @ coefficients + intercepts


class _Embedder:
    """Texts to vectors: from the cache where it has them, else each in a forward pass of its own, as it is served."""

    def __init__(self, encoder: FrozenEncoder, cache: Path, max_length: int, reporter: Reporter) -> None:
        self._encoder, self._max_length, self._reporter = encoder, max_length, reporter
        self._known = VectorCache(cache, encoder.width)
        self._tokenisation = Tokenisation.read(encoder.tokenizer, max_length, PREPROCESSING_VERSION)
        self._share = _CONVERTED
        self.encoded, self.asked, self.cut = 0, 0, 0

    def encode(self, examples: Sequence[Example], graph: str) -> NDArray[np.float32]:
        """Vectors (n, width). Raises Stopped; what was encoded by then is kept."""
        _stop_if_asked(self._reporter)
        keys = self._keys(examples, graph)
        found = self._known.get(list(set(keys)))
        unknown = {key: example for key, example in zip(keys, examples, strict=True) if key not in found}
        found |= self._forward(unknown, graph)
        self.asked += len(keys)
        self.encoded += len(unknown)
        self.cut += sum(found[key][1] for key in keys)
        vectors = np.array([found[key][0] for key in keys], dtype=np.float32)
        return vectors.reshape(len(keys), self._encoder.width)

    def notes(self) -> list[str]:
        """What people should know of the texts."""
        said = [f"{self.encoded:,} of {self.asked:,} vectors computed, the others were known."]
        if self.cut:
            said.append(f"{self.cut / self.asked:.1%} of the texts are longer than max_length and were cut off.")
        return said

    def _keys(self, examples: Sequence[Example], graph: str) -> list[bytes]:
        """SHA-256 of all that decides a vector; the text itself is not kept anywhere."""
        decides = [self._encoder.digest(graph), self._max_length, PREPROCESSING_VERSION]
        start = hashlib.sha256(json.dumps(decides).encode())
        keys = []
        for example in examples:
            digest = start.copy()
            digest.update(json.dumps([prepare(text, PREPROCESSING_VERSION) for text in example.fields]).encode())
            keys.append(digest.digest())
        return keys

    def _forward(self, unknown: dict[bytes, Example], graph: str) -> dict[bytes, Embedded]:
        if not unknown:
            return {}
        session = Graph(self._encoder.folder / graph)
        keys = list(unknown)
        made: dict[bytes, Embedded] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(keys), _CHUNK):
                _stop_if_asked(self._reporter)
                chunk = keys[start : start + _CHUNK]
                tokens = self._tokenisation.encode_all([unknown[key].fields for key in chunk])
                vectors = list(pool.map(session.run, tokens))
                if not np.isfinite(vectors).all():
                    raise FamilyError("The encoder gives numbers that are not finite; take another model_name.")
                fresh = {
                    key: (vector, each.truncated) for key, vector, each in zip(chunk, vectors, tokens, strict=True)
                }
                self._known.put(fresh)
                made |= fresh
                self._tell(len(made), len(keys))
        return made

    def _tell(self, done: int, total: int) -> None:
        """The training texts fill the bar; the few others after them move it no further."""
        self._share = max(self._share, _CONVERTED + (_ENCODED - _CONVERTED) * done / total)
        self._reporter.progress(self._share, f"Encoded {done:,} of {total:,} new texts")


def _write(request: FitRequest, base: BaseModel, encoder: FrozenEncoder, head: Head, *, is_int8: bool) -> None:
    """`package/` and `serving/`; the int8 graph is there where it answers."""
    from safetensors.numpy import save_file

    from registry.families.graph_head import write_with_head

    package, serving = request.out / "package", request.out / "serving"
    package.mkdir(parents=True, exist_ok=True)
    serving.mkdir(parents=True, exist_ok=True)
    coefficients, intercepts = head
    save_file({"coefficients": coefficients, "intercepts": intercepts}, str(package / WEIGHTS_NAME))
    described = {
        "labels": list(request.labels),
        "encoder": {**base.to_dict(), "pooling": "mean", "normalised": True, "conversion": VERSION},
        "max_length": request.recipe.model.max_length,
    }
    (package / HEAD_NAME).write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (package / "README.md").write_text(_README, encoding="utf-8")
    for name in (FP32_NAME, INT8_NAME) if is_int8 else (FP32_NAME,):
        write_with_head(encoder.folder / name, serving / name, coefficients, intercepts)
    shutil.copyfile(encoder.tokenizer, serving / TOKENIZER_NAME)


def _stop_if_asked(reporter: Reporter) -> None:
    if reporter.stop_requested():
        raise Stopped("stopped on request; what was encoded is kept")


_README = """# A linear head on a frozen encoder

`head.json` lists the labels and names the encoder with the SHA-256 of its weights; `model.safetensors` holds
`coefficients` (width, labels) and `intercepts` (labels,). To rebuild it: let
`sentence_transformers.SentenceTransformer(encoder)`, or transformers with the mean of the last layer over the tokens
that are not padding, scaled to length 1, turn a text into `vector`; `scores = vector @ coefficients + intercepts`.
Divide by the temperature in the artefact's manifest and take the softmax, or the sigmoid where it says `multi_label`.
Texts are first put in Unicode form C with emoji spelled out.

`serving/` beside this folder needs neither: its ONNX graph goes from token ids to scores.
"""
