"""The NNLM against equation 1 of the paper, written with plain tensors, and its gradient derived by hand."""

import math

import pytest
import torch

from pfmcourse.models.nnlm import NNLM, NNLMConfig

CONFIG = NNLMConfig(vocab=13, dim=3, context=4, hidden=6)


@pytest.fixture
def model():
    """In float64, with weights large enough that tanh and softmax are not near their linear parts."""
    model = NNLM(CONFIG).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model


@pytest.fixture
def batch():
    return torch.randint(CONFIG.vocab, (7, CONFIG.context + 1))


def by_hand(model, batch):
    """Loss and gradients: y = b + U tanh(d + H x), p = softmax(y), loss = mean of -log p(next word)."""
    C, H, d, U, b = (p.detach() for p in (model.words.weight, *model.hidden.parameters(), *model.head.parameters()))
    gradients = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    loss = 0.0
    for *context, target in batch.tolist():
        x = torch.cat([C[word] for word in context])
        a = torch.tanh(d + H @ x)
        y = b + U @ a
        p = y.exp() / y.exp().sum()
        loss -= math.log(p[target]) / len(batch)
        dy = p.clone()
        dy[target] -= 1
        dy /= len(batch)
        da = (U.T @ dy) * (1 - a**2)
        dx = H.T @ da
        gradients["head.weight"] += torch.outer(dy, a)
        gradients["head.bias"] += dy
        gradients["hidden.weight"] += torch.outer(da, x)
        gradients["hidden.bias"] += da
        for place, word in enumerate(context):
            gradients["words.weight"][word] += dx[place * CONFIG.dim : (place + 1) * CONFIG.dim]
    return loss, gradients


def test_it_is_equation_1_with_the_gradient_that_follows(model, batch):
    loss = model(batch)["loss"]
    expected, gradients = by_hand(model, batch)
    assert abs(loss.item() - expected) < 1e-12
    loss.backward()
    found = dict(model.named_parameters())
    assert found.keys() == gradients.keys()
    for name, parameter in found.items():
        assert (parameter.grad - gradients[name]).abs().max() < 1e-9, name
        assert parameter.grad.abs().max() > 1e-3, name


def test_the_gradient_is_the_slope_of_the_loss(model, batch):
    model(batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            losses = []
            for step in (2, 1, -1, -2):
                parameter += step * 1e-3 * direction
                losses.append(model(batch)["loss"].item())
                parameter -= step * 1e-3 * direction
        slope = (-losses[0] + 8 * losses[1] - 8 * losses[2] + losses[3]) / 12e-3  # error of order 1e-3 to the 4th
        assert slope == pytest.approx((parameter.grad * direction).sum().item(), abs=1e-9, rel=1e-8), name


def test_logits_are_of_the_word_after_the_context(model, batch):
    logits = model.logits(batch[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits, batch[:, -1])
    assert model(batch)["loss"] == loss
    other = batch.clone()
    other[:, -1] = (other[:, -1] + 1) % CONFIG.vocab
    assert torch.equal(model.logits(other[:, :-1]), logits)
    assert model(other)["loss"] != loss


def test_at_first_every_word_is_about_equally_likely():
    model = NNLM(NNLMConfig(vocab=5000))
    loss = model(torch.randint(5000, (64, 5)))["loss"].item()
    assert loss == pytest.approx(math.log(5000), abs=0.02)


def test_one_batch_is_overfitted():
    model, batch = NNLM(CONFIG), torch.randint(CONFIG.vocab, (16, CONFIG.context + 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_under_bf16_the_loss_keeps_its_digits():
    model, batch = NNLM(CONFIG), torch.randint(CONFIG.vocab, (8, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(batch[:, :-1]).dtype == torch.bfloat16
        assert model(batch)["loss"].dtype == torch.float32


def test_vectors(model):
    tokens = torch.tensor([[3, 1], [4, 1]])
    assert torch.equal(model.encode(tokens), model.words.weight[tokens])
    assert torch.equal(model.vectors(), model.words.weight)
    assert not model.vectors().requires_grad
