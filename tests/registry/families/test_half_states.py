"""States in bfloat16 between layers: under autocast alone, and the answers and gradients are as good as before."""

import pytest
import torch

from registry.families.half_states import hand_on_half_states
from tests.registry.families.test_dropout import classifier, texts

LIKE_BERT = ["distilbert", "roberta"]


@pytest.mark.parametrize("name", LIKE_BERT)
def test_layers_hand_on_bfloat16_under_autocast_alone(name: str) -> None:
    model = classifier(name, 0.0).eval()
    expected = model(**texts()).logits
    hand_on_half_states(model)
    assert torch.equal(model(**texts()).logits, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.base_model(**texts()).last_hidden_state
    assert states.dtype == torch.bfloat16


@pytest.mark.parametrize("name", LIKE_BERT)
def test_gradients_stay_as_near_to_those_of_32_bits_as_autocast_leaves_them(name: str) -> None:
    exact, usual, halved = (classifier(name, 0.0).eval() for _ in range(3))
    hand_on_half_states(halved)
    for model in (exact, usual, halved):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model is not exact):
            logits = model(**texts()).logits
        logits.float().square().sum().backward()
    assert _distance(halved, exact) < 2 * _distance(usual, exact) + 1e-3


def test_other_architectures_stay_as_they_are() -> None:
    model = classifier("modernbert", 0.0)
    hand_on_half_states(model)
    assert not any(part._forward_hooks for part in model.modules())


def _distance(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Between all gradients, as a share of the other's length."""
    mine, theirs = (
        torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        for model in (one, other)
    )
    return float((mine - theirs).norm() / theirs.norm())
