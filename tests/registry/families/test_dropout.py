"""Dropout on the CPU: as much as is asked for, from torch's seed, and nowhere else than before."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from registry.families.dropout import QuickDropout, leave_out_dropout, mask, use_quick_dropout
from tests.registry.families.shapes import SHAPES

SHAPE = torch.Size((37, 41, 43))


def classifier(name: str, dropped: float, **settings: Any) -> Any:
    rates = ("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
    size = SHAPES[name].size | dict.fromkeys(rates, dropped) | {"pad_token_id": 1, "initializer_range": 0.2}
    config = AutoConfig.for_model(name, vocab_size=50, num_labels=3, **size | settings)
    torch.manual_seed(5)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def texts() -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 50, (3, 12), generator=torch.Generator().manual_seed(6))
    attended = torch.ones_like(ids)
    attended[1, 7:] = 0
    return {"input_ids": ids, "attention_mask": attended}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.999])
def test_the_share_is_what_was_asked_for_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    drawn = mask(SHAPE, p, dtype)
    assert drawn.dtype == dtype
    error = 5 * (p * (1 - p) / SHAPE.numel()) ** 0.5
    assert float((drawn == 0).float().mean()) == pytest.approx(p, abs=error)
    kept = drawn[drawn != 0].float()
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0
    )


def test_places_are_dropped_out_independently_of_each_other() -> None:
    drawn = (mask(torch.Size((64, 4096)), 0.5, torch.float32) > 0).double()
    for lag in (1, 2, 3, 4, 8, 4096):
        flat = drawn.flatten() - 0.5
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.25 * 5 / flat.numel() ** 0.5


def test_torchs_seed_decides_and_its_state_goes_on() -> None:
    torch.manual_seed(1)
    first, state = mask(SHAPE, 0.5, torch.float32), torch.get_rng_state()
    second = mask(SHAPE, 0.5, torch.float32)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(mask(SHAPE, 0.5, torch.float32), second)
    torch.manual_seed(1)
    assert torch.equal(mask(SHAPE, 0.5, torch.float32), first)


def test_what_is_dropped_out_learns_nothing() -> None:
    values = torch.ones(SHAPE, requires_grad=True)
    told = QuickDropout(0.3)(values)
    told.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, told.detach())
    assert 0 < float((values.grad == 0).float().mean()) < 1


def test_nothing_is_dropped_out_of_answers_or_where_nothing_shall_be() -> None:
    values = torch.randn(SHAPE)
    assert QuickDropout(0.5).eval()(values) is values
    assert QuickDropout(0.0)(values) is values
    assert not QuickDropout(1.0)(values).any()


@pytest.mark.parametrize("name", ["distilbert", "roberta", "deberta-v2", "modernbert"])
def test_a_model_answers_as_before_and_drops_out_everywhere(name: str) -> None:
    model, expected = classifier(name, 0.4), classifier(name, 0.4).eval()(**texts()).logits
    use_quick_dropout(model)
    torch.testing.assert_close(model.eval()(**texts()).logits, expected, atol=1e-5, rtol=1e-5)
    model.train()
    assert not [part for part in model.modules() if type(part) is torch.nn.Dropout]
    torch.manual_seed(2)
    one, other = (model(**texts()).logits for _ in range(2))
    assert not torch.allclose(one, other)
    torch.manual_seed(2)
    assert torch.equal(model(**texts()).logits, one)


def test_attention_is_dropped_out_too_and_the_configuration_that_is_written_is_the_old_one() -> None:
    model = classifier("roberta", 0.0, attention_probs_dropout_prob=0.4)
    before = model.config.to_json_string()
    use_quick_dropout(model)
    assert model.config.to_json_string() == before
    model.train()
    one, other = (model(**texts()).logits for _ in range(2))
    assert not torch.allclose(one, other)


def test_gradients_through_attention_are_those_of_transformers() -> None:
    ours, theirs = classifier("roberta", 0.0), classifier("roberta", 0.0)
    use_quick_dropout(ours)
    for model in (ours, theirs):
        model.train()
        model(**texts()).logits.square().sum().backward()
    for (name, expected), got in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is not None:
            assert got.grad is not None, name
            torch.testing.assert_close(got.grad, expected.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["distilbert", "roberta", "deberta-v2"])
def test_a_model_from_which_nothing_is_dropped_learns_the_same_twice_and_its_configuration_stays(name: str) -> None:
    model = classifier(name, 0.4)
    before = model.config.to_json_string()
    leave_out_dropout(model)
    use_quick_dropout(model)
    model.train()
    one, other = (model(**texts()).logits for _ in range(2))
    assert torch.equal(one, other)
    assert model.config.to_json_string() == before
