"""Checkers of lesson clip. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed
from pfmcourse.models.clip import prompt_ensemble
from pfmcourse.nn.contrastive import clip_loss

NO_RETURN = "your function returned None: is the `return` missing?"


def _number(found: object) -> float:
    """A single number; raises CheckFailed for anything else."""
    if found is None:
        raise CheckFailed(NO_RETURN)
    value = torch.as_tensor(found)
    if value.numel() != 1:
        raise CheckFailed(f"one number was asked for, but yours has the shape {tuple(value.shape)}")
    return float(value)


def _close(value: float, other: Tensor | float) -> bool:
    return math.isclose(value, float(other), rel_tol=1e-4, abs_tol=1e-6)


def repaired(answer: Callable[[Tensor, Tensor, float], Tensor | float]) -> None:
    """Exercise 1: the symmetric loss on vectors of length 1."""
    generator = torch.Generator().manual_seed(3)
    pictures, texts = torch.randn(2, 5, 6, generator=generator) * torch.rand(2, 5, 1, generator=generator) * 3
    temperature, own = 0.2, torch.arange(5)
    kept = pictures.clone(), texts.clone()
    value = _number(answer(pictures, texts, temperature))
    if not (torch.equal(pictures, kept[0]) and torch.equal(texts, kept[1])):
        raise CheckFailed("your function changed the vectors themselves: work on copies")
    raw = pictures @ texts.T
    cosines = F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).T

    def rows(scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, own)

    def both(scores: Tensor) -> Tensor:
        return (rows(scores) + rows(scores.T)) / 2

    if _close(value, rows(raw / temperature)):
        raise CheckFailed("that is the loss as it stood: two things are wrong with it")
    if _close(value, both(raw / temperature)):
        raise CheckFailed("both directions are there, but a long vector still wins: bring all to length 1 first")
    if _close(value, rows(cosines / temperature)):
        raise CheckFailed("the rows ask which text fits the picture; who asks which picture fits the text?")
    if _close(value, rows(cosines.T / temperature)):
        raise CheckFailed("the columns ask which picture fits the text; who asks which text fits the picture?")
    if _close(value, 2 * both(cosines / temperature)):
        raise CheckFailed("that is the sum of the two directions; the mean was asked for")
    if _close(value, both(cosines * temperature)):
        raise CheckFailed("you multiply by the temperature: divide, so that a low one makes differences large")
    if _close(value, both(cosines)):
        raise CheckFailed("the temperature is not used: divide the cosines by it")
    if _close(value, both(F.normalize(raw / temperature, dim=1))):
        raise CheckFailed("you normalise the table of scores: it is the vectors that need length 1")
    normed = F.normalize(pictures, dim=0) @ F.normalize(texts, dim=0).T
    if _close(value, both(normed / temperature)):
        raise CheckFailed("you normalise down the columns: each row is a vector, so normalise along dim=1")
    if _close(value, -both(cosines / temperature)):
        raise CheckFailed("the sign is wrong: the loss is minus the logarithm")
    wanted, _ = clip_loss(pictures, texts, 1 / temperature)
    if not _close(value, wanted):
        raise CheckFailed(f"expected {float(wanted):.4f}, got {value:.4f}")
    passed("vectors of length 1, and a question for each row and each column")


def recall_at(answer: Callable[[Tensor, int], float | Tensor]) -> None:
    """Exercise 2: recall at k, with ties counted as broken at random."""
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(8, 8, generator=generator)
    table += 0.7 * torch.eye(8)
    kept = table.clone()

    def strictly(similar: Tensor, k: int) -> Tensor:
        return ((similar > similar.diagonal()[:, None]).sum(1) < k).float().mean()

    for k in (1, 3):
        value = _number(answer(table, k))
        if not torch.equal(table, kept):
            raise CheckFailed("your function changed the table itself: work on a copy")
        if not _close(value, strictly(table, k)):
            if k == 3 and _close(value, strictly(table, 1)):
                raise CheckFailed("right for k = 1 only: the first k count")
            if _close(value, strictly(table.T, k)):
                raise CheckFailed("you compare down the columns: a query is a row, its answers stand beside it")
            if _close(value, strictly(-table, k)):
                raise CheckFailed("you count the least similar: large numbers mean similar")
            if _close(value, strictly(table, k + 1)):
                raise CheckFailed("one place too many: with k - 1 wrong ones before it, the right one is the k-th")
            if _close(value, strictly(table, k - 1)):
                raise CheckFailed("one place too few: the right answer itself does not come before itself")
            if _close(value, 8 * strictly(table, k)):
                raise CheckFailed("that is the number of queries; their share was asked for")
            raise CheckFailed(f"without ties, expected {float(strictly(table, k)):.4f} for k = {k}, got {value:.4f}")
    collapsed = _number(answer(torch.ones(8, 8), 2))
    if _close(collapsed, 1.0):
        raise CheckFailed(
            "a network that says the same of everything gets a recall of 1 from you: a right answer that is tied with "
            "seven wrong ones is among the first 2 in 2 of 8 cases"
        )
    if _close(collapsed, 0.0):
        raise CheckFailed("you count every tie as lost; at random, 2 of 8 tied answers are among the first 2")
    if not _close(collapsed, 2 / 8):
        raise CheckFailed(f"everything tied, k = 2 of 8: expected 0.25, got {collapsed:.4f}")
    tied = torch.tensor([[0.5, 0.9, 0.5, 0.1], [0.2, 0.9, 0.1, 0.9], [0.0, 0.1, 0.2, 0.3], [0.7, 0.7, 0.7, 0.7]])
    for k, wanted in ((1, (0 + 0.5 + 0 + 0.25) / 4), (2, (0.5 + 1 + 1 + 0.5) / 4), (4, 1.0)):
        value = _number(answer(tied, k))
        if not _close(value, wanted):
            raise CheckFailed(
                f"k = {k} for the rows {tied.tolist()}: expected {wanted:.4f}, got {value:.4f}. Of the places that the "
                "tied ones share, how many are among the first k? Never less than none, never more than all"
            )
    passed("a tie is worth what chance gives it, and a collapsed network gets k / N")


def ensemble(answer: Callable[[Tensor], Tensor]) -> None:
    """Exercise 3: one vector of length 1 for each class."""
    generator = torch.Generator().manual_seed(7)
    vectors = torch.randn(3, 4, 5, generator=generator) * torch.tensor([0.3, 1.0, 4.0])[:, None, None]
    kept = vectors.clone()
    found = answer(vectors)
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not torch.equal(vectors, kept):
        raise CheckFailed("your function changed the vectors themselves: work on copies")
    if not isinstance(found, Tensor):
        raise CheckFailed(f"return one tensor, a row for each class; yours is a {type(found).__name__}")
    wanted, unit = prompt_ensemble(vectors), F.normalize(vectors, dim=2)
    if found.shape == (3, 5):
        raise CheckFailed("you averaged over the classes: the templates are the first axis")
    if found.shape != wanted.shape:
        raise CheckFailed(f"expected the shape (4, 5), classes and numbers of a vector, got {tuple(found.shape)}")

    def close(other: Tensor) -> bool:
        return torch.allclose(found.float(), other, atol=1e-5)

    if close(unit.mean(0)):
        raise CheckFailed("the mean of vectors of length 1 is shorter than 1: normalise once more at the end")
    if close(vectors.mean(0)):
        raise CheckFailed("nothing has length 1: normalise the vectors before the mean, and the mean after it")
    if close(F.normalize(vectors.mean(0), dim=1)):
        raise CheckFailed("a template with long vectors outweighs the others: normalise before the mean, too")
    if close(unit[0]):
        raise CheckFailed("that is the first template alone")
    if close(F.normalize(F.normalize(vectors, dim=1).mean(0), dim=1)):
        raise CheckFailed("you normalise over the classes: the numbers of one vector are the last axis, dim=2")
    if not close(wanted):
        raise CheckFailed(f"the first class should begin with {wanted[0, 0]:.4f}, yours begins with {found[0, 0]:.4f}")
    passed("each template has one voice, and each class one vector of length 1")


def sigmoid_loss(answer: Callable[[Tensor, float, float], Tensor | float]) -> None:
    """Exercise 4: SigLIP's loss (Zhai et al. 2023, algorithm 1)."""
    generator = torch.Generator().manual_seed(9)
    cosines = 2 * torch.rand(5, 5, generator=generator) - 1
    scale, bias, eye = 4.0, -1.5, torch.eye(5)
    kept = cosines.clone()
    value = _number(answer(cosines, scale, bias))
    if not torch.equal(cosines, kept):
        raise CheckFailed("your function changed the table of cosines itself: work on a copy")

    def each(sign: Tensor, scores: Tensor) -> Tensor:
        return -F.logsigmoid(sign * scores)

    scores, sign = scale * cosines + bias, 2 * eye - 1
    right = each(sign, scores)
    wanted = right.sum() / 5
    if math.isnan(value):
        raise CheckFailed("the loss is nan: leave log and sigmoid to F.logsigmoid")
    if _close(value, right.mean()):
        raise CheckFailed("you divide by the number of entries; the paper divides the sum by the number of pairs")
    if _close(value, right.sum()):
        raise CheckFailed("that is the sum: divide it by the number of pairs")
    if _close(value, -wanted):
        raise CheckFailed("the sign is wrong: the loss is minus the logarithm")
    if _close(value, each(-sign, scores).sum() / 5):
        raise CheckFailed("z is the wrong way round: 1 on the diagonal, -1 everywhere else")
    if _close(value, each(eye, scores).sum() / 5):
        raise CheckFailed("z is 0 for strangers in your answer: it should be -1, or they push nothing away")
    if _close(value, right.diagonal().sum() / 5):
        raise CheckFailed("only the pairs count in your answer: then one vector for everything would be perfect")
    if _close(value, each(sign, scale * cosines).sum() / 5):
        raise CheckFailed("the bias is missing: it makes up for the many strangers")
    if _close(value, each(sign, scale * (cosines + bias)).sum() / 5):
        raise CheckFailed("the bias is added after the scale, not before")
    if _close(value, (-F.logsigmoid(sign * scale * cosines + bias)).sum() / 5):
        raise CheckFailed("z multiplies the whole bracket, the bias too")
    if not _close(value, wanted):
        raise CheckFailed(f"expected {float(wanted):.4f}, got {value:.4f}")
    extreme = _number(answer(2 * torch.rand(5, 5, generator=generator) - 1, 1000.0, -10.0))
    if not math.isfinite(extreme):
        raise CheckFailed("at a scale of 1000 sigmoid is 0 and its logarithm minus infinity: use F.logsigmoid")
    passed("a yes or no for every picture with every text")
