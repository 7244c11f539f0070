"""Temperature, top-k and top-p on distributions small enough to do by hand."""

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.nn.sampling import choose, filtered

CHANCES = [0.4, 0.3, 0.2, 0.1]
LOGITS = torch.tensor([CHANCES]).log()


def kept(**options):
    """The probabilities left of `CHANCES`, as a list."""
    return filtered(LOGITS, **options)[0].tolist()


def approx(*numbers):
    return pytest.approx(list(numbers), abs=1e-6)


def test_without_options_it_is_a_softmax():
    logits = torch.randn(5, 9)
    assert torch.allclose(filtered(logits), logits.softmax(-1), atol=1e-6)
    assert kept() == approx(*CHANCES)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, (1, 0, 0, 0)),
        (2, (4 / 7, 3 / 7, 0, 0)),
        (3, (4 / 9, 3 / 9, 2 / 9, 0)),
        (4, CHANCES),
        (9, CHANCES),
        (0, CHANCES),
    ],
)
def test_top_k(k, expected):
    assert kept(top_k=k) == approx(*expected)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.01, (1, 0, 0, 0)),
        (0.39, (1, 0, 0, 0)),
        (0.41, (4 / 7, 3 / 7, 0, 0)),
        (0.69, (4 / 7, 3 / 7, 0, 0)),
        (0.71, (4 / 9, 3 / 9, 2 / 9, 0)),
        (0.95, CHANCES),
        (1.0, CHANCES),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(p, expected):
    assert kept(top_p=p) == approx(*expected)


def test_top_p_looks_at_what_top_k_has_left():
    assert kept(top_k=3, top_p=0.76) == approx(4 / 7, 3 / 7, 0, 0)  # 4/9 + 3/9 = 0.78 of what is left
    assert kept(top_p=0.76) == approx(4 / 9, 3 / 9, 2 / 9, 0)


def test_ties_at_an_edge_are_kept():
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    for options in ({"top_k": 2}, {"top_p": 0.6}):
        assert filtered(logits, **options)[0].tolist() == approx(0.5, 0.25, 0.25)


def test_temperature_is_a_power_of_the_chances():
    squared = [chance**2 / 0.3 for chance in CHANCES]
    assert kept(temperature=0.5) == approx(*squared)
    roots = [chance**0.5 for chance in CHANCES]
    assert kept(temperature=2.0) == approx(*(root / sum(roots) for root in roots))
    assert kept(temperature=1e-3) == approx(1, 0, 0, 0)
    assert kept(temperature=1e6) == approx(0.25, 0.25, 0.25, 0.25)


def test_temperature_comes_before_top_p():
    assert kept(temperature=0.5, top_p=0.5) == approx(1, 0, 0, 0)  # the first has 0.53 now


def test_rows_are_independent_of_each_other():
    logits = torch.randn(6, 12)
    together = filtered(logits, temperature=0.8, top_k=7, top_p=0.9)
    for row in range(6):
        alone = filtered(logits[row : row + 1], temperature=0.8, top_k=7, top_p=0.9)
        assert torch.equal(together[row : row + 1], alone)
    assert torch.allclose(together.sum(-1), torch.ones(6))
    assert 1 < (together > 0).sum(1).float().mean() < 7.5


def test_half_precision_is_computed_in_full():
    assert filtered(LOGITS.bfloat16(), top_p=0.9).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_k": -1}, "top_k=-1"),
    ],
)
def test_values_that_leave_nothing_to_draw_from(options, words):
    with pytest.raises(CourseError, match=words):
        filtered(LOGITS, **options)


# Drawing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, CHANCES), ({"top_k": 2}, (4 / 7, 3 / 7, 0, 0)), ({"top_p": 0.71}, (4 / 9, 3 / 9, 2 / 9, 0))],
)
def test_tokens_are_as_frequent_as_they_should_be(options, expected):
    draws = 20_000
    tokens = choose(LOGITS.expand(draws, 4), torch.Generator().manual_seed(0), **options)
    counts = tokens.bincount(minlength=4)
    for token, chance in enumerate(expected):
        assert abs(counts[token] / draws - chance) <= 5 * (chance * (1 - chance) / draws) ** 0.5


def test_temperature_0_takes_the_likeliest():
    logits = torch.randn(50, 9)
    assert torch.equal(choose(logits, temperature=0.0), logits.argmax(1))


def test_the_generator_decides():
    logits = torch.zeros(30, 50)
    one, same, other = (choose(logits, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (30,) and one.dtype == torch.int64
