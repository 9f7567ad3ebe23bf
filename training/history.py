"""What a run's metric history says, epoch by epoch. Knows nothing of Django."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class EpochRow:
    """The last figures that were reported of an epoch, None where there were none; `step` is the last update."""

    epoch: int
    step: int
    loss: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    eval_macro_f1: float | None = None
    learning_rate: float | None = None
    samples_per_second: float | None = None
    is_best: bool = False


_FIGURES = frozenset(field.name for field in fields(EpochRow)) - {"epoch", "step", "is_best"}


def epoch_rows(history: Iterable[Mapping[str, Any]]) -> list[EpochRow]:
    """A row for each epoch that reported something, in order; the first one of highest macro-F1 is the best."""
    rows: dict[int, EpochRow] = {}
    for point in history:
        number = max(1, math.ceil(point.get("epoch", 0) - 1e-6))
        figures: dict[str, Any] = {name: float(value) for name, value in point.items() if name in _FIGURES}
        rows[number] = replace(rows.get(number, EpochRow(number, 0)), step=point.get("step", 0), **figures)
    ordered = [rows[number] for number in sorted(rows)]
    judged = [row for row in ordered if row.eval_macro_f1 is not None]
    if len(judged) < 2:
        return ordered
    best = max(judged, key=lambda row: row.eval_macro_f1 or 0.0)
    return [replace(row, is_best=row is best) for row in ordered]


def rewound(history: list[dict[str, Any]], step: int, figures: Collection[str]) -> list[dict[str, Any]]:
    """`history` without what is about to be told again, where training went back to a checkpoint: after a crash, or
    to take smaller steps for want of memory. `figures` of `step` come next.
    """
    if not history or history[-1]["step"] < step:
        return history
    told = set(figures)
    return [point for point in history if point["step"] < step or (point["step"] == step and not told & point.keys())]
