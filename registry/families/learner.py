"""transformers' Trainer as this project drives it: losses, batches, rates, evaluation, checkpoints. Imports torch."""

from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments, get_linear_schedule_with_warmup

from registry.families import replays
from registry.families.base import FitRequest
from registry.families.batching import Collator, Item, Items, LengthGroupedBatches, Shares, sorted_batches
from registry.families.crew import Crew
from registry.families.devices import Machine
from registry.families.targets import positive_weights, truth_index, truth_matrix, validation_scores
from registry.families.watch import Watch, check_loss
from registry.families.weights import load_trainable, save_trainable
from registry.recipe import TrainingConfig

NEW_RATE = 10  # times the learning rate of what is pretrained: for a head and for adapters
MAX_WARMUP_SHARE = 0.1  # of all updates; a hundred warm-up steps would be most of a small run
EVAL_BATCH = 64
EPOCH_SHARE = 4  # evaluations (or checkpoints) in an epoch where the strategy is `steps` and no number is given


class Learner(Trainer):
    """Trainer with weights per example, batches of like length, and an optimiser given from outside.

    `parts`: in how many steps each batch is taken, for want of memory.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` gives a mean per batch

    def __init__(
        self,
        request: FitRequest,
        model: Any,
        texts: tuple[Items, Items],
        collate: Collator,
        *,
        machine: Machine,
        crew: Crew,
        parts: int,
        watch: Watch,
        is_head_new: bool,
        drafts: Path,
        notes: list[str],
    ) -> None:
        training = request.recipe.training
        self._request, self._crew, self._parts = request, crew, parts
        self._train, self._valid = texts
        self._collate = collate
        self._smoothing = training.label_smoothing
        updates = updates_of(training, len(self._train))
        arguments = _arguments(request, machine, parts, drafts, updates=updates)
        rate = NEW_RATE if is_head_new else 1
        optimizer = torch.optim.AdamW(_parameter_groups(model, training, rate), fused=machine.device != "mps")
        warmup = warmup_of(training, updates, notes)
        schedule = get_linear_schedule_with_warmup(optimizer, warmup, updates)  # type: ignore[no-untyped-call]
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=self._train,
            eval_dataset=self._valid,
            optimizers=(optimizer, schedule),
            callbacks=[watch],
        )
        self.remove_callback(PrinterCallback)
        self._positive = _positive(request, arguments.device)
        per_update = training.gradient_accumulation_steps * parts
        self._replays: replays.Replays | None = None
        if replays.can_replay(model, machine, steps_per_update=per_update):
            self._replays = replays.Replays(model.parameters(), self._mean_loss, replays.CudaRecorder())

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        if self._replays is not None:
            if not model.training:  # going through all modules takes milliseconds
                model.train()
            inputs = self._prepare_inputs(inputs)
            if (loss := self._replays.step(inputs)) is not None:
                return loss
        return super().training_step(model, inputs, num_items_in_batch)

    def _mean_loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        assert isinstance(self.model, torch.nn.Module)
        loss: torch.Tensor = self.compute_loss(self.model, inputs)
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        truth, weights = inputs.pop("truth"), inputs.pop("weights")
        outputs = model(**inputs)
        losses = losses_of(
            outputs.logits,
            truth,
            multi_label=self._request.multi_label,
            smoothing=self._smoothing,
            positive=self._positive,
        )
        loss = (losses * weights).mean()
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Item]:
        training = self._request.recipe.training
        batches = LengthGroupedBatches(self._train.lengths, training.batch_size, self.args.seed)
        shares = Shares(batches, rank=self._crew.rank, processes=self._crew.count, parts=self._parts)
        loader = DataLoader(
            self._train,
            batch_sampler=shares,
            collate_fn=self._collate,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # The shares are this process's own already, so that nothing more is divided among processes.
        prepared: DataLoader[Item] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
        )
        return prepared

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Figures on the validation texts, which the processes share; told to all callbacks."""
        request = self._request
        logits = self._crew.total(self._logits())
        truth = truth_matrix if request.multi_label else truth_index
        losses = losses_of(logits, torch.from_numpy(truth(request, request.valid)), multi_label=request.multi_label)
        check_loss(loss := float(losses.mean()), self.state.global_step, request.recipe.training)
        figures = {"eval_loss": loss, **validation_scores(request, logits.numpy(), request.valid)}
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def _logits(self) -> torch.Tensor:
        """Logits (n, k) of the validation texts that fall to this process, zeros for the others."""
        model: Any = self.model
        logits = torch.zeros(len(self._valid), len(self._request.labels))
        batches = sorted_batches(range(len(self._valid)), self._valid.lengths, max(1, EVAL_BATCH // self._parts))
        model.eval()
        with torch.inference_mode():
            for batch in batches[self._crew.rank :: self._crew.count]:
                features = self._prepare_inputs(self._collate([self._valid.items[index] for index in batch]))
                del features["truth"], features["weights"]
                logits[batch] = model(**features).logits.float().cpu()
        model.train()
        return logits

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody reads them, and counting goes through all parameters at every step."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """A checkpoint's weights; the package is written elsewhere."""
        if self.args.should_save:
            assert output_dir is not None and isinstance(self.model, torch.nn.Module)
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_trainable(self.model, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        assert isinstance(self.model, torch.nn.Module)
        load_trainable(self.model, Path(resume_from_checkpoint))

    def history(self) -> list[dict[str, Any]]:
        """Every line of figures, JSON types, those before a resumption included."""
        named = ("step", "epoch", "loss", "learning_rate")
        evaluated = ("eval_loss", "eval_accuracy", "eval_macro_f1", "eval_micro_f1")
        lines = [{name: line[name] for name in (*named, *evaluated) if name in line} for line in self.state.log_history]
        return [line for line in lines if "loss" in line or "eval_loss" in line]


def losses_of(
    logits: torch.Tensor,
    truth: torch.Tensor,
    *,
    multi_label: bool,
    smoothing: float = 0.0,
    positive: torch.Tensor | None = None,
) -> torch.Tensor:
    """Losses (n,) of `logits` (n, k): cross-entropy, or the mean of the labels' own where they are independent.

    `truth` is (n,) indices, or (n, k) of 0 and 1. `smoothing` gives this share of the truth to all answers alike
    (Szegedy et al., 2016, section 7): all labels, or yes and no of each label. `positive` (k,) weighs every yes.
    """
    if not multi_label:
        return torch.nn.functional.cross_entropy(logits.float(), truth, reduction="none", label_smoothing=smoothing)
    targets = truth * (1 - smoothing) + smoothing / 2
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), targets, reduction="none", pos_weight=positive
    )
    return losses.mean(dim=1)


def updates_of(training: TrainingConfig, texts: int) -> int:
    """Optimiser steps of the whole run."""
    return _updates_per_epoch(training, texts) * training.num_epochs


def warmup_of(training: TrainingConfig, updates: int, notes: list[str]) -> int:
    """Updates until the learning rate is at its peak."""
    if training.warmup_ratio is not None:
        return round(training.warmup_ratio * updates)
    most = max(1, int(MAX_WARMUP_SHARE * updates))
    if training.warmup_steps > most:
        notes.append(f"Warm-up shortened from {training.warmup_steps} to {most} of {updates:,} steps.")
    return min(training.warmup_steps, most)


def cadence(given: int | None, training: TrainingConfig, texts: int) -> int:
    """Updates between two evaluations or checkpoints by the strategy `steps`."""
    return given or max(1, _updates_per_epoch(training, texts) // EPOCH_SHARE)


def _updates_per_epoch(training: TrainingConfig, texts: int) -> int:
    batches = -(-texts // training.batch_size)
    return -(-batches // training.gradient_accumulation_steps)


def _positive(request: FitRequest, device: torch.device) -> torch.Tensor | None:
    """What every yes weighs (k,); None where a text has one label."""
    return torch.from_numpy(positive_weights(request)).to(device) if request.multi_label else None


def _arguments(request: FitRequest, machine: Machine, parts: int, drafts: Path, *, updates: int) -> TrainingArguments:
    training = request.recipe.training
    arguments = TrainingArguments(
        output_dir=str(drafts),
        num_train_epochs=training.num_epochs,
        per_device_train_batch_size=-(-training.batch_size // (machine.processes * parts)),
        per_device_eval_batch_size=EVAL_BATCH,
        gradient_accumulation_steps=training.gradient_accumulation_steps * parts,
        learning_rate=training.learning_rate,
        eval_strategy=training.eval_strategy if request.valid else "no",
        eval_steps=cadence(training.eval_steps, training, len(request.train)),
        save_strategy="no",  # the watch says when
        logging_steps=max(1, min(50, updates // 20)),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=training.seed % 2**32,
        bf16=machine.precision == "bf16",
        fp16=machine.precision == "fp16",
        use_cpu=machine.device == "cpu",
        dataloader_pin_memory=machine.device == "cuda",
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # of several GPUs, Trainer would else give each a thread and a share
    return arguments


def _parameter_groups(model: Any, training: TrainingConfig, new_rate: float) -> list[dict[str, Any]]:
    """What is new and the pretrained body learn at different rates; biases and norms are not decayed."""
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's wrapper, or the model
    # Adapters and a pooler belong to the body by name only: they start from nothing or from another task.
    named = classifier.base_model.named_parameters()
    body = {id(each) for name, each in named if "lora_" not in name and not name.startswith("pooler.")}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) not in body, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": training.learning_rate * (new_rate if is_new else 1),
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (is_new, decays), parameters in groups.items()
    ]
