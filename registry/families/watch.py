"""The eyes on a running Trainer: reports progress, stops it when asked, has checkpoints written, keeps the best."""

import math
import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kalimtak.core.crashpoints import crashpoint
from registry.families.base import FamilyError, Reporter
from registry.families.checkpoints import Checkpoints
from registry.families.crew import Crew
from registry.families.weights import load_trainable, save_trainable
from registry.recipe import TrainingConfig

REPORT_EVERY = 0.5  # seconds between two lines of progress
CHECKPOINT_EVERY = 60.0  # seconds of work that a crash may cost
CHECKPOINT_GAP = 10.0  # an epoch shorter than this is cheaper to repeat than to write down
_BEST = "best"


class Watch(TrainerCallback):
    """`save_steps`: updates between two checkpoints by the strategy `steps`. `span`: the share of the fit.

    Of several processes each has one, and the first one's decides.
    """

    def __init__(
        self,
        reporter: Reporter,
        checkpoints: Checkpoints,
        training: TrainingConfig,
        *,
        save_steps: int = 1,
        span: float = 1.0,
        crew: Crew | None = None,
    ) -> None:
        self.stopped = False
        self._reporter, self._checkpoints, self._training = reporter, checkpoints, training
        self._save_steps, self._span, self._crew = save_steps, span, crew or Crew()
        self._batch = training.batch_size * training.gradient_accumulation_steps
        self._busy, self._steps = 0.0, 0  # seconds and updates, without evaluations and checkpoints
        self._mark = self._saved_at = time.monotonic()
        self._reported, self._saved_step = float("-inf"), -1
        self._loss = math.nan

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._mark = self._saved_at = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        crashpoint("encoder.before_step")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        crashpoint("encoder.mid_step")  # the gradients are there, the weights as they were

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self._busy += now - self._mark
        self._mark = now
        self._steps += 1
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._reporter.progress(self._span * state.global_step / state.max_steps, self._note(state))
        is_due = self._training.save_strategy == "epoch" and now - self._saved_at >= CHECKPOINT_EVERY
        self.stopped, is_due = self._crew.agree(self._reporter.stop_requested(), is_due)
        if self._training.save_strategy == "steps":
            is_due = state.global_step % self._save_steps == 0
        if self.stopped:
            control.should_training_stop = True
            control.should_evaluate = False
        elif args.eval_strategy == "steps" and state.global_step == state.max_steps:
            control.should_evaluate = True  # the weights that are kept are judged, wherever the last step falls
        if self.stopped or is_due:
            self._ask_to_save(state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.stopped:
            control.should_evaluate = control.should_save = False
        elif self._training.save_strategy == "epoch":
            is_due = time.monotonic() - self._saved_at >= CHECKPOINT_GAP
            if self._crew.agree(is_due)[0]:
                self._ask_to_save(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._crew.wait()  # every process has written its random state
        if self._crew.leads:
            self._checkpoints.seal_step(state.global_step)
        self._mark = self._saved_at = time.monotonic()
        self._saved_step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:
            return
        self._loss = logs["loss"]
        check_loss(self._loss, state.global_step, self._training)
        values = {"loss": self._loss, "learning_rate": logs["learning_rate"], "samples_per_second": self._rate()}
        self._reporter.metrics(state.global_step, state.epoch or 0.0, values)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        crashpoint("encoder.after_evaluation")
        values = {name: value for name, value in given["metrics"].items() if name.startswith("eval_")}
        self._reporter.metrics(state.global_step, state.epoch or 0.0, values)
        if self._training.early_stopping_patience is not None:
            figures = evaluations(state)
            best = figures.index(max(figures))
            if best == len(figures) - 1:
                self._keep_best(given["model"])
            elif len(figures) - 1 - best >= self._training.early_stopping_patience:
                control.should_training_stop = True
        self._mark = time.monotonic()

    def restore_best(self, model: torch.nn.Module, state: TrainerState) -> int | None:
        """Load the weights of the best evaluation where a later one was worse; its number, None where nothing is done.

        Leaves the model as it is if the best weights were lost with a broken checkpoint.
        """
        figures = evaluations(state)
        best = figures.index(max(figures)) if figures else -1
        kept = self._checkpoints.folder / _BEST
        if (
            self._training.early_stopping_patience is None
            or best == len(figures) - 1
            or not self._checkpoints.is_intact(kept)
        ):
            return None
        load_trainable(model, kept)
        return best + 1

    def _keep_best(self, model: torch.nn.Module) -> None:
        if not self._crew.leads:
            return
        draft = self._checkpoints.drafts / _BEST
        draft.mkdir(parents=True, exist_ok=True)
        save_trainable(model, draft)
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


def check_loss(loss: float, step: int, training: TrainingConfig) -> None:
    """Raise FamilyError for a loss that is not a number: nothing learnt from there on would mean anything."""
    if not math.isfinite(loss):
        raise FamilyError(
            f"The loss is not a number at step {step}; lower training_config.learning_rate "
            f"(now {training.learning_rate:g}) or set training_config.mixed_precision to no."
        )


def evaluations(state: TrainerState) -> list[float]:
    """Macro-F1 of every evaluation so far, those before a resumption included."""
    return [entry["eval_macro_f1"] for entry in state.log_history if "eval_macro_f1" in entry]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
