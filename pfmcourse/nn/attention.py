"""Attention: every query takes a weighted mean of the values, with weights by how well the keys fit it.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need", section 3.2.

A mask is true where a query may look. Its last axes are (query, key), or (1, key) where it is the same for all queries.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pfmcourse.base import CourseError


def attention_weights(
    queries: Float[Tensor, "*batch query dim"],
    keys: Float[Tensor, "*batch key dim"],
    mask: Bool[Tensor, "*some"] | None = None,
) -> Float[Tensor, "*batch query key"]:
    """How much each query takes from each key: softmax(Q K^T / sqrt(dim)), with none from where ``mask`` is false.

    A query that may look nowhere spreads its weight over all keys.
    """
    scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-2, -1)
    if mask is not None:
        # Adding costs less than replacing: the gradient passes through untouched.
        never = torch.finfo(scores.dtype).min
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, never)
    return scores.softmax(-1).to(queries.dtype)  # autocast makes fp32 of a softmax


def attention(
    queries: Float[Tensor, "*batch query dim"],
    keys: Float[Tensor, "*batch key dim"],
    values: Float[Tensor, "*batch key dim"],
    mask: Bool[Tensor, "*some"] | None = None,
) -> Float[Tensor, "*batch query dim"]:
    """softmax(Q K^T / sqrt(dim)) V (equation 1)."""
    # One kernel that never writes the weights to memory: faster on a GPU, and for a single query. Otherwise a CPU is
    # faster with the two products.
    if queries.is_cuda or queries.shape[-2] == 1:
        return F.scaled_dot_product_attention(queries, keys, values, mask)
    return attention_weights(queries, keys, mask) @ values


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "queries keys"]:
    """True where a key is not in its query's future. The last query stands at the last key."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class KeyValueCache:
    """The keys and values of the places read so far, so that the next place need not compute them again.

    One for each attention layer. Memory is taken once, for ``longest`` places.
    """

    def __init__(self, longest: int) -> None:
        self.longest, self.length = longest, 0
        self.keys = self.values = torch.empty(0)

    def add(
        self, keys: Float[Tensor, "batch heads new dim"], values: Float[Tensor, "batch heads new dim"]
    ) -> tuple[Float[Tensor, "batch heads time dim"], Float[Tensor, "batch heads time dim"]]:
        """Append the new places and return all of them. Raises CourseError where there is no room left."""
        if not self.length:
            room = (*keys.shape[:2], self.longest, keys.shape[-1])
            self.keys, self.values = keys.new_empty(room), values.new_empty(room)
        begin, end = self.length, self.length + keys.shape[2]
        if end > self.longest:
            raise CourseError(f"the cache has room for {self.longest} places, but {end} were wanted.")
        self.keys[:, :, begin:end], self.values[:, :, begin:end] = keys, values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order: beam search follows some texts and drops others."""
        if self.length:
            self.keys, self.values = self.keys[rows], self.values[rows]


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in a subspace of its own (section 3.2.2).

    The projections to queries, keys and values are the rows of one matrix, in this order: one product instead of three.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise CourseError(f"dim={dim} cannot be shared out among heads={heads}: choose a multiple.")
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def queries_keys_values(
        self, x: Float[Tensor, "batch query dim"], context: Float[Tensor, "batch key dim"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each with the axes (batch, heads, time, dim / heads); keys and values come from ``context`` where given."""
        if context is None:
            parts = self.project(x).chunk(3, dim=-1)
        else:
            dim = x.shape[-1]
            weight, bias = self.project.weight, self.project.bias
            keys_values = F.linear(context, weight[dim:], bias[dim:])
            parts = (F.linear(x, weight[:dim], bias[:dim]), *keys_values.chunk(2, dim=-1))
        return tuple(
            rearrange(part, "batch time (heads dim) -> batch heads time dim", heads=self.heads) for part in parts
        )

    def forward(
        self,
        x: Float[Tensor, "batch query dim"],
        context: Float[Tensor, "batch key dim"] | None = None,
        mask: Bool[Tensor, "*some"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch query dim"]:
        """Self-attention, or attention to ``context``. ``mask`` must fit (batch, heads, query, key)."""
        queries, keys, values = self.queries_keys_values(x, context)
        if cache is not None:
            keys, values = cache.add(keys, values)
        mixed = attention(queries, keys, values, mask)
        return self.output(rearrange(mixed, "batch heads time dim -> batch time (heads dim)"))

    def weights(
        self,
        x: Float[Tensor, "batch query dim"],
        context: Float[Tensor, "batch key dim"] | None = None,
        mask: Bool[Tensor, "*some"] | None = None,
    ) -> Float[Tensor, "batch heads query key"]:
        """Who looks where: the attention weights themselves, for pictures."""
        queries, keys, _ = self.queries_keys_values(x, context)
        return attention_weights(queries, keys, mask)
