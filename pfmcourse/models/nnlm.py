"""NNLM, the first neural language model whose word vectors were learned.

Bengio, Ducharme, Vincent, Jauvin (2003), "A Neural Probabilistic Language Model", JMLR 3.

Kept: shared word vectors, their concatenation, one tanh layer, a softmax over the whole vocabulary (equation 1).
Left out: the optional direct connections from vectors to output, which the paper found not to help on small corpora.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class NNLMConfig:
    """Sizes of an NNLM."""

    vocab: int
    dim: int = 64
    context: int = 4  # how many words it looks back
    hidden: int = 128


class NNLM(nn.Module):
    """p(next word | the last ``context`` words)."""

    def __init__(self, config: NNLMConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab, config.dim)  # C in the paper
        self.hidden = nn.Linear(config.context * config.dim, config.hidden)  # H, d
        self.head = nn.Linear(config.hidden, config.vocab)  # U, b
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.head.weight, std=0.01)  # nearly uniform at first: the loss starts at ln(vocab)
        nn.init.zeros_(self.head.bias)

    def encode(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Word vectors, regardless of context."""
        return self.words(tokens)

    def vectors(self) -> Float[Tensor, "vocab dim"]:
        """All word vectors."""
        return self.words.weight.detach()

    def logits(self, context: Int[Tensor, "batch context"]) -> Float[Tensor, "batch vocab"]:
        """Unnormalised log-probabilities of the word that follows each row of ``context``."""
        features = rearrange(self.words(context), "batch context dim -> batch (context dim)")
        return self.head(torch.tanh(self.hidden(features)))

    def forward(self, batch: Int[Tensor, "batch window"]) -> dict[str, Tensor]:
        """Cross-entropy (nats a word) of each row's last word, given the ``context`` words before it."""
        return {"loss": F.cross_entropy(self.logits(batch[:, :-1]), batch[:, -1])}
