"""What `bench/cuda.py` runs, each function in a process of its own."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from registry import families
from registry.families import family
from registry.families.base import Example, FitRequest, Stopped
from registry.families.base_models import find_base_model
from registry.recipe import Recipe, apply_overrides
from support.datasets import text_set
from support.fitting import Clock

ROUNDS = 5  # of which the middle one counts
BATCH = 256  # texts, as many as a request may hold


def device() -> dict[str, Any]:
    """The name of the first CUDA device, empty where there is none, and of what computes on it."""
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return {"name": name, "torch": torch.__version__}


def write_base(folder: str) -> dict[str, Any]:
    """A model of distilbert-base-uncased's size and shape, with random weights and MiniLM's vocabulary, in `folder`."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    tokenizer = AutoTokenizer.from_pretrained(find_base_model("minilm").folder)
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"folder": folder}


def tune_repeated(name: str, texts: int, assignments: Sequence[str], *, replayed: bool = True) -> dict[str, Any]:
    """Seconds of fine-tuning family `name` on so many of the built-in texts, its epochs included, conversion left out.

    Importing libraries does not count. `replayed`: steps are CUDA graphs, as far as they can be.
    """
    import registry.families.finetune  # noqa: F401
    from registry.families import replays

    if not replayed:
        replays.can_replay = lambda *_, **__: False
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        clock = Clock(Path(scratch), stops=True)
        request = _request(name, texts, assignments, Path(scratch), clock)
        with suppress(Stopped):
            family(name).fit(request)
    seen = texts * request.recipe.training.num_epochs
    assert clock.tuned is not None
    return {"texts": seen, "seconds": clock.tuned, "texts_per_second": seen / clock.tuned}


def kernel_share(name: str, texts: int, assignments: Sequence[str]) -> dict[str, Any]:
    """From the first kernel to the last: the share of the time in which the GPU computes, at batches as in the recipe.

    A short fine-tuning is watched, one epoch of so many texts, its first half left out as warm-up.
    """
    from torch.profiler import ProfilerActivity, profile

    once = [*assignments, "training_config.num_epochs=1"]
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        tune_repeated(name, texts, once)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in watched.events() or ()
        if event.device_type.name == "CUDA"
    )
    spans = spans[len(spans) // 2 :]
    first, reached, busy = spans[0][0], spans[0][0], 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return {"kernel_share": busy / (reached - first), "kernels": len(spans)}


def short_of_memory() -> dict[str, Any]:
    """Fine-tune with batches that a hundredth of the GPU's memory does not hold; the notes say what became of them."""
    import torch

    torch.cuda.set_per_process_memory_fraction(0.01)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        clock = Clock(Path(scratch))
        request = _request("encoder", 800, ["training_config.num_epochs=1"], Path(scratch), clock)
        long = [Example((" ".join([example.fields[0]] * 20),), example.label) for example in request.train]
        training = replace(request.recipe.training, batch_size=512)
        request = replace(request, train=long, recipe=replace(request.recipe, training=training))
        result = family("encoder").fit(request)
    return {"notes": list(result.notes)}


def answer(artefact: str) -> dict[str, Any]:
    """Answers of the version in `artefact` on the CPU, then on the GPU: texts a second alone and together."""
    predictor: Any = families.load(Path(artefact))
    fields = [example.fields for part in (text_set("sample").test, text_set("sample").valid) for example in part]
    fields = [fields[index % len(fields)] for index in range(BATCH)]
    cpu = _rates(predictor, fields)
    before = np.array([each.probabilities for each in predictor.predict(fields)])
    predictor.accelerate("cuda")
    on_gpu = "CUDA" in str(predictor._graph.provider)
    after = np.array([each.probabilities for each in predictor.predict(fields)])
    same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    gpu = _rates(predictor, fields) if on_gpu else None
    is_int8 = Path(artefact, "serving", "model.int8.onnx").is_file()
    return {
        "on_gpu": on_gpu,
        "texts_per_pass": predictor._limits.texts,
        "cpu": cpu,
        "cpu_graph": "int8" if is_int8 else "fp32",
        "gpu": gpu,
        "same_label": same,
        "furthest": _furthest(predictor, artefact, fields) if on_gpu else 0.0,
    }


def _furthest(predictor: Any, artefact: str, fields: Sequence[tuple[str, ...]]) -> float:
    """The largest difference of a probability between the GPU and the same fp32 graph on the CPU."""
    from registry.families.onnx_predictor import ALONE, FP32_NAME, Graph

    on_gpu = np.array([each.probabilities for each in predictor.predict(fields)])
    predictor._graph, predictor._limits = Graph(Path(artefact, "serving", FP32_NAME)), ALONE
    on_cpu = np.array([each.probabilities for each in predictor.predict(fields)])
    return float(np.abs(on_gpu - on_cpu).max())


def _rates(predictor: Any, fields: list[tuple[str, ...]]) -> dict[str, float]:
    """Texts a second, in one call and one by one."""

    def rate(calls: list[list[tuple[str, ...]]]) -> float:
        took = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for each in calls:
                predictor.predict(each)
            took.append(time.perf_counter() - began)
        return sum(map(len, calls)) / sorted(took)[ROUNDS // 2]

    predictor.predict(fields)  # shapes seen once
    return {"together": rate([fields]), "alone": rate([[each] for each in fields[:100]])}


def _request(name: str, texts: int, assignments: Sequence[str], scratch: Path, clock: Clock) -> FitRequest:
    data = text_set("sample")
    train = [data.train[index % len(data.train)] for index in range(texts)]
    return FitRequest(
        labels=data.labels,
        input_fields=("text",),
        recipe=apply_overrides(Recipe.from_dict({}, model_type=name), list(assignments)),
        train=train,
        valid=data.valid,
        out=scratch / "artefact",
        checkpoints=scratch / "checkpoints",
        reporter=clock,
        cache=None,
    )
