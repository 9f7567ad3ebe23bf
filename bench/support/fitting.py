"""Training one family on one set, timed, and judged on the test part by a fresh process, as it will serve."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry import families
from registry.families import family
from registry.families.base import FitRequest, Stopped, manifest_of
from registry.manifest import write_manifest
from registry.metrics import expected_calibration_error
from registry.recipe import Recipe, apply_overrides
from support.datasets import TextSet, text_set
from support.process import measured
from training.board import RunBoard
from training.runner import EventReporter
from training.scoring import judge_predictor

FINE_TUNED = ("encoder", "lora")
CHANCES = 200  # draws of what chance does to a calibration error
CONVERTING = "Converting"  # how the note begins that ends fine-tuning


class Clock(EventReporter):
    """Reports as a run does, to a file and a board, and notes when fine-tuning ended and conversion began.

    May stop the fit there.
    """

    def __init__(self, scratch: Path, *, stops: bool = False) -> None:
        super().__init__(scratch / "events.jsonl", RunBoard(scratch / "board"))
        self.began = time.perf_counter()
        self.tuned: float | None = None
        self._stops = stops

    def progress(self, fraction: float, note: str) -> None:
        super().progress(fraction, note)
        if note.startswith(CONVERTING) and self.tuned is None:
            self.tuned = time.perf_counter() - self.began
            if self._stops:
                raise Stopped("fine-tuned")


def tune(name: str, dataset: str, assignments: list[str], most: int) -> dict[str, Any]:
    """`fit_and_judge` of a family that fine-tunes, up to the conversion, hence without figures."""
    _import_libraries(name)
    data = text_set(dataset)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch, beside_learning(name) as spent:
        clock = Clock(Path(scratch), stops=True)
        request = _request(name, data, assignments, Path(scratch), clock, most=most)
        with suppress(Stopped):
            family(name).fit(request)
    texts = len(request.train) * request.recipe.training.num_epochs
    return {"tuning_seconds": clock.tuned, "beside_seconds": spent(), "texts": texts}


def fit_and_judge(
    name: str,
    dataset: str,
    assignments: list[str],
    cache: str | None = None,
    most: int | None = None,
    target_precision: float | None = None,
    keep: str | None = None,
    members: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train family `name` on `dataset` (its first `most` training texts) with the default recipe and `assignments`.

    Returns the test figures of the artefact as a fresh process loads it, `seconds` of the whole fit, `tuning_seconds`
    of it before conversion (where there is one), `beside_seconds` of those that went into progress, logging and
    checkpoints, `texts` seen in training over all epochs, and the notes of the fit. Importing libraries does not count.
    The artefact stays in `keep` where that is given; `members` are those of an ensemble, by name.
    """
    _import_libraries(name)
    data = text_set(dataset)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch, beside_learning(name) as spent:
        clock = Clock(Path(scratch))
        request = _request(name, data, assignments, Path(scratch), clock, most=most, cache=cache)
        folders = {member: Path(folder) for member, folder in (members or {}).items()}
        request = replace(request, target_precision=target_precision, members=folders)
        request = replace(request, out=Path(keep)) if keep else request
        result = family(name).fit(request)
        seconds = time.perf_counter() - clock.began
        write_manifest(request.out, manifest_of(request, result, classifier="bench", family=name))
        judged = measured("support.fitting:judge", artefact=str(request.out), dataset=dataset)
    return {
        "scores": judged["scores"],
        "answered": judged["answered"],
        "seconds": seconds,
        "tuning_seconds": clock.tuned,
        "beside_seconds": spent(),
        "texts": len(request.train) * request.recipe.training.num_epochs,
        "notes": list(result.notes),
        "parameters": result.parameters,
    }


def judge(artefact: str, dataset: str) -> dict[str, Any]:
    """The test figures of a sealed artefact. `answered` is None unless it brings a threshold of its own: which it is,
    the `share` of test texts that reach it, and which share of those is answered right (None for none)."""
    predictor, data = families.load(Path(artefact)), text_set(dataset)
    scores = judge_predictor(predictor, data.labels, data.test, lambda share: None).scores.to_dict()
    answers = predictor.predict([example.fields for example in data.test])
    probabilities = np.array([answer.probabilities for answer in answers], dtype=np.float64)
    answered = None
    if (threshold := predictor.calibration.threshold) is not None:
        right = [
            predictor.labels[int(each.argmax())] == example.label
            for each, example in zip(probabilities, data.test, strict=True)
            if each.max() >= threshold
        ]
        precision = sum(right) / len(right) if right else None
        answered = {"threshold": threshold, "share": len(right) / len(data.test), "precision": precision}
    kept = {key: value for key, value in scores.items() if key not in ("per_label", "confusion")}
    return {"scores": kept | {"ece_by_chance": ece_by_chance(probabilities)}, "answered": answered}


def ece_by_chance(probabilities: NDArray[np.float64]) -> float:
    """The mean ECE of answers that are right exactly as often as their confidence says.

    So many texts of these `probabilities` (n, k) show that much even if nothing is left to calibrate.
    """
    chooser = np.random.default_rng(0)
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    drawn = [answers + (chooser.random(len(answers)) >= confidence) for _ in range(CHANCES)]  # + 1: another label
    return float(np.mean([expected_calibration_error(probabilities, truth) for truth in drawn]))


@contextmanager
def beside_learning(name: str) -> Iterator[Callable[[], float]]:
    """Time what Trainer does beside learning: its callbacks (progress, figures, when to stop), logging, checkpoints.

    Gives a function that tells the seconds so far; evaluations, where a recipe has them, are among them. Family `name`
    may be one that knows no Trainer, and then takes none.
    """
    spent, depth = 0.0, 0
    if name not in FINE_TUNED:
        yield lambda: spent
        return

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal spent, depth
            began, depth = time.perf_counter(), depth + 1
            try:
                return method(*arguments, **named)
            finally:
                depth -= 1
                spent += 0 if depth else time.perf_counter() - began  # what a call leads to is in its own time

        return call

    from transformers import Trainer
    from transformers.trainer_callback import CallbackHandler

    wrapped = [(CallbackHandler, "call_event"), (Trainer, "_maybe_log_save_evaluate")]
    before = [getattr(owner, name) for owner, name in wrapped]
    for (owner, name), method in zip(wrapped, before, strict=True):
        setattr(owner, name, timed(method))
    try:
        yield lambda: spent
    finally:
        for (owner, name), method in zip(wrapped, before, strict=True):
            setattr(owner, name, method)


def _import_libraries(name: str) -> None:
    """What `fit` would import first; those who are compared with it have theirs imported before they start."""
    if name in FINE_TUNED:
        import_module("registry.families.finetune")


def _request(
    name: str,
    data: TextSet,
    assignments: list[str],
    scratch: Path,
    clock: Clock,
    *,
    most: int | None,
    cache: str | None = None,
) -> FitRequest:
    return FitRequest(
        labels=data.labels,
        input_fields=("text",),
        recipe=apply_overrides(Recipe.from_dict({}, model_type=name), assignments),
        train=data.train[:most],
        valid=data.valid,
        out=scratch / "artefact",
        checkpoints=scratch / "checkpoints",
        reporter=clock,
        cache=Path(cache) if cache else None,
    )
