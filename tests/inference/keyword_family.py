"""A family for tests that loads in a millisecond: a text is about the label whose name it holds.

`confidence` goes to that label (the first one where none is named), the others share the rest, so a version can be
told by its confidence. The word `boom` makes it fail. With a multi-label calibration every label that is named gets it.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from registry.calibration import Calibration
from registry.families.base import Answer, Fields
from registry.manifest import Manifest
from registry.text import prepare

LONGEST = 50  # words


class KeywordPredictor:
    batches = False

    def __init__(self, folder: Path, manifest: Manifest):
        self.labels, self.input_fields = manifest.labels, manifest.input_fields
        self.calibration = Calibration.from_dict(manifest.calibration)
        settings = json.loads((folder / "serving" / "settings.json").read_text(encoding="utf-8"))
        self.confidence, self.seconds = settings["confidence"], settings["seconds"]

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        return [self._answer(" ".join(prepare(text) for text in fields)) for fields in inputs]

    def _answer(self, text: str) -> Answer:
        time.sleep(self.seconds)
        if "boom" in text:
            raise ValueError("boom")
        named = [label in text for label in self.labels]
        top = named.index(True) if any(named) else 0
        confidence = 0.4 if "perhaps" in text else self.confidence
        if self.calibration.multi_label:
            scores = np.where(named, np.float32(confidence), np.float32(0.05))
            return Answer(scores, truncated=len(text.split()) > LONGEST)
        scores = np.full(len(self.labels), (1 - confidence) / (len(self.labels) - 1), np.float32)
        scores[top] = confidence
        return Answer(scores, truncated=len(text.split()) > LONGEST)


def load(folder: Path, manifest: Manifest) -> KeywordPredictor:
    return KeywordPredictor(folder, manifest)
