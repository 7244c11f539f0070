"""Contrastive losses: of many vectors, find the one that belongs to yours.

NT-Xent: Chen, Kornblith, Norouzi, Hinton (2020), "A Simple Framework for Contrastive Learning of Visual
Representations", section 2.1. InfoNCE: van den Oord, Li, Vinyals (2018), "Representation Learning with Contrastive
Predictive Coding"; with a queue: He, Fan, Wu, Xie, Girshick (2019), "Momentum Contrast for Unsupervised Visual
Representation Learning".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pfmcourse.nn.transformer import single


def _unit(vectors: Tensor) -> Tensor:
    """Rows of length 1, in single precision at least: a cosine divided by a small temperature magnifies errors."""
    return F.normalize(single(vectors), dim=1)


def nt_xent(
    first: Float[Tensor, "pictures dim"], second: Float[Tensor, "pictures dim"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss in nats, and the share of views whose partner is the nearest; row i of both is one picture.

    Each of the 2 x pictures views must tell its partner from all others by cosine / temperature: a softmax over
    2 x pictures - 1 candidates. A loss of ln(2 x pictures - 1) is guessing.
    """
    views = _unit(torch.cat([first, second]))
    similar = views @ views.T / temperature
    # Added, not filled in: the gradient passes through untouched.
    similar = similar - torch.diag(torch.full_like(similar[0], 1e4))  # no view is its own partner
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(similar, partner), (similar.argmax(1) == partner).float().mean()


def info_nce(
    queries: Float[Tensor, "pictures dim"],
    keys: Float[Tensor, "pictures dim"],
    queue: Float[Tensor, "others dim"],
    temperature: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss in nats, and the share of queries whose key is nearer than the whole queue.

    Row i of queries and keys is one picture. Only the keys of the queue count as others, as in MoCo; its rows have
    length 1.
    """
    queries = _unit(queries)
    own = (queries * _unit(keys)).sum(1, keepdim=True)
    similar = torch.cat([own, queries @ queue.T.to(queries)], dim=1) / temperature
    first = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    return F.cross_entropy(similar, first), (similar.argmax(1) == 0).float().mean()
