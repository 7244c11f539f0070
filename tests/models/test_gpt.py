"""GPT: causal, the same with and without a cache, near ln V at first, and able to learn one batch by heart."""

import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.gpt import GPT, GPTClassifier, GPTConfig, LabelledText

CONFIG = GPTConfig(vocab=17, context=12, dim=16, layers=2, heads=2)


@pytest.fixture
def model():
    """In float64, with weights so large that every place makes a difference."""
    model = GPT(CONFIG).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture
def batch():
    return torch.randint(CONFIG.vocab, (3, CONFIG.context + 1))


# The objective -------------------------------------------------------------------------------------------------------


def test_at_first_every_token_is_about_equally_likely():
    config = GPTConfig(vocab=3000, context=32)
    loss = GPT(config)(torch.randint(config.vocab, (8, 33)))["loss"]
    assert loss.item() == pytest.approx(math.log(config.vocab), abs=0.1)


def test_the_loss_is_that_of_a_naive_loop(model, batch):
    total = 0.0
    for text in batch:
        for place in range(1, len(text)):
            logits = model.logits(text[None, :place])[0, -1]  # given only what stands before
            total -= logits.log_softmax(-1)[text[place]].item()
    assert model(batch)["loss"].item() == pytest.approx(total / (3 * CONFIG.context), abs=1e-9)


@pytest.mark.parametrize("place", [1, 5, 11])
def test_a_token_changes_nothing_before_it(model, batch, place):
    tokens = batch[:, :-1]
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % CONFIG.vocab
    before, after = model.logits(tokens), model.logits(changed)
    assert torch.equal(before[:, :place], after[:, :place])
    difference = (before - after).abs().amax((0, 2))
    assert (difference[place:] > 1e-3).all(), "every later place must see it"


def test_no_gradient_reaches_the_future(model, batch):
    vectors = model.tokens(batch[:, :-1]).detach().requires_grad_()
    model.tokens.forward = lambda tokens: vectors
    model.encode(batch[:, :-1])[:, 6].sum().backward()
    reached = vectors.grad.abs().amax((0, 2)) > 0
    assert reached.tolist() == [True] * 7 + [False] * 5


def test_order_matters(model, batch):
    tokens = batch[:, :6]
    swapped = tokens[:, [1, 0, 2, 3, 4, 5]]
    assert (model.logits(tokens) - model.logits(swapped))[:, -1].abs().max() > 1e-3


def test_one_batch_is_overfitted():
    model, batch = GPT(CONFIG), torch.randint(CONFIG.vocab, (4, CONFIG.context + 1))
    batch[:, 0] = torch.arange(4)  # or the second tokens could not be known
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = model(batch)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
    assert first > 2.5 and loss.item() < 0.05


def test_under_bf16_the_loss_keeps_its_digits(batch):
    model = GPT(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(batch[:, :-1]).dtype == torch.bfloat16
        assert model(batch)["loss"].dtype == torch.float32


def test_too_long_a_text_is_an_error(model):
    assert model.logits(torch.zeros(1, 12, dtype=torch.long)).shape == (1, 12, 17)
    with pytest.raises(CourseError, match=r"13 tokens are more than .* context=12"):
        model.logits(torch.zeros(1, 13, dtype=torch.long))


def test_dropout_is_where_it_should_be(batch):
    model = GPT(GPTConfig(vocab=17, context=12, dim=16, layers=2, heads=2, dropout=0.5))
    assert model(batch)["loss"] != model(batch)["loss"]
    model.eval()
    assert model(batch)["loss"] == model(batch)["loss"]


# Writing -------------------------------------------------------------------------------------------------------------


def naive_generate(model, tokens, count):
    """The likeliest token, again and again, from the whole text before it."""
    for _ in range(count):
        tokens = torch.cat([tokens, model.logits(tokens)[:, -1:].argmax(-1)], 1)
    return tokens


def test_the_likeliest_text(model):
    begin = torch.randint(CONFIG.vocab, (3, 2))
    expected = naive_generate(model, begin, 10)
    assert torch.equal(model.generate(begin, 10, temperature=0.0), expected)
    assert torch.equal(model.generate(begin, 10, temperature=0.0, cache=False), expected)
    assert model.generate(begin, 0).tolist() == begin.tolist()


@pytest.mark.parametrize("begin", [1, 5, 12, 20])
@pytest.mark.parametrize("count", [3, 30])
def test_a_cache_changes_nothing(model, begin, count):
    """Within the context and beyond it, with the same draws."""
    tokens = torch.randint(CONFIG.vocab, (2, begin))
    texts = [
        model.generate(
            tokens, count, temperature=0.9, top_k=12, generator=torch.Generator().manual_seed(5), cache=cache
        )
        for cache in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape == (2, begin + count)
    assert torch.equal(texts[0][:, :begin], tokens)
    assert len(texts[0][:, begin:].unique()) > 1


def test_beyond_the_context_it_goes_on_from_the_last_half(model):
    tokens = torch.randint(CONFIG.vocab, (2, CONFIG.context))
    text = model.generate(tokens, 8, temperature=0.0)
    first = model.logits(tokens)[:, -1:].argmax(-1)  # the context is just full
    expected = naive_generate(model, torch.cat([tokens[:, -5:], first], 1), 6)  # the last 6 tokens, then up to 12
    assert torch.equal(text[:, 12:13], first)
    assert torch.equal(text[:, 13:19], expected[:, 6:])


def test_long_beginnings_are_read_from_their_end(model):
    tokens = torch.randint(CONFIG.vocab, (40, 30))
    expected, half = (model.logits(tokens[:, -length:])[:, -1].argmax(-1) for length in (12, 6))
    assert not torch.equal(expected, half)
    assert torch.equal(model.generate(tokens, 1, temperature=0.0)[:, -1], expected)


def test_the_generator_decides(model):
    begin = torch.zeros(4, 1, dtype=torch.long)
    one, same, other = (model.generate(begin, 8, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_empty_beginning_is_an_error(model):
    with pytest.raises(CourseError, match="at least one token"):
        model.generate(torch.zeros(2, 0, dtype=torch.long), 3)


# Naming a text's class -----------------------------------------------------------------------------------------------


@pytest.fixture
def labelled():
    lengths = torch.tensor([9, 4, 1, 6])
    mask = torch.arange(9) < lengths[:, None]
    return LabelledText(torch.randint(CONFIG.vocab, mask.shape), mask, torch.tensor([0, 2, 1, 2]))


def classifier(model, **options):
    found = GPTClassifier(model, 3, **options).double()
    torch.nn.init.normal_(found.classes_head.weight)
    return found


def test_padding_changes_nothing(model, labelled):
    found = classifier(model)
    other = labelled.tokens.where(labelled.mask, (labelled.tokens + 5) % CONFIG.vocab)
    longer = torch.cat([other, torch.randint(CONFIG.vocab, (4, 3))], 1)
    mask = torch.cat([labelled.mask, torch.zeros(4, 3, dtype=torch.bool)], 1)
    assert torch.allclose(found.logits(longer, mask), found.logits(labelled.tokens, labelled.mask), atol=1e-12)
    once, again = found(labelled), found(LabelledText(longer, mask, labelled.labels))
    for name in ("loss", "class_loss", "language_loss"):
        assert once[name].item() == pytest.approx(again[name].item(), abs=1e-12)


def test_the_class_is_read_at_the_last_token(model, labelled):
    found = classifier(model)
    for row, length in enumerate(labelled.mask.sum(1).tolist()):
        state = model.encode(labelled.tokens[row : row + 1, :length])[:, -1]
        logits = found.logits(labelled.tokens, labelled.mask)[row]
        assert (found.classes_head(state)[0] - logits).abs().max() < 1e-12


def test_its_loss_has_two_parts(model, labelled):
    losses = classifier(model, language_weight=0.3)(labelled)
    total, count = 0.0, 0
    for text, mask in zip(labelled.tokens, labelled.mask, strict=True):
        text = text[: mask.sum()]
        logits = model.logits(text[None])[0, :-1]
        total += F.cross_entropy(logits, text[1:], reduction="sum").item()
        count += len(text) - 1
    assert losses["language_loss"].item() == pytest.approx(total / count, abs=1e-9)
    expected = losses["class_loss"] + 0.3 * losses["language_loss"]
    assert losses["loss"].item() == pytest.approx(expected.item(), abs=1e-12)


def test_without_the_language_model_only_the_class_counts(model, labelled):
    found = classifier(model, language_weight=0.0)
    losses = found(labelled)
    assert losses.keys() == {"loss"}
    expected = F.cross_entropy(found.logits(labelled.tokens, labelled.mask), labelled.labels)
    assert losses["loss"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_at_first_all_classes_are_alike(model, labelled):
    found = GPTClassifier(model, 3).double()
    assert not found.logits(labelled.tokens, labelled.mask).any()
    assert found(labelled)["class_loss"].item() == pytest.approx(math.log(3), abs=1e-6)


def test_fine_tuning_leaves_the_pretrained_model_alone(model, labelled):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = classifier(model)
    optimizer = torch.optim.Adam(found.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        losses = found(labelled)
        losses["loss"].backward()
        optimizer.step()
    assert losses["class_loss"].item() < 0.1
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(not torch.equal(weight, before[name]) for name, weight in found.gpt.state_dict().items())
