"""Each checker passes the solution, and names the mistakes that people make."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import start_here as check

# Exercise 1 ----------------------------------------------------------------------------------------------------------


def rows_of(labels, label):
    return torch.nonzero(labels == label).flatten()


def few(labels, each, generator):
    drawn = []
    for label in labels.unique():
        rows = rows_of(labels, label)
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:each]])
    return torch.cat(drawn)


def with_repeats(labels, each, generator):
    return torch.cat(
        [
            rows_of(labels, label)[torch.randint(int((labels == label).sum()), (each,), generator=generator)]
            for label in labels.unique()
        ]
    )


FEW_MISTAKES = {
    "returned None": lambda labels, each, generator: None,
    "first ones": lambda labels, each, generator: torch.cat([rows_of(labels, x)[:each] for x in labels.unique()]),
    "left to chance": lambda labels, each, generator: torch.randperm(len(labels), generator=generator)[: 3 * each],
    "2 in all": lambda labels, each, generator: torch.randperm(len(labels), generator=generator)[:each],
    "drawn twice": with_repeats,
    "look like labels": lambda labels, each, generator: labels[few(labels, each, generator)],
    "starts anew": lambda labels, each, generator: few(labels, each, torch.Generator().manual_seed(7)),
    "pass the generator on": lambda labels, each, generator: few(labels, each, None),
    "is a 2 written": lambda labels, each, generator: few(labels, 2, generator),
    "a mask": lambda labels, each, generator: labels == 1,
    "floating point": lambda labels, each, generator: few(labels, each, generator).double(),
    "in a column": lambda labels, each, generator: few(labels, each, generator)[:, None],
    "you drew": lambda labels, each, generator: few(labels, each + 1, generator),
}


def test_few_of_each(capsys):
    check.few_of_each(few)
    assert capsys.readouterr().out.startswith("Well done")


@pytest.mark.parametrize("message", FEW_MISTAKES)
def test_few_of_each_names_the_mistake(message):
    with pytest.raises(CheckFailed, match=message):
        check.few_of_each(FEW_MISTAKES[message])


# Exercise 2 ----------------------------------------------------------------------------------------------------------


def means(features, labels):
    return torch.stack([features[labels == label].mean(0) for label in labels.unique()])


def nearest_mean(features, labels, new):
    return labels.unique()[torch.cdist(new, means(features, labels)).argmin(1)]


def by_sums(features, labels, new):
    sums = torch.stack([features[labels == label].sum(0) for label in labels.unique()])
    return labels.unique()[torch.cdist(new, sums).argmin(1)]


MEAN_MISTAKES = {
    "returned None": lambda features, labels, new: None,
    "a place in your list": lambda features, labels, new: torch.cdist(new, means(features, labels)).argmin(1),
    "argmin, not argmax": lambda features, labels, new: labels.unique()[
        torch.cdist(new, means(features, labels)).argmax(1)
    ],
    "nearest single example": lambda features, labels, new: labels[torch.cdist(new, features).argmin(1)],
    "you sum the examples": by_sums,
    "dot product": lambda features, labels, new: labels.unique()[(new @ means(features, labels).T).argmax(1)],
    "got the shape": lambda features, labels, new: torch.cdist(new, means(features, labels)),
    "distances or means": lambda features, labels, new: torch.cdist(new, means(features, labels)).min(1).values,
    "same class": lambda features, labels, new: labels[:1].expand(len(new)),
    "in place": lambda features, labels, new: nearest_mean(features.sub_(1), labels, new),
}


def test_nearest_mean():
    check.nearest_mean(nearest_mean)


@pytest.mark.parametrize("message", MEAN_MISTAKES)
def test_nearest_mean_names_the_mistake(message):
    with pytest.raises(CheckFailed, match=message):
        check.nearest_mean(MEAN_MISTAKES[message])


# Exercise 3 ----------------------------------------------------------------------------------------------------------


def interval(first, second, factor=None, ddof=1, root=True):
    difference = np.array(first) - np.array(second)
    factor = factor or scipy.stats.t.ppf(0.975, len(difference) - 1)
    half = factor * difference.std(ddof=ddof) / (math.sqrt(len(difference)) if root else 1)
    return difference.mean(), difference.mean() - half, difference.mean() + half


def unpaired(first, second):
    a, b = np.array(first), np.array(second)
    half = scipy.stats.t.ppf(0.975, 2 * len(a) - 2) * math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
    return (a - b).mean(), (a - b).mean() - half, (a - b).mean() + half


INTERVAL_MISTAKES = {
    "returned None": lambda a, b: None,
    "three numbers": lambda a, b: interval(a, b)[0],
    "as strangers": unpaired,
    "turned around": lambda a, b: interval(b, a),
    "root of their number": lambda a, b: interval(a, b, root=False),
    "shrinks with its root": lambda a, b: interval(a, b, factor=scipy.stats.t.ppf(0.975, 4) / math.sqrt(5)),
    "that is the variance": lambda a, b: interval(
        a, b, factor=scipy.stats.t.ppf(0.975, 4) * (np.array(a) - np.array(b)).std(ddof=1)
    ),
    "ddof=1": lambda a, b: interval(a, b, ddof=0),
    "too small": lambda a, b: interval(a, b, factor=1.96),
    "standard error alone": lambda a, b: interval(a, b, factor=1.0),
    "5 % on each side": lambda a, b: interval(a, b, factor=scipy.stats.t.ppf(0.95, 4)),
    "degree of freedom": lambda a, b: interval(a, b, factor=scipy.stats.t.ppf(0.975, 5)),
    "lies above": lambda a, b: (interval(a, b)[0], interval(a, b)[2], interval(a, b)[1]),
    "equally far": lambda a, b: (interval(a, b)[0], 0.0, interval(a, b)[2]),
}


def test_paired_interval():
    check.paired_interval(interval)


@pytest.mark.parametrize("message", INTERVAL_MISTAKES)
def test_paired_interval_names_the_mistake(message):
    with pytest.raises(CheckFailed, match=message):
        check.paired_interval(INTERVAL_MISTAKES[message])
