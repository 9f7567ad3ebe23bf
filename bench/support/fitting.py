"""Training one family on one set, timed, and judged on the test part as it will serve."""

import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from registry.families import family
from registry.families.base import FitRequest, Silent, Stopped, manifest_of
from registry.recipe import Recipe, apply_overrides
from support.datasets import TextSet, text_set
from training.scoring import judge_predictor

CONVERTING = "Converting"  # how the note begins that ends fine-tuning


class Clock(Silent):
    """A reporter that notes when fine-tuning ended and conversion began, and may stop the fit there."""

    def __init__(self, *, stops: bool = False) -> None:
        self.began = time.perf_counter()
        self.tuned: float | None = None
        self._stops = stops

    def progress(self, fraction: float, note: str) -> None:
        if note.startswith(CONVERTING) and self.tuned is None:
            self.tuned = time.perf_counter() - self.began
            if self._stops:
                raise Stopped("fine-tuned")


def tune(name: str, dataset: str, assignments: list[str], most: int) -> dict[str, Any]:
    """`fit_and_judge` of a family that fine-tunes, up to the conversion, hence without figures."""
    _import_libraries(name)
    data = text_set(dataset)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        clock = Clock(stops=True)
        request = _request(name, data, assignments, Path(scratch), clock, most=most)
        with suppress(Stopped):
            family(name).fit(request)
    return {"tuning_seconds": clock.tuned, "texts": len(request.train) * request.recipe.training.num_epochs}


def fit_and_judge(
    name: str, dataset: str, assignments: list[str], cache: str | None = None, most: int | None = None
) -> dict[str, Any]:
    """Train family `name` on `dataset` (its first `most` training texts) with the default recipe and `assignments`.

    Returns the test figures, `seconds` of the whole fit, `tuning_seconds` of it before conversion (where there is
    one), `texts` seen in training over all epochs, and the notes of the fit. Importing libraries does not count.
    """
    _import_libraries(name)
    data = text_set(dataset)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        clock = Clock()
        request = _request(name, data, assignments, Path(scratch), clock, most=most, cache=cache)
        result = family(name).fit(request)
        seconds = time.perf_counter() - clock.began
        predictor = family(name).load(request.out, manifest_of(request, result, classifier="bench", family=name))
        scores = judge_predictor(predictor, data.labels, data.test, lambda share: None).scores.to_dict()
    return {
        "scores": {key: value for key, value in scores.items() if key not in ("per_label", "confusion")},
        "seconds": seconds,
        "tuning_seconds": clock.tuned,
        "texts": len(request.train) * request.recipe.training.num_epochs,
        "notes": list(result.notes),
        "parameters": result.parameters,
    }


def _import_libraries(name: str) -> None:
    """What `fit` would import first; those who are compared with it have theirs imported before they start."""
    if name in ("encoder", "lora"):
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
