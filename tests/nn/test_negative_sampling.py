"""Negative sampling against its definition: the 2013 program's formulas, naive loops, chi-square and Monte Carlo."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn.functional import logsigmoid

from pfmcourse.nn.negative_sampling import (
    context_mask,
    draw_noise,
    expected_loss,
    keep_probability,
    noise_distribution,
)

COUNTS = torch.tensor([900, 400, 120, 60, 25, 9, 5, 5, 1, 0])


# Which words are context ---------------------------------------------------------------------------------------------


def naive_mask(radius, speech, window):
    blocks, time = radius.shape
    mask = torch.zeros(blocks, time, speech.shape[1], dtype=torch.bool)
    for block in range(blocks):
        for centre in range(time):
            here = window + centre
            for there in range(speech.shape[1]):
                near = 0 < abs(there - here) <= radius[block, centre]
                same = speech[block, there] == speech[block, here] and speech[block, here] != -1
                mask[block, centre, there] = near and same
    return mask


@pytest.mark.parametrize(("window", "time"), [(1, 1), (2, 7), (5, 3), (4, 12)])
def test_context_is_what_a_naive_loop_finds(window, time):
    lengths = torch.randint(1, 5, (6, time + 2 * window))
    speech = torch.stack([torch.repeat_interleave(torch.arange(len(row)), row)[: len(row)] for row in lengths])
    speech[0, :window] = speech[1, -window - 1 :] = -1
    radius = torch.randint(1, window + 1, (6, time))
    mask = context_mask(radius, speech, window)
    assert torch.equal(mask, naive_mask(radius, speech, window))
    assert 0 < mask.sum() < mask.numel()


def test_context_never_crosses_a_speech_and_padding_has_none():
    speech = torch.tensor([[-1, -1, 0, 0, 1, 1, 1, -1, -1, -1]])
    mask = context_mask(torch.full((1, 6), 2), speech, window=2)
    found = [row.nonzero()[:, 0].tolist() for row in mask[0]]
    assert found == [[3], [2], [5, 6], [4, 6], [4, 5], []]


# Where negatives come from -------------------------------------------------------------------------------------------


def test_noise_is_the_counts_to_the_three_quarters():
    weights = [count**0.75 for count in COUNTS.tolist()]
    expected = torch.tensor([weight / sum(weights) for weight in weights])
    torch.testing.assert_close(noise_distribution(COUNTS), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(noise_distribution(COUNTS, 1.0), COUNTS / COUNTS.sum())
    assert noise_distribution(COUNTS)[-1] == 0


def test_draws_follow_the_distribution():
    noise = noise_distribution(COUNTS)
    drawn = draw_noise(noise, 500, 400, torch.Generator().manual_seed(1))
    assert drawn.shape == (500, 400)
    found = torch.bincount(drawn.flatten(), minlength=len(noise))
    assert found[-1] == 0
    expected = noise[:-1].double() / noise[:-1].double().sum() * 200_000
    assert scipy.stats.chisquare(found[:-1], expected).pvalue > 0.01
    # Neighbouring draws are independent: pairs follow the product.
    left, right = drawn[:, 0::2].flatten().clamp(max=4), drawn[:, 1::2].flatten().clamp(max=4)
    merged = torch.cat([noise[:4], noise[4:].sum(0, keepdim=True)]).double()
    product = torch.outer(merged, merged).flatten() / merged.sum() ** 2
    assert scipy.stats.chisquare(torch.bincount(left * 5 + right, minlength=25), product * 100_000).pvalue > 0.01


def test_the_same_generator_draws_the_same_and_another_does_not():
    noise = noise_distribution(COUNTS)
    first, second, other = (draw_noise(noise, 3, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1 - 2**-24])
def test_words_of_probability_zero_are_never_drawn(monkeypatch, threshold):
    # Probabilities that were rounded do not add up to exactly 1; the smallest and the largest threshold show it.
    counts = torch.cat([torch.zeros(2), torch.ones(5000), torch.zeros(3)]).long()
    noise = noise_distribution(counts) * (1 - 1e-6)
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, threshold))
    drawn = draw_noise(noise, 2, 2, torch.Generator())
    assert ((drawn >= 2) & (drawn < 5002)).all()


@pytest.mark.parametrize("sample", [1e-1, 1e-2, 1e-3, 1e-5])
def test_subsampling_keeps_what_the_program_of_2013_keeps(sample):
    train_words = int(COUNTS.sum())
    for count, keep in zip(COUNTS[:-1].tolist(), keep_probability(COUNTS, sample)[:-1].tolist(), strict=True):
        # word2vec.c, with count for vocab[word].cn; it goes on where ran is less than a random number from 0 to 1
        ran = (math.sqrt(count / (sample * train_words)) + 1) * (sample * train_words) / count
        assert keep == pytest.approx(min(1.0, ran), rel=1e-6)


def test_a_threshold_of_zero_keeps_everything():
    assert torch.equal(keep_probability(COUNTS, 0.0), torch.ones(len(COUNTS)))


def test_subsampling_and_noise_are_those_of_gensim():
    from gensim.models import Word2Vec

    words = {f"w{row}": int(count) for row, count in enumerate(COUNTS[:-1])}
    model = Word2Vec(vector_size=2, min_count=1, sample=1e-2, negative=5, ns_exponent=0.75)
    model.build_vocab_from_freq(words)
    order = [model.wv.key_to_index[word] for word in words]
    kept = np.array([int(model.wv.get_vecattr(word, "sample_int")) for word in words]) / (2**32 - 1)
    np.testing.assert_allclose(keep_probability(COUNTS[:-1], 1e-2), kept, rtol=1e-6, atol=1e-9)
    assert 0.02 < kept.min() < 0.5  # or there was nothing to compare
    noise = np.diff(model.cum_table, prepend=0)[order] / (2**31 - 1)
    np.testing.assert_allclose(noise_distribution(COUNTS[:-1]), noise, rtol=1e-6, atol=1e-9)


# The loss without sampling noise -------------------------------------------------------------------------------------


@pytest.fixture
def tables():
    generator = torch.Generator().manual_seed(4)
    inputs, outputs = (torch.randn(len(COUNTS), 3, generator=generator) for _ in range(2))
    pairs = torch.randint(len(COUNTS), (40, 2), generator=generator)
    weights = torch.rand(40, generator=generator)
    return inputs, outputs, pairs, weights, noise_distribution(COUNTS)


def test_expected_loss_is_the_sum_written_out(tables):
    inputs, outputs, pairs, weights, noise = tables
    total = 0.0
    for (centre, context), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        loss = -logsigmoid(inputs[centre] @ outputs[context])
        for word, probability in enumerate(noise.tolist()):
            loss -= 3 * probability * logsigmoid(-inputs[centre] @ outputs[word])
        total += weight * loss.item()
    assert expected_loss(*tables, negatives=3) == pytest.approx(total / weights.sum().item(), rel=1e-5)


def test_expected_loss_is_the_mean_of_sampled_losses(tables):
    inputs, outputs, pairs, weights, noise = tables
    centres, contexts = inputs[pairs[:, 0]], outputs[pairs[:, 1]]
    drawn = torch.multinomial(noise, 4000 * len(pairs) * 5, replacement=True).view(4000, len(pairs), 5)
    negatives = -logsigmoid(-(outputs[drawn] * centres[:, None]).sum(-1)).sum(-1)
    losses = ((negatives - logsigmoid((centres * contexts).sum(1))) * weights).sum(1) / weights.sum()
    error = losses.std().item() / math.sqrt(len(losses))
    assert error < 0.01
    assert expected_loss(*tables, negatives=5) == pytest.approx(losses.mean().item(), abs=4 * error)


def test_vectors_of_zeros_know_nothing(tables):
    inputs, outputs, *rest = tables
    for first, second in ((inputs, torch.zeros_like(outputs)), (torch.zeros_like(inputs), outputs)):
        assert expected_loss(first, second, *rest, negatives=5) == pytest.approx(6 * math.log(2), rel=1e-6)
