"""Base models of every common shape: what gets adapters, what is written, what is read back and converted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from registry.families import adapters, architecture, export
from registry.families.base import FamilyError
from registry.families.base_models import BaseModel, find_base_model
from registry.families.onnx_predictor import Graph
from registry.families.tokenisation import Tokenisation
from registry.recipe.sections import LoraConfig
from tests.registry.families.shapes import POSITIONS, SHAPES, write_base

EVERY = pytest.mark.parametrize("name", sorted(SHAPES))
TEXTS = [("we like apple",), ("",), ("🍎 تفاح",), ("there was a lorry " * 40,)]


class Adapted:
    """A base model, adapted and written without any training, its adapters and its head at random."""

    def __init__(self, folder: Path, name: str) -> None:
        self.base = find_base_model(str(write_base(folder / "base", name)))
        self.package = folder / "package"
        tokenizer = AutoTokenizer.from_pretrained(self.base.folder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        torch.manual_seed(1)
        self.plain = load_plain(self.base.folder, pad_token_id=tokenizer.pad_token_id, num_labels=3)
        self.heads = architecture.head_modules(self.plain)
        self.limit = architecture.longest_input(self.plain, tokenizer)
        self.model = adapters.adapt(self.plain, LoraConfig(r=4), self.base)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        adapters.write_package(self.package, self.model, tokenizer, self.base, POSITIONS)
        self.texts = Tokenisation.read(self.package / "tokenizer.json", POSITIONS, 1).encode_all(TEXTS)

    def logits(self, model: torch.nn.Module) -> np.ndarray:
        """Each text in a pass of its own, (texts, labels)."""
        with torch.inference_mode():
            rows = [model(input_ids=torch.from_numpy(text.ids)[None]).logits[0] for text in self.texts]
        return torch.stack(rows).numpy()


def load_plain(folder: Path, **settings: object) -> AutoModelForSequenceClassification:
    config = AutoConfig.from_pretrained(folder, **settings)
    return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Adapted]:
    made: dict[str, Adapted] = {}

    def once(name: str) -> Adapted:
        if name not in made:
            made[name] = Adapted(tmp_path_factory.mktemp(name), name)
        return made[name]

    return once


@EVERY
def test_queries_and_values_get_adapters_and_the_whole_head_learns(name: str, adapted: Callable) -> None:
    subject, shape = adapted(name), SHAPES[name]
    assert subject.limit == POSITIONS
    assert subject.heads == shape.heads
    learning = {each for each, parameter in subject.model.named_parameters() if parameter.requires_grad}
    layers = {each.split(".lora_")[0].rpartition(".")[2] for each in learning if ".lora_" in each}
    heads = {each.split(".modules_to_save.")[0].rpartition(".")[2] for each in learning if ".lora_" not in each}
    assert (sorted(layers), sorted(heads)) == (shape.adapted, shape.heads)


@EVERY
def test_plain_peft_reads_a_package_back_and_merging_changes_nothing(name: str, adapted: Callable) -> None:
    subject = adapted(name)
    config = AutoConfig.from_pretrained(subject.package)
    torch.manual_seed(99)  # a head that was lost would be drawn anew
    over = AutoModelForSequenceClassification.from_pretrained(subject.base.folder, config=config, dtype=torch.float32)
    read = PeftModel.from_pretrained(over, subject.package).eval()
    expected = subject.logits(subject.model.eval())
    assert np.ptp(expected, axis=0).max() > 0.01  # the texts are told apart
    np.testing.assert_allclose(subject.logits(read), expected, atol=1e-5)
    np.testing.assert_allclose(subject.logits(adapters.load_merged(subject.package, subject.base)), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["roberta", "deberta-v2", "modernbert", "gpt2", "opt", "qwen3"])
def test_a_converted_model_answers_at_every_length_as_torch_does(name: str, adapted: Callable, tmp_path: Path) -> None:
    subject = adapted(name)
    target = tmp_path / "model.onnx"
    export.export_onnx(subject.package, target, POSITIONS, lambda package: adapters.load_merged(package, subject.base))
    graph = Graph(target)
    alone = np.stack([graph.run(text) for text in subject.texts])
    np.testing.assert_allclose(alone, subject.logits(subject.model.eval()), atol=1e-4)
    np.testing.assert_allclose(graph.run_batch(padded(subject)), alone, atol=1e-4)
    nodes = onnx.load(target).graph.node
    weights = {each.name for each in onnx.load(target).graph.initializer}
    products = [node for node in nodes if node.op_type == "MatMul" and node.input[1] in weights]
    assert len(products) >= 4  # what int8 makes smaller
    assert ["token_type_ids" in {each.name for each in onnx.load(target).graph.input}] == [False]


def padded(subject: Adapted) -> dict[str, np.ndarray]:
    """All texts as one batch."""
    ids = np.full((len(subject.texts), POSITIONS), AutoTokenizer.from_pretrained(subject.package).pad_token_id)
    mask = np.zeros_like(ids)
    for row, text in enumerate(subject.texts):
        ids[row, : len(text)], mask[row, : len(text)] = text.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


@EVERY
def test_nothing_is_one_token_and_a_pair_is_parted(name: str, adapted: Callable) -> None:
    tokenisation = Tokenisation.read(adapted(name).package / "tokenizer.json", 16, 1)
    assert len(tokenisation.encode(("",))) >= 1
    assert len(tokenisation.encode(("", ""))) >= 1
    one, two = tokenisation.encode(("apple", "plum")), tokenisation.encode(("appleplum",))
    assert one.ids.tolist() != two.ids.tolist()
    assert len(one) > len(two)


def test_a_head_that_would_be_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "head_modules", lambda model: [])  # PEFT knows of `classifier`, not of `head`
    with pytest.raises(FamilyError, match="answers otherwise than the trained one, by"):
        Adapted(tmp_path, "modernbert")


def test_layers_of_unknown_names_are_found_in_attention_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "_FUSED", frozenset())
    model = load_plain(write_base(tmp_path, "modernbert"))
    assert architecture.attention_targets(model) == ["attn.Wo", "attn.Wqkv"]


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    base = BaseModel("distilbert", write_base(tmp_path, "distilbert"), "0" * 64)
    model = load_plain(base.folder)
    assert architecture.checked_targets(model, ["v_lin", "attention.q_lin"]) == ["attention.q_lin", "v_lin"]
    for wrong in ("q_proj", "classifier", "lin", "dropout"):
        with pytest.raises(FamilyError, match=f"no layer is called '{wrong}'. This model has: k_lin, lin1, lin2"):
            adapters.adapt(model, LoraConfig(target_modules=("v_lin", wrong)), base)


def test_token_types_are_fed_only_to_models_that_tell_them_apart(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_base(tmp_path, "distilbert"))
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    known = {
        "bert": True,
        "albert": True,
        "roberta": False,
        "deberta-v2": False,
        "modernbert": False,
        "gpt2": False,
        "llama": False,
    }
    sizes = {"roberta": {"type_vocab_size": 1}}
    for name, reads in known.items():
        model = type("Model", (), {"config": AutoConfig.for_model(name, **sizes.get(name, {}))})
        assert architecture.reads_token_types(model, tokenizer) is reads, name
