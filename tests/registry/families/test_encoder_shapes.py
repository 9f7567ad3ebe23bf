"""Encoders of every common shape are fine-tuned on a question with its context, written, and read back the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from registry.families.finetune import write_package
from registry.families.parents import Parent, inherit_head, last_layer
from registry.families.tokenisation import Tokenisation
from registry.text import PREPROCESSING_VERSION
from tests.registry.families.material import LABELS, request_for, sentences, settings_of
from tests.registry.families.shapes import SHAPES, write_base
from tests.registry.families.tuning import losses, tune

PAIRS = sentences(12, seed=3, fields=2)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2", "modernbert"])
def test_an_encoder_learns_from_pairs_and_is_read_back_the_same(
    name: str, tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "xlm-roberta", SHAPES["roberta"])
    base = tiny_encoder if name == "bert" else write_base(tmp_path / "base", name)
    trained: list[Any] = []

    def write(folder: Path, model: Any, *others: Any) -> None:
        write_package(folder, model, *others)
        trained.append(model.eval())

    short = ("training_config.num_epochs=1", "training_config.batch_size=4", "training_config.mixed_precision=no")
    data = {"train": PAIRS[:8], "valid": PAIRS[8:], "input_fields": ("question", "context")}
    request = request_for(tmp_path, *settings_of("encoder", base), *short, **data)
    tuned = tune(request, write=write)
    assert tuned.history[-1]["step"] == 2
    assert np.isfinite(losses(tuned)).all()
    assert 0 < tuned.parameters["trainable"] < tuned.parameters["total"]

    package = request.out / "package"
    # Computed as the trained one does: another kernel of attention rounds otherwise.
    read = AutoModelForSequenceClassification.from_pretrained(package, attn_implementation="eager").eval()
    expected = logits(trained[0], package)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the texts are told apart
    np.testing.assert_allclose(logits(read, package), expected, atol=1e-6)

    grown = (*reversed(LABELS), "animal")
    config = read.config
    config.num_labels = len(grown)
    longer = AutoModelForSequenceClassification.from_config(config)
    inherit_head(longer, Parent(package, LABELS), grown)
    before, after = (last_layer(model, count)[1].weight for model, count in ((read, 3), (longer, 4)))
    assert torch.equal(after[:3], before.flip(0))


def logits(model: Any, package: Path) -> np.ndarray:
    tokenisation = Tokenisation.read(package / "tokenizer.json", 32, PREPROCESSING_VERSION)
    with torch.inference_mode():
        rows = [
            model(input_ids=torch.from_numpy(tokenisation.encode(each.fields).ids)[None]).logits[0] for each in PAIRS
        ]
    return torch.stack(rows).numpy()
