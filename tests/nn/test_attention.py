"""Attention against equation 1 written as loops, and what masks, causality and a cache promise."""

import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.nn.attention import KeyValueCache, MultiHeadAttention, attention, attention_weights, causal_mask

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 3, 4, 5, 6


@pytest.fixture
def parts():
    """Queries, keys and values, in float64."""
    return [torch.randn(BATCH, HEADS, length, DIM, dtype=torch.float64) for length in (QUERIES, KEYS, KEYS)]


def masks():
    """One that fits each axis in full, one for padding, one for the future; none leaves a query without a key."""
    full = torch.rand(BATCH, HEADS, QUERIES, KEYS) < 0.5
    full[..., 0] = True
    padding = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])[:, None, None]
    return {"none": None, "full": full, "padding": padding, "causal": causal_mask(QUERIES, KEYS)}


def naive(queries, keys, values, mask):
    """softmax(Q K^T / sqrt(dim)) V, one number after the other, over the keys that a query may look at."""
    shape = (*queries.shape[:-1], keys.shape[-2])
    allowed = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    weights, mixed = torch.zeros(shape, dtype=queries.dtype), torch.zeros_like(queries)
    for b in range(BATCH):
        for h in range(HEADS):
            for q in range(queries.shape[-2]):
                seen = [k for k in range(keys.shape[-2]) if allowed[b, h, q, k]]
                scores = [math.exp(float(queries[b, h, q] @ keys[b, h, k]) / math.sqrt(DIM)) for k in seen]
                for k, score in zip(seen, scores, strict=True):
                    weights[b, h, q, k] = score / sum(scores)
                    mixed[b, h, q] += weights[b, h, q, k] * values[b, h, k]
    return weights, mixed


@pytest.mark.parametrize("kind", masks())
def test_it_is_what_a_naive_loop_finds(parts, kind):
    queries, keys, values = parts
    mask = masks()[kind]
    weights, mixed = naive(queries, keys, values, mask)
    assert (attention_weights(queries, keys, mask) - weights).abs().max() < 1e-12
    assert (attention(queries, keys, values, mask) - mixed).abs().max() < 1e-12


@pytest.mark.parametrize("kind", masks())
def test_torchs_own_kernel_agrees(parts, kind):
    """On a GPU that kernel is used; it gives the same and has the same gradient."""
    mask, direction = masks()[kind], torch.randn(BATCH, HEADS, QUERIES, DIM, dtype=torch.float64)
    gradients = []
    for function in (attention, F.scaled_dot_product_attention):
        inputs = [part.clone().requires_grad_() for part in parts]
        mixed = function(*inputs, mask)
        gradients.append([mixed, *torch.autograd.grad((mixed * direction).sum(), inputs)])
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() < 1e-12
        assert ours.abs().max() > 0.1


def test_what_is_hidden_has_no_weight_and_no_influence(parts):
    queries, keys, values = parts
    mask = masks()["padding"]
    weights = attention_weights(queries, keys, mask)
    assert (weights[0, :, :, 3:] == 0).all() and (weights[1] > 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))
    before = attention(queries, keys, values, mask)
    keys[0, :, 3:], values[0, :, 3:] = 50.0, -70.0
    assert torch.equal(attention(queries, keys, values, mask), before)
    assert not torch.equal(attention(queries, keys, values), before)


def test_a_query_that_may_look_nowhere_spreads_its_weight(parts):
    queries, keys, _ = parts
    mask = torch.zeros(QUERIES, KEYS, dtype=torch.bool)
    assert torch.allclose(attention_weights(queries, keys, mask), torch.full((), 1 / KEYS, dtype=torch.float64))


def test_weights_keep_their_type_under_autocast(parts):
    queries, keys, values = (part.float() for part in parts)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_weights(queries.bfloat16(), keys.bfloat16()).dtype == torch.bfloat16
        mixed = attention(queries, keys, values)
    assert (mixed.float() - attention(queries, keys, values)).abs().max() < 0.05


def test_a_causal_mask_hides_the_future():
    assert causal_mask(3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]], "the last query stands at the last key"
    assert causal_mask(1, 3).all()


# Several heads -------------------------------------------------------------------------------------------------------


@pytest.fixture
def layer():
    layer = MultiHeadAttention(dim=DIM * HEADS, heads=HEADS).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.fixture
def x():
    return torch.randn(BATCH, KEYS, DIM * HEADS, dtype=torch.float64)


def by_hand(layer, x, context, mask=None):
    """Head by head: the rows of ``project`` are queries, keys, values, and within each head after head."""
    dim = x.shape[-1]
    weights, biases = layer.project.weight.split(dim), layer.project.bias.split(dim)
    heads = []
    for head in range(HEADS):
        rows = slice(head * DIM, (head + 1) * DIM)
        queries, keys, values = (
            source @ weight[rows].T + bias[rows]
            for source, weight, bias in zip((x, context, context), weights, biases, strict=True)
        )
        scores = queries @ keys.transpose(1, 2) / math.sqrt(DIM)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        heads.append(scores.softmax(-1) @ values)
    return torch.cat(heads, -1) @ layer.output.weight.T + layer.output.bias


def test_heads_are_side_by_side(layer, x):
    assert (layer(x) - by_hand(layer, x, x)).abs().max() < 1e-12
    mask = causal_mask(KEYS, KEYS)
    assert (layer(x, mask=mask) - by_hand(layer, x, x, mask)).abs().max() < 1e-12


def test_cross_attention_takes_keys_and_values_from_the_context(layer, x):
    context = torch.randn(BATCH, 7, DIM * HEADS, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    assert (layer(x, context) - by_hand(layer, x, context)).abs().max() < 1e-12
    masked = layer(x, context, mask=mask[:, None, None])
    assert (masked - by_hand(layer, x, context, mask[:, None])).abs().max() < 1e-12
    assert (layer(x, x) - layer(x)).abs().max() < 1e-12


def test_the_weights_for_pictures_are_those_of_the_sum(layer, x):
    mask = causal_mask(KEYS, KEYS)
    weights = layer.weights(x, mask=mask)
    _, _, values = layer.queries_keys_values(x)
    mixed = (weights @ values).transpose(1, 2).flatten(2)
    assert (layer.output(mixed) - layer(x, mask=mask)).abs().max() < 1e-12


def test_heads_must_divide_the_width():
    with pytest.raises(CourseError, match="dim=10 cannot be shared out among heads=4"):
        MultiHeadAttention(10, 4)


# The cache -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[1] * KEYS, [3, 1, 1], [2, 3], [KEYS]])
def test_a_cache_changes_nothing(layer, x, steps):
    cache, begin, found = KeyValueCache(longest=8), 0, []
    for step in steps:
        found.append(layer(x[:, begin : begin + step], mask=causal_mask(step, begin + step), cache=cache))
        begin += step
        assert cache.length == begin
    assert (torch.cat(found, 1) - layer(x, mask=causal_mask(KEYS, KEYS))).abs().max() < 1e-12


def test_selected_rows_go_on_as_if_they_had_always_been_there(layer, x):
    """Beam search: the second text goes on twice, the first not at all."""
    rows = torch.tensor([1, 1])
    cache = KeyValueCache(longest=KEYS)
    layer(x[:, :3], mask=causal_mask(3, 3), cache=cache)
    cache.select(rows)
    following = torch.randn(2, 1, DIM * HEADS, dtype=torch.float64)
    whole = torch.cat([x[rows, :3], following], 1)
    expected = layer(whole, mask=causal_mask(4, 4))[:, 3:]
    assert (layer(following, cache=cache) - expected).abs().max() < 1e-12


def test_selecting_from_an_empty_cache_does_nothing():
    cache = KeyValueCache(longest=2)
    cache.select(torch.tensor([0, 0]))
    assert cache.length == 0


def test_a_full_cache_says_so(layer, x):
    cache = KeyValueCache(longest=4)
    layer(x[:, :3], cache=cache)
    with pytest.raises(CourseError, match="room for 4 places, but 5 were wanted"):
        layer(x[:, 3:], cache=cache)
    assert cache.length == 3
