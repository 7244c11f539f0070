"""The block against its two formulas, and what sines and cosines know of distance."""

import math

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.nn.attention import KeyValueCache, MultiHeadAttention, causal_mask
from pfmcourse.nn.transformer import (
    ACTIVATIONS,
    Block,
    FeedForward,
    even_sinusoids,
    look_at_neighbours,
    single,
    sinusoids,
)

DIM, HEADS, HIDDEN = 6, 2, 10


def block(**options):
    found = Block(DIM, HEADS, HIDDEN, epsilon=1e-3, **options).double()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return found


@pytest.fixture
def x():
    return torch.randn(2, 4, DIM, dtype=torch.float64)


def normed(norm, x):
    """(x - mean) / sqrt(variance + epsilon), scaled and shifted."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight + norm.bias


def test_norms_in_front(x):
    layer, mask = block(activation="relu"), causal_mask(4, 4)
    middle = x + layer.attention(normed(layer.attention_norm, x), mask=mask)
    read = normed(layer.feed_forward_norm, middle)
    hidden = (read @ layer.feed_forward.up.weight.T + layer.feed_forward.up.bias).clamp(min=0)
    expected = middle + hidden @ layer.feed_forward.down.weight.T + layer.feed_forward.down.bias
    assert (layer(x, mask) - expected).abs().max() < 1e-12


def test_norms_behind(x):
    layer, mask = block(activation="relu", norm_first=False), causal_mask(4, 4)
    middle = normed(layer.attention_norm, x + layer.attention(x, mask=mask))
    hidden = (middle @ layer.feed_forward.up.weight.T + layer.feed_forward.up.bias).clamp(min=0)
    added = middle + hidden @ layer.feed_forward.down.weight.T + layer.feed_forward.down.bias
    assert (layer(x, mask) - normed(layer.feed_forward_norm, added)).abs().max() < 1e-12


@pytest.mark.parametrize("norm_first", [True, False])
def test_attention_to_another_sequence_stands_between(x, norm_first):
    layer = block(cross=True, norm_first=norm_first)
    context = torch.randn(2, 5, DIM, dtype=torch.float64)
    context_mask = (torch.arange(5) < torch.tensor([[3], [5]]))[:, None, None]

    def step(x, norm, part):
        return x + part(norm(x)) if norm_first else norm(x + part(x))

    expected = step(x, layer.attention_norm, layer.attention)
    expected = step(expected, layer.cross_norm, lambda y: layer.cross(y, context, mask=context_mask))
    expected = step(expected, layer.feed_forward_norm, layer.feed_forward)
    assert (layer(x, context=context, context_mask=context_mask) - expected).abs().max() < 1e-12
    without = step(step(x, layer.attention_norm, layer.attention), layer.feed_forward_norm, layer.feed_forward)
    assert (layer(x) - without).abs().max() < 1e-12


def test_one_with_norms_in_front_is_the_identity_where_its_parts_give_nothing(x):
    layer = block()
    for linear in (layer.attention.output, layer.feed_forward.down):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    assert torch.equal(layer(x), x)


def test_a_cache_reaches_the_attention(x):
    layer, cache = block(), KeyValueCache(longest=4)
    steps = [layer(x[:, i : i + 1], causal_mask(1, i + 1), cache=cache) for i in range(4)]
    assert (torch.cat(steps, 1) - layer(x, causal_mask(4, 4))).abs().max() < 1e-12


def test_dropout_acts_on_what_is_added_and_only_in_training(x):
    layer = block(dropout=0.5)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    all_dropped = block(dropout=1.0)
    assert torch.equal(all_dropped(x), x)


def test_hidden_is_four_times_the_width_by_default():
    assert Block(DIM, HEADS).feed_forward.up.out_features == 4 * DIM


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("gelu", lambda x: x / 2 * (1 + torch.erf(x / math.sqrt(2)))),
        ("gelu_quick", lambda x: x / (1 + torch.exp(-1.702 * x))),
        ("gelu_tanh", lambda x: x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activations(name, formula):
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    assert (ACTIVATIONS[name](x) - formula(x)).abs().max() < 1e-12
    layer = FeedForward(1, 1, name).double()
    for linear in (layer.up, layer.down):
        torch.nn.init.ones_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    assert (layer(x[:, None])[:, 0] - formula(x)).abs().max() < 1e-12


# Positions -----------------------------------------------------------------------------------------------------------


def test_sinusoids_are_the_papers_but_for_the_order():
    length, dim = 50, 16
    table = sinusoids(length, dim)
    for position in (0, 1, 7, 49):
        for i in range(dim // 2):
            angle = position / 10_000 ** (2 * i / dim)
            assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, dim // 2 + i] == pytest.approx(math.cos(angle), abs=1e-5)


def test_even_sinusoids_have_evenly_many_fast_and_slow_waves():
    table = even_sinusoids(20, 8)
    for i, turns in enumerate((1 / 16, 3 / 16, 5 / 16, 7 / 16)):  # of a full turn, from one place to the next
        for position in range(20):
            assert table[position, i] == pytest.approx(math.sin(2 * math.pi * turns * position), abs=1e-4)
            assert table[position, 4 + i] == pytest.approx(math.cos(2 * math.pi * turns * position), abs=1e-4)


@pytest.mark.parametrize("waves", [sinusoids, even_sinusoids])
def test_their_product_knows_only_the_distance(waves):
    products = waves(40, 32) @ waves(40, 32).T
    for distance in range(-39, 40):
        diagonal = products.diagonal(distance)
        assert diagonal.max() - diagonal.min() < 1e-4
    assert products.diagonal().min() > products.diagonal(1).max() + 0.1, "nobody is as near as oneself"


def test_even_waves_tell_neighbours_apart():
    """One place away is as good as unrelated, where the slow waves of the paper see little difference."""
    slow, even = (waves(40, 32)[20] @ waves(40, 32)[21] / 16 for waves in (sinusoids, even_sinusoids))
    assert abs(even) < 0.1 and slow > 0.9


@pytest.mark.parametrize("offsets", [(-1, 1, -2, 2), (0, 3, -4, 1)])
def test_heads_begin_by_looking_at_neighbours(offsets):
    layer, positions = MultiHeadAttention(64, 4), even_sinusoids(30, 64)
    before = layer.project.weight.detach().clone()
    look_at_neighbours(layer, offsets)
    weights = layer.weights(positions[None])[0]
    for head, offset in enumerate(offsets):
        for place in range(5, 25):
            assert weights[head, place].argmax() == place + offset
    queries_keys, values = layer.project.weight.split([128, 64])
    assert torch.equal(values, before[128:]) and (queries_keys != before[:128]).all()
    assert layer.project.weight.requires_grad and layer.project.weight.grad is None


@pytest.mark.parametrize(("dim", "offsets"), [(64, (-1, 1)), (12, (-1, 1, 2, 3))])
def test_offsets_must_fit_the_heads(dim, offsets):
    with pytest.raises(CourseError, match="want as many offsets and an even size"):
        look_at_neighbours(MultiHeadAttention(dim, 4), offsets)


def test_a_loss_is_at_least_in_single_precision():
    for given, wanted in (("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64",) * 2):
        x = torch.randn(3).to(getattr(torch, given))
        assert single(x).dtype == getattr(torch, wanted) and torch.equal(single(x).to(x.dtype), x)
