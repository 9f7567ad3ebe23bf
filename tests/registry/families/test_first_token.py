"""The last layer computes the first token alone where the head reads nothing else; answers stay what they are."""

from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from registry.families.export import export_onnx
from registry.families.first_token import read_first_token_only
from registry.families.graph_cache import fingerprint
from registry.families.graph_export import OneResult
from tests.registry.families.material import request_for, settings_of
from tests.registry.families.shapes import SHAPES
from tests.registry.families.tuning import tune

VOCABULARY = 50
WIDE = SHAPES["roberta"].size | {"num_hidden_layers": 2, "type_vocab_size": 2}
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": SHAPES["distilbert"].size | {"n_layers": 2},
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), WIDE),
}


def classifier(name: str, attention: str = "eager", **settings: Any) -> Any:
    size = SIZES.get(name) or SHAPES[name].size
    still = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "hidden_dropout_prob": 0.0}
    config = AutoConfig.for_model(
        name,
        **{"vocab_size": VOCABULARY, "num_labels": 3, "initializer_range": 0.2, "pad_token_id": 1}
        | still
        | {"attention_probs_dropout_prob": 0.0}
        | size
        | settings,
    )
    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    return model.eval()


def texts(length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, VOCABULARY, (4, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[2, length // 2 :], mask[3, 1:] = 0, 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", sorted(SIZES))
def test_answers_and_gradients_stay_what_they_are(name: str, attention: str) -> None:
    whole, first = classifier(name, attention), classifier(name, attention)
    assert read_first_token_only(first)
    assert list(first.state_dict()) == list(whole.state_dict())
    for length in (2, 9, 31):
        torch.testing.assert_close(first(**texts(length)).logits, whole(**texts(length)).logits, atol=1e-5, rtol=1e-5)
    for model in (whole, first):
        model(**texts(9)).logits.square().sum().backward()
    for (parameter, expected), got in zip(whole.named_parameters(), first.parameters(), strict=True):
        assert (got.grad is None) == (expected.grad is None), parameter
        if expected.grad is not None:
            torch.testing.assert_close(got.grad, expected.grad, atol=1e-4, rtol=1e-4)


def test_the_last_layer_gives_one_token() -> None:
    model = classifier("bert")
    assert read_first_token_only(model)
    assert model.bert(**texts(9)).last_hidden_state.shape == (4, 1, 32)


def test_what_is_dropped_out_is_dropped_out_still() -> None:
    model = classifier("bert", attention_probs_dropout_prob=0.5)
    model.train(True)
    assert read_first_token_only(model)
    assert model.training
    layer, states = model.bert.encoder.layer[-1], torch.randn(4, 9, 32)
    assert not torch.equal(layer(states), layer(states))


def test_a_head_that_reads_all_tokens_keeps_them() -> None:
    model = classifier("bert")
    model.bert.pooler.forward = MethodType(lambda pooler, states: pooler.dense(states.mean(dim=1)), model.bert.pooler)
    expected = model(**texts(9)).logits
    assert not read_first_token_only(model)
    assert torch.equal(model(**texts(9)).logits, expected)
    assert "forward" not in vars(model.bert.encoder.layer[-1])


@pytest.mark.parametrize("name", ["deberta-v2", "modernbert", "gpt2", "llama"])
def test_other_architectures_are_left_alone(name: str) -> None:
    model = classifier(name, "eager")
    assert not read_first_token_only(model)
    assert not [part for part in model.modules() if "forward" in vars(part)]


def test_a_model_that_reads_left_to_right_is_left_alone() -> None:
    assert not read_first_token_only(classifier("bert", is_decoder=True))


def test_a_graph_of_all_tokens_is_not_taken_for_one_of_the_first() -> None:
    whole, first = classifier("bert"), classifier("bert")
    read_first_token_only(first)
    told = [
        fingerprint(OneResult(model, lambda answer, _: answer.logits), ["input_ids"], "logits")
        for model in (whole, first)
    ]
    assert told[0] != told[1]


def test_what_is_served_computes_the_first_token_alone(tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder), "training_config.num_epochs=1")
    tune(request)
    export_onnx(request.out / "package", tmp_path / "model.onnx", 32)
    model = onnx.load(tmp_path / "model.onnx")
    products = [node.output[0] for node in model.graph.node if node.op_type == "MatMul"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in products)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    ids = np.arange(4, 15, dtype=np.int64)[np.newaxis]
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    rows = [values.shape[-2] for values in session.run(products, {name: feeds[name] for name in known})]
    # Two layers of a query, key, value, scores, what was read, and three linear layers; then pooler and head.
    assert rows.count(11) == 8 + 2
    assert rows.count(1) >= 6
