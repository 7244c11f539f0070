"""BERT: padding is invisible, only the asked places count, near ln V (+ ln 2) at first, able to learn one batch."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.bert import BERT, BERTConfig, MaskedText
from pfmcourse.nn.masking import IGNORED

CONFIG = BERTConfig(vocab=19, context=10, dim=16, layers=2, heads=2)


@pytest.fixture
def model():
    """In float64, with weights so large that every place makes a difference."""
    model = BERT(CONFIG).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def texts(config=CONFIG, batch=4, asked=3):
    """Texts of several lengths, padded, in two segments, with a place too many in some."""
    lengths = torch.randint(asked + 1, config.context + 1, (batch,))
    lengths[0] = config.context
    mask = torch.arange(config.context) < lengths[:, None]
    tokens = torch.randint(config.vocab, mask.shape)
    segments = (torch.arange(config.context) >= lengths[:, None] // 2).long()
    places = torch.rand(mask.shape).masked_fill(~mask, 2).topk(asked, largest=False).indices
    targets = torch.randint(config.vocab, places.shape)
    targets[1:, -1] = IGNORED
    return MaskedText(tokens, segments, mask, places, targets, torch.randint(2, (batch,)))


@pytest.mark.parametrize("next_sentence", [True, False])
def test_at_first_everything_is_about_equally_likely(next_sentence):
    config = BERTConfig(vocab=3000, context=32, next_sentence=next_sentence)
    losses = BERT(config)(texts(config, batch=32, asked=8))
    parts = [math.log(3000), math.log(2)] if next_sentence else [math.log(3000)]
    assert losses["loss"].item() == pytest.approx(sum(parts), abs=0.15)
    if next_sentence:
        assert losses["masked_loss"].item() == pytest.approx(parts[0], abs=0.1)
        assert losses["follows_loss"].item() == pytest.approx(parts[1], abs=0.1)


def test_the_loss_is_that_of_a_naive_loop(model):
    batch = texts()
    total, count, follows = 0.0, 0, 0.0
    for row in range(4):
        length = int(batch.mask[row].sum())  # the text alone, without padding and without the other texts
        tokens, segments = batch.tokens[row : row + 1, :length], batch.segments[row : row + 1, :length]
        states = model.encode(tokens, segments)
        follows -= model.follows_logits(states)[0].log_softmax(0)[batch.follows[row]].item()
        for place, target in zip(batch.places[row].tolist(), batch.targets[row].tolist(), strict=True):
            if target != IGNORED:
                total -= model.logits(tokens, segments)[0, place].log_softmax(0)[target].item()
                count += 1
    losses = model(batch)
    assert count == 9
    assert losses["masked_loss"].item() == pytest.approx(total / count, abs=1e-9)
    assert losses["follows_loss"].item() == pytest.approx(follows / 4, abs=1e-9)
    assert losses["loss"].item() == pytest.approx(total / count + follows / 4, abs=1e-9)


def test_padding_changes_nothing(model):
    batch = texts()
    other = dataclasses.replace(
        batch,
        tokens=batch.tokens.where(batch.mask, (batch.tokens + 3) % CONFIG.vocab),
        segments=batch.segments.where(batch.mask, 1 - batch.segments),
    )
    assert not batch.mask.all() and not torch.equal(other.tokens, batch.tokens)
    assert model(batch)["loss"].item() == pytest.approx(model(other)["loss"].item(), abs=1e-12)
    states = [model.encode(text.tokens, text.segments, text.mask)[batch.mask] for text in (batch, other)]
    assert (states[0] - states[1]).abs().max() < 1e-12
    unmasked = [model.encode(text.tokens, text.segments)[batch.mask] for text in (batch, other)]
    assert (unmasked[0] - unmasked[1]).abs().max() > 1e-2


def test_it_reads_in_both_directions(model):
    tokens = torch.randint(CONFIG.vocab, (1, 10))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % CONFIG.vocab
    difference = (model.encode(tokens) - model.encode(changed)).abs().amax((0, 2))
    assert (difference > 1e-3).all()


def test_order_and_segments_matter(model):
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    states = model.encode(tokens)
    assert (model.encode(tokens[:, [1, 0, 2, 3, 4, 5]]) - states)[:, 2:].abs().max() > 1e-3
    assert torch.equal(model.encode(tokens, torch.zeros_like(tokens)), states), "without segments all is the first"
    assert (model.encode(tokens, torch.ones_like(tokens)) - states).abs().max() > 1e-3


def test_logits_at_places_are_those_of_all_gathered(model):
    batch = texts()
    full = model.logits(batch.tokens, batch.segments, batch.mask)
    some = model.logits(batch.tokens, batch.segments, batch.mask, batch.places)
    assert full.shape == (4, 10, 19) and some.shape == (4, 3, 19)
    for row in range(4):
        for i, place in enumerate(batch.places[row].tolist()):
            assert (some[row, i] - full[row, place]).abs().max() < 1e-12


def test_a_place_too_many_does_not_count(model):
    batch = texts()
    moved = batch.places.clone()
    moved[1:, -1] = 0
    assert not torch.equal(moved, batch.places)
    other = dataclasses.replace(batch, places=moved)
    assert model(batch)["loss"].item() == pytest.approx(model(other)["loss"].item(), abs=1e-12)
    counted = dataclasses.replace(batch, targets=batch.targets.clamp(min=0))
    assert abs(model(counted)["loss"].item() - model(batch)["loss"].item()) > 1e-3


def test_layers_are_what_encode_goes_through(model):
    batch = texts()
    layers = model.layers(batch.tokens, batch.segments, batch.mask)
    assert len(layers) == CONFIG.layers + 1
    assert torch.equal(layers[-1], model.encode(batch.tokens, batch.segments, batch.mask))
    following = model.blocks[1](layers[1], batch.mask[:, None, None])
    assert torch.equal(following, layers[2])
    table = model.tokens.weight[batch.tokens] + model.positions.weight + model.segments.weight[batch.segments]
    expected = F.layer_norm(table, (16,), model.embedding_norm.weight, model.embedding_norm.bias, CONFIG.epsilon)
    assert (layers[0] - expected).abs().max() < 1e-12


def test_the_guess_is_read_from_the_table_of_tokens(model):
    states = torch.randn(2, 3, 16, dtype=torch.float64)
    hidden = F.gelu(states @ model.transform.weight.T + model.transform.bias)
    hidden = F.layer_norm(hidden, (16,), model.transform_norm.weight, model.transform_norm.bias, CONFIG.epsilon)
    expected = hidden @ model.tokens.weight.T + model.token_bias
    assert (model._guess(states) - expected).abs().max() < 1e-12


def test_without_next_sentence_that_head_does_not_exist():
    config = dataclasses.replace(CONFIG, next_sentence=False, segments=1)
    model, batch = BERT(config), texts()
    batch = dataclasses.replace(batch, segments=torch.zeros_like(batch.segments))
    assert model(batch).keys() == {"loss"}
    assert not any("follows" in name or "pooler" in name for name in model.state_dict())
    other = dataclasses.replace(batch, follows=1 - batch.follows)
    assert model(batch)["loss"] == model(other)["loss"]


@pytest.mark.parametrize("next_sentence", [True, False])
def test_one_batch_is_overfitted(next_sentence):
    model, batch = BERT(dataclasses.replace(CONFIG, next_sentence=next_sentence)), texts()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = model(batch)["loss"].item()
    for _ in range(50):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
    assert first > 2.5 and loss.item() < 0.05


def test_every_weight_learns(model):
    model(texts())["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


def test_under_bf16_the_loss_keeps_its_digits():
    model, batch = BERT(CONFIG), texts()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(batch.tokens, batch.segments, batch.mask).dtype == torch.bfloat16
        assert {loss.dtype for loss in model(batch).values()} == {torch.float32}


def test_too_long_a_text_is_an_error(model):
    assert model.encode(torch.zeros(1, 10, dtype=torch.long)).shape == (1, 10, 16)
    with pytest.raises(CourseError, match=r"11 tokens are more than .* context=10"):
        model.encode(torch.zeros(1, 11, dtype=torch.long))
