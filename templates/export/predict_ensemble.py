"""Asks the models in `model/serving/members/` and combines what they say: python predict.py "A text" (or two texts)."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

MODEL = Path(__file__).parent / "model"
FLOOR = 1e-6  # of a probability, before its logarithm is taken


class Model:
    def __init__(self, folder: Path = MODEL) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.is_multi_label = bool(self.manifest["calibration"].get("multi_label"))
        serving = folder / "serving"
        self.described = json.loads((serving / "ensemble.json").read_text(encoding="utf-8"))
        self.weights = load_file(serving / "model.safetensors")
        self.members = [member(serving / "members" / each["classifier"]) for each in self.described["members"]]

    def predict(self, inputs: list[list[str]]) -> list[dict[str, float]]:
        """A probability for each label, for each input: one text per field, in the order of the manifest."""
        return [self.answer(fields) for fields in inputs]

    def answer(self, fields: list[str]) -> dict[str, float]:
        answers = [each.predict([fields])[0] for each in self.members]
        opinions = np.array([[answer[label] for label in self.manifest["labels"]] for answer in answers])
        logits = self.combined(opinions) / self.manifest["calibration"]["temperature"]
        if self.is_multi_label:
            probabilities = 1 / (1 + np.exp(-logits))
        else:
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
        return dict(zip(self.manifest["labels"], probabilities.tolist(), strict=True))

    def combined(self, opinions: np.ndarray) -> np.ndarray:
        """Scores (labels,) of what the members say (members, labels)."""
        if self.described["method"] == "vote":
            return self.logarithms(self.weights["weights"].astype(np.float64) @ opinions)
        return self.logarithms(opinions).reshape(-1) @ self.weights["coefficients"] + self.weights["intercepts"]

    def logarithms(self, probabilities: np.ndarray) -> np.ndarray:
        """Of the probabilities, or of their odds where labels are independent."""
        if not self.is_multi_label:
            return np.log(np.maximum(probabilities, FLOOR))
        bounded = np.clip(probabilities, FLOOR, 1 - FLOOR)
        return np.log(bounded / (1 - bounded))


def member(folder: Path) -> Any:
    """What answers from a member's folder, by what lies in it."""
    kind = "sklearn" if (folder / "serving" / "features.json").is_file() else "onnx"
    return import_module(f"member_{kind}").Model(folder)


if __name__ == "__main__":
    model = Model()
    fields = sys.argv[1:]
    if len(fields) != len(model.manifest["input_fields"]):
        sys.exit(f"Give one text for each of: {', '.join(model.manifest['input_fields'])}")
    sys.stdout.write(json.dumps(model.predict([fields])[0], ensure_ascii=False, indent=2) + "\n")
