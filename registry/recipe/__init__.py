"""What `models.yaml` may say, read strictly: recipes, labels, policies, with their bounds and defaults.

`parse_file` and `parse_entry` read configuration, `apply_overrides` the `--set` of a command; `Recipe`, `LabelConfig`
and `Policy` go to and from plain dicts; `unused_keys` says what of a recipe a type ignores. Everything refused is a
`RecipeError` of one line.
"""

from registry.recipe.by_type import unused_keys
from registry.recipe.checks import Place, RecipeError
from registry.recipe.entry import (
    ENTRY_KEYS,
    MODEL_TYPES,
    RECIPE_SECTIONS,
    Entry,
    Recipe,
    check_use_8bit,
    parse_entry,
)
from registry.recipe.file import load_yaml, parse_file
from registry.recipe.overrides import apply_overrides
from registry.recipe.sections import (
    DataConfig,
    GatePolicy,
    LabelConfig,
    LoraConfig,
    ModelConfig,
    Policy,
    ReviewPolicy,
    RolloutPolicy,
    TensorboardConfig,
    TrainingConfig,
)

__all__ = [
    "ENTRY_KEYS",
    "MODEL_TYPES",
    "RECIPE_SECTIONS",
    "DataConfig",
    "Entry",
    "GatePolicy",
    "LabelConfig",
    "LoraConfig",
    "ModelConfig",
    "Place",
    "Policy",
    "Recipe",
    "RecipeError",
    "ReviewPolicy",
    "RolloutPolicy",
    "TensorboardConfig",
    "TrainingConfig",
    "apply_overrides",
    "check_use_8bit",
    "load_yaml",
    "parse_entry",
    "parse_file",
    "unused_keys",
]
