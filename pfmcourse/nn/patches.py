"""Pictures as sentences: a picture is cut into square patches, and each patch is a word.

Dosovitskiy et al. (2020), "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", section 3.1.
Patches are read row by row, from the top left. The numbers of a patch lie channel by channel, each row by row.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from pfmcourse.base import CourseError
from pfmcourse.nn.transformer import sinusoids


def patchify(
    images: Float[Tensor, "batch channels height width"], patch: int
) -> Float[Tensor, "batch patches numbers"]:
    """Cut pictures into squares of ``patch`` x ``patch`` pixels. Raises CourseError where they do not fit."""
    height, width = images.shape[-2:]
    if height % patch or width % patch or not min(height, width):
        raise CourseError(
            f"a picture of {height} x {width} pixels cannot be cut into patches of {patch} x {patch}: "
            f"both sides must be multiples of {patch}. Resize the pictures, or choose another patch."
        )
    return rearrange(
        images, "batch channels (rows p) (columns q) -> batch (rows columns) (channels p q)", p=patch, q=patch
    )


def unpatchify(
    patches: Float[Tensor, "batch patches numbers"], patch: int, columns: int
) -> Float[Tensor, "batch channels height width"]:
    """The pictures again; ``columns`` is how many patches stand side by side."""
    return rearrange(
        patches,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        p=patch,
        q=patch,
        columns=columns,
    )


def sincos_positions(rows: int, columns: int, dim: int) -> Float[Tensor, "patches dim"]:
    """Fixed positions in a plane: one half of the numbers says the column, the other the row; dim a multiple of 4.

    Each half is the sines and cosines of one dimension, as in He et al. (2021), "Masked Autoencoders Are Scalable
    Vision Learners".
    """
    if dim % 4:
        raise CourseError(f"sine-cosine positions in a plane need dim to be a multiple of 4, not {dim}.")
    across, down = sinusoids(columns, dim // 2), sinusoids(rows, dim // 2)
    return torch.cat([across.repeat(rows, 1), down.repeat_interleave(columns, 0)], dim=1)


def interpolate_positions(
    positions: Float[Tensor, "patches dim"], rows: int, columns: int
) -> Float[Tensor, "other dim"]:
    """The positions of a square grid, stretched to another grid by bicubic interpolation (section 3.2)."""
    side = math.isqrt(len(positions))
    if (rows, columns) == (side, side):
        return positions
    plane = rearrange(positions, "(rows columns) dim -> 1 dim rows columns", columns=side)
    plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
    return rearrange(plane, "1 dim rows columns -> (rows columns) dim")


def blockwise_mask(count: int, side: int, share: float, generator: torch.Generator) -> Bool[Tensor, "count patches"]:
    """Which patches to hide in each of ``count`` pictures of ``side`` x ``side`` patches: rectangles, true is hidden.

    After algorithm 1 of Bao, Dong, Piao, Wei (2021), "BEiT: BERT Pre-Training of Image Transformers": rectangles of
    random size, with sides in a ratio between 0.3 and 1 / 0.3, fall on random places until ``share`` of the patches is
    hidden. Changed, so that all pictures are done at once: a rectangle may be as large as the whole share whatever is
    hidden already, and of the one that is too many only the upper rows fall, so that every picture hides exactly
    round(share x patches). The smallest rectangle has 16 patches of 196 in the paper, and the same part of all here.
    Raises CourseError for a share that hides nothing or everything.
    """
    patches = side * side
    wanted = round(share * patches)
    if not 0 < wanted < patches:
        raise CourseError(f"share={share} of {patches} patches hides {wanted}: at least one must be hidden, one seen.")
    most = 16  # rectangles: enough up to a share of 3/4; should they not be, the upper patches make up the number
    area, ratio, down, across = torch.rand(4, count, most, generator=generator)
    smallest = min(patches * 16 / 196, wanted)
    area = smallest + (wanted - smallest) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(1 / 0.3))
    places = torch.arange(side)

    def within(length: Tensor, where: Tensor) -> Bool[Tensor, "count most side"]:
        length = length.round().clamp(1, side)
        begin = (where * (side - length + 1)).floor()
        return (places >= begin[..., None]) & (places < (begin + length)[..., None])

    rows, columns = within((area * ratio).sqrt(), down), within((area / ratio).sqrt(), across)
    covered = rows[..., :, None] & columns[..., None, :]
    # The number of the first rectangle that covers a patch; within a rectangle, the patches count from the top.
    first = torch.where(covered, torch.arange(most, dtype=torch.int16)[:, None, None], most).amin(1).flatten(1)
    order = first.int() * patches + torch.arange(patches, dtype=torch.int32)
    hidden = order.topk(wanted, largest=False, sorted=False).indices
    return torch.zeros(count, patches, dtype=torch.bool).scatter(1, hidden, True)
