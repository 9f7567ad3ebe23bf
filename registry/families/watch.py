"""The eyes on a running Trainer: reports progress, stops it when asked, has checkpoints written, keeps the best."""

import math
import time
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kalimtak.core.crashpoints import crashpoint
from registry.families.base import FamilyError, Reporter
from registry.families.checkpoints import Checkpoints

REPORT_EVERY = 0.5  # seconds between two lines of progress
CHECKPOINT_EVERY = 60.0  # seconds of work that a crash may cost
CHECKPOINT_GAP = 10.0  # an epoch shorter than this is cheaper to repeat than to write down
_BEST = "best"
_BEST_WEIGHTS = "model.safetensors"


class Watch(TrainerCallback):
    """`batch` is the number of texts per update; `patience` the evaluations without improvement after which to stop."""

    def __init__(
        self, reporter: Reporter, checkpoints: Checkpoints, *, batch: int, patience: int | None, span: float
    ) -> None:
        self.stopped = False
        self._reporter, self._checkpoints = reporter, checkpoints
        self._batch, self._patience, self._span = batch, patience, span
        self._busy, self._steps, self._begun = 0.0, 0, 0.0
        self._reported = float("-inf")
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._loss = math.nan

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        crashpoint("encoder.before_step")
        self._begun = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self._busy += now - self._begun
        self._steps += 1
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._reporter.progress(self._span * state.global_step / state.max_steps, self._note(state))
        if self._reporter.stop_requested():
            self.stopped = control.should_training_stop = True
            self._ask_to_save(state, control)
        elif now - self._saved_at >= CHECKPOINT_EVERY:
            self._ask_to_save(state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.stopped:
            control.should_evaluate = control.should_save = False
        elif time.monotonic() - self._saved_at >= CHECKPOINT_GAP:
            self._ask_to_save(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._checkpoints.seal_step(state.global_step)
        self._saved_at, self._saved_step = time.monotonic(), state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:
            return
        self._loss = logs["loss"]
        if not math.isfinite(self._loss):
            raise FamilyError(
                f"The loss is not a number at step {state.global_step}; lower training_config.learning_rate "
                f"(now {args.learning_rate:g}) or set training_config.mixed_precision to no."
            )
        values = {"loss": self._loss, "learning_rate": logs["learning_rate"], "samples_per_second": self._rate()}
        self._reporter.metrics(state.global_step, state.epoch or 0.0, values)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        values = {name: given["metrics"][name] for name in ("eval_loss", "eval_accuracy", "eval_macro_f1")}
        crashpoint("encoder.after_evaluation")
        self._reporter.metrics(state.global_step, state.epoch or 0.0, values)
        if self._patience is None:
            return
        figures = evaluations(state)
        best = figures.index(max(figures))
        if best == len(figures) - 1:
            self._keep_best(given["model"])
        elif len(figures) - 1 - best >= self._patience:
            control.should_training_stop = True

    def restore_best(self, model: torch.nn.Module, state: TrainerState) -> int | None:
        """Load the weights of the best evaluation where a later one was worse; its number, None where nothing is done.

        Leaves the model as it is if the best weights were lost with a broken checkpoint.
        """
        figures = evaluations(state)
        best = figures.index(max(figures)) if figures else -1
        kept = self._checkpoints.folder / _BEST
        if self._patience is None or best == len(figures) - 1 or not self._checkpoints.is_intact(kept):
            return None
        model.load_state_dict(load_file(kept / _BEST_WEIGHTS))
        return best + 1

    def _keep_best(self, model: torch.nn.Module) -> None:
        draft = self._checkpoints.drafts / _BEST
        draft.mkdir(parents=True, exist_ok=True)
        # Clones, since tied weights share memory and safetensors refuses that.
        save_file({name: value.clone() for name, value in model.state_dict().items()}, draft / _BEST_WEIGHTS)
        self._checkpoints.seal(draft, _BEST)

    def _ask_to_save(self, state: TrainerState, control: TrainerControl) -> None:
        """Logging comes first and refuses a loss that is not a number, so no broken weights are ever saved."""
        if state.global_step != self._saved_step:
            control.should_log = control.should_save = True

    def _rate(self) -> float:
        return self._steps * self._batch / self._busy if self._busy else 0.0

    def _note(self, state: TrainerState) -> str:
        left = (state.max_steps - state.global_step) * self._busy / self._steps
        epoch = min(int(state.epoch or 0) + 1, state.num_train_epochs)
        loss = f", loss {self._loss:.3f}" if math.isfinite(self._loss) else ""
        return (
            f"Epoch {epoch} of {state.num_train_epochs}, step {state.global_step:,} of {state.max_steps:,}{loss}, "
            f"{self._rate():.0f} texts/s, {_duration(left)} left"
        )


def evaluations(state: TrainerState) -> list[float]:
    """Macro-F1 of every evaluation so far, those before a resumption included."""
    return [entry["eval_macro_f1"] for entry in state.log_history if "eval_macro_f1" in entry]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
