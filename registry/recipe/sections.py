"""The sections of a classifier's configuration, with units, bounds and defaults. The contract is `models.yaml`'s."""
# ruff: noqa: RUF009 - `key` returns a dataclass field, and sections are frozen

import re
from dataclasses import dataclass
from typing import Any

from registry.labels import SEPARATOR
from registry.recipe.checks import (
    Place,
    Section,
    choice,
    either,
    flag,
    key,
    mapping_of,
    number,
    section_of,
    sequence_of,
    slug,
    text,
    whole,
)

MAX_LABELS = 1000
CACHED_TEXTS = 10_000  # of `cache: true`

_label = text(100)
_field_name = text(64)
_cached_texts = whole(1, 1_000_000)

# Keys that a request to a classifier holds beside its fields, and that an answer holds beside its label.
_REQUEST_KEYS = frozenset({"texts", "items", "classifier", "subject", "request_id", "top_k"})
_RESULT_KEYS = frozenset(
    {"interaction_id", "classifier", "labels", "confidence", "scores", "abstained", "threshold", "alternatives"}
    | {"source", "model_version", "deployment", "flags", "latency_ms", "final_label"}
)


def _approval(value: Any, place: Place) -> str:
    """`auto`, `manual` or `agree:N`, N reviewers from 2 to 9."""
    if not isinstance(value, str) or not re.fullmatch("auto|manual|agree:[2-9]", value):
        raise place.error("expected auto, manual or agree:N with N from 2 to 9")
    return value


def _cache(value: Any, place: Place) -> bool | int:
    """True, false, or how many answers are kept."""
    return value if isinstance(value, bool) else _cached_texts(value, place)


@dataclass(frozen=True)
class LoraConfig(Section):
    """Low-rank adapters: rank `r` 1-512, `lora_alpha` 1-4096, `lora_dropout` 0-0.9, `target_modules` auto or names."""

    r: int = key(8, whole(1, 512))
    lora_alpha: int = key(16, whole(1, 4096))
    lora_dropout: float = key(0.1, number(0, 0.9))
    target_modules: str | tuple[str, ...] = key("auto", either("auto", sequence_of(text(200), 1, 100)))


@dataclass(frozen=True)
class ModelConfig(Section):
    """The model. `model_name`: `minilm`, a Hugging Face id or a folder; `max_length`: tokens, 8-8192.

    `num_labels` 2-1000, where given, must be the number of labels. `members`: the 2-20 other classifiers
    of an ensemble.
    """

    model_name: str = key("minilm", text(500))
    num_labels: int | None = key(None, whole(2, MAX_LABELS))
    max_length: int = key(128, whole(8, 8192))
    use_8bit: bool = key(False, flag)
    lora: LoraConfig = key(LoraConfig(), section_of(LoraConfig))
    members: tuple[str, ...] = key((), sequence_of(slug, 2, 20, or_none=True))


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How a model is trained.

    num_epochs: passes over the training texts, 1-1000. batch_size: texts per step, 1-4096.
    gradient_accumulation_steps: steps per update, 1-1024. learning_rate: 1e-8 to 1, the peak of the schedule.
    warmup_steps: updates until the peak, 0-1,000,000; or warmup_ratio: their share of all updates, 0-1 (then
    warmup_steps is 0). weight_decay: 0-1. label_smoothing: 0-0.5. eval_strategy: figures on the validation texts after
    each epoch, every eval_steps updates (1-1,000,000; None: four times an epoch), or never. early_stopping_patience:
    evaluations without improvement, 1-100; None trains to the end. save_strategy: checkpoints each minute and after
    each epoch of some length, every save_steps updates (likewise), or only when a run is told to stop. num_processes:
    1-64 share each batch, one per GPU or on the processor's cores. start_from: base, or parent to go on from the
    version that is live. correction_weight: how many times a person's correction counts in the loss, 0.1-100.
    seed: 0 to 2^32 - 1.
    Classic: ngram_range: words per feature, 1-5; max_features: 100 to 10,000,000; C: inverse regularisation, 1e-6-1e6.
    """

    num_epochs: int = key(3, whole(1, 1000))
    batch_size: int = key(32, whole(1, 4096))
    gradient_accumulation_steps: int = key(1, whole(1, 1024))
    learning_rate: float = key(1e-4, number(1e-8, 1))
    warmup_steps: int = key(100, whole(0, 1_000_000))
    warmup_ratio: float | None = key(None, number(0, 1))
    weight_decay: float = key(0.01, number(0, 1))
    label_smoothing: float = key(0.0, number(0, 0.5))
    class_weights: str = key("none", choice("none", "balanced"))
    mixed_precision: str = key("auto", choice("auto", "no", "bf16", "fp16"))
    eval_strategy: str = key("epoch", choice("epoch", "no", "steps"))
    eval_steps: int | None = key(None, whole(1, 1_000_000))
    save_strategy: str = key("epoch", choice("epoch", "no", "steps"))
    save_steps: int | None = key(None, whole(1, 1_000_000))
    early_stopping_patience: int | None = key(None, whole(1, 100))
    device: str = key("auto", choice("auto", "cpu", "cuda", "mps"))
    num_processes: int = key(1, whole(1, 64))
    seed: int = key(13, whole(0, 2**32 - 1))
    correction_weight: float = key(3.0, number(0.1, 100))
    start_from: str = key("base", choice("base", "parent"))
    ngram_range: tuple[int, int] = key((1, 2), lambda value, place: _ngram_range(value, place))
    max_features: int = key(200_000, whole(100, 10_000_000))
    C: float = key(5.0, number(1e-6, 1e6))

    def conflict(self) -> tuple[str, str] | None:
        if self.warmup_ratio is not None and self.warmup_steps:
            return "warmup_ratio", "give either warmup_ratio or warmup_steps"
        if self.early_stopping_patience and self.eval_strategy == "no":
            return "early_stopping_patience", "needs evaluations; set eval_strategy: epoch"
        for strategy in ("eval", "save"):
            if getattr(self, f"{strategy}_steps") and getattr(self, f"{strategy}_strategy") != "steps":
                return f"{strategy}_steps", f"is for {strategy}_strategy: steps"
        return None


def _ngram_range(value: Any, place: Place) -> tuple[int, int]:
    """Fewest and most words of a feature."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise place.error("expected two whole numbers such as [1, 2]")
    low, high = (whole(1, 5)(each, place.at(index)) for index, each in enumerate(value))
    if low > high:
        raise place.error(f"expected the smaller number first, got [{low}, {high}]")
    return low, high


@dataclass(frozen=True)
class DataConfig(Section):
    """Which columns hold what, and how many rows are used.

    Either `text_field`, or `question_field` and `context_field`, name the inputs; `label_field` names the column of
    the label and the extra key of an answer. `train_sample_size`, `valid_sample_size`: at most so many rows (None:
    all). `replay_share`: share of a retraining set drawn from older items, 0-0.9.
    """

    text_field: str | None = key(None, _field_name)
    question_field: str | None = key(None, _field_name)
    context_field: str | None = key(None, _field_name)
    label_field: str = key("label", _field_name)
    train_sample_size: int | None = key(None, whole(1, 100_000_000))
    valid_sample_size: int | None = key(None, whole(1, 100_000_000))
    replay_share: float = key(0.2, number(0, 0.9))

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The names of a classifier's inputs, in the order the model reads them."""
        if self.question_field and self.context_field:
            return self.question_field, self.context_field
        return (self.text_field or "text",)

    def conflict(self) -> tuple[str, str] | None:
        if bool(self.question_field) != bool(self.context_field):
            return "question_field", "question_field and context_field are given together or not at all"
        if self.question_field and self.text_field:
            return "text_field", "give either text_field, or question_field and context_field"
        if self.question_field and self.question_field == self.context_field:
            return "context_field", f"{self.context_field!r} is the question's field already"
        if self.label_field in self.input_fields or self.label_field in _RESULT_KEYS:
            return "label_field", f"{self.label_field!r} is taken by an input or by a key of every answer"
        for name in ("text_field", "question_field", "context_field"):
            if getattr(self, name) in _REQUEST_KEYS:
                return name, f"{getattr(self, name)!r} is taken by a key of every request"
        return None


@dataclass(frozen=True)
class TensorboardConfig(Section):
    """`auto_start`: TensorBoard runs beside each training, for as long as that lasts, on `port` 1024-65535."""

    auto_start: bool = key(False, flag)
    port: int = key(6006, whole(1024, 65535))


@dataclass(frozen=True)
class LabelConfig(Section):
    """The answers. `labels` in their order, at least two; empty: taken from the data.

    `mapping` {label in the data: label}. `descriptions` {label: one line for reviewers}. `multi_label`: a text may have
    several labels, or none.
    """

    labels: tuple[str, ...] = key((), sequence_of(_label, 2, MAX_LABELS, or_none=True))
    mapping: dict[str, str] = key({}, mapping_of(_label, _label, MAX_LABELS))
    multi_label: bool = key(False, flag)
    descriptions: dict[str, str] = key({}, mapping_of(text(200), _label, MAX_LABELS))

    def conflict(self) -> tuple[str, str] | None:
        if self.multi_label:
            for name, labels in (("labels", self.labels), ("mapping", self.mapping.values())):
                if parted := next((label for label in labels if SEPARATOR in label), None):
                    return name, f"{parted!r} holds {SEPARATOR!r}, which joins the labels of a multi_label classifier"
        if not self.labels:
            return None
        for source, target in self.mapping.items():
            if target not in self.labels:
                return f"mapping.{source}", f"{target!r} is not among the labels"
            if source in self.labels and source != target:
                return f"mapping.{source}", "a label of the classifier cannot be mapped to another"
        if strange := [label for label in self.descriptions if label not in self.labels]:
            return f"descriptions.{strange[0]}", "is not among the labels"
        return None


@dataclass(frozen=True)
class ReviewPolicy(Section):
    """What becomes trainable. A rating of `min_rating` (1-5) or more confirms an answer.

    `approve`: auto, manual or agree:N. `source_share`: the most that one source's automatic approvals may make up of
    the set, 0-1. `burst`: so many corrections and examples of one source within an hour, or as many of the same text
    of any, are quarantined, 5-1,000,000. `moderation`: the classifier asked whether a text is fit to learn from.
    `domains`: `none`, `clusters`, or the classifier that says what a text is about. `audit`: how many
    answers are drawn at random for a reviewer each time the queue is ranked. `second_share`: the share of items that
    two reviewers judge, and a third where they disagree, 0-1.
    """

    min_rating: int = key(4, whole(1, 5))
    approve: str = key("auto", _approval)
    source_share: float = key(0.1, number(0, 1))
    burst: int = key(50, whole(5, 1_000_000))
    moderation: str | None = key(None, slug)
    domains: str = key("none", slug)
    audit: int = key(10, whole(0, 1000))
    second_share: float = key(0.0, number(0, 1))

    @property
    def helpers(self) -> dict[str, str]:
        """{key: the classifier that it names}."""
        named = {"moderation": self.moderation or "", "domains": self.domains}
        return {name: other for name, other in named.items() if other not in ("", "none", "clusters")}


@dataclass(frozen=True)
class GatePolicy(Section):
    """What a candidate must not lose against the live version, in macro-F1 and in any label's recall, 0-1.

    `per_class_drop` None: labels are not looked at one by one. Fewer than `min_samples` golden texts decide nothing.
    """

    max_drop: float = key(0.01, number(0, 1))
    per_class_drop: float | None = key(None, number(0, 1))
    min_samples: int = key(50, whole(1, 1_000_000))


@dataclass(frozen=True)
class RolloutPolicy(Section):
    """`steps`: the shares of traffic a canary goes through, in percent, rising to 100."""

    steps: tuple[int, ...] = key((5, 25, 50, 100), sequence_of(whole(1, 100), 1, 20))

    def conflict(self) -> tuple[str, str] | None:
        if list(self.steps) != sorted(self.steps) or self.steps[-1] != 100:
            return "steps", "expected rising percentages that end with 100"
        return None


@dataclass(frozen=True)
class Policy(Section):
    """How answers are given and versions replaced.

    `confidence_floor`: an answer less confident abstains, 0-1. `target_precision`: the share of answers given that
    shall be right, 0.5-1; versions trained with it bring a threshold of their own instead of the floor.
    `backup`: the classifier that answers where this one is unsure or fails, or where the classifier `sarcasm` finds
    that a text is not meant as it is written. `cascade`: a cheaper one that answers what it is sure of. `cache`: the
    answers to so many texts are kept, 1-1,000,000; true: 10,000.
    `min_new_items`: the weekly training waits for so many.
    """

    confidence_floor: float = key(0.5, number(0, 1))
    target_precision: float | None = key(None, number(0.5, 1))
    backup: str | None = key(None, slug)
    sarcasm: str | None = key(None, slug)
    cascade: str | None = key(None, slug)
    cache: bool | int = key(False, _cache)
    min_new_items: int = key(50, whole(1, 1_000_000))
    auto_deploy: str = key("never", choice("never", "canary", "full"), later=("canary",))
    review: ReviewPolicy = key(ReviewPolicy(), section_of(ReviewPolicy))
    gate: GatePolicy = key(GatePolicy(), section_of(GatePolicy))
    rollout: RolloutPolicy = key(RolloutPolicy(), section_of(RolloutPolicy), later=True)

    @property
    def cached_texts(self) -> int:
        return CACHED_TEXTS if self.cache is True else int(self.cache)

    def conflict(self) -> tuple[str, str] | None:
        if self.sarcasm and not self.backup:
            return "sarcasm", "needs a backup that answers what is sarcastic; set policy.backup too"
        if self.backup and self.backup == self.cascade:
            return "cascade", f"{self.cascade} is the backup already; one that answers early cannot know better later"
        return None
