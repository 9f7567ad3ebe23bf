"""Which keys of a recipe which type has a use for. What it ignores does no harm, but who sets it should hear of it."""

from collections.abc import Mapping
from typing import Any

from registry.recipe.checks import plain
from registry.recipe.entry import DEFAULT_BATCH_SIZE, Recipe

_TUNING = frozenset(
    {"num_epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_steps", "warmup_ratio"}
    | {"weight_decay", "label_smoothing", "mixed_precision", "eval_strategy", "eval_steps", "save_strategy"}
    | {"save_steps", "early_stopping_patience", "num_processes", "start_from"}
)
_WEIGHING = frozenset({"class_weights", "correction_weight"})
_WORDS = frozenset({"ngram_range", "max_features"})
_UNUSED = {
    "classic": {"model_config": {"model_name", "max_length", "lora", "members"}, "training_config": _TUNING},
    "embedding": {"model_config": {"lora", "members"}, "training_config": _TUNING | _WORDS},
    "encoder": {"model_config": {"lora", "members"}, "training_config": _WORDS | {"C"}},
    "lora": {"model_config": {"members"}, "training_config": _WORDS | {"C"}},
    "ensemble": {
        "model_config": {"model_name", "max_length", "lora"},
        "training_config": _TUNING | _WEIGHING | _WORDS | {"C"},
    },
}  # code of one's own is given the whole recipe


def unused_keys(recipe: Mapping[str, Mapping[str, Any]], model_type: str) -> tuple[str, ...]:
    """`section.key` of whatever `model_type` ignores and is not as it is by default; `recipe` as `Recipe.to_dict`."""
    default = Recipe().to_dict()
    return tuple(
        f"{section}.{name}"
        for section, names in _UNUSED.get(model_type, {}).items()
        for name, value in recipe[section].items()
        if name in names and plain(value) != default[section][name] and not _is_default(recipe, section, name)
    )


def _is_default(recipe: Mapping[str, Mapping[str, Any]], section: str, name: str) -> bool:
    """Whether nobody chose it: it follows from the type that the recipe was written for, or from another key."""
    value = recipe[section][name]
    if name == "batch_size":
        return value in DEFAULT_BATCH_SIZE.values()
    return name == "warmup_steps" and value == 0 and recipe[section]["warmup_ratio"] is not None
