"""Hiding tokens, so that a model has something to guess.

Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", section 3.1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORED = -100  # the target that a cross-entropy in torch passes over


@dataclass(frozen=True)
class Hidden:
    """Texts with holes. Each row has as many places as the fullest one needs; those too many have target IGNORED."""

    tokens: Int[Tensor, "batch time"]  # with [MASK], or another token, at the chosen places
    places: Int[Tensor, "batch masked"]  # where to guess
    targets: Int[Tensor, "batch masked"]  # what stood there


def mask_tokens(
    tokens: Int[Tensor, "batch time"],
    allowed: Bool[Tensor, "batch time"],
    *,
    share: float,
    mask_token: int,
    vocab: int,
    generator: torch.Generator,
) -> Hidden:
    """Choose ``share`` of each row's allowed places at random (one at least) and hide what stands there.

    Of the chosen, 80 % become ``mask_token``, 10 % a random token below ``vocab``, and 10 % stay, so that the model
    cannot rely on the mask to know where it will be asked. Every row must allow a place.
    """
    lengths = allowed.sum(1)
    wanted = (share * lengths).round().long().clamp(min=1)
    most = max(1, round(share * tokens.shape[1]))  # the same for every batch: shapes that change cost time
    order = torch.rand(tokens.shape, generator=generator).masked_fill(~allowed, 2.0)
    places = order.topk(most, largest=False).indices
    asked = torch.arange(most) < wanted[:, None]
    truth = tokens.gather(1, places)
    chance = torch.rand(places.shape, generator=generator)
    other = torch.randint(vocab, places.shape, generator=generator)
    shown = torch.where(chance < 0.8, mask_token, torch.where(chance < 0.9, other, truth))
    hidden = tokens.scatter(1, places, torch.where(asked, shown, truth))
    return Hidden(hidden, places, torch.where(asked, truth, IGNORED))
