"""Twelve real photographs, from the files inside the package scikit-image, and small tiles cut out of them.

A few large photographs hold thousands of small pictures: squares of several sizes, cut out and made small. They have no
labels, so they are for learning without any. Tiles of one photograph look alike and overlap, so the parts are split by
photograph: `Photographs.split` puts each one into ``train`` or ``test`` as a whole.

Six are in colour, six are grey (red, green and blue are the same). Brick, grass and gravel are textures, ihc is tissue
under a microscope: nothing in these says which side is up.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("photographs",)

COLOUR = ("astronaut", "chelsea", "coffee", "ihc", "motorcycle_left", "rocket")
GREY = ("brick", "camera", "coins", "grass", "gravel", "moon")
HELD_OUT = ("chelsea", "coffee", "coins")  # in test; all others are in train


@dataclass(frozen=True)
class Photographs:
    """Photographs of different sizes with their names; 0 is dark."""

    names: tuple[str, ...]
    pictures: tuple[UInt8[Tensor, "3 _height _width"], ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, names: Sequence[str]) -> "Photographs":
        """These photographs only, in this order. Raises UnknownName for one that is not among them."""
        by_name = dict(zip(self.names, self.pictures, strict=True))
        for name in names:
            if name not in by_name:
                raise base.unknown_name("photograph", name, by_name)
        return Photographs(tuple(names), tuple(by_name[name] for name in names))

    def split(self, part: str) -> "Photographs":
        """The photographs of ``train`` (nine) or of ``test`` (three: a cat, a cup of coffee, coins)."""
        if part not in ("train", "test"):
            raise base.unknown_name("part", part, ("train", "test"))
        return self.select([name for name in self.names if (name in HELD_OUT) == (part == "test")])


@functools.cache
def load() -> Photographs:
    """All twelve photographs, sorted by name."""
    from PIL import Image

    names, pictures = [], []
    for path in source.source("photographs").paths(source.verified("photographs")):
        with Image.open(path) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGB")))
        names.append(path.stem)
        pictures.append(rearrange(pixels, "height width colours -> colours height width").contiguous())
    return Photographs(tuple(names), tuple(pictures))


def _cut(
    picture: UInt8[Tensor, "3 height width"], tile: int, size: int, stride: int
) -> UInt8[Tensor, "tiles 3 {size} {size}"]:
    """All squares of one photograph, row by row, made small in one go."""
    squares = picture.unfold(1, tile, stride).unfold(2, tile, stride)
    squares = rearrange(squares, "colours rows columns y x -> (rows columns) colours y x")
    if tile == size:
        return squares.contiguous()
    small = F.interpolate(squares.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.round().to(torch.uint8)


def tiles(
    names: Sequence[str], tile: int | Sequence[int] = 64, size: int = 32, stride: int | None = None
) -> UInt8[Tensor, "tiles 3 {size} {size}"]:
    """Squares of ``tile`` pixels, one every ``stride`` pixels, made ``size`` pixels wide and high without aliasing.

    Without ``stride``, neighbours overlap by half a tile. Several sizes, such as ``tile=(32, 64, 128)``, show the same
    places from near and from afar. The order: by photograph, then by size, then row by row from the top left; so a
    call for each photograph says which tile is from where. The first call for some sizes works for a second, and the
    result is kept in the cache.

    Raises UnknownName for a name that is none, and CourseError for a tile that would have to be enlarged or that is
    larger than a photograph.
    """
    sides = (tile,) if isinstance(tile, int) else tuple(tile)
    steps = tuple(max(1, side // 2) if stride is None else stride for side in sides)
    if size < 1 or min(sides, default=0) < size or min(steps) < 1:
        raise base.CourseError(
            f"tiles of {sides} pixels, one every {steps}, cannot be made {size} pixels large: every tile must be at "
            "least as large as size, and all numbers at least 1. An example: tile=64, size=32, stride=32."
        )
    chosen = load().select(names)
    if not names:
        raise base.CourseError("no photograph is named, so there are no tiles. An example: names=['chelsea'].")
    for name, picture in zip(chosen.names, chosen.pictures, strict=True):
        if max(sides) > min(picture.shape[1:]):
            raise base.CourseError(
                f"a tile of {max(sides)} pixels does not fit into {name}, which is {picture.shape[2]} pixels wide and "
                f"{picture.shape[1]} high. Use smaller tiles."
            )

    def build() -> dict[str, Tensor]:
        cuts = itertools.product(chosen.pictures, zip(sides, steps, strict=True))
        return {"tiles": torch.cat([_cut(picture, side, size, step) for picture, (side, step) in cuts])}

    key = {
        "sources": source.hashes(*CARD),
        "names": list(names),
        "tiles": sides,
        "size": size,
        "strides": steps,
        "decoded_by": f"pillow {version('pillow')}",
        "version": 1,
    }
    return source.cached("photographs", key, build)["tiles"]
