"""Skip-gram and CBOW against the obvious slow versions: a loop over the text, one pair of words after the other."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import logsigmoid

from pfmcourse.models.word2vec import CBOW, SkipGram, TextBlocks, Word2VecConfig

WINDOW, VOCAB, DIM = 3, 20, 5


def build(kind, negatives=4, vocab=VOCAB):
    """A model in float64 whose output table is not zero, so that every term of the loss counts."""
    model = kind(Word2VecConfig(vocab, DIM, WINDOW, negatives)).double()
    for table in (model.inputs, model.outputs):
        nn.init.normal_(table.weight)
    return model


def text(length=24, vocab=VOCAB):
    """Words in speeches of one to six words, and how far each word looks."""
    words = torch.randint(vocab, (length,))
    speech = torch.repeat_interleave(torch.arange(length), torch.randint(1, 7, (length,)))[:length]
    return words, speech, torch.randint(1, WINDOW + 1, (length,))


def cut(words, speech, radius, time, noise):
    """The text in blocks of ``time`` centre words; ``noise`` has a row for each block, or one row for all."""
    blocks = math.ceil(len(words) / time)
    missing = blocks * time - len(words)
    span = time + 2 * WINDOW

    def spans(values, padding):
        return F.pad(values, (WINDOW, WINDOW + missing), value=padding).unfold(0, span, time)

    radius = F.pad(radius, (0, missing), value=WINDOW).view(blocks, time)
    return TextBlocks(spans(words, 7), spans(speech, -1), radius, noise.expand(blocks, -1))


def naive_skip_gram(model, words, speech, radius, noise, time):
    """Equation 4 of the second paper for each pair; the expectation over the noise is a mean over a block's draws."""
    total, pairs = 0, 0
    for centre in range(len(words)):
        v = model.inputs.weight[words[centre]]
        for other in range(len(words)):
            if 0 < abs(other - centre) <= radius[centre] and speech[other] == speech[centre]:
                pairs += 1
                total = total - logsigmoid(v @ model.outputs.weight[words[other]])
                for random in noise[centre // time]:
                    weight = model.config.negatives / len(noise[0])
                    total = total - weight * logsigmoid(-v @ model.outputs.weight[random])
    return total / pairs


def naive_cbow(model, words, speech, radius, noise, time):
    """The same for CBOW: one prediction for each word that has neighbours, from their mean."""
    total, centres = 0, 0
    for centre in range(len(words)):
        near = [
            model.inputs.weight[words[other]]
            for other in range(len(words))
            if 0 < abs(other - centre) <= radius[centre] and speech[other] == speech[centre]
        ]
        if near:
            centres += 1
            h = sum(near) / len(near)
            total = total - logsigmoid(h @ model.outputs.weight[words[centre]])
            for random in noise[centre // time]:
                weight = model.config.negatives / len(noise[0])
                total = total - weight * logsigmoid(-h @ model.outputs.weight[random])
    return total / centres


NAIVE = {SkipGram: naive_skip_gram, CBOW: naive_cbow}
both = pytest.mark.parametrize("kind", [SkipGram, CBOW])


@both
@pytest.mark.parametrize("time", [4, 7, 24])
def test_blocks_give_the_loss_and_gradient_of_a_naive_loop(kind, time):
    model, (words, speech, radius) = build(kind), text()
    noise = torch.randint(VOCAB, (math.ceil(len(words) / time), 6))
    fast = model(cut(words, speech, radius, time, noise))["loss"]
    slow = NAIVE[kind](model, words, speech, radius, noise, time)
    assert abs(fast - slow).item() < 1e-12
    tables = model.inputs.weight, model.outputs.weight
    for ours, theirs in zip(torch.autograd.grad(fast, tables), torch.autograd.grad(slow, tables), strict=True):
        assert (ours - theirs).abs().max() < 1e-9
        assert ours.abs().max() > 0.01


@both
@pytest.mark.parametrize("negatives", [0, 4])
def test_the_loss_of_a_text_does_not_depend_on_how_it_is_cut(kind, negatives):
    model, (words, speech, radius) = build(kind, negatives), text(30)
    noise = torch.randint(VOCAB, (1, 6))
    losses = [model(cut(words, speech, radius, time, noise))["loss"].item() for time in (1, 4, 7, 11, 30, 50)]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-12)


@both
def test_padding_and_its_words_do_not_count(kind):
    model, (words, speech, radius) = build(kind), text(10)
    batch = cut(words, speech, radius, 16, torch.randint(VOCAB, (1, 6)))
    padding = batch.speech == -1
    assert padding.sum() == 6 + 2 * WINDOW
    other = TextBlocks(torch.where(padding, 3, batch.tokens), batch.speech, batch.radius, batch.noise)
    assert not torch.equal(batch.tokens, other.tokens)
    assert torch.equal(model(batch)["loss"], model(other)["loss"])


@both
def test_a_batch_without_any_neighbour_has_loss_zero(kind):
    model = build(kind)
    batch = cut(torch.arange(4), torch.arange(4), torch.ones(4, dtype=torch.long), 4, torch.zeros(1, 2).long())
    loss = model(batch)["loss"]
    loss.backward()
    assert loss == 0
    assert model.inputs.weight.grad.isfinite().all()


@both
@pytest.mark.parametrize("negatives", [1, 5])
def test_at_first_every_score_is_a_coin_flip(kind, negatives):
    model = kind(Word2VecConfig(VOCAB, DIM, WINDOW, negatives))
    batch = cut(*text(), 8, torch.randint(VOCAB, (3, 6)))
    assert model(batch)["loss"].item() == pytest.approx((1 + negatives) * math.log(2), rel=1e-6)
    assert model.inputs.weight.abs().max() <= 0.5 / DIM
    assert model.inputs.weight.unique().numel() > VOCAB


@both
def test_one_batch_is_overfitted(kind):
    model = kind(Word2VecConfig(2 * VOCAB, 24, WINDOW, 5))
    batch = cut(*text(), 8, torch.randint(VOCAB, 2 * VOCAB, (3, 6)))  # random words that the text does not hold
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 4
    assert losses[-1] < 0.01


def test_the_words_own_vectors_are_the_input_vectors():
    model = build(SkipGram)
    tokens = torch.tensor([[3, 1], [4, 1]])
    assert torch.equal(model.encode(tokens), model.inputs.weight[tokens])
    assert torch.equal(model.vectors(), model.inputs.weight)
    assert torch.equal(model.vectors(both=True), model.inputs.weight + model.outputs.weight)
    assert not model.vectors().requires_grad
