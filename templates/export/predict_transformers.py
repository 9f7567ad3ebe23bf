"""Answers texts from `model/package/` with transformers, in full precision: python predict_transformers.py "A text"."""

import json
import sys
from pathlib import Path

import torch
from preparation import prepare
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = Path(__file__).parent / "model"


class Model:
    def __init__(self) -> None:
        self.manifest = json.loads((MODEL / "manifest.json").read_text(encoding="utf-8"))
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL / "package")
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL / "package").eval()

    def predict(self, inputs: list[list[str]]) -> list[dict[str, float]]:
        """A probability for each label, for each input: one text per field, in the order of the manifest."""
        return [self.answer(fields) for fields in inputs]

    @torch.inference_mode()
    def answer(self, fields: list[str]) -> dict[str, float]:
        prepared = [prepare(text, self.manifest["preprocessing"]) for text in fields]
        tokens = self.tokenizer(*prepared, truncation=True, max_length=self.manifest["max_length"], return_tensors="pt")
        logits = self.model(**tokens).logits[0] / self.manifest["calibration"]["temperature"]
        is_multi_label = self.manifest["calibration"].get("multi_label")
        probabilities = logits.sigmoid() if is_multi_label else logits.softmax(dim=0)
        return dict(zip(self.manifest["labels"], probabilities.tolist(), strict=True))


if __name__ == "__main__":
    model = Model()
    fields = sys.argv[1:]
    if len(fields) != len(model.manifest["input_fields"]):
        sys.exit(f"Give one text for each of: {', '.join(model.manifest['input_fields'])}")
    sys.stdout.write(json.dumps(model.predict([fields])[0], ensure_ascii=False, indent=2) + "\n")
