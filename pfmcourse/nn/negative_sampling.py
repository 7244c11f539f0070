"""Negative sampling: learn a distribution over many words by telling true neighbours from random ones.

Source: Mikolov, Sutskever, Chen, Corrado, Dean (2013), "Distributed Representations of Words and Phrases and their
Compositionality", section 2.2, and the word2vec program for the details that the paper leaves out.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def noise_distribution(counts: Int[Tensor, " vocab"], power: float = 0.75) -> Float[Tensor, " vocab"]:
    """Probability of each word as a negative example: its count to the ``power``, normalised (section 2.2)."""
    weights = counts.double() ** power
    return (weights / weights.sum()).float()


def draw_noise(
    noise: Float[Tensor, " vocab"], blocks: int, draws: int, generator: torch.Generator
) -> Int[Tensor, "blocks draws"]:
    """Draw negative words for each block. Bisection in the cumulative sum: faster than ``torch.multinomial``."""
    cumulative = noise.double().cumsum(0)
    # Below the sum as it came out, and the first place above each: so words of probability 0 are never drawn.
    thresholds = torch.rand(blocks, draws, generator=generator).double() * cumulative[-1]
    return torch.searchsorted(cumulative, thresholds, right=True)


def keep_probability(counts: Int[Tensor, " vocab"], threshold: float) -> Float[Tensor, " vocab"]:
    """Chance that an occurrence of each word survives subsampling: frequent words are dropped most of the time.

    The word2vec program keeps a word of relative frequency f with probability (sqrt(f / t) + 1) * t / f, at most 1;
    the paper prints a slightly different formula. A ``threshold`` of 0 keeps everything.
    """
    if threshold == 0:
        return torch.ones(len(counts))
    frequency = (counts.double() / counts.sum()).clamp(min=1e-12)
    return (((frequency / threshold).sqrt() + 1) * threshold / frequency).clamp(max=1).float()


def context_mask(
    radius: Int[Tensor, "blocks time"], speech: Int[Tensor, "blocks span"], window: int
) -> Bool[Tensor, "blocks time span"]:
    """Which words of a block's span are context of which of its centre words.

    A block has ``time`` centre words; its span adds ``window`` words on either side. A word is context if it lies
    within the centre's own ``radius``, is not the centre itself, and belongs to the same speech. Words of speech -1
    are padding, without context and context of none.
    """
    time, span = radius.shape[1], speech.shape[1]
    distance = torch.arange(span, device=speech.device) - torch.arange(time, device=speech.device)[:, None] - window
    near = (distance.abs() <= radius[:, :, None]) & (distance != 0)
    centre = speech[:, window : window + time]
    return near & (speech[:, None, :] == centre.masked_fill(centre < 0, -2)[:, :, None])


def expected_loss(
    inputs: Float[Tensor, "vocab dim"],
    outputs: Float[Tensor, "vocab dim"],
    pairs: Int[Tensor, "pairs two"],
    weights: Float[Tensor, " pairs"],
    noise: Float[Tensor, " vocab"],
    negatives: int,
) -> float:
    """Mean negative-sampling loss (nats a pair) of given (centre, context) pairs, without sampling noise.

    Instead of drawing ``negatives`` random words it takes their expectation over the whole vocabulary, so that two
    sets of vectors can be compared to the third digit. Vectors of zeros score (1 + negatives) * ln 2.
    """
    expectation = torch.cat([(F.softplus(block @ outputs.T) @ noise) for block in inputs.split(1024)])
    centres, contexts = pairs[:, 0], pairs[:, 1]
    positive = torch.cat(
        [
            F.softplus(-(inputs[a] * outputs[b]).sum(1))
            for a, b in zip(centres.split(65536), contexts.split(65536), strict=True)
        ]
    )
    return float(((positive + negatives * expectation[centres]) * weights).sum() / weights.sum())
