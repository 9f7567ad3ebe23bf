"""What the family tests are made of: a listening reporter, small labelled texts, sealed artefacts."""

import atexit
import dataclasses
import functools
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.families import family
from registry.families.base import Example, FitRequest, FitResult, manifest_of
from registry.families.probes import write_probes
from registry.labels import NOTHING, label_text_of
from registry.manifest import write_manifest
from registry.recipe import Recipe, apply_overrides

LABELS = ("fruit", "vehicle", "weather")
_WORDS = {
    "fruit": ("apple", "banana", "cherry", "mango", "plum", "grape", "🍎"),
    "vehicle": ("car", "bicycle", "train", "lorry", "tractor", "boat", "🚗"),
    "weather": ("rain", "snow", "storm", "sunshine", "fog", "hail", "☔"),
}
OWN_CODE = "tests.registry.families.own_code:load"
_FILLERS = ("I saw", "there was", "we like", "tell me about", "they say", "هنا", "it is")


@dataclass
class Listener:
    """A reporter that remembers, and asks to stop after a number of polls where told so."""

    stop_after: int | None = None
    fractions: list[float] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    polls: int = 0

    def progress(self, fraction: float, note: str) -> None:
        assert note
        self.fractions.append(fraction)

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self.figures.append({"step": step, "epoch": epoch, **values})

    def describe(self, **facts: object) -> None:
        self.facts |= facts

    def stop_requested(self) -> bool:
        self.polls += 1
        return self.stop_after is not None and self.polls > self.stop_after


def sentences(count: int, *, seed: int = 0, fields: int = 1) -> list[Example]:
    """`count` labelled inputs; the label shows in the last field."""
    chooser = random.Random(seed)
    examples = []
    for index in range(count):
        label = LABELS[index % len(LABELS)]
        told = f"{chooser.choice(_FILLERS)} {' '.join(chooser.choices(_WORDS[label], k=chooser.randint(1, 4)))}"
        examples.append(Example((*["what is it?"] * (fields - 1), told), label))
    return examples


def several(count: int, *, seed: int = 0) -> list[Example]:
    """`count` inputs of one label, of two, and some of none."""
    chooser, plain = random.Random(seed), sentences(2 * count, seed=seed)
    examples = []
    for index, (one, other) in enumerate(zip(plain[::2], plain[1::2], strict=True)):
        both = Example((f"{one.fields[0]} and {other.fields[0]}",), label_text_of((one.label, other.label), LABELS))
        none = Example((f"{chooser.choice(_FILLERS)} {chooser.choice(_FILLERS)}",), NOTHING)
        examples.append(none if index % 8 == 7 else both if index % 2 else one)
    return examples


def request_for(folder: Path, *assignments: str, **changes: object) -> FitRequest:
    """A small request writing below `folder`; `assignments` as for `--set`."""
    fields = changes.get("input_fields", ("text",))
    assert isinstance(fields, tuple)
    values: dict[str, object] = {
        "labels": LABELS,
        "input_fields": fields,
        "recipe": apply_overrides(Recipe(), assignments),
        "train": sentences(360, seed=1, fields=len(fields)),
        "valid": sentences(60, seed=2, fields=len(fields)),
        "out": folder / "artefact",
        "checkpoints": folder / "checkpoints",
        "reporter": Listener(),
        "cache": shared_cache(),
    }
    request = FitRequest(**(values | changes))  # type: ignore[arg-type]
    names = request.recipe.model.members
    if not names or request.members:
        return request
    labels = request.labels if len(request.labels) > 1 else LABELS
    members = {name: member(name, labels, fields, multi_label=request.multi_label) for name in names}
    return dataclasses.replace(request, members=members)


SEVERAL = {"multi_label": True, "train": several(360, seed=1), "valid": several(90, seed=2)}


def member(name: str, labels: tuple[str, ...], fields: tuple[str, ...], *, multi_label: bool = False) -> Path:
    """A quick version of the classifier `name` for an ensemble; no two names learn alike."""
    return _member(name, labels, fields, multi_label)


@functools.cache
def _member(name: str, labels: tuple[str, ...], fields: tuple[str, ...], multi_label: bool) -> Path:
    folder = shared_cache() / "-".join((name, *labels, *fields, str(multi_label)))
    settings = "training_config.ngram_range=[1, 1]", f"training_config.C={len(name)}"
    data: dict[str, object] = SEVERAL if multi_label else {}
    return build("classic", folder, *settings, labels=labels, input_fields=fields, **data)[0]


@functools.cache
def shared_cache() -> Path:
    """Converted encoders and their vectors: whatever is not about them need not wait for them twice."""
    folder = Path(tempfile.mkdtemp(prefix="kalimtak-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def seal(name: str, request: FitRequest, result: FitResult) -> Path:
    """Turn what `fit` wrote into a sealed artefact with probes; its folder."""
    manifest = manifest_of(request, result, classifier="things", family=name)
    write_probes(request.out, family(name).load(request.out, manifest))
    write_manifest(request.out, manifest)
    return request.out


Built = tuple[Path, FitRequest, FitResult]


def build(name: str, folder: Path, *assignments: str, **changes: object) -> Built:
    """Fit and seal in one go."""
    if name == "custom":
        changes.setdefault("loader", OWN_CODE)
    request = request_for(folder, *assignments, **changes)
    result = family(name).fit(request)
    return seal(name, request, result), request, result


def settings_of(name: str, tiny_encoder: Path) -> tuple[str, ...]:
    """What makes a family quick enough for tests, and fine-tuning the same on every machine."""
    if name == "ensemble":
        return ("model_config.members=[one, three]",)
    if name == "embedding":
        return f"model_config.model_name={tiny_encoder / 'wide'}", "model_config.max_length=48", "training_config.C=100"
    if name not in ("encoder", "lora"):
        return ()
    return (
        f"model_config.model_name={tiny_encoder}",
        "model_config.max_length=32",
        "training_config.learning_rate=2e-3",
        "training_config.num_epochs=8",
        "training_config.batch_size=16",
        "training_config.mixed_precision=no",
    )
