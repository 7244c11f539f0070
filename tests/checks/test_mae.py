"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import mae as check


def masking(noise, kept, *, turned=False):
    order = noise.argsort(1, descending=turned)
    return order[:, :kept], order.argsort(1)


def masking_in_place(noise, kept):
    found = masking(noise, kept)
    noise.copy_(noise.sort(1).values)
    return found


def shared(noise, kept):
    return masking(noise[:1].expand_as(noise), kept)


def shuffled_rest(noise, kept):
    visible, restore = masking(noise, kept)
    return visible, restore.flip(1)


def fixed_kept(noise, kept):
    order = noise.argsort(1)
    return order[:, :3], order.argsort(1)


def test_masking_accepts_a_right_answer(capsys):
    check.masking(masking)
    check.masking(lambda *a: list(masking(*a)))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: masking(*a, turned=True), "largest noise"),
        (lambda noise, kept: (masking(noise, kept)[0], noise.argsort(1)), "shuffled order again"),
        (lambda noise, kept: (noise.sort(1).values[:, :kept], masking(noise, kept)[1]), "by their numbers"),
        (lambda noise, kept: (noise.argsort(1)[:, kept:], masking(noise, kept)[1]), "as many as should be hidden"),
        (lambda noise, kept: ((noise < 0.4).nonzero()[:, 1], masking(noise, kept)[1]), "threshold"),
        (lambda noise, kept: (torch.arange(kept).expand(len(noise), -1), masking(noise, kept)[1]), "first patches"),
        (lambda noise, kept: (masking(noise, kept)[1][:, :kept], masking(noise, kept)[1]), "rank"),
        (lambda noise, kept: (masking(noise, kept)[0], masking(noise, kept)[1][:, :kept]), "place for every patch"),
        (lambda noise, kept: (masking(noise, kept)[0], torch.zeros(noise.shape).long()), "every number"),
        (lambda noise, kept: masking(noise, kept)[0], "two things"),
        (shared, "same patches"),
        (shuffled_rest, "old order"),
        (fixed_kept, "wrong for 5"),
        (masking_in_place, "changed the noise"),
        (lambda *a: None, "return"),
    ],
)
def test_masking_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.masking(answer)


def forth(patches, *, axes=-1, correction=1, mean=True, epsilon=1e-6, spread="root", keepdim=True):
    variance, middle = torch.var_mean(patches, dim=axes, keepdim=True, correction=correction)
    deviation = {
        "root": (variance + epsilon).sqrt(),
        "outside": variance.sqrt() + epsilon,
        "variance": variance + epsilon,
        "one": torch.ones_like(variance),
    }[spread]
    normal = (patches - middle if mean else patches) / deviation
    return (normal, middle, deviation) if keepdim else (normal, middle.squeeze(-1), deviation.squeeze(-1))


def back(painted, mean, deviation):
    return painted * deviation + mean


def forth_in_place(patches):
    found = forth(patches)
    patches -= found[1]
    return found


def test_normalise_accepts_a_right_answer(capsys):
    check.normalise(forth, back)
    check.normalise(lambda x: forth(x, spread="outside"), back)
    check.normalise(
        lambda x: forth(x, keepdim=False),
        lambda painted, mean, spread: back(painted, mean[..., None], spread[..., None]),
    )
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "again", "named"),
    [
        (lambda x: forth(x, epsilon=0), back, "variance 0"),
        (lambda x: forth(x, spread="one"), back, "variance is not 1"),
        (lambda x: forth(x, spread="variance"), back, "divide by the variance"),
        (lambda x: forth(x, mean=False), back, "mean is still there"),
        (lambda x: forth(x, axes=(1, 2)), back, "whole picture"),
        (lambda x: forth(x, axes=(0, 1, 2)), back, "whole picture"),
        (lambda x: forth(x, axes=1), back, "across the patches"),
        (lambda x: forth(x, correction=0), back, "n - 1"),
        (lambda x: tuple(2 * part for part in forth(x)), back, "first patch"),
        (lambda x: forth(x)[0], back, "three things"),
        (lambda x: (forth(x)[0][..., 0], *forth(x)[1:]), back, "keep their shape"),
        (forth_in_place, back, "in place"),
        (lambda x: None, back, "return"),
        (lambda x: forth(x, keepdim=False), back, "keepdim"),
        (forth, lambda painted, mean, spread: (painted + mean) * spread, "other order"),
        (forth, lambda painted, mean, spread: painted * spread, "mean is missing"),
        (forth, lambda painted, mean, spread: painted + mean, "deviation is missing"),
        (forth, lambda painted, mean, spread: painted, "undo the way there"),
        (forth, lambda painted, mean, spread: back(painted, mean, spread)[0], "should give patches"),
        (forth, lambda *a: None, "return"),
    ],
)
def test_normalise_names_the_mistake(there, again, named):
    with pytest.raises(CheckFailed, match=named):
        check.normalise(there, again)


def error(painted, truth, mask):
    return (painted - truth).square()[mask].mean()


def error_in_place(painted, truth, mask):
    painted -= truth
    return painted.square()[mask].mean()


def test_hidden_error_accepts_a_right_answer(capsys):
    check.hidden_error(error)
    check.hidden_error(lambda p, t, m: float(((p - t).square().mean(-1) * m).sum() / m.sum()))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda p, t, m: (p - t).square().mean(), "all patches count"),
        (lambda p, t, m: error(p, t, ~m), "visible patches"),
        (lambda p, t, m: ((p - t).square() * m[..., None]).mean(), "divide by"),
        (lambda p, t, m: (p - t).square()[m].sum(), "a sum"),
        (lambda p, t, m: (p - t).square().mean(-1)[m].sum(), "a sum"),
        (lambda p, t, m: (p - t).square().sum(-1)[m].mean(), "summed over the numbers"),
        (lambda p, t, m: (p - t)[m].mean(), "square is missing"),
        (lambda p, t, m: (t - p)[m].mean(), "square is missing"),
        (lambda p, t, m: (p - t)[m].abs().mean(), "absolute"),
        (lambda p, t, m: error(p, t, m).sqrt(), "root"),
        (lambda p, t, m: (p - t).square().mean(-1), "one number"),
        (lambda p, t, m: 2 * error(p, t, m), "expected"),
        (error_in_place, "in place"),
        (lambda *a: None, "return"),
    ],
)
def test_hidden_error_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.hidden_error(answer)


def nearest(patches, codes):
    return torch.cdist(patches, codes).argmin(1)


def test_nearest_code_accepts_a_right_answer(capsys):
    check.nearest_code(nearest)
    check.nearest_code(lambda p, c: (p @ c.T - c.square().sum(1) / 2).argmax(1))
    check.nearest_code(lambda p, c: nearest(p, c).tolist())
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda p, c: c[nearest(p, c)], "codes themselves"),
        (lambda p, c: torch.cdist(p, c), "all distances"),
        (lambda p, c: torch.cdist(p, c).argmin(0), "axis of the codes"),
        (lambda p, c: torch.cdist(p, c).amin(1), "argmin, not min"),
        (lambda p, c: torch.cdist(p, c).argmax(1), "farthest"),
        (lambda p, c: (p @ c.T).argmax(1), "long codes"),
        (lambda p, c: (F.normalize(p, dim=1) @ F.normalize(c, dim=1).T).argmax(1), "how dark"),
        (lambda p, c: torch.cdist(p, c, p=1).argmin(1), "absolute"),
        (lambda p, c: (p[:, None] - c).sum(-1).argmin(1), "square is missing"),
        (lambda p, c: (p[:, None] - c).square().sum(1).argmin(1), "sum over the codes"),
        (lambda p, c: nearest(p, c)[:-1], "7 tokens"),
        (lambda p, c: nearest(p, c) + 1, "expected the tokens"),
        (lambda *a: None, "return"),
    ],
)
def test_nearest_code_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.nearest_code(answer)
