"""Leaving dropout out where a whole model learns, and making it cheap where it stays. Imports torch.

On most processors torch draws them there one after the other, on one core while the others wait: 1.3 ms for the states
of 32 texts of 24 tokens, 384 wide, and a model of six layers has twenty such places. NumPy's SFC64 gives the numbers of
four units at a time, and the rest is done on whole arrays: 0.16 ms. Each mask is drawn from a seed out of torch's
generator, whose state is all that a checkpoint has to hold.
"""

from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from registry.families.architecture import is_like_bert

_STEPS = 1 << 16  # shares are rounded to this part
_ATTENTION = "kalimtak_quick_dropout"


class QuickDropout(torch.nn.Dropout):
    """As `torch.nn.Dropout`, on the CPU."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return values
        return values * mask(values.shape, self.p, values.dtype) if self.p < 1 else super().forward(values)


def leave_out_dropout(model: torch.nn.Module) -> None:
    """Let nothing be dropped out of a model while it learns, in place. Its configuration keeps what it says.

    Architectures that read a rate from their configuration in the middle of a layer, as some that write text do, go on
    dropping out there.
    """
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0


def use_quick_dropout(model: torch.nn.Module) -> None:
    """Have a model on the CPU drop out this way, in place; what is dropped out, and how much, stays."""
    config: Any = model.config
    if is_like_bert(config) and config._attn_implementation == "eager":
        AttentionInterface.register(_ATTENTION, _attend)
        AttentionMaskInterface.register(_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
        config._attn_implementation = _ATTENTION
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is torch.nn.Dropout:
                setattr(parent, name, QuickDropout(child.p).train(child.training))


def mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 in a share `p` of all places, below 1, elsewhere what keeps the mean."""
    seed = int(torch.randint(2**63 - 1, ()))
    drawn = np.random.SFC64(seed).random_raw(-(-shape.numel() // 4)).view(np.int16)[: shape.numel()]
    least = min(round(p * _STEPS), _STEPS - 1) - _STEPS // 2
    return torch.from_numpy(drawn).view(shape).ge_(least).to(dtype).mul_(1 / (1 - p))


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `transformers` calls eager attention, of arrays (texts, heads, tokens, width).

    Shares are computed in 32 bits: on the CPU torch takes four times as long for rows of a few bfloat16 numbers.
    """
    scores = (query * scaling @ key.transpose(2, 3)).float()
    if attention_mask is not None:
        scores = scores + attention_mask
    shares = scores.softmax(dim=-1)
    if dropout > 0:
        shares = shares * mask(shares.shape, dropout, shares.dtype) if dropout < 1 else shares * 0
    return (shares.to(value.dtype) @ value).transpose(1, 2).contiguous(), shares
