"""A recipe (how a classifier is trained) and an entry (everything the file says about one classifier)."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from registry.recipe.checks import Place, Section, choice, flag, key, read_mapping, read_section, slug, text
from registry.recipe.sections import (
    DataConfig,
    LabelConfig,
    ModelConfig,
    Policy,
    TensorboardConfig,
    TrainingConfig,
)

RECIPE_SECTIONS = ("model_config", "training_config", "data_config", "tensorboard_config")
MODEL_TYPES = ("classic", "embedding", "encoder", "lora", "ensemble", "custom")

DEFAULT_BATCH_SIZE = {"lora": 16}
_ROUTE = re.compile(r"(/?(api/)?classify/)?(?P<slug>[^/]+)/?")
_LOADER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; written into each run, artefact and Classifier row as `to_dict`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tensorboard: TensorboardConfig = field(default_factory=TensorboardConfig)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, in the sections of `models.yaml`."""
        parts = (self.model, self.training, self.data, self.tensorboard)
        return {name: part.to_dict() for name, part in zip(RECIPE_SECTIONS, parts, strict=True)}

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], *, where: str = "recipe", model_type: str = "encoder", allow_later: bool = True
    ) -> Self:
        """Read the four sections; what is absent takes the defaults of `model_type`. Raises `RecipeError`."""
        place = Place(where, later_allowed=allow_later)
        read_mapping(raw, place, known=RECIPE_SECTIONS)
        return cls._read(raw, place, model_type)

    @classmethod
    def _read(cls, raw: Mapping[str, Any], place: Place, model_type: str) -> Self:
        model, training = _settled(raw.get("model_config"), raw.get("training_config"), place, model_type)
        return cls(
            model=read_section(ModelConfig, model, place.at("model_config")),
            training=read_section(TrainingConfig, training, place.at("training_config")),
            data=read_section(DataConfig, raw.get("data_config"), place.at("data_config")),
            tensorboard=read_section(TensorboardConfig, raw.get("tensorboard_config"), place.at("tensorboard_config")),
        )


def _settled(model: Any, training: Any, place: Place, model_type: str) -> tuple[Any, Any]:
    """Move `max_length` to the model and put in the defaults that depend on other keys."""
    if not isinstance(training, Mapping | None) or not isinstance(model, Mapping | None):
        return model, training  # the sections' readers refuse these
    model = {name: value for name, value in (model or {}).items() if value is not None}
    training = {name: value for name, value in (training or {}).items() if value is not None}
    if "max_length" in training:
        length = training.pop("max_length")
        if model.setdefault("max_length", length) != length:
            raise place.at("training_config").at("max_length").error("differs from model_config.max_length; keep one")
    if "warmup_ratio" in training:
        training.setdefault("warmup_steps", 0)
    if model_type in DEFAULT_BATCH_SIZE:
        training.setdefault("batch_size", DEFAULT_BATCH_SIZE[model_type])
    return model, training


def _loader(value: Any, place: Place) -> str:
    """`package.module:function`."""
    if not isinstance(value, str) or len(value) > 200 or not _LOADER.fullmatch(value):
        raise place.error("expected package.module:function")
    return value


@dataclass(frozen=True)
class _Head(Section):
    """The keys of an entry outside its sections."""

    name: str = key("", text(100))
    type: str = key("", choice(*MODEL_TYPES))
    kind: str = key("classification", choice("classification", "generation"), later=("generation",))
    enabled: bool = key(True, flag)
    route: str | None = key(None, text(100))
    description: str = key("", text(1000))
    loader: str | None = key(None, _loader)

    def conflict(self) -> tuple[str, str] | None:
        if not self.name:
            return "name", "is missing"
        if not self.type:
            return "type", f"is missing; one of {', '.join(MODEL_TYPES)}"
        if self.loader and self.type not in ("classic", "custom"):
            return "loader", "goes with type classic or custom only"
        if self.type == "custom" and not self.loader:
            return "loader", "is missing; type custom needs package.module:function"
        return None


_HEAD_KEYS = ("name", "type", "kind", "enabled", "route", "description", "loader")
ENTRY_KEYS = (*_HEAD_KEYS, *RECIPE_SECTIONS, "label_config", "policy")


@dataclass(frozen=True)
class Entry:
    """One classifier as the file describes it. `route` is its slug."""

    name: str
    type: str
    kind: str
    enabled: bool
    route: str
    description: str
    loader: str | None
    recipe: Recipe
    labels: LabelConfig
    policy: Policy

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, with every default written out; `parse_entry` reads it back."""
        head = {name: getattr(self, name) for name in _HEAD_KEYS if getattr(self, name) not in (None, "")}
        return head | self.recipe.to_dict() | {"label_config": self.labels.to_dict(), "policy": self.policy.to_dict()}


def parse_entry(raw: Mapping[str, Any], *, where: str) -> Entry:
    """Read and check one entry. Raises `RecipeError` that names `where`, the entry and the key.

    What no release honours yet is refused in an enabled entry ("… is not available yet") and accepted in a disabled
    one, after the same checks of keys, types and bounds.
    """
    place = Place(where)
    if isinstance(raw, Mapping) and raw.get("name") is not None:
        place = Place(f"{where} ({text(100)(raw['name'], place.at('name'))})")
    raw = read_mapping(raw, place, known=ENTRY_KEYS)
    enabled = flag(raw["enabled"], place.at("enabled")) if raw.get("enabled") is not None else True
    place = replace(place, later_allowed=not enabled)
    head = read_section(_Head, {name: raw[name] for name in _HEAD_KEYS if name in raw}, place)
    recipe = Recipe._read(raw, place, head.type)
    labels = read_section(LabelConfig, raw.get("label_config"), place.at("label_config"))
    policy = read_section(Policy, raw.get("policy"), place.at("policy"))
    _check_num_labels(recipe.model.num_labels, labels, place)
    if head.loader and not labels.labels:
        raise place.at("label_config").at("labels").error("is missing; code of your own says nothing about its labels")
    if labels.multi_label and policy.target_precision is not None:
        message = "goes with one label per text; a multi_label classifier chooses a threshold for each label by itself"
        raise place.at("policy").at("target_precision").error(message)
    route = _route_slug(head, place)
    check_use_8bit(recipe, "custom" if head.loader else head.type, place)
    _check_helpers(policy, labels, route, place.at("policy"))
    _check_members(recipe.model.members, head.type, route, place.at("model_config").at("members"))
    return Entry(
        name=head.name,
        type=head.type,
        kind=head.kind,
        enabled=enabled,
        route=route,
        description=head.description,
        loader=head.loader,
        recipe=recipe,
        labels=labels,
        policy=policy,
    )


def _check_num_labels(num_labels: int | None, labels: LabelConfig, place: Place) -> None:
    if num_labels is not None and labels.labels and num_labels != len(labels.labels):
        listed = f"label_config.labels lists {len(labels.labels)}"
        raise place.at("model_config").at("num_labels").error(f"is {num_labels}, but {listed}; correct one of them")


def check_use_8bit(recipe: Recipe, model_type: str, place: Place) -> None:
    """Adapters alone are trained on a base model in 8 bits; code of one's own may do so too. Raises `RecipeError`."""
    if recipe.model.use_8bit and model_type not in ("lora", "custom"):
        place = place.at("model_config").at("use_8bit")
        raise place.error(f"goes with type lora only, not with {model_type}; set it to false")


def _check_members(members: tuple[str, ...], model_type: str, route: str, place: Place) -> None:
    if model_type == "ensemble" and not members:
        raise place.error("is missing; an ensemble names at least two classifiers")
    if model_type != "ensemble" and members:
        raise place.error("goes with type ensemble only")
    if route in members:
        raise place.error(f"names {route} itself; an ensemble is made of other classifiers")


def _check_helpers(policy: Policy, labels: LabelConfig, route: str, place: Place) -> None:
    """What this entry alone can tell; `registry.services.helpers` looks at the classifiers it names."""
    for name in ("backup", "sarcasm", "cascade"):
        if getattr(policy, name) == route:
            raise place.at(name).error(f"names {route} itself; name another classifier")
    for name in ("sarcasm", "cascade"):
        if labels.multi_label and getattr(policy, name):
            raise place.at(name).error("goes with one label per text, and this classifier is multi_label; remove it")


def _route_slug(head: _Head, place: Place) -> str:
    """`opt-1-3b` from `opt-1-3b` or `/classify/opt-1-3b`, else from the name."""
    if head.route is None:
        ascii_name = unicodedata.normalize("NFKD", head.name).encode("ascii", "ignore").decode().lower()
        made = re.sub("[^a-z0-9_]+", "-", ascii_name).strip("-_")[:63]
        if not made:
            raise place.at("route").error(f"is missing, and none can be made from the name {head.name!r}")
        return made
    found = _ROUTE.fullmatch(head.route)
    if not found:
        raise place.at("route").error(f"expected a slug or /classify/<slug>, got {head.route!r}")
    return slug(found["slug"], place.at("route"))
