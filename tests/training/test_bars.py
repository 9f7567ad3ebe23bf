"""The bars of a run in the terminal."""

from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from training.management.bars import EPOCHS_SHOWN, _Bars
from training.models import TrainingRun

pytestmark = pytest.mark.django_db


def test_every_epoch_has_a_bar_with_its_figures(trained_mood: TrainingRun) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=160)
    history = [
        {"step": 250, "epoch": 0.5, "loss": 0.9, "learning_rate": 1e-4, "samples_per_second": 133.2},
        {"step": 500, "epoch": 1.0, "eval_loss": 0.8, "eval_accuracy": 0.75, "eval_macro_f1": 0.7421},
        {"step": 625, "epoch": 1.25, "loss": 0.4, "learning_rate": 9e-5, "samples_per_second": 140.0},
    ]
    TrainingRun.objects.update(facts={"steps": 1500, "epochs": 3}, history=history)
    with Progress(console=console) as bars:
        draw = _Bars(bars, trained_mood)
        draw(0.4, "Epoch 2 of 3")
        whole, first, second = bars.tasks
        assert (whole.description, whole.completed, whole.fields["note"]) == ("Training mood", 0.4, "Epoch 2 of 3")
        assert (first.completed, first.total) == (500, 500)
        assert "loss 0.900" in first.fields["note"]
        assert first.fields["note"].endswith("validation loss 0.800, accuracy 0.7500, macro-F1 0.7421")
        assert (second.description, second.completed) == ("  Epoch 2 of 3", 125)
        assert second.fields["note"] == "125/500 steps, loss 0.400, 140 texts/s"
        history += [{"step": 500 * epoch, "epoch": float(epoch), "loss": 0.1} for epoch in range(2, 10)]
        TrainingRun.objects.update(facts={"steps": 5000, "epochs": 10}, history=history)
        draw(0.9)
        assert [task.visible for task in bars.tasks[1:]] == [False] * 3 + [True] * EPOCHS_SHOWN


def test_a_run_without_epochs_has_one_bar(trained_mood: TrainingRun) -> None:
    TrainingRun.objects.update(facts={"device": "cpu", "epochs": 20}, history=[{"step": 1, "epoch": 1.0}])
    with Progress(console=Console(file=StringIO(), force_terminal=True)) as bars:
        _Bars(bars, trained_mood)(0.5)
        assert len(bars.tasks) == 1
