"""Kneser-Ney against its definition, written out with dictionaries."""

from collections import Counter

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.models.ngram import NGram


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


def test_too_many_ngrams_to_number_is_an_error():
    with pytest.raises(CourseError, match="lower order"):
        NGram(torch.zeros(2, 6, dtype=torch.long), vocab=100_000)
