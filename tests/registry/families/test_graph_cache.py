"""A graph is traced once for all models of its shape, and what comes out of the cache is never believed."""

import itertools
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from registry.families import graph_export
from registry.families.base import FamilyError
from registry.families.frozen_encoder import UNUSED_SECONDS
from registry.families.graph_cache import GraphCache, fingerprint
from registry.families.graph_export import Inputs, OneResult, compared, write_graph
from registry.families.onnx_predictor import Graph

LENGTH = 24


def logits(answer, _) -> torch.Tensor:
    return answer.logits


def classifier(base: Path, seed: int, labels: int = 3, **settings: object) -> tuple[OneResult, Inputs]:
    config = AutoConfig.from_pretrained(base, num_labels=labels, attn_implementation="eager", **settings)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    return OneResult(model, logits), Inputs.of(AutoTokenizer.from_pretrained(base), model)


def write(subject: tuple[OneResult, Inputs], target: Path, cache: Path | None) -> np.ndarray:
    """What the written graph answers to a text it has not seen, (3, labels)."""
    module, inputs = subject
    write_graph(module, inputs, target, output="logits", max_length=LENGTH, cache=cache)
    return Graph(target).run_batch({name: value.numpy() for name, value in inputs.sample(11).items()})


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[OneResult]:
    """Which modules were traced."""
    seen: list[OneResult] = []
    trace = graph_export._traced
    monkeypatch.setattr(graph_export, "_traced", lambda module, *told: seen.append(module) or trace(module, *told))
    return seen


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Holds the graph of the tiny encoder with three labels."""
    folder = tmp_path_factory.mktemp("cache")
    write(classifier(tiny_encoder, seed=1), folder / "first.onnx", folder)
    return folder


@pytest.fixture
def kept(cache: Path) -> Path:
    """The one kept graph."""
    (file,) = (cache / "graphs").iterdir()
    return file


def test_another_model_of_the_shape_is_not_traced(
    tiny_encoder: Path, cache: Path, tmp_path: Path, traced: list
) -> None:
    subject = classifier(tiny_encoder, seed=2)
    filled = write(subject, tmp_path / "filled.onnx", cache)
    assert traced == []
    np.testing.assert_allclose(filled, write(subject, tmp_path / "fresh.onnx", None), atol=1e-6)
    assert traced == [subject[0]]
    nodes = [[node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node] for name in ("filled", "fresh")]
    assert nodes[0] == nodes[1]


def test_what_is_kept_holds_no_weights_and_what_is_written_no_paths(cache: Path, kept: Path) -> None:
    assert sum(len(each.raw_data) for each in onnx.load(kept).graph.initializer) < 10_000
    assert sum(len(each.raw_data) for each in onnx.load(cache / "first.onnx").graph.initializer) > 50_000
    for file in (kept, cache / "first.onnx"):
        assert b".py" not in file.read_bytes()


def test_another_shape_is_another_graph(tiny_encoder: Path) -> None:
    told = [
        fingerprint(module, inputs.names, "logits")
        for module, inputs in (
            classifier(tiny_encoder, seed=1),
            classifier(tiny_encoder, seed=2),
            classifier(tiny_encoder, seed=1, labels=4),
            classifier(tiny_encoder, seed=1, hidden_act="relu"),
        )
    ]
    assert told[0] == told[1]
    assert len(set(told)) == 3


@pytest.mark.parametrize("content", [b"", b"no graph", None], ids=["empty", "noise", "absent"])
def test_what_is_no_graph_is_not_taken_for_one(content: bytes | None, tiny_encoder: Path, tmp_path: Path) -> None:
    graphs = GraphCache(tmp_path, "name")
    graphs.file.parent.mkdir()
    if content is not None:
        graphs.file.write_bytes(content)
    assert not graphs.write(tmp_path / "graph.onnx", classifier(tiny_encoder, seed=1)[0].state_dict())
    assert not (tmp_path / "graph.onnx").exists()


def test_the_graph_of_another_model_costs_time_alone(
    tiny_encoder: Path, kept: Path, tmp_path: Path, traced: list
) -> None:
    subject = classifier(tiny_encoder, seed=3, hidden_act="relu")
    place = GraphCache(tmp_path, fingerprint(subject[0], subject[1].names, "logits")).file
    place.parent.mkdir()
    place.write_bytes(kept.read_bytes())
    got = write(subject, tmp_path / "graph.onnx", tmp_path)
    with torch.inference_mode():
        assert not compared(subject[0](*subject[1].sample(11).values()).numpy(), got)
    write(subject, tmp_path / "again.onnx", tmp_path)
    assert traced == [subject[0]]  # the second time the right one was there


def test_graphs_that_nobody_asks_for_go(kept: Path, tmp_path: Path) -> None:
    old = tmp_path / "graphs" / "old.onnx"
    old.parent.mkdir()
    old.write_bytes(kept.read_bytes())
    long_ago = kept.stat().st_mtime - UNUSED_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    GraphCache(tmp_path, "new").keep(ir.load(kept), {})
    assert [file.name for file in old.parent.iterdir()] == ["new.onnx"]


def test_a_graph_that_differs_from_torch_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    module, inputs = classifier(tiny_encoder, seed=5)
    drift = itertools.count()
    module.result = lambda answer, _: answer.logits + 0.5 * next(drift)  # traced once, asked again
    with pytest.raises(FamilyError, match=r"differs from torch by \S+ at 3 tokens; this base model cannot be served"):
        write((module, inputs), tmp_path / "graph.onnx", None)
    assert compared(np.zeros((3, 2), np.float32), np.full((3, 2), 0.2, np.float32)) == "0.2"
    assert compared(np.zeros((1, 1), np.float32), np.full((1, 1), np.nan, np.float32)) == "nan"
