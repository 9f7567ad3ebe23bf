"""A run's history, epoch by epoch."""

from training.history import EpochRow, epoch_rows, rewound


def test_a_row_holds_the_last_figures_of_its_epoch_and_the_best_is_marked() -> None:
    history = [
        {"step": 5, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-4, "samples_per_second": 90.0},
        {"step": 10, "epoch": 1.0, "loss": 1.0, "learning_rate": 9e-5, "samples_per_second": 100.0},
        {"step": 10, "epoch": 1.0, "eval_loss": 0.9, "eval_accuracy": 0.7, "eval_macro_f1": 0.6, "eval_micro_f1": 0.7},
        {"step": 15, "epoch": 1.5, "loss": 0.5, "learning_rate": 5e-5, "samples_per_second": 110.0},
        {"step": 20, "epoch": 2.0, "eval_loss": 0.8, "eval_accuracy": 0.7, "eval_macro_f1": 0.5},
        {"step": 25, "epoch": 2.5, "loss": 0.4},
    ]
    assert epoch_rows(history) == [
        EpochRow(1, 10, 1.0, 0.9, 0.7, 0.6, 9e-5, 100.0, is_best=True),
        EpochRow(2, 20, 0.5, 0.8, 0.7, 0.5, 5e-5, 110.0),
        EpochRow(3, 25, 0.4),
    ]


def test_without_a_choice_nothing_is_the_best() -> None:
    assert [row.is_best for row in epoch_rows([{"step": 1, "epoch": 1.0, "eval_macro_f1": 0.6}])] == [False]
    assert epoch_rows([]) == []


def test_what_is_told_again_after_a_checkpoint_stands_there_once():
    history: list[dict] = []

    def tell(step, **figures):
        history[:] = [*rewound(history, step, figures), {"step": step, "epoch": step / 4, **figures}]

    for step in (1, 2, 3, 4):
        tell(step, loss=step)
    tell(4, eval_loss=4)  # of the same step, and another figure
    assert [sorted(point.keys() - {"step", "epoch"}) for point in history[-2:]] == [["loss"], ["eval_loss"]]
    tell(5, loss=5)
    tell(3, loss=30)  # back to the checkpoint of step 2
    assert [(point["step"], point["loss"]) for point in history] == [(1, 1), (2, 2), (3, 30)]
    tell(3, eval_loss=30)
    tell(3, eval_loss=31)  # and back once more, between the two
    assert [point.get("eval_loss") for point in history] == [None, None, None, 31]
