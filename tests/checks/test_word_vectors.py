"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import word_vectors as check


def pairs(sentence, window, *, ahead=True, back=True, itself=False, short=0, wrap=False):
    found = []
    for i, centre in enumerate(sentence):
        for j in range(i - window + short, i + window + 1 - short):
            inside = (wrap and j < len(sentence)) or 0 <= j < len(sentence)
            if inside and ((j < i and back) or (j > i and ahead) or (j == i and itself)):
                found.append((centre, sentence[j]))
    return found


def emptied(sentence, window):
    found = pairs(sentence, window)
    sentence.clear()
    return found


def test_context_pairs_accepts_a_right_answer(capsys):
    check.context_pairs(pairs)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s, w: pairs(s, w, back=False), "only look ahead"),
        (lambda s, w: pairs(s, w, ahead=False), "only look back"),
        (lambda s, w: pairs(s, w, itself=True), "paired with itself"),
        (lambda s, w: pairs(s, w, short=1), "range"),
        (lambda s, w: pairs(s, w + 1), "3 words ahead"),
        (lambda s, w: [pair for pair in pairs(s, w) if s.index(pair[1]) - s.index(pair[0]) < w], "ahead is 1 away"),
        (lambda s, w: [pair for pair in pairs(s, w) if s.index(pair[0]) - s.index(pair[1]) < w], "back is 1 away"),
        (lambda s, w: [*pairs(s[1:], w), ("i", "shall")], "pairs are missing"),
        (lambda s, w: pairs(s, w, wrap=True), "negative index"),
        (lambda s, w: pairs(s, w) * 2, "twice"),
        (lambda s, w: pairs(list(range(len(s))), w), "not of their places"),
        (lambda s, w: len(pairs(s, w)), "list of pairs"),
        (lambda s, w: None, "return"),
        (emptied, "changed the sentence"),
    ],
)
def test_context_pairs_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.context_pairs(answer)


def rank(vectors, query, k, *, unit=True, itself=False, descending=True, axis=1):
    table = vectors / vectors.norm(dim=axis, keepdim=True) if unit else vectors
    order = (table @ table[query]).argsort(descending=descending).tolist()
    return [row for row in order if itself or row != query][:k]


def in_place(vectors, query, k):
    vectors /= vectors.norm(dim=1, keepdim=True)
    return rank(vectors, query, k)


def test_nearest_accepts_a_right_answer(capsys):
    check.nearest(rank)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda v, q, k: rank(v, q, k, itself=True), "own nearest"),
        (lambda v, q, k: rank(v, q, k, unit=False), "dot product"),
        (lambda v, q, k: rank(v, q, k, descending=False), "opposite"),
        (lambda v, q, k: rank(v, q, k + 1), "you gave 3"),
        (lambda v, q, k: rank(v, q, k, axis=0), "dot product|axis"),
        (lambda v, q, k: [2, 4], "right for the first small case"),
        (in_place, "in place"),
        (lambda v, q, k: None, "return"),
    ],
)
def test_nearest_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.nearest(answer)


def loss(centre, true, random):
    return -F.logsigmoid(true @ centre) - F.logsigmoid(-(random @ centre)).sum()


def test_negative_sampling_loss_accepts_a_right_answer(capsys):
    check.negative_sampling_loss(loss)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda c, t, r: -loss(c, t, r), "sign"),
        (lambda c, t, r: -F.logsigmoid(t @ c) - F.logsigmoid(r @ c).sum(), "treated as true"),
        (lambda c, t, r: -F.logsigmoid(t @ c) - F.logsigmoid(-(r @ c)).mean(), "mean"),
        (lambda c, t, r: -F.logsigmoid(t @ c) + F.logsigmoid(-(r @ c)).sum(), "different signs"),
        (lambda c, t, r: F.logsigmoid(t @ c) - F.logsigmoid(-(r @ c)).sum(), "different signs"),
        (lambda c, t, r: -F.logsigmoid(t @ c), "only the true"),
        (lambda c, t, r: -F.logsigmoid(-(r @ c)).sum(), "only the random"),
        (lambda c, t, r: -torch.sigmoid(t @ c) - torch.sigmoid(-(r @ c)).sum(), "logarithm"),
        (lambda c, t, r: -torch.sigmoid(t @ c).log() - torch.sigmoid(-(r @ c)).log().sum(), "infinite"),
        (lambda c, t, r: -F.logsigmoid(t @ c) - F.logsigmoid(-(r @ c)), "one number"),
        (lambda c, t, r: None, "return"),
    ],
)
def test_negative_sampling_loss_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.negative_sampling_loss(answer)


def pmi(counts, *, total=True, marginal=True, positive=True, log=np.log):
    chance = counts.sum(1, keepdims=True) * (counts.sum(0) if marginal else 1)
    raw = log(counts / (chance / counts.sum() if total else chance))
    return np.maximum(raw, 0) if positive else raw


def pmi_of(counts, both):
    return np.maximum(np.log(counts / both * counts.sum()), 0)


def changed(counts):
    found = pmi(counts)
    counts += 1
    return found


def test_positive_pmi_accepts_a_right_answer(capsys):
    check.positive_pmi(pmi)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda c: pmi(c, positive=False), "log 0"),
        (lambda c: np.nan_to_num(pmi(c, positive=False), neginf=0), "negative"),
        (lambda c: pmi(c, log=np.log2), "base 2"),
        (lambda c: pmi(c, total=False), "total"),
        (lambda c: pmi(c, total=False, marginal=False), "every entry is 0"),
        (lambda c: pmi(c.T), "row 0"),
        (lambda c: pmi_of(c, c.sum(1) * c.sum(0)), "keepdims"),
        (lambda c: pmi_of(c, c.sum(1, keepdims=True) * c.sum(1)), "along the same axis"),
        (lambda c: pmi_of(c, c.sum(0)[:, None] * c.sum(0)), "down the columns"),
        (lambda c: pmi_of(c, c.sum(1, keepdims=True) + c.sum(0)), "totals are added"),
        (lambda c: pmi(c)[0], "shape"),
        (changed, "in place"),
        (lambda c: None, "return"),
    ],
)
def test_positive_pmi_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.positive_pmi(answer)
