"""The lora family: a head that is never lost, a package of a few megabytes, counts that count once."""

import importlib.machinery
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from registry import families
from registry.calibration import Calibration
from registry.families import adapters, export, finetune, lora, watch
from registry.families.base import Example, FamilyError, FitRequest, FitResult, Stopped
from registry.families.base_models import MINILM, MINILM_HUB_ID, BaseModel
from registry.families.onnx_predictor import Graph
from registry.families.tokenisation import Tokenisation
from registry.labels import label_text
from registry.recipe import Recipe
from registry.recipe.sections import LoraConfig, TrainingConfig
from registry.text import prepare
from tests.registry.families.material import LABELS, Built, Listener, request_for, sentences, settings_of

Builder = Callable[..., Built]
TEXTS = [*(example.fields[0] for example in sentences(12, seed=21)), "🍎 هنا", "storm " * 100]

_READ_BACK = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
base, package, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.manual_seed(12345)
over = AutoModelForSequenceClassification.from_pretrained(base, config=AutoConfig.from_pretrained(package))
model = PeftModel.from_pretrained(over, package).eval()
tokenizer = AutoTokenizer.from_pretrained(package)
with torch.inference_mode():
    rows = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0].tolist() for text in texts]
print(json.dumps({"logits": rows, "labels": list(model.config.id2label.values())}))
"""


# ---- the package -----------------------------------------------------------------------------------------------------


def test_a_fresh_process_with_plain_peft_gives_the_logits_that_are_served(built: Builder, tiny_encoder: Path) -> None:
    folder = built("lora")[0]
    prepared = [prepare(text) for text in TEXTS]
    command = [sys.executable, "-c", _READ_BACK, str(tiny_encoder), str(folder / "package"), json.dumps(prepared)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["labels"] == list(LABELS)
    np.testing.assert_allclose(read["logits"], served_logits(folder), atol=1e-4)


def served_logits(folder: Path) -> np.ndarray:
    graph = Graph(folder / "serving" / "model.onnx")
    tokenisation = Tokenisation.read(folder / "serving" / "tokenizer.json", 32, 1)
    return np.stack([graph.run(tokenisation.encode((text,))) for text in TEXTS])


def test_a_package_without_its_head_answers_otherwise(built: Builder, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = built("lora")[0]
    weights = load_file(folder / "package" / adapters.WEIGHTS_NAME)
    heads = [name for name in weights if "lora_" not in name]
    assert {name.split(".")[-2] for name in heads} == {"classifier", "dense"}  # the head, and the pooler's layer
    for name in ("config.json", adapters.CONFIG_NAME):
        (tmp_path / name).write_bytes((folder / "package" / name).read_bytes())
    base = BaseModel("tiny", tiny_encoder, "0" * 64)
    expected = served_logits(folder)

    def read_back(kept: dict[str, torch.Tensor]) -> np.ndarray:
        save_file(kept, tmp_path / adapters.WEIGHTS_NAME, metadata={"format": "pt"})
        model = adapters.load_merged(tmp_path, base)
        tokenisation = Tokenisation.read(folder / "package" / "tokenizer.json", 32, 1)
        with torch.inference_mode():
            rows = [model(torch.from_numpy(tokenisation.encode((text,)).ids)[None]).logits[0] for text in TEXTS]
        return torch.stack(rows).numpy()

    np.testing.assert_allclose(read_back(weights), expected, atol=1e-4)
    drawn_anew = {name: torch.randn(weights[name].shape) / 10 for name in heads}
    assert np.abs(read_back(weights | drawn_anew) - expected).max() > 0.5
    with pytest.raises(KeyError, match=r"classifier|pooler"):
        read_back({name: value for name, value in weights.items() if name not in heads})


def test_the_package_holds_what_users_of_peft_look_for(built: Builder) -> None:
    package = built("lora")[0] / "package"
    assert sorted(path.name for path in package.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    config = json.loads((package / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(index): label for index, label in enumerate(LABELS)}
    assert "_name_or_path" not in config
    for path in package.glob("*config.json"):
        assert path.stat().st_size < 10_000


def test_the_adapter_pins_its_base_model(built: Builder) -> None:
    folder, _, result = built("lora")
    config = json.loads((folder / "package" / adapters.CONFIG_NAME).read_text(encoding="utf-8"))
    assert result.base_model is not None
    assert config["base_model_name_or_path"] == result.base_model["id"]
    assert config["auto_mapping"]["base_model_sha256"] == result.base_model["sha256"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.1)
    assert (config["target_modules"], config["modules_to_save"]) == (["query", "value"], ["classifier", "pooler"])


def test_the_packaged_base_model_is_named_so_that_others_find_it() -> None:
    assert BaseModel(MINILM, Path("/somewhere/here"), "0" * 64).public_id == MINILM_HUB_ID
    assert BaseModel("some-lab/encoder", Path("/cache"), "0" * 64).public_id == "some-lab/encoder"


def test_parameters_are_counted_once(built: Builder, tiny_encoder: Path) -> None:
    folder, _, result = built("lora")
    with safe_open(folder / "package" / adapters.WEIGHTS_NAME, "pt") as saved:
        stored = sum(saved.get_tensor(name).numel() for name in saved.keys())  # noqa: SIM118 (no mapping)
    assert result.parameters["trainable"] == stored
    with safe_open(tiny_encoder / "model.safetensors", "pt") as saved:
        whole = sum(saved.get_tensor(name).numel() for name in saved.keys())  # noqa: SIM118
    pooler, classifier = 32 * 32 + 32, 32 * 3 + 3
    assert result.parameters["total"] == whole + classifier + (stored - pooler - classifier)


def test_a_distilbert_has_so_many_and_stays_under_ten_megabytes() -> None:
    with torch.device("meta"):
        model = DistilBertForSequenceClassification(DistilBertConfig(num_labels=8))
        base = BaseModel("distilbert-base-uncased", Path(), "0" * 64)
        model.base_model.requires_grad_(False)
        whole = sum(parameter.numel() for parameter in model.parameters())
        adapted = adapters.adapt(model, LoraConfig(target_modules=("q_lin", "v_lin")), base)
    counts = finetune.count_parameters(adapted)
    added = 6 * 2 * 2 * 8 * 768  # layers, of which two get adapters, of two matrices each, of rank 8
    head = 768 * 768 + 768 + 768 * 8 + 8  # pre_classifier and classifier
    assert counts == {"total": whole + added, "trainable": added + head}
    assert counts["trainable"] == 744_200
    assert 4 * counts["trainable"] < 5_000_000  # bytes; the tokenizer's files are another megabyte


# ---- what cannot be trained ------------------------------------------------------------------------------------------


def test_eight_bits_without_cuda_are_refused(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = (*settings_of("lora", tiny_encoder), "model_config.use_8bit=true")
    with pytest.raises(FamilyError, match="use_8bit needs a CUDA device, and this run has none; set") as caught:
        lora.fit(request_for(tmp_path, *settings))
    assert "\n" not in str(caught.value)


def test_eight_bits_without_bitsandbytes_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(FamilyError, match=r"pip install -r requirements-gpu\.txt"):
        lora.check_8bit(TrainingConfig())
    with pytest.raises(FamilyError, match="needs a CUDA device"):
        lora.check_8bit(TrainingConfig(device="cpu"))
    monkeypatch.setattr(lora, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    lora.check_8bit(TrainingConfig())


def test_eight_bits_are_for_one_process() -> None:
    with pytest.raises(FamilyError, match=r"set training_config\.num_processes to 1"):
        lora.check_8bit(TrainingConfig(num_processes=2))


def test_eight_bits_leave_the_head_as_it_is() -> None:
    assert adapters.eight_bit_loading(False) == {}
    quantised = adapters.eight_bit_loading(True)["quantization_config"]
    assert quantised.load_in_8bit
    assert {"classifier", "score"} <= set(quantised.llm_int8_skip_modules)


def test_a_layer_that_is_not_there_is_refused_before_training(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = (*settings_of("lora", tiny_encoder), "model_config.lora.target_modules=[q_lin, v_lin]")
    with pytest.raises(FamilyError, match=r"no layer is called 'q_lin'\. This model has: dense, key, query, value\."):
        lora.fit(request_for(tmp_path, *settings))


def test_the_batch_is_smaller_where_the_recipe_says_nothing() -> None:
    assert Recipe.from_dict({}, model_type="lora").training.batch_size == 16
    assert Recipe.from_dict({}, model_type="lora").training.learning_rate == 1e-4


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def unconverted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fits that end with the package."""
    monkeypatch.setattr(export, "export_serving", lambda request, start, read: export.Served(Calibration(), ()))
    yield


def fit(request: FitRequest) -> tuple[FitResult, dict[str, torch.Tensor]]:
    result = lora.fit(request)
    return result, load_file(request.out / "package" / adapters.WEIGHTS_NAME)


@pytest.mark.usefixtures("unconverted")
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CHECKPOINT_GAP", 0.0)
    settings = (*settings_of("lora", tiny_encoder), "training_config.num_epochs=2")
    _, whole_weights = fit(request_for(tmp_path / "whole", *settings))
    with pytest.raises(Stopped):
        lora.fit(request_for(tmp_path / "parts", *settings, reporter=Listener(stop_after=10)))
    newest = next((tmp_path / "parts" / "checkpoints").glob("checkpoint-*"))
    assert sum(path.stat().st_size for path in newest.iterdir()) < (tiny_encoder / "model.safetensors").stat().st_size
    resumed, resumed_weights = fit(request_for(tmp_path / "parts", *settings, resume=True))
    assert any(note.startswith("Resumed from checkpoint-") for note in resumed.notes)
    assert whole_weights.keys() == resumed_weights.keys()
    for name, value in whole_weights.items():
        torch.testing.assert_close(resumed_weights[name], value, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unconverted")
def test_texts_may_have_several_labels(tmp_path: Path, tiny_encoder: Path) -> None:
    train = [*sentences(120, seed=1), *both(60), Example(("hello",), "")]
    settings = (*settings_of("lora", tiny_encoder), "training_config.num_epochs=12")
    request = request_for(tmp_path, *settings, multi_label=True, train=train, valid=[*sentences(30, seed=2), *both(30)])
    result, _ = fit(request)
    assert result.history[-1]["eval_macro_f1"] > 0.8


def both(count: int) -> list[Example]:
    """Texts of two labels."""
    pairs = zip(sentences(3 * count, seed=4)[::3], sentences(3 * count, seed=5)[1::3], strict=True)
    return [
        Example((f"{one.fields[0]} {other.fields[0]}",), label_text([one.label, other.label])) for one, other in pairs
    ]


def test_the_table_knows_the_family() -> None:
    assert families.family("lora") is lora
