"""Word2Vec: skip-gram and CBOW with negative sampling.

Mikolov, Chen, Corrado, Dean (2013), "Efficient Estimation of Word Representations in Vector Space" (the two models);
Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed Representations of Words and Phrases and their
Compositionality" (negative sampling, subsampling of frequent words).

Kept: both objectives, the noise distribution, a random radius for each centre word, two tables of vectors.
Changed: the program of 2013 visits one pair of words after the other. Here a batch is cut into blocks of running text
whose centre words share their negatives, so that all scores of a block are one matrix product. Each centre word
meets about as many random words as before, and the weights make the expected loss the same.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pfmcourse.nn.negative_sampling import context_mask


@dataclass(frozen=True)
class Word2VecConfig:
    """Sizes of a Word2Vec model."""

    vocab: int
    dim: int = 64
    window: int = 5
    negatives: int = 5


@dataclass(frozen=True)
class TextBlocks:
    """A batch of running text: per block ``time`` centre words in a span with ``window`` more words on each side."""

    tokens: Int[Tensor, "blocks span"]  # the words
    speech: Int[Tensor, "blocks span"]  # which speech each word belongs to: windows end where it ends; -1 is padding
    radius: Int[Tensor, "blocks time"]  # how far each centre word looks, 1..window
    noise: Int[Tensor, "blocks draws"]  # random words that the centre words of the block share as negatives


class Word2Vec(nn.Module):
    """Two tables: a word has one vector as the word that predicts and another as the word that is predicted."""

    def __init__(self, config: Word2VecConfig) -> None:
        super().__init__()
        self.config = config
        self.inputs = nn.Embedding(config.vocab, config.dim)
        self.outputs = nn.Embedding(config.vocab, config.dim)
        nn.init.uniform_(self.inputs.weight, -0.5 / config.dim, 0.5 / config.dim)  # as in the program of 2013
        nn.init.zeros_(self.outputs.weight)

    def encode(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """The vectors that lessons and tasks use: each word's input vector."""
        return self.inputs(tokens)

    def vectors(self, both: bool = False) -> Float[Tensor, "vocab dim"]:
        """All input vectors; with ``both`` the sum of a word's two vectors (Levy, Goldberg, Dagan 2015, "w + c")."""
        table = self.inputs.weight.detach()
        return table + self.outputs.weight.detach() if both else table


class SkipGram(Word2Vec):
    """Skip-gram: each word predicts its neighbours, one by one."""

    def forward(self, batch: TextBlocks) -> dict[str, Tensor]:
        """Negative-sampling loss in nats a pair (equation 4 of the second paper), mean over the batch's true pairs."""
        time, span = batch.radius.shape[1], batch.tokens.shape[1]
        window, draws = self.config.window, batch.noise.shape[1]
        centres = self.inputs(batch.tokens[:, window : window + time])
        others = self.outputs(torch.cat([batch.tokens, batch.noise], dim=1))
        scores = centres @ others.transpose(1, 2)  # [blocks, time, span + draws]: every score of a block in one product

        true = context_mask(batch.radius, batch.speech, window).to(scores.dtype)
        pairs = true.sum(dim=2, keepdim=True)
        # A centre with p true neighbours should meet p * negatives random words; it meets all draws, weighted.
        weight = torch.cat([true, (pairs * self.config.negatives / draws).expand(-1, -1, draws)], dim=2)
        # -log sigmoid(s) = softplus(s) - s for a true pair, -log sigmoid(-s) = softplus(s) for a random one.
        loss = (weight * F.softplus(scores)).sum() - (true * scores[:, :, :span]).sum()
        return {"loss": loss / true.sum().clamp(min=1)}


class CBOW(Word2Vec):
    """Continuous bag of words: the mean of the neighbours' vectors predicts the word in the middle."""

    def forward(self, batch: TextBlocks) -> dict[str, Tensor]:
        """Negative-sampling loss in nats a centre word, mean over the centre words that have neighbours."""
        time, window = batch.radius.shape[1], self.config.window
        near = context_mask(batch.radius, batch.speech, window).to(self.inputs.weight.dtype)
        neighbours = near.sum(dim=2, keepdim=True)
        context = (near @ self.inputs(batch.tokens)) / neighbours.clamp(min=1)  # [blocks, time, dim]
        counted = (neighbours > 0).to(context.dtype)

        true = (context * self.outputs(batch.tokens[:, window : window + time])).sum(dim=2, keepdim=True)
        random = context @ self.outputs(batch.noise).transpose(1, 2)  # [blocks, time, draws]
        share = self.config.negatives / batch.noise.shape[1]
        loss = F.softplus(-true) + share * F.softplus(random).sum(dim=2, keepdim=True)
        return {"loss": (loss * counted).sum() / counted.sum().clamp(min=1)}
