"""Fine-tuning a pretrained model with a head on top. Imports torch: reached from `encoder.fit` alone.

Against what transformers' Trainer usually does this saves time where it costs no accuracy: batches of like length,
bfloat16 where the processor computes in it, the word embeddings (half of a small encoder) left as they are, a last
layer that computes only what the head reads, nothing dropped out. A head that starts from random numbers, while
everything below is pretrained, learns ten times as fast.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from registry.families.architecture import longest_input, reads_token_types
from registry.families.base import Example, FamilyError, FitRequest, Reporter, Silent, Stopped, check_length, first_line
from registry.families.base_models import BaseModel
from registry.families.batching import CUDA_MULTIPLE, MULTIPLE, Collator, Item, Items
from registry.families.checkpoints import Checkpoints
from registry.families.crew import Crew
from registry.families.devices import Machine
from registry.families.dropout import leave_out_dropout, use_quick_dropout
from registry.families.first_token import read_first_token_only
from registry.families.half_states import hand_on_half_states
from registry.families.learner import Learner, cadence, updates_of
from registry.families.memory import OutOfMemory, is_out_of_memory, release_memory
from registry.families.parents import Parent, find_parent, inherit_adapter, inherit_head
from registry.families.processes import Seat, work_together
from registry.families.targets import example_weights, truth_index, truth_matrix
from registry.families.tokenisation import Tokenisation
from registry.families.watch import Watch
from registry.text import PREPROCESSING_VERSION

SPAN = 0.85  # the share of a fit that this part takes, for the progress bar
_EAGER_LENGTH = 256  # tokens; on a CPU, plain attention is the faster one for short texts

_log = logging.getLogger(__name__)

Adapt = Callable[[PreTrainedModel], Any]
"""What a family makes of the loaded model before anything is learned, such as PEFT's wrapper; it may freeze weights."""

Write = Callable[[Path, Any, PreTrainedTokenizerBase, BaseModel, int], None]
"""Writes the package: its folder, the trained model as `Adapt` left it, tokenizer, base and maximum length."""


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning left beside `package/`."""

    parameters: dict[str, int]
    notes: tuple[str, ...]
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class _Task:
    """All that one process needs, such that it can be pickled. `parts`: the steps each batch is taken in."""

    request: FitRequest
    base: BaseModel
    checkpoints: Checkpoints
    machine: Machine
    adapt: Adapt | None = None
    write: Write | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 1


class _Rising:
    """A reporter whose progress never falls, though training may start again with smaller batches."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._highest = reporter, 0.0
        self.metrics, self.describe = reporter.metrics, reporter.describe
        self.stop_requested = reporter.stop_requested

    def progress(self, fraction: float, note: str) -> None:
        self._highest = max(self._highest, fraction)
        self._reporter.progress(self._highest, note)


def finetune(
    request: FitRequest,
    base: BaseModel,
    checkpoints: Checkpoints,
    *,
    adapt: Adapt | None = None,
    write: Write | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Tuned:
    """Fine-tune `base` and write `package/`, by default so that plain transformers can load it.

    `adapt` and `write` are a family's own; `loading` goes to `from_pretrained` (`dtype`, `quantization_config`). All
    three must be such that they can be pickled, since several processes may do the work. Where memory does not suffice,
    batches are taken in smaller steps, from the newest checkpoint on, with the same gradients.
    Raises Stopped (a checkpoint is kept) or FamilyError.
    """
    machine = Machine.choose(request.recipe.training)
    task = _Task(replace(request, reporter=Silent()), base, checkpoints, machine, adapt, write, loading or {})
    reporter = _Rising(request.reporter)
    notes: list[str] = []
    while True:
        try:
            tuned = _run(task, reporter)
            return replace(tuned, notes=(*notes, *tuned.notes))
        except OutOfMemory as error:
            _log.warning("%s", error)
        release_memory()
        task = _with_smaller_steps(task, notes)
        _log.warning("%s", notes[-1])
        reporter.progress(0.0, notes[-1])


def _run(task: _Task, reporter: Reporter) -> Tuned:
    """Learn, here or in several processes."""
    tuned: Tuned
    if task.machine.processes == 1:
        tuned = _learn(task, Seat(), reporter)
    else:
        tuned = work_together(_learn, task, task.machine.processes, reporter, expected=(OutOfMemory,))
    return tuned


def _with_smaller_steps(task: _Task, notes: list[str]) -> _Task:
    """`task` with every batch in twice as many steps. Raises FamilyError at one text per step."""
    training = task.request.recipe.training
    size = -(-training.batch_size // (task.machine.processes * task.parts))
    if size == 1:
        remedies = ["lower model_config.max_length", "take a smaller model_config.model_name"]
        remedies += ["set training_config.mixed_precision to auto"] if task.machine.precision == "fp32" else []
        remedies += ["set training_config.device to cpu"] if task.machine.device != "cpu" else []
        raise FamilyError(f"The memory does not suffice to train on one text at a time: {', or '.join(remedies)}.")
    parts = task.parts * 2
    notes[:] = [
        f"Not enough memory for {training.batch_size} texts per step: {-(-size // 2)} per step instead and gradients "
        f"accumulated over {training.gradient_accumulation_steps * parts} steps, which learns the same."
    ]
    return replace(task, parts=parts)


def _learn(task: _Task, seat: Seat, reporter: Reporter) -> Tuned:
    """The work of one process. Raises Stopped, FamilyError or OutOfMemory."""
    try:
        return _learn_and_write(task, seat, reporter)
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(str(error).strip().partition("\n")[0]) from None  # the traceback would hold the model
        raise


def _learn_and_write(task: _Task, seat: Seat, reporter: Reporter) -> Tuned:
    _quieten()
    request, base, checkpoints = task.request, task.base, task.checkpoints
    training, max_length = request.recipe.training, request.recipe.model.max_length
    crew = Crew.join(seat, task.machine.device)
    notes = [f"Trained on {task.machine}."]
    transformers.set_seed(training.seed)
    tokenizer = _load_tokenizer(base)
    parent = find_parent(request, base, "lora" if task.adapt else "encoder", notes)
    model = _learning_model(task, tokenizer, parent)
    check_length(request, longest_input(model, tokenizer))
    if crew.count > 1:
        torch.manual_seed(training.seed + crew.rank)  # the processes drop other units out
    texts = _read_texts(request, tokenizer, notes)
    watch = Watch(
        reporter,
        checkpoints,
        training,
        save_steps=cadence(training.save_steps, training, len(request.train)),
        span=SPAN,
        crew=crew,
    )
    learner = Learner(
        request,
        model,
        texts,
        Collator(
            int(tokenizer.pad_token_id),
            reads_token_types(model, tokenizer),
            max_length,
            CUDA_MULTIPLE if task.machine.device == "cuda" else MULTIPLE,
        ),
        machine=task.machine,
        crew=crew,
        parts=task.parts,
        watch=watch,
        is_head_new=parent is None or any(label not in parent.labels for label in request.labels),
        drafts=checkpoints.drafts,
        notes=notes,
    )
    reporter.describe(
        device=task.machine.device,
        precision=task.machine.precision,
        effective_batch=training.batch_size * training.gradient_accumulation_steps,
        steps=updates_of(training, len(request.train)),
        epochs=training.num_epochs,
    )
    resumed = checkpoints.newest() if request.resume or task.parts > 1 else None
    if resumed is not None:
        notes.append(f"Resumed from {resumed.name}.")
    learner.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        raise Stopped(f"stopped at step {learner.state.global_step:,}")
    model = learner.accelerator.unwrap_model(learner.model, keep_fp32_wrapper=False)
    if crew.leads:
        if best := watch.restore_best(model, learner.state):
            notes.append(f"The weights are those of evaluation {best}, the best one.")
        (task.write or write_package)(request.out / "package", model, tokenizer, base, max_length)
    return Tuned(count_parameters(model), tuple(notes), learner.history())


def write_package(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: BaseModel, max_length: int
) -> None:
    """`model.safetensors`, `config.json` and the tokenizer's files, as plain transformers reads them."""
    config: Any = model.config
    config.__dict__.pop("auto_map", None)  # names code of the base model's authors, which nobody shall import
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer, base, max_length)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, base: BaseModel, max_length: int) -> None:
    """The tokenizer's files, some of which only older libraries still look for."""
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


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """`total` and `trainable`, shared ones once, and without the untrained copy of a head that PEFT keeps beside it."""
    named = [each for name, each in model.named_parameters() if ".original_module." not in name]
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in named]
    return {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, learns in sizes if learns)}


def _quieten() -> None:
    """Progress is told through the reporter; the libraries' own bars would only fill the log."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise FamilyError(f"The tokenizer of {base.id} cannot be read: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:  # models that write text have none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise FamilyError(f"{base.id} is not an encoder this family can train; take a BERT-like model such as minilm.")
    return tokenizer


def _load_model(task: _Task, tokenizer: PreTrainedTokenizerBase, parent: Parent | None) -> PreTrainedModel:
    """The base model or the version to go on from, under a head for the labels, word embeddings frozen.

    Raises FamilyError for what cannot classify texts.
    """
    base, request = task.base, task.request
    folder = parent.package if parent else base.folder
    on_cpu = task.machine.device == "cpu" and request.recipe.model.max_length <= _EAGER_LENGTH
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.num_labels = len(request.labels)
        config.id2label = dict(enumerate(request.labels))
        config.label2id = {label: index for index, label in enumerate(request.labels)}
        config.problem_type = "multi_label_classification" if request.multi_label else "single_label_classification"
        config.pad_token_id = tokenizer.pad_token_id  # how a model that reads left to right finds a text's last token
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a base that is a classifier already has a head for other labels
            **({"dtype": torch.float32} | ({"attn_implementation": "eager"} if on_cpu else {}) | dict(task.loading)),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        raise FamilyError(f"{base.id} is not a text encoder that can be fine-tuned: {first_line(error)}") from error
    read_first_token_only(model)
    if parent:
        inherit_head(model, parent, request.labels)
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, torch.nn.Embedding):
        embeddings.weight.requires_grad_(False)
    return model


def _learning_model(task: _Task, tokenizer: PreTrainedTokenizerBase, parent: Parent | None) -> Any:
    """The model as it will learn: loaded, adapted, and with what saves time. Raises FamilyError."""
    model: Any = _load_model(task, tokenizer, None if task.adapt else parent)
    if task.machine.device == "cpu":
        hand_on_half_states(model)
    if task.adapt:
        model = task.adapt(model)
        if parent:
            inherit_adapter(model, parent, task.request.labels)
    else:
        leave_out_dropout(model)
    if task.machine.device == "cpu":
        use_quick_dropout(model)
    return model


def _read_texts(request: FitRequest, tokenizer: PreTrainedTokenizerBase, notes: list[str]) -> tuple[Items, Items]:
    """The training and the validation set as tokens."""
    tokenisation = Tokenisation.of(tokenizer, request.recipe.model.max_length, PREPROCESSING_VERSION)

    def read(examples: Sequence[Example], weights: NDArray[np.float64]) -> Items:
        tokens = tokenisation.encode_all([example.fields for example in examples])
        truth = truth_matrix(request, examples) if request.multi_label else truth_index(request, examples).tolist()
        rows = zip(tokens, truth, weights.tolist(), strict=True)
        return Items([Item(each, answer, weight) for each, answer, weight in rows])

    train = read(request.train, example_weights(request))
    valid = read(request.valid, np.ones(len(request.valid)))
    if cut := sum(item.tokens.truncated for item in train.items):
        share = cut / len(train)
        notes.append(f"{share:.1%} of the training texts are longer than max_length and were cut off.")
    return train, valid
