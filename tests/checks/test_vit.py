"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import vit as check


def pool(tokens, special, pooling, *, row=0, begin=None):
    if pooling == "class":
        return tokens[:, row]
    return tokens[:, special if begin is None else begin :].mean(1)


def zeroed(tokens, special, pooling):
    found = pool(tokens, special, pooling).clone()
    tokens[:, :special] = 0
    return found


def test_pool_accepts_a_right_answer(capsys):
    check.pool(pool)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda t, s, p: pool(t, s, p, row=-1), "last token"),
        (lambda t, s, p: pool(t, s, p, row=s), "number 0"),
        (lambda t, s, p: pool(t, s, p, row=s - 1), "number 0"),
        (lambda t, s, p: pool(t, s, "mean"), "class token alone"),
        (lambda t, s, p: t.mean(1), "class token alone"),
        (lambda t, s, p: pool(t, s, "class"), "the mean of the patches was asked for"),
        (lambda t, s, p: pool(t, s, p, begin=0), "special tokens are in the mean"),
        (lambda t, s, p: pool(t, s, p, begin=1), "DeiT's second token"),
        (lambda t, s, p: t[:, 0] if p == "class" else t[:, s:].sum(1), "divide by how many"),
        (lambda t, s, p: t[:, 0] if p == "class" else t[:, s:].amax(1), "maximum"),
        (lambda t, s, p: 2 * pool(t, s, p), "none that this checker knows"),
        (lambda t, s, p: t[:, :1], "axis of length 1"),
        (lambda t, s, p: t.mean((0, 1)), "over the pictures"),
        (lambda t, s, p: t.mean(2), "along axis 1"),
        (zeroed, "in place"),
        (lambda *a: None, "return"),
    ],
)
def test_pool_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.pool(answer)


def distilled(by_label, by_teacher, labels, scores, *, share=0.5, swap=False, target=None):
    target = scores.argmax(1) if target is None else target
    if swap:
        by_label, by_teacher = by_teacher, by_label
    return (1 - share) * F.cross_entropy(by_label, labels) + share * F.cross_entropy(by_teacher, target)


def written_out(by_label, by_teacher, labels, scores):
    total = 0.0
    for row in range(len(labels)):
        total -= by_label[row].log_softmax(0)[labels[row]] / 2
        total -= by_teacher[row].log_softmax(0)[scores[row].argmax()] / 2
    return total / len(labels)


@pytest.mark.parametrize("answer", [distilled, written_out])
def test_hard_distillation_accepts_a_right_answer(answer, capsys):
    check.hard_distillation(answer)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: 2 * distilled(*a), "sum of both"),
        (lambda *a: distilled(*a, share=0), "teacher is not in"),
        (lambda *a: distilled(*a, share=1), "labels are not in"),
        (lambda *a: distilled(*a, swap=True), "swapped"),
        (lambda *a: distilled(*a, target=a[3].softmax(1)), "soft distillation"),
        (lambda *a: distilled(*a, target=a[3].argmin(1)), "last choice"),
        (lambda *a: distilled(*a, target=a[3]), "argmax"),
        (lambda one, two, *rest: distilled(one, one, *rest), "distillation token learns nothing"),
        (lambda one, two, *rest: distilled((one + two) / 2, (one + two) / 2, *rest), "its own target"),
        (lambda *a: -distilled(*a), "sign"),
        (lambda *a: distilled(*a) * 3, "expected"),
        (lambda one, two, labels, scores: F.cross_entropy(one, labels, reduction="none"), "one number"),
        (lambda *a: None, "return"),
    ],
)
def test_hard_distillation_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.hard_distillation(answer)


def rollout(maps, *, identity=1.0, divide=2.0, heads="mean", turned=False):
    size = maps.shape[-1]
    joined = maps.amax(1) if heads == "amax" else getattr(maps, heads)(1)
    total = torch.eye(size)
    for layer in joined.flip(0) if turned else joined:
        total = (layer + identity * torch.eye(size)) / divide @ total
    return total


def in_place(maps):
    maps += torch.eye(maps.shape[-1])
    return rollout(maps)


def three_layers(maps):
    return rollout(maps[:3])


def test_rollout_accepts_a_right_answer(capsys):
    check.rollout(rollout)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda m: rollout(m, turned=True), "wrong order"),
        (lambda m: rollout(m).T, "transpose"),
        (lambda m: rollout(m, identity=0, divide=1), "identity is missing"),
        (lambda m: rollout(m, divide=1), "no longer add up"),
        (lambda m: rollout(m, heads="amax"), "averaged"),
        (lambda m: rollout(m, heads="sum"), "averaged"),
        (lambda m: m[-1].mean(0), "last layer alone"),
        (lambda m: m.mean(1).prod(0), "entry by entry"),
        (lambda m: m.mean((0, 1)), "mean over the layers"),
        (lambda m: rollout(m, divide=3), "first row should be"),
        (lambda m: m.mean(1), "layers are still apart"),
        (lambda m: m.mean(0), "heads are still apart"),
        (lambda m: rollout(m)[0], "one matrix"),
        (three_layers, "sizes written as numbers"),
        (in_place, "in place"),
        (lambda m: None, "return"),
    ],
)
def test_rollout_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.rollout(answer)


def stretch(table, special, rows, columns, *, mode="bicubic", corners=False, order=(1, 2, 0), plane="right", keep=True):
    side = round((len(table) - special) ** 0.5)
    grid = table[special:]
    pictures = {
        "right": lambda: grid.view(side, side, -1).permute(2, 0, 1),
        "turned": lambda: grid.view(side, side, -1).permute(2, 1, 0),
        "mixed": lambda: grid.reshape(-1, side, side),
    }[plane]()
    options = {} if mode == "nearest" else {"align_corners": corners}
    made = F.interpolate(pictures[None], size=(rows, columns), mode=mode, **options)[0]
    return torch.cat([table[:special] if keep else table[:0], made.permute(order).flatten(0, 1)])


def along(table, special, rows, columns):
    return F.interpolate(table.T[None], size=special + rows * columns, mode="linear")[0].T


def test_stretch_accepts_a_right_answer(capsys):
    check.stretch(stretch)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: stretch(*a, keep=False), "put them in front"),
        (lambda *a: stretch(*a, mode="bilinear"), "bilinear"),
        (lambda *a: stretch(*a, mode="nearest"), "nearest"),
        (lambda *a: stretch(*a, corners=True), "align_corners"),
        (lambda *a: stretch(*a, order=(2, 1, 0)), "column by column"),
        (lambda *a: stretch(*a, plane="turned"), "swapped"),
        (lambda *a: stretch(*a, plane="mixed"), "permute"),
        (along, "one axis"),
        (lambda *a: stretch(*a) * 2, "stay as they are"),
        (lambda t, s, r, c: torch.cat([t[:s], 2 * stretch(t, s, r, c)[s:]]), "not those of bicubic"),
        (lambda t, s, r, c: stretch(t, s, c, c), "rows, but yours has"),
        (lambda *a: stretch(*a).T, "table"),
        (lambda t, s, r, c: t.zero_(), "in place"),
        (lambda *a: None, "return"),
    ],
)
def test_stretch_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.stretch(answer)
