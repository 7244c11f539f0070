"""Printed letters of seven scripts, drawn from the sixteen text fonts that come inside matplotlib.

Labels that cost nothing: a font file knows which letter each of its shapes is. The letters are Latin, Greek, Cyrillic,
Armenian, Georgian, Hebrew and Arabic. There is no digit among them, so that digits can be a new task for whatever has
learned letters. (Some letters look like digits all the same: O, l, the Cyrillic З and б.)

A picture is laid out as MNIST lays out its digits (LeCun et al. 1998, section III-A): the letter fills a box of 20
pixels, its centre of mass lies in the middle of 28 x 28. So a letter's size carries no information, and "o" and "O"
differ little.
"""

import functools
import string
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("glyphs",)

SIZE = 28  # of a picture
BOX = 20  # that the letter fills
DRAWN_AT = 96  # pixels an em, before it is made small

SCRIPTS = {
    "Latin": string.ascii_letters,
    "Greek": "".join(map(chr, range(0x391, 0x3CA))),
    "Cyrillic": "".join(map(chr, range(0x410, 0x450))),
    "Armenian": "".join(map(chr, (*range(0x531, 0x557), *range(0x561, 0x587)))),
    "Georgian": "".join(map(chr, range(0x10D0, 0x10F7))),
    "Hebrew": "".join(map(chr, range(0x5D0, 0x5EB))),
    "Arabic": "".join(map(chr, (*range(0x621, 0x63B), *range(0x641, 0x64B)))),
}
REFERENCE = "DejaVuSans"  # the font that has every letter and decides which letters are one shape
HELD_OUT = ("DejaVuSerif-Italic", "STIXGeneralBol")  # fonts that a model may be tested on


@dataclass(frozen=True)
class Glyphs:
    """Grey pictures, 0 for paper to 255 for ink, with the letter and the font of each one.

    Letters that are one shape in DejaVu Sans, such as the Latin A, the Greek Α and the Cyrillic А, are one class, named
    after the first of them.
    """

    images: UInt8[Tensor, "glyphs 28 28"]
    labels: Int64[Tensor, " glyphs"]  # which of `letters`
    font: Int64[Tensor, " glyphs"]  # which of `fonts`
    letters: tuple[str, ...]
    scripts: tuple[str, ...]  # of each of `letters`
    fonts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Int64[Tensor, " chosen"]) -> "Glyphs":
        """Only these pictures; classes and fonts keep their numbers."""
        chosen = self.images[rows], self.labels[rows], self.font[rows]
        return Glyphs(*chosen, self.letters, self.scripts, self.fonts)

    def written_in(self, *scripts: str) -> "Glyphs":
        """Only the letters of these scripts. Raises UnknownName for a script that is not one of `SCRIPTS`."""
        for script in scripts:
            if script not in SCRIPTS:
                raise base.unknown_name("script", script, SCRIPTS)
        wanted = torch.tensor([script in scripts for script in self.scripts])
        return self.select(torch.nonzero(wanted[self.labels]).flatten())

    def split(self, part: str) -> "Glyphs":
        """The pictures of ``train`` (fourteen fonts) or of ``test`` (two others: an italic one and a bold one)."""
        if part not in ("train", "test"):
            raise base.unknown_name("part", part, ("train", "test"))
        held = torch.tensor([name in HELD_OUT for name in self.fonts])[self.font]
        return self.select(torch.nonzero(held if part == "test" else ~held).flatten())


def centred(picture: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "28 28"]:
    """One letter, cut out closely or not, in MNIST's layout: 20 pixels long, its centre of mass in the middle."""
    from PIL import Image

    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    cut = Image.fromarray(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = BOX / max(cut.size)
    width, height = (max(1, round(side * scale)) for side in cut.size)
    small = np.asarray(cut.resize((width, height), Image.Resampling.LANCZOS))
    ink = small.astype(np.float64)
    centre = [float((ink.sum(1 - axis) * np.arange(side)).sum() / ink.sum()) for axis, side in enumerate(small.shape)]
    middle = (SIZE - 1) / 2
    top, left = (int(np.clip(round(middle - at), 0, SIZE - side)) for at, side in zip(centre, small.shape, strict=True))
    page = np.zeros((SIZE, SIZE), dtype=np.uint8)
    page[top : top + height, left : left + width] = small
    return page


def _draw() -> dict[str, Tensor]:
    """Every letter in every font that has it: the pictures, and for each the number of its letter and of its font."""
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageDraw, ImageFont

    letters = "".join(SCRIPTS.values())
    images, letter, font = [], [], []
    for number, path in enumerate(source.source("glyphs").paths(source.verified("glyphs"))):
        known = set(FT2Font(str(path)).get_charmap())
        face = ImageFont.truetype(str(path), DRAWN_AT, layout_engine=ImageFont.Layout.BASIC)
        for place, character in enumerate(letters):
            if ord(character) not in known:
                continue
            canvas = Image.new("L", (3 * DRAWN_AT, 3 * DRAWN_AT))
            ImageDraw.Draw(canvas).text((DRAWN_AT, DRAWN_AT // 2), character, fill=255, font=face)
            pixels = np.asarray(canvas)
            if pixels.any():
                images.append(centred(pixels))
                letter.append(place)
                font.append(number)
    return {
        "images": torch.from_numpy(np.stack(images)),
        "letter": torch.tensor(letter),
        "font": torch.tensor(font),
    }


@functools.cache
def load() -> Glyphs:
    """All letters in all fonts that have them: some 4,400 pictures in some 310 classes.

    The first call draws for two seconds and keeps the pictures in the cache.
    """
    characters = "".join(SCRIPTS.values())
    sizes = {"size": SIZE, "box": BOX, "drawn_at": DRAWN_AT, "drawn_by": f"pillow {version('pillow')}"}
    key = {"sources": source.hashes(*CARD), "letters": characters, **sizes, "version": 1}
    drawn = source.cached("glyphs", key, _draw)
    images, letter, font = drawn["images"], drawn["letter"], drawn["font"]
    script = [name for name, members in SCRIPTS.items() for _ in members]
    fonts = tuple(path.stem for path in source.source("glyphs").paths(source.verified("glyphs")))

    shapes: dict[bytes, int] = {}  # what a class looks like in the reference font -> its number
    number: dict[int, int] = {}  # letter -> class
    first: list[int] = []  # class -> the letter that names it
    for row in torch.nonzero(font == fonts.index(REFERENCE)).flatten().tolist():
        place, shape = int(letter[row]), images[row].numpy().tobytes()
        if shape not in shapes:
            shapes[shape] = len(shapes)
            first.append(place)
        number[place] = shapes[shape]
    keep = torch.tensor([row for row, place in enumerate(letter.tolist()) if place in number])
    return Glyphs(
        images=images[keep],
        labels=torch.tensor([number[place] for place in letter[keep].tolist()]),
        font=font[keep],
        letters=tuple(characters[place] for place in first),
        scripts=tuple(script[place] for place in first),
        fonts=fonts,
    )
