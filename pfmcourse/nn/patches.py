"""Pictures as sentences: a picture is cut into square patches, and each patch is a word.

Dosovitskiy et al. (2020), "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", section 3.1.
Patches are read row by row, from the top left. The numbers of a patch lie channel by channel, each row by row.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
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
