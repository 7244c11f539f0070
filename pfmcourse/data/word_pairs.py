"""Pairs of words and how similar people find them, from the test data in the package gensim.

- ``wordsim353``: 353 pairs, relatedness from 0 to 10 (Finkelstein et al. 2002, Placing Search in Context).
- ``simlex999``: 999 pairs, similarity in the strict sense from 0 to 10 (Hill, Reichart and Korhonen 2015, SimLex-999).
"""

import functools

from pfmcourse import base
from pfmcourse.data import source

CARD = ("word_pairs",)

FILES = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}


@functools.cache
def load(name: str) -> tuple[tuple[str, str, float], ...]:
    """The pairs of ``name`` as (word, word, mean human score from 0 to 10), in lower case, in the order of the file.

    Raises UnknownName for a set that is not one of `FILES`.
    """
    if name not in FILES:
        raise base.unknown_name("set of word pairs", name, FILES)
    path = source.verified("word_pairs") / "test" / "test_data" / FILES[name]
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return tuple((row[0].lower(), row[1].lower(), float(row[2])) for row in rows if len(row) == 3)
