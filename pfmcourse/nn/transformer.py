"""The Transformer's block: attention between places, then a small network at each place, both added to a stream.

Vaswani et al. (2017), "Attention Is All You Need", section 3. There each norm follows the addition; later models norm
what each part reads instead and leave the stream alone (Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture"). ``norm_first`` chooses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.attention import KeyValueCache, MultiHeadAttention

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_quick"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_quick": lambda x: F.silu(1.702 * x) / 1.702,  # x sigmoid(1.702 x), CLIP's; a CPU takes longer than for gelu
}


def single(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In single precision at least: a loss is a sum of many small numbers, for which half precision is too coarse."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Positions as sines and cosines of wavelengths from 2 pi to 20,000 pi (section 3.5), dim even.

    The sines come first, then the cosines; the paper has them in turn, which is the same but for the order.
    """
    rates = torch.exp(-math.log(10_000.0) * torch.arange(dim // 2) / (dim // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def even_sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Positions as sines and cosines whose frequencies lie evenly between 0 and one half of a turn a place, dim even.

    The slow waves of `sinusoids` can hardly tell neighbours apart; here the fast ones are as many as the slow ones.
    """
    angles = torch.arange(length)[:, None] * _even_rates(dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _even_rates(dim: int) -> Float[Tensor, " half"]:
    half = dim // 2
    return math.pi * (torch.arange(half) + 0.5) / half


@torch.no_grad()
def look_at_neighbours(attention: MultiHeadAttention, offsets: Sequence[int], strength: float = 2.0) -> None:
    """Let each head begin by looking at the place ``offset`` away from its own, where positions are `even_sinusoids`.

    A head's key is the position as it stands, on some of its waves; its query is the same, moved on by ``offset``,
    which for a sine and a cosine of one frequency is a rotation. The two agree best where they meet. What the weights
    were before stays, at a third of its size. Raises CourseError unless there are as many ``offsets`` as heads. After
    Trockman, Kolter (2023), "Mimetic Initialization of Self-Attention Layers".
    """
    dim = attention.output.in_features
    size = dim // attention.heads
    if len(offsets) != attention.heads or size % 2:
        raise CourseError(
            f"{attention.heads} heads of {size} numbers want as many offsets and an even size, not offsets={offsets}."
        )
    half, waves = dim // 2, size // 2
    chosen = torch.arange(waves) * (half // waves)
    rows = torch.arange(waves)
    keys = torch.zeros(size, dim)
    keys[rows, chosen], keys[waves + rows, half + chosen] = 1.0, 1.0
    queries, keys_of_heads, _ = attention.project.weight.chunk(3)
    for head, offset in enumerate(offsets):
        turn = _even_rates(dim)[chosen] * offset
        moved = torch.zeros(size, dim)  # sin(a + t) = sin a cos t + cos a sin t, and so on
        moved[rows, chosen], moved[rows, half + chosen] = turn.cos(), turn.sin()
        moved[waves + rows, chosen], moved[waves + rows, half + chosen] = -turn.sin(), turn.cos()
        here = slice(head * size, (head + 1) * size)
        queries[here] = strength * moved + 0.3 * queries[here]
        keys_of_heads[here] = strength * keys + 0.3 * keys_of_heads[here]


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between, at each place alone (section 3.3)."""

    def __init__(self, dim: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """What each place makes of what it has gathered."""
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """One layer: self-attention, attention to another sequence (with ``cross``), feed-forward; each with its norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int | None = None,
        *,
        activation: Activation = "gelu",
        norm_first: bool = True,
        cross: bool = False,
        dropout: float = 0.0,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(dim, heads)
        self.attention_norm = nn.LayerNorm(dim, eps=epsilon)
        if cross:
            self.cross = MultiHeadAttention(dim, heads)
            self.cross_norm = nn.LayerNorm(dim, eps=epsilon)
        self.feed_forward = FeedForward(dim, hidden or 4 * dim, activation)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        mask: Bool[Tensor, "*some"] | None = None,
        context: Float[Tensor, "batch other dim"] | None = None,
        context_mask: Bool[Tensor, "*any"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """The stream after this layer. Masks must fit (batch, heads, query, key); true is where one may look."""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask=mask, cache=cache))
        if context is not None:
            x = self._add(x, self.cross_norm, lambda y: self.cross(y, context, mask=context_mask))
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.LayerNorm, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))
