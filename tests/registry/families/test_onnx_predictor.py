"""How `serving/` is computed: in passes of about equal length where company changes no answer, on a GPU if one is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import families
from registry.families.onnx_predictor import (
    ALONE,
    CPU,
    CUDA,
    FP32_NAME,
    INT8_NAME,
    LIMITS,
    WITHOUT_PADDING,
    Limits,
    OnnxPredictor,
    passes,
    session_options,
)
from registry.families.quantisation import quantise
from registry.manifest import read_manifest
from tests.registry.families.material import Built, sentences

Builder = Callable[..., Built]
TEXTS = [example.fields for example in sentences(40, seed=4)] + [("apple " * 200,), ("",), ("we",)]


@pytest.fixture
def fp32(built: Builder, tmp_path: Path) -> OnnxPredictor:
    """A predictor that has no int8 graph."""
    source = built("encoder")[0]
    (tmp_path / "serving").mkdir()
    for path in (source / "serving").iterdir():
        if path.name != INT8_NAME:
            (tmp_path / "serving" / path.name).write_bytes(path.read_bytes())
    return OnnxPredictor(tmp_path, read_manifest(source))


class Passes:
    """Counts the texts of each pass through a predictor's graph."""

    def __init__(self, predictor: OnnxPredictor) -> None:
        self.sizes: list[int] = []
        graph = predictor._graph
        run = graph.run_batch

        def counting(feeds: dict) -> np.ndarray:
            self.sizes.append(len(feeds["input_ids"]))
            return run(feeds)

        graph.run_batch = counting


def test_in_fp32_texts_share_passes_and_are_answered_as_if_alone(fp32: OnnxPredictor) -> None:
    alone = [fp32.predict([fields])[0] for fields in TEXTS]
    counted = Passes(fp32)
    together = fp32.predict(TEXTS)
    assert max(counted.sizes) == LIMITS[CPU].texts
    assert sum(counted.sizes) == len(TEXTS)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.probabilities - other.probabilities).max() <= 1e-4
        assert one.truncated == other.truncated
    assert not fp32.batches


@pytest.fixture
def int8(fp32: OnnxPredictor, built: Builder, tmp_path: Path) -> Callable[[bool], OnnxPredictor]:
    """A predictor with an int8 graph of either kind, whatever training found of it."""

    def of(static: bool) -> OnnxPredictor:
        serving = tmp_path / "serving"
        shown = [fp32._tokenisation.encode(fields) for fields in TEXTS[:40]]
        quantise(serving / FP32_NAME, serving / INT8_NAME, shown, static=static)
        return OnnxPredictor(tmp_path, read_manifest(built("encoder")[0]))

    return of


def test_in_int8_with_static_scales_texts_share_passes_and_are_answered_as_if_alone(int8) -> None:
    predictor = int8(True)
    assert predictor._limits == WITHOUT_PADDING  # the tiny encoder is a BERT
    alone = [predictor.predict([fields])[0].probabilities for fields in TEXTS]
    counted = Passes(predictor)
    together = [answer.probabilities for answer in predictor.predict(TEXTS)]
    assert 1 < max(counted.sizes) <= LIMITS[CPU].texts
    assert sum(counted.sizes) == len(TEXTS)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)


def test_in_int8_with_dynamic_scales_each_text_has_a_pass_of_its_own(int8) -> None:
    predictor = int8(False)
    counted = Passes(predictor)
    predictor.predict(TEXTS)
    assert counted.sizes == [1] * len(TEXTS)


@given(
    st.lists(st.integers(1, 512), max_size=40),
    st.integers(1, 9),
    st.sampled_from([1.0, 40.0, 256.0, float("inf")]),
    st.sampled_from([1.0, 1.1, 2.0, float("inf")]),
)
def test_passes_take_every_text_once_and_keep_their_bounds(
    lengths: list[int], most: int, all_tokens: float, share: float
) -> None:
    chunks = passes(lengths, Limits(most, all_tokens, share))
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        tokens = [lengths[index] for index in chunk]
        assert len(chunk) <= most and len(chunk) * max(tokens) <= share * sum(tokens)
        assert len(chunk) == 1 or sum(tokens) <= all_tokens


def test_a_model_that_takes_padding_for_text_is_asked_one_by_one(fp32: OnnxPredictor, monkeypatch) -> None:
    graph = fp32._graph
    run = graph.run_batch
    monkeypatch.setattr(
        graph, "run_batch", lambda feeds: run(feeds | {"attention_mask": np.ones_like(feeds["input_ids"])})
    )
    assert fp32._limits_of(graph) == ALONE


def test_a_graph_that_takes_no_batch_is_asked_one_by_one(fp32: OnnxPredictor, monkeypatch) -> None:
    run = fp32._graph.run_batch

    def one_row(feeds: dict) -> np.ndarray:
        if len(feeds["input_ids"]) > 1:
            raise ValueError("got invalid dimensions")
        return run(feeds)

    monkeypatch.setattr(fp32._graph, "run_batch", one_row)
    assert fp32._limits_of(fp32._graph) == ALONE


def test_a_step_that_is_slow_on_a_cpu_is_not_made_of_two_quick_ones(built: Builder, tmp_path: Path) -> None:
    """onnxruntime makes it by itself; should it call it otherwise one day, that is to be noticed."""
    graph = built("encoder")[0] / "serving" / FP32_NAME
    fused = "SkipLayerNormalization"
    assert fused in steps_of(graph, onnxruntime.SessionOptions(), tmp_path)
    assert fused not in steps_of(graph, session_options(), tmp_path)
    assert fused in steps_of(graph, session_options(provider=CUDA), tmp_path)


def steps_of(graph: Path, options: onnxruntime.SessionOptions, folder: Path) -> set[str]:
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(graph), options, providers=[CPU])
    return {node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node}


# ---- the choice of the provider --------------------------------------------------------------------------------------

Providers = list[tuple[str, dict[str, str]]]
"""Their names and options, the first choice first."""


@pytest.fixture
def machine(monkeypatch) -> Callable[..., list[tuple[str, Providers]]]:
    """A machine as onnxruntime sees it: what it was built with, and what starts. No GPU takes part in the tests."""

    def machine(*available: str, starts: bool = True) -> list[tuple[str, Providers]]:
        opened: list[tuple[str, Providers]] = []
        real = onnxruntime.InferenceSession

        class Session:
            def __init__(self, path: str, options: object, providers: Providers) -> None:
                opened.append((Path(path).name, providers))
                self._real = real(path, options, providers=[CPU])
                self._providers = [name for name, _ in providers] if starts else [CPU]

            def get_providers(self) -> list[str]:
                return self._providers

            def __getattr__(self, name: str) -> object:
                return getattr(self._real, name)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(available))
        return opened

    return machine


@pytest.mark.parametrize(
    ("device", "available", "uses_gpu"),
    [
        ("auto", (CUDA, CPU), True),
        ("cuda", (CUDA, CPU), True),
        ("cpu", (CUDA, CPU), False),
        ("mps", (CUDA, CPU), False),
        ("auto", (CPU,), False),
        ("cuda", (CPU,), False),
    ],
)
def test_the_gpu_answers_where_there_is_one_and_the_device_allows_it(
    built: Builder, machine, device: str, available: tuple[str, ...], uses_gpu: bool
) -> None:
    predictor = families.load(built("encoder")[0])
    opened = machine(*available)
    before = predictor.predict(TEXTS)
    predictor.accelerate(device)
    exactly = {"use_tf32": "0"}  # else a GPU multiplies with 10 bits
    assert opened == ([(FP32_NAME, [(CUDA, exactly), (CPU, {})])] if uses_gpu else [])
    assert predictor.batches is uses_gpu
    after = predictor.predict(TEXTS)
    assert [int(each.probabilities.argmax()) for each in after] == [int(each.probabilities.argmax()) for each in before]


def test_a_gpu_that_cannot_start_leaves_everything_as_it_is(built: Builder, machine, caplog) -> None:
    predictor = families.load(built("encoder")[0])
    machine(CUDA, CPU, starts=False)
    graph = predictor._graph
    predictor.accelerate("auto")
    assert predictor._graph is graph
    assert not predictor.batches
    assert "the CPU answers" in caplog.text
