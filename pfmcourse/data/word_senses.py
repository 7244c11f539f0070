"""Occurrences of five words with two senses each, in Shakespeare's six held-out plays, and which sense is meant.

Judged by hand for this course; the table is ``data/word_senses.tsv``, in the public domain like the plays. All
occurrences in small letters behind a space are there, but for puns and for senses that are neither of the two.
"""

import functools
import re
from dataclasses import dataclass

from pfmcourse import base

WORDS = ("light", "lie", "kind", "sound", "rest")


@dataclass(frozen=True)
class Occurrence:
    """One word in one place. ``phrase`` stands once in the play's speeches, and the word once in it."""

    word: str
    sense: str
    play: str  # the play's name, as in `shakespeare`
    phrase: str

    def around(self, speech: str) -> tuple[str, str] | None:
        """The text before and after the word in a speech that holds the phrase; None for any other speech."""
        if speech.count(self.phrase) != 1:
            return None
        place = re.search(rf"(?<![\w'-]){self.word}(?![\w'-])", self.phrase)
        begin = speech.index(self.phrase)
        return speech[: begin + place.start()], speech[begin + place.end() :]


@functools.cache
def load(word: str) -> tuple[Occurrence, ...]:
    """All occurrences of a word, in the order of the plays. Raises UnknownName for a word that is not in `WORDS`."""
    if word not in WORDS:
        raise base.unknown_name("word of two senses", word, WORDS)
    path = base.repository() / "data" / "word_senses.tsv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = (line.replace(" / ", "\n").split("\t") for line in lines[1:])
    return tuple(Occurrence(*row) for row in rows if row[0] == word)
