"""Checkers of lesson start_here. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed

NOTHING = "your function returned None: is the `return` missing?"


def few_of_each(answer: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
    """Exercise 1: row numbers of a few random examples of every class."""
    labels = torch.tensor([3, 0, 1, 1, 3, 0, 0, 3, 1, 3, 0, 1] * 4)
    kept = labels.clone()

    def ask(seed: int, each: int = 2) -> Tensor:
        found = answer(labels, each, torch.Generator().manual_seed(seed))
        if found is None:
            raise CheckFailed(NOTHING)
        found = torch.as_tensor(found)
        if found.ndim == 2 and found.shape[1] == 1:
            raise CheckFailed("your row numbers stand in a column, as torch.nonzero gives them: flatten() it")
        return found.flatten()

    rows = ask(0)
    if not torch.equal(labels, kept):
        raise CheckFailed("your function changed the labels themselves; only read them")
    if rows.dtype == torch.bool:
        raise CheckFailed(
            "that is a mask of true and false; return row numbers, as torch.nonzero(mask).flatten() gives"
        )
    if rows.is_floating_point():
        raise CheckFailed("row numbers are whole numbers, but yours are floating point")
    drawn = [ask(seed) for seed in range(20)]
    if all(set(one.tolist()) <= set(labels.tolist()) for one in drawn):
        raise CheckFailed("these look like labels; return the row numbers where they stand")
    if any(int(one.min()) < 0 or int(one.max()) >= len(labels) for one in drawn):
        raise CheckFailed(f"there are {len(labels)} examples, so row numbers go from 0 to {len(labels) - 1}")
    classes = labels.unique()
    counts = [[int((labels[one] == label).sum()) for label in classes] for one in drawn]
    if any(len(one) == 2 and len(classes) != 2 for one in drawn):
        raise CheckFailed(f"you drew 2 in all; asked for were 2 of each of the {len(classes)} classes")
    if any(count != [2] * len(classes) for count in counts):
        if len({len(one) for one in drawn}) == 1 and len({tuple(count) for count in counts}) > 1:
            raise CheckFailed(
                "the number of each class is left to chance: draw class by class, not from all rows at once"
            )
        seen = dict(zip(classes.tolist(), counts[0], strict=True))
        raise CheckFailed(f"asked for 2 of each class, but you drew {seen} (class: how many)")
    if any(len(one.unique()) < len(one) for one in drawn):
        raise CheckFailed("one example was drawn twice: use torch.randperm, which never repeats, not torch.randint")
    if all(torch.equal(one.sort().values, drawn[0].sort().values) for one in drawn):
        first = torch.cat([torch.nonzero(labels == label).flatten()[:2] for label in classes])
        if torch.equal(drawn[0].sort().values, first.sort().values):
            raise CheckFailed("you always take the first ones of a class; shuffle its rows before you cut")
        raise CheckFailed("every seed gives the same draw: a generator made inside the function always starts anew")
    again = [torch.equal(ask(seed), one) for seed, one in enumerate(drawn)]
    if not all(again):
        raise CheckFailed(
            "the same seed gives different draws: pass the generator on, torch.randperm(n, generator=generator)"
        )
    if len(ask(0, each=3)) != 3 * len(classes):
        raise CheckFailed("with `each=3` you still draw another number: is a 2 written into the function?")
    passed("the same number of each class, no example twice, another draw for another seed")


def nearest_mean(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 2: classify by the nearest class mean."""
    # Class 7: two examples that lie apart; class 2: one in between, and a far one; the means are (0, 2) and (6, 0).
    features = torch.tensor([[-1.0, 0.0], [1.0, 4.0], [3.0, 0.0], [9.0, 0.0]])
    labels = torch.tensor([7, 7, 2, 2])
    new = torch.tensor([[2.5, 0.5], [0.0, 2.0], [6.0, 0.0], [4.0, 0.0], [0.5, 5.0], [30.0, 1.0], [2.0, 3.0]])
    wanted = [7, 7, 2, 2, 7, 2, 7]
    kept = features.clone(), new.clone()
    found = answer(features, labels, new)
    if found is None:
        raise CheckFailed(NOTHING)
    if not (torch.equal(features, kept[0]) and torch.equal(new, kept[1])):
        raise CheckFailed("your function changed the features in place; work on a copy")
    found = torch.as_tensor(found)
    if found.shape != (len(new),):
        raise CheckFailed(
            f"expected one class for each of the {len(new)} new examples, got the shape {tuple(found.shape)}"
        )
    guesses = [int(one) for one in found.tolist()]
    if found.is_floating_point() and guesses != found.tolist():
        raise CheckFailed("these are distances or means, not classes: take the argmin over the classes")

    classes = labels.unique()
    means = torch.stack([features[labels == label].mean(0) for label in classes])
    distance = torch.cdist(new, means)
    if guesses == distance.argmin(1).tolist():
        raise CheckFailed("you return a place in your list of classes; look up which label stands there")
    if guesses in (classes[distance.argmax(1)].tolist(), distance.argmax(1).tolist()):
        raise CheckFailed("you take the farthest mean: argmin, not argmax, of the distances")
    one = labels[torch.cdist(new, features).argmin(1)].tolist()
    if guesses == one:
        raise CheckFailed("that is the nearest single example; take the mean of each class first")
    sums = torch.stack([features[labels == label].sum(0) for label in classes])
    if guesses == classes[torch.cdist(new, sums).argmin(1)].tolist():
        raise CheckFailed("you sum the examples of a class; divide by how many there are")
    if guesses == classes[(new @ means.T).argmax(1)].tolist():
        raise CheckFailed("that is the largest dot product, which favours long means; compare distances")
    if len(set(guesses)) == 1:
        raise CheckFailed(
            "every new example gets the same class: is the mean taken over all rows instead of over a class's?"
        )
    if guesses != wanted:
        raise CheckFailed(f"expected {wanted}, got {guesses}: is the distance taken along the features, axis 1?")
    passed("one mean a class, and the nearest one decides")


def paired_interval(answer: Callable[[Sequence[float], Sequence[float]], Any]) -> None:
    """Exercise 3: mean and 95 % interval of the paired difference."""
    first, second = [0.80, 0.91, 0.74, 0.86, 0.88], [0.75, 0.84, 0.70, 0.81, 0.80]
    a, b = np.array(first), np.array(second)
    count = len(a)
    difference = a - b
    mean, spread = difference.mean(), difference.std(ddof=1)
    t = scipy.stats.t.ppf(0.975, count - 1)
    found = answer(list(first), list(second))
    if found is None:
        raise CheckFailed(NOTHING)
    try:
        middle, low, high = (float(value) for value in found)
    except (TypeError, ValueError):
        raise CheckFailed("return three numbers: the mean, the lower and the upper end") from None

    def close(value: float, other: float) -> bool:
        return math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-9)

    if not all(map(math.isfinite, (middle, low, high))):
        raise CheckFailed("one of the numbers is nan or infinite")
    if close(middle, -mean):
        raise CheckFailed("the sign is turned around: first minus second")
    if not close(middle, mean):
        raise CheckFailed(f"the mean of the differences is {mean:.4f}, but you have {middle:.4f}")
    if low > high:
        raise CheckFailed("the lower end lies above the upper one")
    if not close(middle - low, high - middle):
        raise CheckFailed("the interval should reach equally far to both sides of the mean")
    half = (high - low) / 2
    unpaired = math.sqrt(a.var(ddof=1) / count + b.var(ddof=1) / count)
    if any(close(half, factor * unpaired) for factor in (t, scipy.stats.t.ppf(0.975, 2 * count - 2), 1.96, 2)):
        raise CheckFailed(
            "you treat the two as strangers. Subtract first, draw by draw: the luck of the draw is in both and cancels"
        )
    if any(close(half, factor * spread) for factor in (t, 1.96, 2, 1)):
        raise CheckFailed(
            "that is the spread of single differences; a mean is steadier: divide by the root of their number"
        )
    if close(half, t * spread / count):
        raise CheckFailed("you divide by the number of draws; the spread of a mean shrinks with its root, math.sqrt(n)")
    if close(half, t * spread**2 / math.sqrt(count)):
        raise CheckFailed("that is the variance of the differences; the interval needs its root, the deviation")
    if close(half, t * difference.std(ddof=0) / math.sqrt(count)):
        raise CheckFailed("the spread of a sample divides by n - 1: ddof=1 in NumPy; torch.std does so by itself")
    if any(close(half, factor * spread / math.sqrt(count)) for factor in (1.96, scipy.stats.norm.ppf(0.975), 2)):
        raise CheckFailed(
            f"with {count} draws 1.96 is too small; Student's t says {t:.3f}: scipy.stats.t.ppf(0.975, n - 1)"
        )
    if close(half, scipy.stats.t.ppf(0.95, count - 1) * spread / math.sqrt(count)):
        raise CheckFailed("ppf(0.95) leaves 5 % on each side; for 95 % in the middle take ppf(0.975)")
    if close(half, scipy.stats.t.ppf(0.975, count) * spread / math.sqrt(count)):
        raise CheckFailed("one degree of freedom went into the mean: n - 1 of them are left")
    if close(half, spread / math.sqrt(count)):
        raise CheckFailed("that is the standard error alone; times Student's t it becomes a 95 % interval")
    if not close(half, t * spread / math.sqrt(count)):
        raise CheckFailed(f"the half width should be {t * spread / math.sqrt(count):.5f}, but is {half:.5f}")
    passed("subtract first, then ask how sure the mean is")
