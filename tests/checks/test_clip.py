"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import clip as check


def unit(vectors):
    return F.normalize(vectors, dim=1)


def rows(scores):
    return F.cross_entropy(scores, torch.arange(len(scores)))


def loss(pictures, texts, temperature, *, length=unit, scale=None, total=None):
    cosines = length(pictures) @ length(texts).T
    scores = cosines / temperature if scale is None else scale(cosines, temperature)
    return (rows(scores) + rows(scores.T)) / 2 if total is None else total(scores)


def in_place(pictures, texts, temperature):
    pictures /= pictures.norm(dim=1, keepdim=True)
    return loss(pictures, texts, temperature)


def table_normed(pictures, texts, temperature):
    scores = F.normalize(pictures @ texts.T / temperature, dim=1)
    return (rows(scores) + rows(scores.T)) / 2


@pytest.mark.parametrize("answer", [loss, lambda *a: float(loss(*a))])
def test_repaired_accepts_a_right_answer(answer, capsys):
    check.repaired(answer)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: loss(*a, length=lambda x: x, total=rows), "as it stood"),
        (lambda *a: loss(*a, length=lambda x: x), "length 1 first"),
        (lambda *a: loss(*a, total=rows), "which picture fits the text\\?"),
        (lambda *a: loss(*a, total=lambda s: rows(s.T)), "which text fits the picture\\?"),
        (lambda *a: loss(*a, total=lambda s: rows(s) + rows(s.T)), "sum of the two"),
        (lambda *a: loss(*a, scale=lambda c, t: c * t), "multiply"),
        (lambda *a: loss(*a, scale=lambda c, t: c), "not used"),
        (lambda *a: loss(*a, length=lambda x: F.normalize(x, dim=0)), "dim=1"),
        (lambda *a: -loss(*a), "sign"),
        (lambda *a: loss(*a) + 1, "expected"),
        (lambda *a: torch.ones(5), "one number"),
        (table_normed, "table of scores"),
        (in_place, "changed the vectors"),
        (lambda *a: None, "return"),
    ],
)
def test_repaired_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.repaired(answer)


def recall(similar, k, *, ties="random", offset=0):
    own = similar.diagonal()[:, None]
    before, tied = (similar > own).sum(1), (similar == own).sum(1)
    if ties == "won":
        return float((before < k + offset).float().mean())
    if ties == "lost":
        return float((before + tied - 1 < k).float().mean())
    return float(((k + offset - before) / tied).clamp(0, 1).mean())


def not_held(similar, k):
    own = similar.diagonal()[:, None]
    return float(((k - (similar > own).sum(1)) / (similar == own).sum(1)).clamp(max=1).clamp(min=-9).mean())


def ties_halved(similar, k):
    return (recall(similar, k, ties="won") + recall(similar, k, ties="lost")) / 2


def chance_for_ties(similar, k):
    """Right where nothing or everything is tied, and wrong between."""
    own = similar.diagonal()[:, None]
    before, tied = (similar > own).sum(1), (similar == own).sum(1)
    return float(torch.where(tied > 1, torch.tensor(k / len(similar)), (before < k).float()).mean())


def sorted_in_place(similar, k):
    value = recall(similar, k)
    similar.copy_(similar.sort(1).values)
    return value


def test_recall_at_accepts_a_right_answer(capsys):
    check.recall_at(recall)
    check.recall_at(lambda *a: torch.tensor(recall(*a)))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s, k: recall(s, k, ties="won"), "recall of 1 from you"),
        (lambda s, k: recall(s, k, ties="lost"), "every tie as lost"),
        (ties_halved, "everything tied"),
        (chance_for_ties, "tied ones share"),
        (lambda s, k: recall(s.T, k), "down the columns"),
        (lambda s, k: recall(-s, k), "least similar"),
        (lambda s, k: recall(s, k, offset=1), "too many"),
        (lambda s, k: recall(s, k, offset=-1), "too few"),
        (lambda s, k: 8 * recall(s, k), "number of queries"),
        (lambda s, k: recall(s, 1), "k = 1 only"),
        (lambda s, k: 0.123, "without ties"),
        (lambda s, k: s, "one number"),
        (not_held, "expected"),
        (sorted_in_place, "changed the table"),
        (lambda s, k: None, "return"),
    ],
)
def test_recall_at_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.recall_at(answer)


def mean_prompt(vectors, *, before=2, after=True):
    inside = vectors if before is None else F.normalize(vectors, dim=before)
    found = inside.mean(0)
    return F.normalize(found, dim=1) if after else found


def scaled(vectors):
    vectors /= vectors.norm(dim=2, keepdim=True)
    return mean_prompt(vectors)


def test_ensemble_accepts_a_right_answer(capsys):
    check.ensemble(mean_prompt)
    check.ensemble(lambda v: F.normalize(F.normalize(v, dim=2).sum(0), dim=1))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda v: mean_prompt(v, after=False), "once more"),
        (lambda v: mean_prompt(v, before=None, after=False), "nothing has length 1"),
        (lambda v: mean_prompt(v, before=None), "outweighs"),
        (lambda v: mean_prompt(v, before=1), "over the classes"),
        (lambda v: F.normalize(v, dim=2)[0], "first template alone"),
        (lambda v: F.normalize(v, dim=2).mean(1), "averaged over the classes"),
        (lambda v: F.normalize(v, dim=2), "shape"),
        (lambda v: -mean_prompt(v), "begins with"),
        (scaled, "changed the vectors"),
        (lambda v: None, "return"),
    ],
)
def test_ensemble_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.ensemble(answer)


def sigmoid(cosines, scale, bias, *, strangers=-1.0, scores=None, total=None):
    sign = torch.full_like(cosines, strangers).fill_diagonal_(1.0)
    each = -F.logsigmoid(sign * (scale * cosines + bias if scores is None else scores))
    return each.sum() / len(cosines) if total is None else total(each)


def plain(cosines, scale, bias):
    """Overflows at a large scale."""
    sign = 2 * torch.eye(len(cosines)) - 1
    return -torch.sigmoid(sign * (scale * cosines + bias)).log().sum() / len(cosines)


def half_bracket(cosines, scale, bias):
    sign = 2 * torch.eye(len(cosines)) - 1
    return -F.logsigmoid(sign * scale * cosines + bias).sum() / len(cosines)


def turned(cosines, scale, bias):
    sign = 1 - 2 * torch.eye(len(cosines))
    return -F.logsigmoid(sign * (scale * cosines + bias)).sum() / len(cosines)


def multiplied(cosines, scale, bias):
    cosines *= scale
    return sigmoid(cosines, 1.0, bias)


def test_sigmoid_loss_accepts_a_right_answer(capsys):
    check.sigmoid_loss(sigmoid)
    check.sigmoid_loss(lambda *a: float(sigmoid(*a)))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: sigmoid(*a, total=torch.mean), "number of entries"),
        (lambda *a: sigmoid(*a, total=torch.sum), "that is the sum"),
        (lambda *a: -sigmoid(*a), "sign is wrong"),
        (lambda *a: sigmoid(*a, strangers=0.0), "0 for strangers"),
        (lambda *a: sigmoid(*a, total=lambda e: e.diagonal().mean()), "only the pairs"),
        (lambda c, t, b: sigmoid(c, t, b, scores=t * c), "bias is missing"),
        (lambda c, t, b: sigmoid(c, t, b, scores=t * (c + b)), "after the scale"),
        (lambda *a: sigmoid(*a) + 1, "expected"),
        (lambda *a: sigmoid(*a, total=lambda e: e), "one number"),
        (lambda *a: float("nan"), "nan"),
        (turned, "wrong way round"),
        (half_bracket, "whole bracket"),
        (plain, "F.logsigmoid"),
        (multiplied, "changed the table"),
        (lambda *a: None, "return"),
    ],
)
def test_sigmoid_loss_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.sigmoid_loss(answer)
