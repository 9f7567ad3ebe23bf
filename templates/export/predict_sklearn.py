"""Answers texts from `model/serving/` with scikit-learn: python predict.py "A text" (or question and context)."""

import json
import sys
from pathlib import Path

import numpy as np
from preparation import prepare
from safetensors.numpy import load_file
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer

MODEL = Path(__file__).parent / "model"


class Model:
    def __init__(self, folder: Path = MODEL) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "serving" / "model.safetensors")
        self.coefficients, self.intercepts = arrays["coefficients"], arrays["intercepts"]
        self.blocks = []  # (which field, its vectoriser)
        start = 0
        for block in json.loads((folder / "serving" / "features.json").read_text(encoding="utf-8"))["blocks"]:
            options = block["options"] | {"ngram_range": tuple(block["options"]["ngram_range"])}
            vectoriser = TfidfVectorizer(vocabulary=block["terms"], dtype=np.float32, **options)
            vectoriser.idf_ = arrays["idf"][start : start + len(block["terms"])]
            start += len(block["terms"])
            self.blocks.append((block["field"], vectoriser))

    def predict(self, inputs: list[list[str]]) -> list[dict[str, float]]:
        """A probability for each label, for each input: one text per field, in the order of the manifest."""
        prepared = [[prepare(text, self.manifest["preprocessing"]) for text in fields] for fields in inputs]
        rows = hstack([vectoriser.transform([texts[field] for texts in prepared]) for field, vectoriser in self.blocks])
        logits = (rows.tocsr() @ self.coefficients + self.intercepts) / self.manifest["calibration"]["temperature"]
        if self.manifest["calibration"].get("multi_label"):
            probabilities = 1 / (1 + np.exp(-logits))
        else:
            probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        return [dict(zip(self.manifest["labels"], row.tolist(), strict=True)) for row in probabilities]


if __name__ == "__main__":
    model = Model()
    fields = sys.argv[1:]
    if len(fields) != len(model.manifest["input_fields"]):
        sys.exit(f"Give one text for each of: {', '.join(model.manifest['input_fields'])}")
    sys.stdout.write(json.dumps(model.predict([fields])[0], ensure_ascii=False, indent=2) + "\n")
