"""Contrastive losses: of many vectors, find the one that belongs to yours.

NT-Xent: Chen, Kornblith, Norouzi, Hinton (2020), "A Simple Framework for Contrastive Learning of Visual
Representations", section 2.1. InfoNCE: van den Oord, Li, Vinyals (2018), "Representation Learning with Contrastive
Predictive Coding"; with a queue: He, Fan, Wu, Xie, Girshick (2019), "Momentum Contrast for Unsupervised Visual
Representation Learning". Between two kinds of things: Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell,
Mishkin, Clark, Krueger, Sutskever (2021), "Learning Transferable Visual Models From Natural Language Supervision"
(CLIP), figure 3, after Zhang, Jiang, Miura, Manning, Langlotz (2020), "Contrastive Learning of Medical Visual
Representations from Paired Images and Text" (ConVIRT).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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


def clip_loss(
    images: Float[Tensor, "pairs dim"],
    texts: Float[Tensor, "pairs dim"],
    scale: float | int | Float[Tensor, ""],
    same: Int[Tensor, " pairs"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss in nats, and the share of images whose text is nearest; row i of both is one pair.

    Each image must tell its text from those of the other pairs by cosine x scale, and each text its image; the loss is
    the mean of the two cross-entropies. A loss of ln(pairs) is guessing. ``same`` numbers the captions: of two pairs
    with one number, neither counts as an other for the other, since their texts fit both images.
    """
    with torch.autocast(images.device.type, enabled=False):  # it would make half precision of the product
        similar = _unit(images) @ _unit(texts).T * scale
    if same is not None:
        twins = (same[:, None] == same).to(similar).fill_diagonal_(0)
        similar = similar - 1e4 * twins  # added, not filled in: the gradient passes through untouched
    own = torch.arange(len(images), device=images.device)
    loss = (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2
    return loss, (similar.argmax(1) == own).float().mean()
