"""Augmentation: other pictures with the same label, made from a batch at once, on the device where it lies.

The warps of Simard, Steinkraus and Platt (2003), "Best Practices for Convolutional Neural Networks Applied to Visual
Document Analysis": an affine map and a smooth random displacement (elastic distortion). Here the displacement comes
from a coarse grid that is interpolated, instead of a field of noise that is blurred; and strokes also get thicker or
thinner.

Every picture gets its own random numbers, but the whole batch is resampled in one ``grid_sample``. The numbers come
from a generator that the caller passes, so the same seed gives the same pictures on every device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Warp:
    """How far each change may go; the amount is drawn evenly from -x to x. All zeros leave a picture as it is."""

    rotation: float = 15.0  # degrees
    shear: float = 0.3  # how far a vertical stroke may lean: its tangent
    scale: float = 0.2  # of width and height, each on its own
    shift: float = 0.1  # as a share of half the picture
    elastic: float = 0.15  # displacement at the points of the coarse grid, as a share of half the picture
    points: int = 4  # of the coarse grid, along each side
    thickness: float = 0.6  # share of the pictures whose strokes get thicker (one half of them) or thinner


def _within(reach: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random numbers, evenly from -reach to reach."""
    return reach * (2 * torch.rand(shape, generator=generator, device=generator.device) - 1)


def affine_matrices(count: int, warp: Warp, generator: torch.Generator) -> Float[Tensor, "count 2 3"]:
    """One random affine map a picture, as ``affine_grid`` takes it: from places in the new picture to the old one.

    The map is scale * rotation, then shear along the rows, then a shift. Coordinates run from -1 to 1, x first.
    """
    angle = torch.deg2rad(_within(warp.rotation, (count,), generator))
    lean = _within(warp.shear, (count,), generator)
    across, down = 1 + _within(warp.scale, (2, count), generator)
    shift = _within(warp.shift, (count, 2), generator)
    first = torch.stack([angle.cos() * across, lean - angle.sin() * across, shift[:, 0]], dim=1)
    second = torch.stack([angle.sin() * down, angle.cos() * down, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def elastic_field(
    count: int, height: int, width: int, warp: Warp, generator: torch.Generator
) -> Float[Tensor, "count height width 2"]:
    """A smooth random displacement for every pixel: random arrows on a coarse grid, bicubic in between."""
    coarse = _within(warp.elastic, (count, 2, warp.points, warp.points), generator)
    fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return rearrange(fine, "count xy height width -> count height width xy")


def change_thickness(
    images: Float[Tensor, "batch channels height width"], amount: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Strokes thicker by ``amount`` of a pixel all around, or thinner where it is negative; between -1 and 1.

    Bright is ink. The largest value among a pixel's 3 x 3 neighbours spreads the ink, the smallest one wears it away.
    """
    thick = F.max_pool2d(images, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-images, 3, stride=1, padding=1)
    amount = rearrange(amount, "batch -> batch 1 1 1")
    return images + amount.clamp(min=0) * (thick - images) + (-amount).clamp(min=0) * (thin - images)


def augment(
    images: Float[Tensor, "batch channels height width"], warp: Warp, generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Every picture of the batch warped in its own random way; what comes in from outside is 0.

    The random numbers are drawn on the generator's device and the work is done on the images'.
    """
    count, _, height, width = images.shape
    matrices = affine_matrices(count, warp, generator)
    grid = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    if warp.elastic:
        grid = grid + elastic_field(count, height, width, warp, generator).to(images.device)
    if warp.thickness:
        changed = torch.rand(count, generator=generator, device=generator.device) < warp.thickness
        amount = changed * _within(1.0, (count,), generator)
        images = change_thickness(images, amount.to(images.device))
    return F.grid_sample(images, grid.to(images.dtype), align_corners=False)
