"""`--set section.key=value`: changes to a recipe for one run."""

from collections.abc import Sequence
from typing import Any

from registry.recipe.checks import RecipeError
from registry.recipe.entry import RECIPE_SECTIONS, Recipe
from registry.recipe.file import load_yaml

_ALIASES = {"training_config.max_length": "model_config.max_length"}
_RIVALS = {"warmup_ratio": ("warmup_steps", 0), "warmup_steps": ("warmup_ratio", None)}


def apply_overrides(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """`recipe` with assignments such as `training_config.num_epochs=2` made, in order; values are read as YAML.

    Raises `RecipeError` for whatever would be refused in an enabled entry of `models.yaml`.
    """
    if not assignments:
        return recipe
    raw = recipe.to_dict()
    for assignment in assignments:
        _assign(raw, assignment)
    return Recipe.from_dict(raw, where="--set", allow_later=False)


def _assign(raw: dict[str, Any], assignment: str) -> None:
    path, equals, value = assignment.partition("=")
    path = _ALIASES.get(path.strip(), path.strip())
    *parents, name = path.split(".")
    if not equals or not parents or parents[0] not in RECIPE_SECTIONS:
        raise RecipeError(
            f"--set: {path}: expected section.key=value with a section among {', '.join(RECIPE_SECTIONS)}"
        )
    target = raw
    for parent in parents:
        inner = target.get(parent)
        if not isinstance(inner, dict):
            raise RecipeError(f"--set: {path}: there is no section {parent}")
        target = inner
    target[name] = load_yaml(value, where=f"--set: {path}")
    if name in _RIVALS and target[name] is not None:
        rival, neutral = _RIVALS[name]
        target[rival] = neutral
