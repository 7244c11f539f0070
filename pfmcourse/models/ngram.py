"""N-gram models: the language models that neural ones had to beat.

`NGram` has interpolated Kneser-Ney smoothing: Kneser, Ney (1995), "Improved Backing-Off for M-Gram Language Modeling";
in the form of Chen, Goodman (1999), "An Empirical Study of Smoothing Techniques for Language Modeling", equation 24,
with one discount per order. `InterpolatedNGram` is the older and simpler one: Jelinek, Mercer (1980), "Interpolated
Estimation of Markov Source Parameters from Sparse Data", with one weight per order.

They have no weights but these: they count. So they are no ``nn.Module``, and there is nothing to pretrain.
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
            shorter = self.grams[order + 1] % vocab**order
            self.grams[order], self.counts[order] = self._shorter(shorter, self.counts[order + 1])
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

    @staticmethod
    def _shorter(grams: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams of an order and their counts, from those of the order above without their first words.

        Below the top a word counts as often as there are different words before it: "Francisco" is frequent, but only
        behind "San".
        """
        grams, counts = np.unique(grams, return_counts=True)
        return grams, counts.astype(np.float64)

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
        codes = self.grams[order] // self.vocab  # in order, as the n-grams are
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        kinds = np.diff(begins, append=len(codes)).astype(np.float64)
        return codes[begins], np.add.reduceat(self.counts[order], begins), kinds

    @staticmethod
    def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        order = np.argsort(wanted)  # so that one search finds in the cache what the last one read
        place = np.empty(len(wanted), dtype=np.int64)
        place[order] = np.searchsorted(keys, wanted[order]).clip(max=len(keys) - 1)
        return np.where(keys[place] == wanted, values[place], 0.0)


class InterpolatedNGram(NGram):
    """A mean of relative frequencies: p_n = w_n count(n-gram) / count(context) + (1 - w_n) p_(n-1); p_0 = 1 / vocab.

    Behind a context that was never seen, p_n is p_(n-1). The weights w_n are those under which ``held_out``, windows of
    a text that was not counted, is likeliest.
    """

    def __init__(
        self, windows: Int[Tensor, "time order"], vocab: int, held_out: Int[Tensor, "held order"], rounds: int = 20
    ) -> None:
        """Count ``windows``, then find the weights in ``rounds`` rounds of expectation-maximisation."""
        super().__init__(windows, vocab)
        self.weights = dict.fromkeys(range(1, self.order + 1), 0.5)
        frequencies = self._frequencies(held_out.numpy())
        for _ in range(rounds):
            self._improve(frequencies)

    def probabilities(self, windows: Int[Tensor, "time order"]) -> Float[Tensor, " time"]:
        """The probability of each row's last word, given the words before it."""
        return Tensor(self._mixtures(self._frequencies(windows.numpy()))[self.order])

    @staticmethod
    def _shorter(grams: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Plain counts: an n-gram as often as it stands in the text."""
        grams, place = np.unique(grams, return_inverse=True)
        return grams, np.bincount(place, weights=counts)

    def _frequencies(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        """For each order the share of each row's last word behind its context; nan behind one never seen."""
        found = {}
        for order in self.weights:
            codes = self._number(rows[:, -order:])
            contexts, totals, _ = self._contexts[order]
            total = self._look_up(contexts, totals, codes // self.vocab)
            count = self._look_up(self.grams[order], self.counts[order], codes)
            found[order] = np.where(total > 0, count / np.where(total > 0, total, 1), np.nan)
        return found

    def _mixtures(self, frequencies: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """p_n of each row, for each order n from 0."""
        mixed = {0: np.full(len(frequencies[1]), 1 / self.vocab)}
        for order, weight in self.weights.items():
            here = weight * frequencies[order] + (1 - weight) * mixed[order - 1]
            mixed[order] = np.where(np.isnan(here), mixed[order - 1], here)
        return mixed

    def _improve(self, frequencies: dict[int, np.ndarray]) -> None:
        """One round: a weight becomes the share of the words that reached its order and were explained there."""
        mixed = self._mixtures(frequencies)
        reached = np.ones(len(mixed[0]))
        for order in range(self.order, 0, -1):
            share = np.nan_to_num(self.weights[order] * frequencies[order] / mixed[order])
            seen = ~np.isnan(frequencies[order])
            explained, came = (reached * share).sum(), reached[seen].sum()
            reached = reached * (1 - share)
            if came:
                self.weights[order] = float(explained / came)
