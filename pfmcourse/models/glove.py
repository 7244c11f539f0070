"""GloVe: word vectors from a table of co-occurrence counts.

Pennington, Socher, Manning (2014), "GloVe: Global Vectors for Word Representation", EMNLP.

Kept: counts weighted by one over the distance, the weighted least squares of equation 8 with the weight of equation
9, two tables with biases whose sum is the result. Changed: AdamW instead of AdaGrad.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class GloVeConfig:
    """Sizes of a GloVe model and the shape of its weighting function."""

    vocab: int
    dim: int = 64
    most: float = 100.0  # x_max: counts above it weigh the same
    power: float = 0.75  # alpha


@dataclass(frozen=True)
class Counts:
    """A batch of entries of the co-occurrence table: two words and how often they meet."""

    words: Int[Tensor, "entries two"]
    count: Float[Tensor, " entries"]


class GloVe(nn.Module):
    """The dot product of two word vectors, plus two biases, should be the logarithm of their co-occurrence count."""

    def __init__(self, config: GloVeConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab, config.dim)
        self.contexts = nn.Embedding(config.vocab, config.dim)
        self.word_bias = nn.Embedding(config.vocab, 1)
        self.context_bias = nn.Embedding(config.vocab, 1)
        for table in (self.words, self.contexts, self.word_bias, self.context_bias):
            nn.init.uniform_(table.weight, -0.5 / config.dim, 0.5 / config.dim)

    def encode(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Word vectors: the sum of a word's two vectors (section 4.2)."""
        return self.words(tokens) + self.contexts(tokens)

    def vectors(self) -> Float[Tensor, "vocab dim"]:
        """All word vectors, as in ``encode``."""
        return (self.words.weight + self.contexts.weight).detach()

    def log_counts(self, words: Int[Tensor, "entries two"]) -> Float[Tensor, " entries"]:
        """The model's estimate of log X for each pair of words."""
        centre, context = words.unbind(dim=1)
        dots = (self.words(centre) * self.contexts(context)).sum(dim=1)
        return dots + self.word_bias(centre).squeeze(1) + self.context_bias(context).squeeze(1)

    def forward(self, batch: Counts) -> dict[str, Tensor]:
        """Weighted squared error of the log counts (equation 8), mean over the batch's entries."""
        weight = (batch.count / self.config.most).clamp(max=1) ** self.config.power
        error = self.log_counts(batch.words) - torch.log(batch.count)
        return {"loss": (weight * error**2).mean()}
