"""Fine-tuning an encoder with transformers' Trainer. Imports torch: reached from `encoder.fit` alone.

Against the Trainer's usual this saves time where it costs no accuracy: batches of like length, bfloat16 where the
processor computes in it, the word embeddings (half of a small encoder) left as they are. The head starts from random
numbers while everything below is pretrained, so it learns ten times as fast.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from registry.calibration import softmax
from registry.families.base import Example, FamilyError, FitRequest, Stopped, balanced_weights
from registry.families.base_models import BaseModel
from registry.families.batching import Collator, Item, Items, LengthGroupedBatches, sorted_batches
from registry.families.checkpoints import Checkpoints
from registry.families.tokenisation import Tokenisation
from registry.families.watch import Watch
from registry.metrics import score
from registry.recipe import TrainingConfig
from registry.text import PREPROCESSING_VERSION

HEAD_RATE = 10  # times the learning rate of what is pretrained
MAX_WARMUP_SHARE = 0.1  # of all updates; a hundred warm-up steps would be most of a small run
EVAL_BATCH = 64
SPAN = 0.85  # the share of a fit that this part takes, for the progress bar
_EAGER_LENGTH = 256  # tokens; on a CPU, plain attention with dropout is the faster one for short texts


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning left beside `package/`."""

    parameters: dict[str, int]
    notes: tuple[str, ...]
    history: list[dict[str, Any]]


class WeightedTrainer(Trainer):
    """Trainer with weights per example, batches of like length, and an optimiser given from outside."""

    loss_is_scaled_for_ga = False  # `compute_loss` gives a mean per batch

    def __init__(self, train: Items, valid: Items, *, smoothing: float, **arguments: Any) -> None:
        super().__init__(train_dataset=train, eval_dataset=valid, **arguments)
        self._train, self._valid = train, valid
        self._smoothing = smoothing

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        features = {name: value for name, value in inputs.items() if name not in ("labels", "weights")}
        outputs = model(**features)
        losses = torch.nn.functional.cross_entropy(
            outputs.logits.float(),
            inputs["labels"],
            reduction="none",
            label_smoothing=self._smoothing if model.training else 0.0,
        )
        loss = (losses * inputs["weights"]).mean()
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Item]:
        batches = LengthGroupedBatches(self._train.lengths, self.args.per_device_train_batch_size, self.args.seed)
        return self._loader(self._train, batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Item]:
        batches = sorted_batches(range(len(self._valid)), self._valid.lengths, EVAL_BATCH)
        return self._loader(self._valid, batches)

    def _loader(self, items: Items, batches: Any) -> DataLoader[Item]:
        loader = DataLoader(
            items, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=self.args.dataloader_pin_memory
        )
        prepared: DataLoader[Item] = self.accelerator.prepare(loader)
        return prepared


def finetune(request: FitRequest, base: BaseModel, checkpoints: Checkpoints) -> Tuned:
    """Fine-tune `base` and write `package/`, which plain transformers can load.

    Raises Stopped (a checkpoint is kept) or FamilyError.
    """
    _quieten()
    training = request.recipe.training
    device = choose_device(training.device)
    precision = choose_precision(training.mixed_precision, device)
    transformers.set_seed(training.seed)
    tokenizer = _load_tokenizer(base)
    model = _load_model(base, request, device)
    _check_length(request.recipe.model.max_length, model, tokenizer)
    notes = [f"Trained on {device} in {precision}."]
    train, valid = _read_texts(request, tokenizer, notes)
    trainer, watch = _trainer(request, model, tokenizer, train, valid, (device, precision), checkpoints, notes)
    resumed = checkpoints.newest() if request.resume else None
    if resumed is not None:
        notes.append(f"Resumed from {resumed.name}.")
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        raise Stopped(f"stopped at step {trainer.state.global_step:,}")
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if best := watch.restore_best(model, trainer.state):
        notes.append(f"The weights are those of evaluation {best}, the best one.")
    counts = {"total": model.num_parameters(), "trainable": model.num_parameters(only_trainable=True)}
    write_package(request.out / "package", model, tokenizer, base, request.recipe.model.max_length)
    return Tuned(counts, tuple(notes), _history(trainer))


def choose_device(wanted: str) -> str:
    """`cuda`, `mps` or `cpu`. Raises FamilyError for one this machine does not have."""
    if wanted == "auto":
        wanted = os.environ.get("KALIMTAK_DEVICE", "auto") or "auto"
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in has.items() if available)
    if not has.get(wanted, False):
        raise FamilyError(f"This machine cannot train on {wanted}; set training_config.device to auto or cpu.")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """`bf16`, `fp16` or `fp32`: bfloat16 where the processor computes in it and does not merely emulate it."""
    if wanted == "fp16" and device != "cuda":
        raise FamilyError("mixed_precision fp16 needs a CUDA device; set it to auto.")
    if wanted != "auto":
        return "fp32" if wanted == "no" else wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    able = torch.cpu.get_capabilities()
    return "bf16" if device == "cpu" and (able.get("avx512_bf16") or able.get("amx_bf16")) else "fp32"


def write_package(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: BaseModel, max_length: int
) -> None:
    """`model.safetensors`, `config.json` and the tokenizer's files, as plain transformers reads them."""
    config: Any = model.config
    config.__dict__.pop("auto_map", None)  # names code of the base model's authors, which nobody shall import
    model.save_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.model_max_length = max_length
    tokenizer.init_kwargs.pop("auto_map", None)
    tokenizer.save_pretrained(folder)
    special = json.dumps(tokenizer.special_tokens_map, ensure_ascii=False, indent=2)
    (folder / "special_tokens_map.json").write_text(special + "\n", encoding="utf-8")
    vocabulary = base.folder / "vocab.txt"
    if vocabulary.is_file():
        (folder / "vocab.txt").write_bytes(vocabulary.read_bytes())


def _quieten() -> None:
    """Progress is told through the reporter; the libraries' own bars would only fill the log."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise FamilyError(f"The tokenizer of {base.id} cannot be read: {_first_line(error)}") from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise FamilyError(f"{base.id} is not an encoder this family can train; take a BERT-like model such as minilm.")
    return tokenizer


def _load_model(base: BaseModel, request: FitRequest, device: str) -> PreTrainedModel:
    """`base` under a new head, word embeddings frozen. Raises FamilyError for what is not a text encoder."""
    on_cpu = device == "cpu" and request.recipe.model.max_length <= _EAGER_LENGTH
    try:
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
        config.num_labels = len(request.labels)
        config.id2label = dict(enumerate(request.labels))
        config.label2id = {label: index for index, label in enumerate(request.labels)}
        config.problem_type = "single_label_classification"
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a base that is a classifier already has a head for other labels
            dtype=torch.float32,
            **({"attn_implementation": "eager"} if on_cpu else {}),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise FamilyError(f"{base.id} is not a text encoder that can be fine-tuned: {_first_line(error)}") from error
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, torch.nn.Embedding):
        embeddings.weight.requires_grad_(False)
    return model


def _check_length(max_length: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or max_length)
    if max_length > limit:
        raise FamilyError(f"This model reads at most {limit} tokens; set model_config.max_length to {limit} or less.")


def _read_texts(request: FitRequest, tokenizer: PreTrainedTokenizerBase, notes: list[str]) -> tuple[Items, Items]:
    """Both sets as tokens, the weights of the training set scaled to a mean of 1."""
    tokenisation = Tokenisation.of(tokenizer, request.recipe.model.max_length, PREPROCESSING_VERSION)
    position = {label: index for index, label in enumerate(request.labels)}

    def read(examples: list[Example], weights: np.ndarray[Any, np.dtype[np.float64]]) -> Items:
        tokens = tokenisation.encode_all([example.fields for example in examples])
        rows = zip(tokens, examples, weights, strict=True)
        return Items([Item(each, position[example.label], float(weight)) for each, example, weight in rows])

    weights = np.array([example.weight for example in request.train])
    if request.recipe.training.class_weights == "balanced":
        truth = np.array([position[example.label] for example in request.train])
        weights *= balanced_weights(truth, len(request.labels))[truth]
    train = read(list(request.train), weights / weights.mean())
    valid = read(list(request.valid), np.ones(len(request.valid)))
    if cut := sum(item.tokens.truncated for item in train.items):
        share = cut / len(train)
        notes.append(f"{share:.1%} of the training texts are longer than max_length and were cut off.")
    return train, valid


def _trainer(
    request: FitRequest,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Items,
    valid: Items,
    machine: tuple[str, str],
    checkpoints: Checkpoints,
    notes: list[str],
) -> tuple[WeightedTrainer, Watch]:
    training = request.recipe.training
    updates = _updates(training, len(train))
    arguments = _arguments(training, machine, checkpoints, updates=updates, evaluates=len(valid) > 0)
    optimizer = torch.optim.AdamW(_parameter_groups(model, training), fused=machine[0] != "mps")
    warmup = _warmup(training, updates, notes)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, updates)  # type: ignore[no-untyped-call]
    watch = Watch(
        request.reporter,
        checkpoints,
        batch=training.batch_size * training.gradient_accumulation_steps,
        patience=training.early_stopping_patience,
        span=SPAN,
    )

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        truth = [request.labels[index] for index in prediction.label_ids]
        scores = score(request.labels, truth, softmax(np.asarray(prediction.predictions)))
        return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1}

    trainer = WeightedTrainer(
        train,
        valid,
        smoothing=training.label_smoothing,
        model=model,
        args=arguments,
        data_collator=Collator(int(tokenizer.pad_token_id), "token_type_ids" in tokenizer.model_input_names),
        compute_metrics=judge,
        optimizers=(optimizer, schedule),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, watch


def _arguments(
    training: TrainingConfig, machine: tuple[str, str], checkpoints: Checkpoints, *, updates: int, evaluates: bool
) -> TrainingArguments:
    device, precision = machine
    return TrainingArguments(
        output_dir=str(checkpoints.drafts),
        num_train_epochs=training.num_epochs,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=EVAL_BATCH,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=training.learning_rate,
        eval_strategy="epoch" if evaluates and training.eval_strategy != "no" else "no",
        save_strategy="no",  # the watch says when
        logging_steps=max(1, min(50, updates // 20)),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=training.seed % 2**32,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
    )


def _parameter_groups(model: PreTrainedModel, training: TrainingConfig) -> list[dict[str, Any]]:
    """Head and pretrained body learn at different rates; biases and norms are not decayed."""
    body = f"{model.base_model_prefix}."
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # A pooler belongs to the body by name only: it was trained for another task or not at all.
            is_head = not name.startswith(body) or ".pooler." in name
            groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": training.learning_rate * (HEAD_RATE if is_head else 1),
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]


def _updates(training: TrainingConfig, texts: int) -> int:
    """Optimiser steps of the whole run."""
    batches = -(-texts // training.batch_size)
    return -(-batches // training.gradient_accumulation_steps) * training.num_epochs


def _warmup(training: TrainingConfig, updates: int, notes: list[str]) -> int:
    if training.warmup_ratio is not None:
        return round(training.warmup_ratio * updates)
    most = max(1, int(MAX_WARMUP_SHARE * updates))
    if training.warmup_steps > most:
        notes.append(f"Warm-up shortened from {training.warmup_steps} to {most} of {updates:,} steps.")
    return min(training.warmup_steps, most)


def _history(trainer: Trainer) -> list[dict[str, Any]]:
    """Every line of figures, JSON types, those before a resumption included."""
    named = ("step", "epoch", "loss", "learning_rate", "eval_loss", "eval_accuracy", "eval_macro_f1")
    lines = [{name: line[name] for name in named if name in line} for line in trainer.state.log_history]
    return [line for line in lines if "loss" in line or "eval_loss" in line]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
