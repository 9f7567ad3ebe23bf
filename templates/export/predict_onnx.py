"""Answers texts from `model/serving/` with onnxruntime: python predict.py "A text" (or question and context)."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from preparation import prepare
from tokenizers import Tokenizer

MODEL = Path(__file__).parent / "model"


class Model:
    def __init__(self, folder: Path = MODEL) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        serving = folder / "serving"
        graph = "model.int8.onnx" if (serving / "model.int8.onnx").is_file() else "model.onnx"
        options = onnxruntime.SessionOptions()
        # On a CPU this step is faster in two parts; and what is rounded otherwise may be answered otherwise.
        options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
        self.session = onnxruntime.InferenceSession(serving / graph, options, providers=["CPUExecutionProvider"])
        self.inputs = {each.name for each in self.session.get_inputs()}
        self.tokenizer = Tokenizer.from_file(str(serving / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.manifest["max_length"], strategy="longest_first")
        # Some tokenizers put nothing between the texts of a pair, and nothing around an empty text.
        alone, paired = (self.tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
        self.parting = "" if paired > alone else "\n"
        special = [index for index, token in self.tokenizer.get_added_tokens_decoder().items() if token.special]
        self.nothing = min(special, default=0)

    def predict(self, inputs: list[list[str]]) -> list[dict[str, float]]:
        """A probability for each label, for each input: one text per field, in the order of the manifest."""
        return [self.answer(fields) for fields in inputs]

    def answer(self, fields: list[str]) -> dict[str, float]:
        first, *others = (prepare(text, self.manifest["preprocessing"]) for text in fields)
        encoding = self.tokenizer.encode(first, *(self.parting + text for text in others))
        ids = np.array([encoding.ids or [self.nothing]], dtype=np.int64)
        types = np.array([encoding.type_ids or [0]], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        known = {name: values for name, values in feeds.items() if name in self.inputs}
        logits = self.session.run(None, known)[0][0].astype(np.float64) / self.manifest["calibration"]["temperature"]
        if self.manifest["calibration"].get("multi_label"):
            probabilities = 1 / (1 + np.exp(-logits))
        else:
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
        return dict(zip(self.manifest["labels"], probabilities.tolist(), strict=True))


if __name__ == "__main__":
    model = Model()
    fields = sys.argv[1:]
    if len(fields) != len(model.manifest["input_fields"]):
        sys.exit(f"Give one text for each of: {', '.join(model.manifest['input_fields'])}")
    sys.stdout.write(json.dumps(model.predict([fields])[0], ensure_ascii=False, indent=2) + "\n")
