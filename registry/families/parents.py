"""Going on from the version that is live instead of from the base model: continual learning. Imports torch.

Labels keep what was learnt about them wherever they stand now; new ones begin with weights of their own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from registry.calibration import Calibration
from registry.families.base import FamilyError, FitRequest
from registry.families.base_models import BaseModel
from registry.manifest import ArtefactCorrupt, Manifest, verify_manifest

WEIGHTS_NAME, ADAPTER_NAME = "model.safetensors", "adapter_model.safetensors"


@dataclass(frozen=True)
class Parent:
    """A version that can be gone on from: its package and its labels, in the order of its head."""

    package: Path
    labels: tuple[str, ...]


def find_parent(request: FitRequest, base: BaseModel, family: str, notes: list[str]) -> Parent | None:
    """The version to go on from, or None, with the reason in `notes` where one was asked for."""
    if request.recipe.training.start_from != "parent":
        return None
    if request.parent is None:
        notes.append("No version is live yet: started from the base model.")
        return None
    try:
        manifest = verify_manifest(request.parent)
    except (ArtefactCorrupt, OSError) as error:
        notes.append(f"The live version cannot be read ({error}): started from the base model.")
        return None
    if differs := _difference(request, base, family, manifest):
        notes.append(f"The live version {differs}: started from the base model.")
        return None
    if added := [label for label in request.labels if label not in manifest.labels]:
        notes.append(f"Started from the live version; new labels: {', '.join(added)}.")
    else:
        notes.append("Started from the live version.")
    return Parent(request.parent / "package", manifest.labels)


def _difference(request: FitRequest, base: BaseModel, family: str, manifest: Manifest) -> str:
    """Why what it learnt cannot be used; empty where it can."""
    if manifest.family != family:
        return f"is of the family {manifest.family}, not {family}"
    if manifest.base_model is None or manifest.base_model["sha256"] != base.sha256:
        return "has another base model"
    if family == "lora" and _adapters(manifest.recipe) != _adapters(request.recipe.to_dict()):
        return "has adapters of another form (model_config.lora)"
    if manifest.input_fields != request.input_fields:
        return f"reads other fields ({', '.join(manifest.input_fields)})"
    if Calibration.from_dict(manifest.calibration).multi_label != request.multi_label:
        return "gives one label where several are wanted" if request.multi_label else "gives several labels"
    return ""


def _adapters(recipe: dict[str, Any]) -> dict[str, Any]:
    """What decides which adapters there are and how much they count."""
    lora: dict[str, Any] = recipe["model_config"]["lora"]
    return {name: value for name, value in lora.items() if name != "lora_dropout"}


def inherit_head(model: Any, parent: Parent, labels: tuple[str, ...]) -> None:
    """Give each label of `model`'s last layer the weights that `parent` has for it, and new ones fresh weights.

    Raises FamilyError where the package is not what its manifest says.
    """
    name, head = last_layer(model, len(labels))
    try:
        saved = load_file(parent.package / WEIGHTS_NAME)
        rows = {part: saved[f"{name}.{part}"] for part, _ in head.named_parameters()}
    except (OSError, KeyError, SafetensorError) as error:
        raise FamilyError(f"The package of the live version has no head {name!r}; set start_from to base.") from error
    _inherit_rows(head, rows, parent, labels, std=_spread(model))


def inherit_adapter(model: Any, parent: Parent, labels: tuple[str, ...]) -> None:
    """`inherit_head` of a model in PEFT's wrapper, and all its adapters as `parent` has them."""
    name, head = last_layer(model.get_base_model(), len(labels))
    learning = {each: parameter for each, parameter in model.named_parameters() if parameter.requires_grad}
    last = {id(parameter) for parameter in head.parameters()}
    try:
        saved = load_file(parent.package / ADAPTER_NAME)
        rows = {part: saved[_saved_name(f"base_model.model.{name}.{part}")] for part, _ in head.named_parameters()}
        with torch.no_grad():
            for each, parameter in learning.items():
                if id(parameter) not in last:
                    parameter.copy_(saved[_saved_name(each)])
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise FamilyError("The package of the live version has other adapters; set start_from to base.") from error
    _inherit_rows(head, rows, parent, labels, std=_spread(model.get_base_model()))


def _saved_name(name: str) -> str:
    """How PEFT names a parameter in a package."""
    return name.replace(".modules_to_save.default", "").replace(".default", "")


def _spread(model: Any) -> float:
    """Of the random numbers that new weights begin with."""
    return float(getattr(model.config, "initializer_range", 0.02))


def _inherit_rows(
    head: torch.nn.Linear, rows: dict[str, torch.Tensor], parent: Parent, labels: tuple[str, ...], *, std: float
) -> None:
    with torch.no_grad():
        torch.nn.init.normal_(head.weight, std=std)
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)
        for part, values in head.named_parameters():
            for row, label in enumerate(labels):
                if label in parent.labels:
                    values[row] = rows[part][parent.labels.index(label)]


def last_layer(model: Any, labels: int) -> tuple[str, torch.nn.Linear]:
    """The name and the module that gives one number per label; it lies outside the body."""
    body = {id(module) for module in model.base_model.modules()}
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == labels and id(module) not in body
    ]
    if not found:
        raise FamilyError("This base model's classifier has no linear last layer; set start_from to base.")
    return found[-1]
