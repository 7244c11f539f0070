"""Tasks that pictures set themselves: which way up, and in which order?

What came before contrastive learning. Gidaris, Singh, Komodakis (2018), "Unsupervised Representation Learning by
Predicting Image Rotations": a picture is turned by 0, 90, 180 or 270 degrees, and the network says by how much.
Noroozi, Favaro (2016), "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles": a picture is cut
into pieces, the pieces change places, and the network says which of some known orders they are in.

Either one is a classification whose labels cost nothing. So there is one model for both; they differ in how a batch is
made.

Changed: the rotation paper shows all four turns of a picture in one batch, here each picture gets one. The jigsaw paper
reads 3 x 3 pieces one by one with the same network, leaves random gaps between them, and joins what it read; so it must
look at what a piece shows. Here the shuffled picture goes through the encoder as a whole, and whether lines go on
across an edge gives much of the answer away.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import Pictures
from pfmcourse.nn.transformer import single

TURNS = 4


def turned(images: Float[Tensor, "batch channels height width"], generator: torch.Generator) -> Pictures:
    """Every picture turned by a random number of quarter turns, counterclockwise, which is its label.

    The random numbers are drawn on the generator's device, the work is done on the images'. Raises CourseError for
    pictures that are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise CourseError(
            f"pictures of {height} x {width} pixels change their shape with a quarter turn; cut squares out of them."
        )
    labels = torch.randint(TURNS, (len(images),), generator=generator, device=generator.device).to(images.device)
    number = rearrange(labels, "batch -> batch 1 1 1")
    images = torch.where(number >= 2, images.flip(2, 3), images)  # a half turn
    return Pictures(torch.where(number % 2 == 1, images.rot90(1, (2, 3)), images), labels)


def orders(pieces: int, count: int) -> Int64[Tensor, "count places"]:
    """``count`` orders of ``pieces`` x ``pieces`` pieces, as different as can be; the first leaves all in place.

    Row by row: at place i stands the piece that was at place ``order[i]``. They are chosen one after the other, as in
    algorithm 1 of Noroozi and Favaro: the next one is that whose most similar order among those before differs in the
    most places; of several such the one that differs most on average. (The paper looks at the average alone, which
    lets near twins in.) Raises CourseError for more orders than exist, and for other pieces than 2 or 3 a side.
    """
    places = pieces**2
    if pieces not in (2, 3) or not 2 <= count <= math.factorial(places):
        raise CourseError(
            f"there is no puzzle of {pieces} x {pieces} pieces with {count} orders: pieces must be 2 (2 to 24 orders) "
            f"or 3 (2 to {math.factorial(9):,} orders)."
        )
    known = torch.tensor(list(itertools.permutations(range(places))), dtype=torch.int8).T.contiguous()
    nearest = torch.full(known.shape[1:], places, dtype=torch.int8)
    total = torch.zeros_like(nearest, dtype=torch.int32)
    chosen = [0]
    while len(chosen) < count:
        differing = (known != known[:, chosen[-1], None]).sum(0, dtype=torch.int8)
        nearest, total = torch.minimum(nearest, differing), total + differing
        best = nearest == nearest.max()
        chosen.append(int(torch.where(best, total, -1).argmax()))
    return known[:, chosen].T.long()


def shuffled(
    images: Float[Tensor, "batch channels height width"],
    permutations: Int64[Tensor, "count places"],
    generator: torch.Generator,
) -> Pictures:
    """Every picture's pieces in a random one of these orders (see `orders`), whose number is its label.

    The random numbers are drawn on the generator's device, the work is done on the images'. Raises CourseError for
    pictures that cannot be cut into such pieces.
    """
    pieces, (height, width) = math.isqrt(permutations.shape[1]), images.shape[-2:]
    if pieces**2 != permutations.shape[1] or height % pieces or width % pieces:
        raise CourseError(
            f"pictures of {height} x {width} pixels cannot be cut into {permutations.shape[1]} equal pieces: the "
            "number of pieces must be a square, and both sides multiples of its root."
        )
    where = images.device
    labels = torch.randint(len(permutations), (len(images),), generator=generator, device=generator.device).to(where)
    cut = rearrange(images, "batch channels (rows p) (columns q) -> batch (rows columns) channels p q", **_grid(pieces))
    cut = cut[torch.arange(len(images), device=where)[:, None], permutations.to(where)[labels]]
    whole = rearrange(cut, "batch (rows columns) channels p q -> batch channels (rows p) (columns q)", **_grid(pieces))
    return Pictures(whole, labels)


def _grid(pieces: int) -> dict[str, int]:
    return {"rows": pieces, "columns": pieces}


class Pretext(nn.Module):
    """An encoder that learns to name what was done to a picture.

    It takes any encoder with ``encode(images)`` and ``config.dim``. ``classes`` is `TURNS`, or how many orders there
    are. After pretraining the encoder is kept and the head thrown away.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.dim, classes)
        nn.init.zeros_(self.head.weight)  # all classes alike at first: the loss starts at ln(classes)
        nn.init.zeros_(self.head.bias)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What the encoder says about the pictures: the part that is kept."""
        return self.encoder.encode(images)

    def logits(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of what may have been done."""
        return self.head(self.encode(images))

    def forward(self, batch: Pictures) -> dict[str, Tensor]:
        """Cross-entropy in nats a picture, and the share named right."""
        logits = single(self.logits(batch.images))
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return {"loss": F.cross_entropy(logits, batch.labels), "accuracy": accuracy}
