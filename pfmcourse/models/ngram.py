"""The n-gram model with interpolated Kneser-Ney smoothing: the language model that neural ones had to beat.

Kneser, Ney (1995), "Improved Backing-Off for M-Gram Language Modeling"; in the interpolated form of Chen, Goodman
(1999), "An Empirical Study of Smoothing Techniques for Language Modeling", equation 24, with one discount per order.

It has no weights: it counts. So it is no ``nn.Module``, and there is nothing to pretrain.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pfmcourse.base import CourseError


class NGram:
    """p(word | the ``order - 1`` words before it), from counts."""

    def __init__(self, windows: Int[Tensor, "time order"], vocab: int) -> None:
        """Count ``windows``: each row is ``order - 1`` words and the word that follows them.

        Raises CourseError where ``vocab ** order`` does not fit into 63 bits, by which n-grams are numbered.
        """
        self.vocab, self.order = vocab, windows.shape[1]
        if self.order * math.log2(vocab) > 62:
            raise CourseError(f"{self.order}-grams of {vocab} words are too many to number: take a lower order.")
        full = windows.numpy()
        grams, counts = np.unique(self._number(full), return_counts=True)
        self.grams, self.counts = {self.order: grams}, {self.order: counts.astype(np.float64)}
        for order in range(self.order - 1, 0, -1):
            # Below the top a word counts as often as there are different words before it: "Francisco" is frequent,
            # but only behind "San".
            shorter = self.grams[order + 1] % vocab**order
            self.grams[order], counts = np.unique(shorter, return_counts=True)
            self.counts[order] = counts.astype(np.float64)
        self._discounts = {order: self._discount(self.counts[order]) for order in self.grams}
        self._contexts = {order: self._context_sums(order) for order in self.grams}

    def probabilities(self, windows: Int[Tensor, "time order"]) -> Float[Tensor, " time"]:
        """The probability of each row's last word, given the words before it."""
        full = windows.numpy()
        probability = np.full(len(full), 1 / self.vocab)
        for order in range(1, self.order + 1):
            codes = self._number(full[:, -order:])
            count = self._look_up(self.grams[order], self.counts[order], codes)
            contexts, totals, kinds = self._contexts[order]
            total = self._look_up(contexts, totals, codes // self.vocab)
            different = self._look_up(contexts, kinds, codes // self.vocab)
            discount, seen = self._discounts[order], total > 0
            here = np.maximum(count - discount, 0) + discount * different * probability
            probability = np.where(seen, here / np.where(seen, total, 1), probability)
        return Tensor(probability)

    def perplexity(self, windows: Int[Tensor, "time order"]) -> float:
        """exp of the mean negative log-probability per word."""
        return math.exp(-float(self.probabilities(windows).double().log().mean()))

    def _number(self, rows: np.ndarray) -> np.ndarray:
        """One number per row, as digits of a number in base ``vocab``."""
        number = np.zeros(len(rows), dtype=np.int64)
        for column in rows.T:
            number = number * self.vocab + column
        return number

    @staticmethod
    def _discount(counts: np.ndarray) -> float:
        """Ney's estimate n1 / (n1 + 2 n2) from the numbers of n-grams that were seen once and twice."""
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        return float(once / (once + 2 * twice)) if once else 0.5

    def _context_sums(self, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every context of this order, how often it was seen, and how many different words followed it."""
        contexts, place, kinds = np.unique(self.grams[order] // self.vocab, return_inverse=True, return_counts=True)
        return contexts, np.bincount(place, weights=self.counts[order]), kinds.astype(np.float64)

    @staticmethod
    def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[place] == wanted, values[place], 0.0)
