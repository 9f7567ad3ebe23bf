"""What a supervisor tells its trainer, and what the trainer tells back: the files between the two processes.

One attempt has one folder: `spec.json` and the examples (`train.jsonl`, `valid.jsonl`, `golden.jsonl`) going in,
`events.jsonl`, `result.json` and `trainer.log` coming out. Knows nothing of Django.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from registry.families.base import Example

SPLITS = ("train", "valid", "golden")

EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_DISK_FULL = 0, 1, 3, 4


@dataclass(frozen=True)
class RunSpec:
    """One run of the trainer.

    `recipe` has the sections of models.yaml, `counts` {split: {label: rows}}. `out` is the artefact folder to build,
    `checkpoints` survives attempts, `champion` is the artefact folder of the live version where its figures on this
    golden set are not known yet. `supervisor` is the process id without which the trainer must not go on. `board` is
    the folder of the run's event file for TensorBoard.
    """

    classifier: str
    description: str
    label_descriptions: dict[str, str]
    family: str
    labels: tuple[str, ...]
    input_fields: tuple[str, ...]
    recipe: dict[str, Any]
    snapshot_digest: str
    golden_digest: str
    counts: dict[str, dict[str, int]]
    folder: Path
    out: Path
    checkpoints: Path
    champion: Path | None
    resume: bool
    supervisor: int
    multi_label: bool = False
    target_precision: float | None = None
    parent: Path | None = None
    cache: Path | None = None
    members: dict[str, Path] = field(default_factory=dict)
    loader: str | None = None
    board: Path | None = None

    @property
    def path(self) -> Path:
        return self.folder / "spec.json"

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """The trainer's stdout and stderr."""
        return self.folder / "trainer.log"

    def write(self) -> None:
        write_json(self.path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw |= {name: tuple(raw[name]) for name in ("labels", "input_fields")}
        raw |= {name: Path(raw[name]) for name in ("folder", "out", "checkpoints")}
        raw |= {name: Path(raw[name]) if raw[name] else None for name in ("champion", "parent", "cache", "board")}
        raw["members"] = {classifier: Path(folder) for classifier, folder in raw["members"].items()}
        return cls(**raw)

    def write_examples(self, split: str, examples: Iterable[Example]) -> int:
        """How many rows were written to the file of `split`."""
        rows = 0
        with self._examples_path(split).open("w", encoding="utf-8") as stream:
            for example in examples:
                row = {"fields": example.fields, "label": example.label, "weight": example.weight}
                stream.write(json.dumps(row, ensure_ascii=True) + "\n")
                rows += 1
        return rows

    def read_examples(self, split: str) -> list[Example]:
        with self._examples_path(split).open(encoding="utf-8") as stream:
            return list(_examples(stream))

    def forget_examples(self) -> None:
        """Remove the texts from the work folder; the database has them."""
        for split in SPLITS:
            self._examples_path(split).unlink(missing_ok=True)

    def _examples_path(self, split: str) -> Path:
        return self.folder / f"{split}.jsonl"


def _examples(lines: Iterable[str]) -> Iterator[Example]:
    for line in lines:
        row = json.loads(line)
        yield Example(fields=tuple(row["fields"]), label=row["label"], weight=row["weight"])


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: aside, fsynced, renamed."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=True, allow_nan=False, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
