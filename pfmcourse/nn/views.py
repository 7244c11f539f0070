"""Two views of one picture: the augmentation of SimCLR, for a whole batch at once, on the device where it lies.

Chen, Kornblith, Norouzi, Hinton (2020), "A Simple Framework for Contrastive Learning of Visual Representations",
appendix A: a random part of the picture, resized; mirrored; other colours; sometimes grey. Every picture gets its own
random numbers. The parts are cut out by one ``grid_sample``. All changes of colour are linear in the three channels, so
they are multiplied into one matrix of 3 x 4 for each picture, and the pixels are touched once.

Changed: brightness, contrast, saturation and hue always come in this order; values are cut off at 0 and 1 only after
the last of them; hue turns in the YIQ plane, where a turn is a matrix, and not in HSV. No blur: at 32 pixels the paper
uses none either. New, for letters and drawings on white paper: a turn by some degrees, and colours inverted.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """How much views may differ from their picture. `NOTHING` leaves it as it is."""

    smallest: float = 0.2  # share of the picture's area that a view shows at least
    stretch: float = 4 / 3  # largest ratio of its sides
    mirror: float = 0.5  # share of the views that are mirrored
    rotation: float = 0.0  # degrees, to either side
    jitter: float = 0.8  # share of the views with other colours
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1  # of a full turn, to either side
    grey: float = 0.2  # share of the views without colour
    invert: float = 0.0  # share of the views whose colours are inverted


NOTHING = Views(smallest=1.0, stretch=1.0, mirror=0.0, jitter=0.0, grey=0.0)

_LUMA = (0.299, 0.587, 0.114)
_YIQ = torch.tensor([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


def crop_matrices(count: int, views: Views, generator: torch.Generator) -> Float[Tensor, "count 2 3"]:
    """One random part a picture, mirrored or not, as ``affine_grid`` takes it; it lies inside the picture.

    The shares of area are drawn evenly, and each ratio so that both sides fit. With a rotation the corners may lie
    outside, and a picture that is not square is sheared a little.
    """

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    area = views.smallest + (1 - views.smallest) * chance(count)
    reach = torch.clamp(-area.log(), max=math.log(views.stretch))  # further, and a side would be longer than 1
    ratio = torch.exp((2 * chance(count) - 1) * reach)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)  # against rounding
    x, y = ((1 - side) * (2 * chance(count) - 1) for side in (width, height))
    flip = 1 - 2 * (chance(count) < views.mirror).float()
    angle = torch.deg2rad(views.rotation * (2 * chance(count) - 1))
    first = torch.stack([width * flip * angle.cos(), -height * angle.sin(), x], dim=1)
    second = torch.stack([width * flip * angle.sin(), height * angle.cos(), y], dim=1)
    return torch.stack([first, second], dim=1)


def colour_matrices(
    count: int, mean: Float[Tensor, " count"], views: Views, generator: torch.Generator
) -> Float[Tensor, "count 3 4"]:
    """One random change of colours a picture: new RGB = matrix (3 x 3) times RGB plus a vector (the last column).

    ``mean`` is each picture's mean brightness, around which contrast grows or shrinks.
    """

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    def factor(reach: float) -> Tensor:
        return (1 + reach * (2 * chance(count) - 1))[:, None, None]

    where = generator.device
    unit, luma, yiq = torch.eye(3, device=where), torch.tensor([_LUMA], device=where).expand(3, 3), _YIQ.to(where)
    brightness, contrast, saturation = (factor(x) for x in (views.brightness, views.contrast, views.saturation))
    turn = 2 * math.pi * views.hue * (2 * chance(count) - 1)
    hue = unit.repeat(count, 1, 1)
    hue[:, 1, 1] = hue[:, 2, 2] = turn.cos()
    hue[:, 1, 2], hue[:, 2, 1] = -turn.sin(), turn.sin()
    hue = torch.linalg.inv(yiq) @ hue @ yiq
    colours = contrast * brightness * hue @ (saturation * unit + (1 - saturation) * luma)
    offset = ((1 - contrast) * brightness)[:, 0] * mean[:, None].to(brightness)
    matrix = torch.cat([colours, offset.expand(count, 3)[..., None]], dim=2)

    jitter = (chance(count) < views.jitter)[:, None, None]
    matrix = torch.where(jitter, matrix, F.pad(unit, (0, 1)))
    grey = (chance(count) < views.grey)[:, None, None]
    matrix = torch.where(grey, luma @ matrix, matrix)
    invert = (chance(count) < views.invert)[:, None, None]
    return torch.where(invert, F.pad(torch.zeros_like(unit), (0, 1), value=1.0) - matrix, matrix)


def view(
    images: Float[Tensor, "batch 3 height width"], views: Views, generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """One random view of every picture, all of them in one go; values stay between 0 and 1.

    What lies outside of the picture, which a rotation can show, repeats its border. The random numbers are drawn on
    the generator's device, the work is done on the images'.
    """
    where, count = images.device, len(images)
    grid = F.affine_grid(crop_matrices(count, views, generator).to(where), list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
    mean = seen.mean((2, 3)) @ torch.tensor(_LUMA, device=where, dtype=images.dtype)
    matrix = colour_matrices(count, mean, views, generator).to(images)
    return torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], seen.flatten(2)).clamp(0, 1).view_as(seen)
