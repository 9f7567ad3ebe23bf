"""What a user takes away of a LoRA version of a DistilBERT: nine files, under ten megabytes."""

import dataclasses
import itertools
import json
import string
from pathlib import Path

import numpy as np
import torch
from transformers import BertTokenizerFast, DistilBertConfig, DistilBertForSequenceClassification, DistilBertModel

from registry.calibration import Calibration
from registry.families import adapters
from registry.families.base import FitResult, manifest_of
from registry.families.base_models import BaseModel
from registry.manifest import write_manifest
from registry.metrics import score
from registry.recipe import Recipe
from training import runner
from training.run_spec import RunSpec

LABELS = tuple("abcdefgh")
VOCABULARY = 30_522
VOCABULARY_BYTES = 231_508  # of distilbert-base-uncased's vocab.txt
WANTED = {
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    "training_config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "confusion_matrix.png",
}


def write_base(folder: Path) -> BertTokenizerFast:
    """A random DistilBERT: as wide, as deep and with as many words as the published one, its inner layers narrow."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = ("".join(each) for each in itertools.product(string.ascii_lowercase, repeat=6))
    words = [*special, *itertools.islice(letters, VOCABULARY - len(special))]
    long = (VOCABULARY_BYTES - sum(len(word) + 1 for word in words)) // 4
    words[-long:] = [f"{word}ness" for word in words[-long:]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(hidden_dim=64)).save_pretrained(folder)
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_a_distilbert_lora_package_holds_all_nine_files_in_under_ten_megabytes(
    sealed_run: RunSpec, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    tokenizer = write_base(tmp_path / "base")
    base = BaseModel("distilbert-base-uncased", tmp_path / "base", "0" * 64)
    settings = Recipe().model.lora
    model = DistilBertForSequenceClassification.from_pretrained(base.folder, num_labels=len(LABELS))
    spec = dataclasses.replace(sealed_run, family="lora", labels=LABELS, out=tmp_path / "out")
    package = spec.out / "package"
    adapters.write_package(package, adapters.adapt(model, settings, base), tokenizer, base, 128)
    history = [{"epoch": epoch, "loss": 0.5, "eval_loss": 0.4, "eval_macro_f1": 0.9} for epoch in range(1, 11)]
    fitted = FitResult(Calibration().to_dict(), {"total": 1, "trainable": 1}, history=history, max_length=128)
    request = runner._request(spec, Recipe(), runner.EventReporter(tmp_path / "events.jsonl"))
    draft = manifest_of(request, fitted, classifier="mood", family="lora")
    scores = score(LABELS, LABELS * 5, np.tile(np.eye(8), (5, 1)))
    runner._write_papers(spec, draft, fitted, scores)

    assert {path.name for path in package.iterdir()} == WANTED
    assert set(write_manifest(spec.out, draft).files) >= {f"package/{name}" for name in WANTED}
    sizes = {path.name: path.stat().st_size for path in package.iterdir()}
    assert abs(sizes["vocab.txt"] - VOCABULARY_BYTES) < 10
    assert 2_976_800 < sizes["adapter_model.safetensors"] < 3_100_000  # 744,200 weights of four bytes, and their names
    assert sum(sizes.values()) < 10_000_000
    assert all(sizes[name] < 10_000 for name in WANTED if name.endswith(("_config.json", "_map.json")))
    assert json.loads((package / "training_config.json").read_text())["model_config"]["lora"] == settings.to_dict()
