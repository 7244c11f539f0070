"""GloVe against equation 8 of the paper, and against tables whose best fit is known."""

import math

import pytest
import torch
from torch import nn

from pfmcourse.models.glove import Counts, GloVe, GloVeConfig


def full_table(table):
    """Every entry of a table of counts as one batch."""
    words = torch.cartesian_prod(torch.arange(len(table)), torch.arange(len(table)))
    return Counts(words, table.flatten())


def fitted(model, batch):
    """The loss after full-batch L-BFGS in float64."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    return model(batch)["loss"].item()


def test_the_loss_is_equation_8_with_the_weight_of_equation_9():
    model = GloVe(GloVeConfig(vocab=6, dim=3, most=10.0, power=0.75)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    words = torch.tensor([[0, 1], [1, 0], [2, 2], [5, 3]])
    count = torch.tensor([0.5, 10.0, 9.9, 300.0]).double()
    total = 0.0
    for (i, j), x in zip(words.tolist(), count.tolist(), strict=True):
        weight = (x / 10) ** 0.75 if x < 10 else 1.0
        dot = sum(a * b for a, b in zip(model.words.weight[i].tolist(), model.contexts.weight[j].tolist(), strict=True))
        error = dot + model.word_bias.weight[i].item() + model.context_bias.weight[j].item() - math.log(x)
        total += weight * error**2
    assert model(Counts(words, count))["loss"].item() == pytest.approx(total / 4, rel=1e-12)
    assert len({round(value, 6) for value in model.log_counts(words).tolist()}) == 4


def test_a_table_of_rank_one_is_fitted_by_its_factors():
    rows, columns = torch.tensor([0.5, -1.0, 2.0, 0.1]).double(), torch.tensor([1.0, 0.3, -0.7, 1.5]).double()
    model = GloVe(GloVeConfig(vocab=4, dim=1)).double()
    with torch.no_grad():
        model.words.weight.copy_(rows[:, None])
        model.contexts.weight.copy_(columns[:, None])
        model.word_bias.weight.fill_(0.2)
        model.context_bias.weight.copy_(rows[:, None])
    batch = full_table(torch.exp(torch.outer(rows, columns) + 0.2 + rows[None]))
    loss = model(batch)["loss"]
    loss.backward()
    assert loss < 1e-28
    assert all(parameter.grad.abs().max() < 1e-13 for parameter in model.parameters())


@pytest.mark.parametrize("dim", [1, 2])
def test_the_best_fit_is_the_truncated_svd_of_the_centred_logarithms(dim):
    # With all weights 1 the biases take up the means of rows and columns, and the vectors the largest singular values
    # of what is left (Eckart and Young, 1936).
    logarithms = torch.randn(6, 6, generator=torch.Generator().manual_seed(5)).double()
    centred = logarithms - logarithms.mean(0) - logarithms.mean(1, keepdim=True) + logarithms.mean()
    best = (torch.linalg.svdvals(centred)[dim:] ** 2).sum().item() / 36
    assert best > 0.01
    model = GloVe(GloVeConfig(vocab=6, dim=dim, most=1e-9)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert fitted(model, full_table(logarithms.exp())) == pytest.approx(best, rel=1e-6)


def test_with_enough_dimensions_a_table_is_fitted_exactly():
    model = GloVe(GloVeConfig(vocab=7, dim=7)).double()
    batch = full_table(torch.randint(1, 200, (7, 7)).double())
    assert model(batch)["loss"] > 1
    assert fitted(model, batch) < 1e-10


def test_counts_above_the_most_weigh_the_same():
    model = GloVe(GloVeConfig(vocab=2, dim=2, most=10.0))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    losses = [model(Counts(torch.tensor([[0, 1]]), torch.tensor([x])))["loss"].item() for x in (10.0, 1000.0)]
    assert losses == pytest.approx([math.log(10) ** 2, math.log(1000) ** 2], rel=1e-6)


def test_vectors_are_the_sum_of_both_tables():
    model = GloVe(GloVeConfig(vocab=5, dim=3))
    tokens = torch.tensor([[3, 1], [4, 1]])
    both = model.words.weight + model.contexts.weight
    assert torch.equal(model.vectors(), both)
    assert torch.equal(model.encode(tokens), both[tokens])
    assert not model.vectors().requires_grad
