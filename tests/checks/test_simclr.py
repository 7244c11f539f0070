"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import simclr as check


def partners(pictures, *, partner=None, candidate=None):
    views = torch.arange(2 * pictures)
    right = views.roll(pictures), views != views[:, None]
    return (right[0] if partner is None else partner(views)), (right[1] if candidate is None else candidate(views))


def test_partners_accepts_a_right_answer(capsys):
    check.partners(partners)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda n: partners(n, partner=lambda v: v), "its own partner"),
        (lambda n: partners(n, partner=lambda v: v + n), "beyond the last row"),
        (lambda n: partners(n, partner=lambda v: v ^ 1), "a1 a2 b1 b2"),
        (lambda n: partners(n, partner=lambda v: (v + 1) % (2 * n)), "next row"),
        (lambda n: partners(n, partner=lambda v: v[n:]), "only the first views"),
        (lambda n: partners(n, partner=lambda v: v[1:]), "6 views"),
        (lambda n: partners(n, partner=lambda v: (v + 3) % (2 * n)), "for 5 pictures"),
        (lambda n: partners(n, candidate=lambda v: v == v), "6 x 6"),
        (lambda n: partners(n, candidate=lambda v: (v != v[:, None]).float()), "booleans"),
        (lambda n: partners(n, candidate=lambda v: v + 1 > 0 * v[:, None]), "candidate for itself"),
        (lambda n: partners(n, candidate=lambda v: v == v[:, None]), "wrong way round"),
        (
            lambda n: partners(n, candidate=lambda v: (v != v[:, None]) & (v != v.roll(n)[:, None])),
            "partner itself is no candidate",
        ),
        (lambda n: partners(n, candidate=lambda v: v == v.roll(n)[:, None]), "only the partner"),
        (lambda n: partners(n, candidate=lambda v: v > v[:, None]), "where a view meets itself"),
        (lambda n: partners(n)[0], "two tensors"),
        (lambda n: None, "return"),
    ],
)
def test_partners_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.partners(answer)


def loss(cosines, partner, temperature, *, scale=None, fill=-torch.inf, rows=None, reduction="mean"):
    scores = cosines / temperature if scale is None else scale(cosines)
    if fill is not None:
        scores = scores.masked_fill(torch.eye(len(cosines), dtype=torch.bool), fill)
    return F.cross_entropy(scores[:rows], partner[:rows], reduction=reduction)


def naive(cosines, partner, temperature):
    """Overflows when the temperature is low."""
    scores = (cosines / temperature).exp()
    below = scores.sum(1) - scores.diagonal()
    return -(scores[torch.arange(len(scores)), partner] / below).log().mean()


def without_partner(cosines, partner, temperature):
    scores, rows = (cosines / temperature).exp(), torch.arange(len(cosines))
    below = scores.sum(1) - scores.diagonal() - scores[rows, partner]
    return -(scores[rows, partner] / below).log().mean()


def multiplied(cosines, partner, temperature):
    scores = cosines / temperature * torch.where(torch.eye(len(cosines), dtype=torch.bool), -torch.inf, 1.0)
    return F.cross_entropy(scores * (1 - torch.eye(len(cosines))), partner)


def in_place(cosines, partner, temperature):
    cosines /= temperature
    return loss(cosines, partner, 1.0)


@pytest.mark.parametrize("answer", [loss, lambda *a: float(loss(*a))])
def test_contrastive_loss_accepts_a_right_answer(answer, capsys):
    check.contrastive_loss(answer)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: -loss(*a), "sign"),
        (lambda *a: loss(*a, reduction="sum"), "sum over the views"),
        (lambda *a: loss(*a, reduction="none"), "one number"),
        (lambda *a: loss(*a, fill=None), "among its own candidates"),
        (lambda *a: loss(*a, fill=0.0), "score of 0"),
        (lambda c, p, t: loss(c, p, t, scale=lambda x: x * t), "multiply"),
        (lambda c, p, t: loss(c, p, t, scale=lambda x: x), "not used"),
        (lambda *a: loss(*a, rows=4), "only the first views"),
        (lambda *a: loss(*a) + 1, "expected"),
        (lambda c, p, t: loss(c, torch.arange(len(c)).roll(len(c) // 2), t), "another order"),
        (without_partner, "partner is missing"),
        (multiplied, "nan"),
        (naive, "overflows"),
        (in_place, "changed the table"),
        (lambda *a: None, "return"),
    ],
)
def test_contrastive_loss_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.contrastive_loss(answer)


def follow(slow, fast, momentum, *, only=None):
    for ours, theirs in list(zip(slow, fast, strict=True))[:only]:
        ours.lerp_(theirs, 1 - momentum)


def renamed(slow, fast, momentum):
    for ours, theirs in zip(slow, fast, strict=True):
        ours = momentum * ours + (1 - momentum) * theirs


def exchanged(slow, fast, momentum):
    slow[:] = [momentum * a + (1 - momentum) * b for a, b in zip(slow, fast, strict=True)]


def test_follow_accepts_a_right_answer(capsys):
    check.follow(follow)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s, f, m: follow(s, f, 1 - m), "swapped"),
        (lambda s, f, m: follow(s, f, 0.0), "equal to the fast ones"),
        (lambda s, f, m: follow(s, f, 0.9), "0.9 only"),
        (lambda s, f, m: follow(s, f, m, only=1), "only the first tensor"),
        (lambda s, f, m: follow(f, s, m), "fast weights changed"),
        (lambda s, f, m: follow(s, f, m**2), "for slow"),
        (lambda s, f, m: [one.mul_(m).add_(two) for one, two in zip(s, f, strict=True)], "do not add up to 1"),
        (lambda s, f, m: [m * a + (1 - m) * b for a, b in zip(s, f, strict=True)], "you return new tensors"),
        (renamed, "did not move"),
        (exchanged, "into the list"),
        (lambda s, f, m: None, "did not move"),
    ],
)
def test_follow_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.follow(answer)


def measures(first, second, *, unit=(True, True), near=None, spread=None, pairs="others"):
    x, y = F.normalize(first, dim=1), F.normalize(second, dim=1)
    a, b = (x, y) if unit[0] else (first, second)
    z = x if unit[1] else first
    apart = (z[:, None] - z[None]).square().sum(2)
    if pairs == "others":
        apart = apart[~torch.eye(len(z), dtype=torch.bool)]
    near = near or (lambda a, b: (a - b).square().sum(1).mean())
    spread = spread or (lambda apart: (-2 * apart).exp().mean().log())
    return near(a, b), spread(apart)


def scaled(first, second):
    first /= first.norm(dim=1, keepdim=True)
    return measures(first, second)


def test_alignment_and_uniformity_accepts_a_right_answer(capsys):
    check.alignment_and_uniformity(measures)
    check.alignment_and_uniformity(lambda *a: [float(one) for one in measures(*a)])
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: measures(*a)[::-1], "wrong order"),
        (lambda *a: measures(*a, unit=(False, True)), "normalise each"),
        (lambda *a: measures(*a, near=lambda x, y: (x - y).norm(dim=1).mean()), "squared distance"),
        (lambda *a: measures(*a, near=lambda x, y: F.mse_loss(x, y)), "axes of a vector"),
        (lambda a, b: measures(F.normalize(a, dim=0), F.normalize(b, dim=0), unit=(False, True)), "down the columns"),
        (lambda *a: measures(*a, near=lambda x, y: (x - y).square().sum(0).mean()), "sum over the pictures"),
        (lambda *a: measures(*a, near=lambda x, y: (x - y).sum(1).mean()), "square is missing"),
        (lambda *a: measures(*a, near=lambda x, y: (x - y).square().sum()), "that is the sum"),
        (lambda *a: measures(*a, near=lambda x, y: torch.cdist(x, y).square().mean()), "row i with row i"),
        (lambda *a: measures(*a, near=lambda x, y: (x * y).sum(1).mean()), "expected an alignment"),
        (lambda *a: measures(*a, near=lambda x, y: (x - y).square().sum(1)), "single numbers"),
        (lambda *a: measures(*a, unit=(True, False)), "uniformity, too"),
        (lambda *a: measures(*a, pairs="all"), "with itself"),
        (lambda *a: measures(*a, spread=lambda d: (-2 * d).exp().mean()), "logarithm is missing"),
        (lambda *a: measures(*a, spread=lambda d: (-2 * d).mean()), "mean of the logarithms"),
        (lambda *a: measures(*a, spread=lambda d: (-2 * d.sqrt()).exp().mean().log()), "squared ones"),
        (lambda *a: measures(*a, spread=lambda d: (-d).exp().mean().log()), "factor 2"),
        (lambda *a: measures(*a, spread=lambda d: (2 * d).exp().mean().log()), "sign in the exponent"),
        (lambda *a: measures(*a, spread=lambda d: (-2 * d).exp().sum().log()), "logarithm of the sum"),
        (lambda *a: measures(*a, spread=lambda d: d.mean()), "expected a uniformity"),
        (lambda *a: measures(*a)[0], "two numbers"),
        (scaled, "changed the vectors"),
        (lambda *a: None, "return"),
    ],
)
def test_alignment_and_uniformity_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.alignment_and_uniformity(answer)
