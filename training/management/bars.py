"""A run in the terminal: a bar for the whole, and one for each epoch with its loss, speed and remaining time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kalimtak.core.commands import Report, silent
from training.history import EpochRow, epoch_rows
from training.models import TrainingRun

EPOCHS_SHOWN = 6  # the last ones of a long run


@contextmanager
def run_progress(run: TrainingRun) -> Iterator[Report]:
    """A function `(fraction, note)` that draws the run as it stands in the database; silent where nobody looks."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars, run)


class _Bars:
    def __init__(self, bars: Any, run: TrainingRun) -> None:
        self._bars, self._run = bars, run
        self._whole = bars.add_task(f"Training {run.classifier.slug}", total=1.0, note="")
        self._epochs: dict[int, Any] = {}

    def __call__(self, fraction: float, note: str = "") -> None:
        self._bars.update(self._whole, completed=fraction, note=note)
        seen = TrainingRun.objects.filter(pk=self._run.pk).values_list("facts", "history").first()
        facts, history = seen or ({}, [])
        if not facts.get("steps") or not facts.get("epochs"):
            return
        for row in epoch_rows(history):
            self._draw(row, int(facts["epochs"]), facts["steps"] / facts["epochs"])

    def _draw(self, row: EpochRow, epochs: int, steps: float) -> None:
        if row.epoch not in self._epochs:
            self._epochs[row.epoch] = self._bars.add_task(f"  Epoch {row.epoch} of {epochs}", total=steps, note="")
            if len(self._epochs) > EPOCHS_SHOWN:
                self._bars.update(self._epochs[row.epoch - EPOCHS_SHOWN], visible=False)
        done = row.step - (row.epoch - 1) * steps
        self._bars.update(self._epochs[row.epoch], completed=done, note=epoch_words(row, done, steps))


def epoch_words(row: EpochRow, done: float, steps: float) -> str:
    """`210/500 steps, loss 0.402, 133 texts/s, validation loss 0.51, macro-F1 0.7421`."""
    words = [f"{round(done):,}/{round(steps):,} steps"]
    for text, value in (
        ("loss {:.3f}", row.loss),
        ("{:.0f} texts/s", row.samples_per_second),
        ("validation loss {:.3f}", row.eval_loss),
        ("accuracy {:.4f}", row.eval_accuracy),
        ("macro-F1 {:.4f}", row.eval_macro_f1),
    ):
        if value is not None:
            words.append(text.format(value))
    return ", ".join(words)
