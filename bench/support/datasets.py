"""Public data sets with published results, and the built-in samples where those are absent."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from registry.families.base import Example
from training.samples import splits

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class TextSet:
    """Labelled texts in three parts."""

    name: str
    labels: tuple[str, ...]
    train: list[Example]
    valid: list[Example]
    test: list[Example]


def data_folder() -> Path:
    """`KALIMTAK_BENCH_DATA`, else `shared/data` beside the checkout: a folder for each set with a CSV for each part."""
    return Path(os.environ.get("KALIMTAK_BENCH_DATA") or ROOT.parent / "shared" / "data")


def is_there(name: str) -> bool:
    return all((data_folder() / name / f"{part}.csv").is_file() for part in PARTS)


def text_set(name: str) -> TextSet:
    """The set `name`: `sample`, or one of `data_folder()`. Labels are in alphabetical order, those of every part."""
    parts = _samples() if name == "sample" else [_read(data_folder() / name / f"{part}.csv") for part in PARTS]
    labels = tuple(sorted({example.label for part in parts for example in part}))
    return TextSet(name, labels, *parts)


def _samples() -> list[list[Example]]:
    """Texts of the demo's emotion classifier, which grammars of our own write."""
    made = splits("emotion", train=800, valid=160, test=240, seed=1)
    return [[Example(sample.fields, sample.label) for sample in made[part]] for part in PARTS]


def _read(path: Path) -> list[Example]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [Example((row["text"],), row["label"]) for row in csv.DictReader(stream)]
