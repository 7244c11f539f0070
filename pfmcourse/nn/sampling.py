"""From scores to a token: how daring a language model is when it writes.

Top-k is from Fan, Lewis, Dauphin (2018), "Hierarchical Neural Story Generation"; top-p (nucleus sampling) from
Holtzman, Buys, Du, Forbes, Choi (2020), "The Curious Case of Neural Text Degeneration".
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pfmcourse.base import CourseError


def filtered(
    logits: Float[Tensor, "batch vocab"], *, temperature: float | int = 1.0, top_k: int = 0, top_p: float | int = 1.0
) -> Float[Tensor, "batch vocab"]:
    """The probabilities to draw from.

    ``temperature`` divides the scores: below 1 the likely becomes likelier. ``top_k`` keeps the k likeliest tokens (0:
    all). ``top_p`` keeps the fewest tokens that together have at least this probability. Ties at an edge are kept.
    Raises CourseError for a value that leaves nothing to draw from.
    """
    if temperature <= 0 or not 0 < top_p <= 1 or top_k < 0:
        raise CourseError(
            "sampling wants temperature > 0, 0 < top_p <= 1 and top_k >= 0 (0: all), but got "
            f"temperature={temperature}, top_p={top_p}, top_k={top_k}. "
            "For the likeliest token always, use temperature=0 in generate."
        )
    probabilities = (logits.float() / temperature).softmax(-1)
    if 0 < top_k < logits.shape[-1]:
        least = probabilities.topk(top_k).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    if top_p < 1:
        ordered = probabilities.sort(descending=True).values
        before = ordered.cumsum(-1) - ordered  # the probability of all that are likelier
        last = (before < top_p).sum(-1, keepdim=True) - 1
        probabilities = probabilities.where(probabilities >= ordered.gather(-1, last), 0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def choose(
    logits: Float[Tensor, "batch vocab"],
    generator: torch.Generator | None = None,
    *,
    temperature: float | int = 1.0,
    top_k: int = 0,
    top_p: float | int = 1.0,
) -> Int[Tensor, " batch"]:
    """One token for each row, drawn from `filtered`; with ``temperature=0`` always the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = filtered(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
