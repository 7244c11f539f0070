"""Checkers of lesson word_vectors. Each tries an answer on small cases and names the mistake that it looks like."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed


def context_pairs(answer: Callable[[Sequence[str], int], Sequence[tuple[str, str]]]) -> None:
    """Exercise 1: all (centre, context) pairs of a sentence."""
    sentence, window = ["shall", "i", "compare", "thee", "to", "a"], 2
    wanted = {
        (a, b) for (i, a), (j, b) in itertools.product(enumerate(sentence), repeat=2) if i != j and abs(i - j) <= window
    }
    before = list(sentence)
    found = answer(sentence, window)
    if sentence != before:
        raise CheckFailed("your function changed the sentence itself; work on a copy, or only read it")
    if found is None:
        raise CheckFailed("your function returned None: is the `return` missing?")
    try:
        found = [(str(centre), str(context)) for centre, context in found]
    except (TypeError, ValueError):
        raise CheckFailed(
            f"the answer is a list of pairs, such as [('shall', 'i'), ('shall', 'compare')], but yours is {found!r}"
        ) from None
    if strange := [word for pair in found for word in pair if word not in sentence]:
        raise CheckFailed(f"{strange[0]!r} is no word of the sentence: return pairs of words, not of their places")
    pairs = set(found)
    if any(a == b for a, b in pairs):
        raise CheckFailed("a word is paired with itself: leave out distance 0")
    if pairs == {(b, a) for a, b in wanted if sentence.index(a) > sentence.index(b)}:
        raise CheckFailed("you only look ahead; the words before the centre are its context, too")
    if pairs == {pair for pair in wanted if sentence.index(pair[1]) < sentence.index(pair[0])}:
        raise CheckFailed("you only look back; the words behind the centre are its context, too")
    if (sentence[0], sentence[-1]) in pairs or any((sentence[0], word) in pairs for word in sentence[-2:]):
        raise CheckFailed("a word at the start is paired with one at the end: a negative index wraps around in Python")
    steps = [sentence.index(b) - sentence.index(a) for a, b in pairs]
    for reach, where in ((max(steps, default=0), "ahead"), (-min(steps, default=0), "back")):
        if reach < window:
            raise CheckFailed(
                f"the farthest word you reach {where} is {reach} away, but the window is {window}: range(a, b) begins "
                "with a and stops before b"
            )
        if reach > window:
            raise CheckFailed(f"you reach {reach} words {where}, but the window is {window}")
    if pairs != wanted:
        missing = sorted(wanted - pairs)
        raise CheckFailed(f"{len(missing)} pairs are missing, such as {missing[:1]}")
    if len(found) != len(wanted):
        raise CheckFailed("some pairs come twice")
    if list(answer([], 2)):
        raise CheckFailed("an empty sentence has no pairs")
    passed("all pairs within the window, in both directions, and none with itself")


def nearest(answer: Callable[[Tensor, int, int], Sequence[int]]) -> None:
    """Exercise 2: the rows with the largest cosine, without the query itself."""
    vectors = torch.tensor([[1.0, 0.0], [10.0, 10.0], [2.0, 0.2], [-3.0, 0.0], [0.1, 0.02]])
    kept = vectors.clone()
    found = answer(vectors, 0, 2)
    if found is None:
        raise CheckFailed("your function returned None: is the `return` missing?")
    if not torch.equal(vectors, kept):
        raise CheckFailed(
            "your function changed the vectors in place (`/=`, perhaps): write vectors = vectors / length"
        )
    try:
        found = [int(row) for row in found]
    except (TypeError, ValueError):
        raise CheckFailed(f"the answer is a list of row numbers, such as [2, 4], but yours is {found!r}") from None
    if 0 in found:
        raise CheckFailed("the query is its own nearest neighbour: leave it out")
    if found and found[0] == 1:
        raise CheckFailed("the longest vector came first: that is the dot product. Divide each row by its length")
    if found and found[0] == 3:
        raise CheckFailed("the opposite vector came first: sort from the largest cosine to the smallest")
    if len(found) != 2:
        raise CheckFailed(f"asked for 2 neighbours, you gave {len(found)}")
    if found != [2, 4]:
        raise CheckFailed(f"expected rows [2, 4], nearest first, but got {found}: is the length taken along axis 1?")
    more = torch.randn(9, 4, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 10)[:, None]
    cosine = F.cosine_similarity(more, more[5:6])
    wanted = [row for row in cosine.argsort(descending=True).tolist() if row != 5][:3]
    found = [int(row) for row in answer(more, 5, 3)]
    if found != wanted:
        raise CheckFailed(
            f"right for the first small case, but of 9 other rows {wanted} are nearest to row 5, not {found}"
        )
    passed("nearest by angle, whatever the length, and never the word itself")


def negative_sampling_loss(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 3: the loss of one centre with one true neighbour and some random words."""
    generator = torch.Generator().manual_seed(3)
    centre, true, random = (torch.randn(shape, generator=generator) for shape in ((4,), (4,), (3, 4)))
    wanted = F.softplus(-centre @ true) + F.softplus(random @ centre).sum()
    found = answer(centre, true, random)
    if found is None:
        raise CheckFailed("your function returned None: is the `return` missing?")
    found = torch.as_tensor(found)
    if found.numel() != 1:
        raise CheckFailed(
            f"the loss is one number, but yours has the shape {tuple(found.shape)}: sum over random words"
        )
    value = float(found)

    def close(other: Tensor) -> bool:
        return math.isclose(value, float(other), rel_tol=1e-4)

    if close(-wanted):
        raise CheckFailed("the sign is wrong: a loss is minus the log-probability, so that smaller is better")
    if close(F.softplus(-centre @ true) + F.softplus(-(random @ centre)).sum()):
        raise CheckFailed("random words are treated as true ones: for them it is sigmoid(-score)")
    difference = F.softplus(-centre @ true) - F.softplus(random @ centre).sum()
    if close(difference) or close(-difference):
        raise CheckFailed("the two terms have different signs: both are minus a log-probability, so both are added")
    if close(F.softplus(-centre @ true) + F.softplus(random @ centre).mean()):
        raise CheckFailed("you took the mean over the random words; the paper sums them")
    if close(F.softplus(-centre @ true)):
        raise CheckFailed("only the true neighbour counts so far; add the random words")
    if close(F.softplus(random @ centre).sum()):
        raise CheckFailed("only the random words count so far; add the true neighbour")
    if close(-torch.sigmoid(centre @ true) - torch.sigmoid(-random @ centre).sum()):
        raise CheckFailed("the logarithm is missing: log sigmoid, not sigmoid")
    if not close(wanted):
        raise CheckFailed(f"expected {float(wanted):.4f}, got {value:.4f}")
    far = answer(torch.full((4,), 50.0), torch.full((4,), -50.0), torch.zeros(1, 4))
    if not math.isfinite(float(far)):
        raise CheckFailed(
            "for very different vectors the loss becomes infinite: use F.logsigmoid instead of log(sigmoid)"
        )
    passed("one true neighbour against the random ones, also far from zero")


def positive_pmi(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """Exercise 4: positive pointwise mutual information of a small table of counts."""
    counts = np.array([[6.0, 2.0, 0.0], [1.0, 1.0, 2.0], [0.0, 1.0, 3.0]])
    kept = counts.copy()
    chance = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    with np.errstate(divide="ignore"):
        raw = np.log(counts / chance)
    wanted = np.maximum(raw, 0)
    with np.errstate(all="ignore"):
        found = answer(counts)
    if found is None:
        raise CheckFailed("your function returned None: is the `return` missing?")
    if not np.array_equal(counts, kept):
        raise CheckFailed("your function changed the counts in place")
    found = np.asarray(found)
    if found.shape != wanted.shape:
        raise CheckFailed(f"expected a table of shape {wanted.shape}, got {found.shape}")
    if np.isnan(found).any() or np.isinf(found).any():
        raise CheckFailed("a pair that never meets has log 0: set what is below 0, or infinite, to 0")
    if (found < 0).any():
        raise CheckFailed("some entries are negative: the first P says positive, so what is below 0 becomes 0")
    if np.allclose(found, wanted / math.log(2)):
        raise CheckFailed("that is the logarithm to base 2; this course uses natural logarithms (np.log)")
    if not found.any():
        raise CheckFailed(
            "every entry is 0. Chance is p(word) * p(context): did you divide both totals by the total of the table, "
            "and the count, too?"
        )
    rows, columns = counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore"):
        for both, said in (
            (rows * columns, "the totals are multiplied place by place: keepdims=True makes a column of one of them"),
            (rows[:, None] * rows, "both totals run along the same axis: one is of the rows, the other of the columns"),
            (
                columns[:, None] * columns,
                "both totals run down the columns: one is of the rows, the other of the columns",
            ),
            (rows[:, None] + columns, "the totals are added: two independent words meet by the product"),
        ):
            if np.allclose(found, np.maximum(np.log(counts / both * counts.sum()), 0)):
                raise CheckFailed(said)
    if not np.allclose(found, wanted):
        raise CheckFailed(
            f"row 0 should be {wanted[0].round(3)}, but is {found[0].round(3)}: are the sums over both axes?"
        )
    passed("how much more often than by chance, and never below 0")
