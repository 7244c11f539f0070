"""Kneser-Ney and interpolation against their definitions, written out with dictionaries."""

import itertools
import math
from collections import Counter

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.models.ngram import InterpolatedNGram, NGram


def windows(tokens, order):
    return torch.tensor(tokens).unfold(0, order, 1)


def by_definition(rows, vocab, history, word):
    """Interpolated Kneser-Ney, recursively, from the equation."""
    order = len(history) + 1
    top = rows.shape[1]
    grams = {top: Counter(map(tuple, rows.tolist()))}
    for size in range(top - 1, 0, -1):
        grams[size] = Counter(gram[1:] for gram in grams[size + 1])

    def probability(past, follower):
        size = len(past) + 1
        counts = grams[size]
        once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        below = probability(past[1:], follower) if past else 1 / vocab
        followers = [count for gram, count in counts.items() if gram[:-1] == past]
        if not followers:
            return below
        share = max(counts[(*past, follower)] - discount, 0) + discount * len(followers) * below
        return share / sum(followers)

    assert order == top
    return probability(tuple(history), word)


def test_probabilities_follow_the_definition_and_sum_to_one():
    generator = torch.Generator().manual_seed(0)
    tokens = (torch.rand(400, generator=generator) ** 3 * 9).long().tolist()
    rows = windows(tokens, 3)
    model = NGram(rows, vocab=9)
    for history in ([0, 0], [3, 1], [8, 8], [7, 2]):
        asked = torch.tensor([[*history, word] for word in range(9)])
        found = model.probabilities(asked)
        assert float(found.sum()) == pytest.approx(1, abs=1e-6)
        for word in range(9):
            assert float(found[word]) == pytest.approx(by_definition(rows, 9, history, word), rel=1e-5)


def test_more_context_helps_where_there_is_something_to_learn():
    tokens = [0, 1, 2, 3, 0, 2, 1, 3] * 60
    perplexities = [NGram(windows(tokens, n), 4).perplexity(windows(tokens, n)) for n in (1, 2, 3)]
    assert perplexities[0] == pytest.approx(4, rel=0.01)
    assert perplexities[0] > perplexities[1] > perplexities[2]


def skewed(seed, count=400, vocab=9):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, generator=generator) ** 3 * vocab).long().tolist()


def mixture(rows, weights, vocab, history, word):
    """Interpolated relative frequencies, recursively, from the equation."""
    order = len(history) + 1
    below = mixture(rows, weights, vocab, history[1:], word) if history else 1 / vocab
    first = rows.shape[1] - order  # the n-grams of an order are the ends of the windows
    contexts = Counter(tuple(row[first:-1]) for row in rows.tolist())
    grams = Counter(tuple(row[first:]) for row in rows.tolist())
    if not contexts[tuple(history)]:
        return below
    frequency = grams[(*history, word)] / contexts[tuple(history)]
    return weights[order] * frequency + (1 - weights[order]) * below


def test_interpolated_probabilities_follow_the_definition_and_sum_to_one():
    rows = windows(skewed(0), 3)
    model = InterpolatedNGram(rows, 9, windows(skewed(1), 3), rounds=3)
    assert len(set(model.weights.values())) == 3
    for history in ([0, 0], [3, 1], [8, 8], [7, 2]):
        found = model.probabilities(torch.tensor([[*history, word] for word in range(9)]))
        assert float(found.sum()) == pytest.approx(1, abs=1e-6)
        for word in range(9):
            assert float(found[word]) == pytest.approx(mixture(rows, model.weights, 9, history, word), rel=1e-5)


def test_every_round_makes_the_held_out_text_likelier():
    rows, held_out = windows(skewed(0), 4), windows(skewed(1), 4)
    losses = [math.log(InterpolatedNGram(rows, 9, held_out, rounds=rounds).perplexity(held_out)) for rounds in range(6)]
    assert all(later <= before + 1e-6 for before, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0] - 0.1


def test_the_weights_are_the_best_of_a_grid():
    rows, held_out = windows(skewed(0), 2), windows(skewed(1), 2)
    model = InterpolatedNGram(rows, 9, held_out, rounds=200)
    found = model.perplexity(held_out)
    for first in (0.5, 0.8, 0.9, 0.95, 0.99):
        for second in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
            model.weights = {1: first, 2: second}
            assert found <= model.perplexity(held_out) + 1e-6


def test_too_many_ngrams_to_number_is_an_error():
    with pytest.raises(CourseError, match="lower order"):
        NGram(torch.zeros(2, 6, dtype=torch.long), vocab=100_000)
