"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import pytest
import torch

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import bert as check


def hide(tokens, places, chance, other, mask_token, *, low=0.8, high=0.9, turned=False, swapped=False):
    found, truth = tokens.clone(), tokens[places]
    if turned:
        chance = 0.999 - chance
        low, high = 0.2, 0.2
    middle, last = (truth, other) if swapped else (other, truth)
    found[places] = torch.where(chance < low, mask_token, torch.where(chance < high, middle, last))
    return found


def in_place(tokens, places, chance, other, mask_token):
    tokens[places] = mask_token
    return tokens


def everywhere(tokens, places, chance, other, mask_token):
    return torch.full_like(hide(tokens, places, chance, other, mask_token), mask_token)


def test_hide_accepts_a_right_answer(capsys):
    check.hide(hide)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: hide(*a, low=1.1), "every chosen token became"),
        (lambda *a: hide(*a, high=1.1), "the token stays"),
        (lambda *a: hide(*a, high=0.8), "random tokens are missing"),
        (lambda *a: hide(*a, swapped=True), "swapped"),
        (lambda *a: hide(*a, turned=True), "wrong way round"),
        (lambda *a: hide(*a, low=-1, high=-1), "no chosen token changed"),
        (lambda *a: hide(*a, low=0.1), "expected"),
        (lambda t, p, *rest: hide(t, p, *rest)[p], "whole text"),
        (lambda *a: hide(*a)[:-1], "12 tokens"),
        (everywhere, "not chosen"),
        (in_place, "changed the text itself"),
        (lambda *a: None, "return"),
    ],
)
def test_hide_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.hide(answer)


def pair(first, second, cls, sep, *, head=True, middle=True, end=True, again=False, segments=None):
    tokens = [cls] * head + first + [sep] * middle + [cls] * again + second + [sep] * end
    return tokens, [0] * (len(first) + 2) + [1] * (len(second) + 1) if segments is None else segments


def test_pair_accepts_a_right_answer(capsys):
    check.pair(pair)
    check.pair(lambda *a: tuple(torch.tensor(part) for part in pair(*a)))
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: pair(*a, head=False), "CLS. in front is missing"),
        (lambda *a: pair(*a, end=False), "second .SEP., at the very end"),
        (lambda *a: pair(*a, middle=False), "between the segments"),
        (lambda *a: pair(*a, again=True), "second .CLS."),
        (lambda a, b, *rest: pair(b, a, *rest), "expected the tokens"),
        (lambda *a: pair(*a, segments=[0, 0, 0, 1, 1]), "as many segments"),
        (lambda *a: pair(*a, segments=[0] * 4 + [1] * 4), "closes the first"),
        (lambda *a: pair(*a, segments=[0] * 5 + [1, 1, 0]), "closes the second"),
        (lambda *a: pair(*a, segments=[1] * 5 + [2] * 3), "numbered 0"),
        (lambda *a: pair(*a, segments=[0] * 8), "expected the segments"),
        (lambda *a: pair(*a, segments=[0] * 5 + [1] * 3), "one and three"),
        (lambda *a: pair(*a)[0], "two lists"),
        (lambda *a: None, "return"),
    ],
)
def test_pair_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.pair(answer)


def mean(states, mask, *, top=True, count="own"):
    total = (states * mask[..., None]).sum(1) if top else states.sum(1)
    counts = {"own": mask.sum(1, keepdim=True), "one": 1, "time": states.shape[1], "all": mask.sum()}
    return total / counts[count]


def only_this_long(states, mask):
    weight = mask[..., None].float()
    weight[:, 6:] = 1
    return (states * weight).sum(1) / weight.sum(1)


def scaled(states, mask):
    states *= mask[..., None]
    return states.sum(1) / mask.sum(1, keepdim=True)


def test_mean_vectors_accepts_a_right_answer(capsys):
    check.mean_vectors(mean)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s, m: s.mean(1), "padding counts"),
        (lambda s, m: mean(s, m, count="one"), "that is the sum"),
        (lambda s, m: mean(s, m, count="time"), "still in the number"),
        (lambda s, m: mean(s, m, count="all"), "whole batch"),
        (lambda s, m: mean(s, m, top=False), "still in the sum"),
        (lambda s, m: s[:, 0], "CLS"),
        (lambda s, m: (s * m[..., None]).amax(1), "maximum"),
        (lambda s, m: mean(s, m).mean(0), "axis 1"),
        (lambda s, m: s.mean(2), "axis 1"),
        (lambda s, m: mean(s, m) * 2, "should begin"),
        (only_this_long, "two more places"),
        (scaled, "in place"),
        (lambda s, m: None, "return"),
    ],
)
def test_mean_vectors_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.mean_vectors(answer)


def score(log_probabilities, tokens, scored, mask_token, *, hide=True, fresh=True, places=None, asked=None):
    total, text = 0.0, tokens.clone()
    for place in scored.nonzero()[:, 0].tolist() if places is None else places:
        text = tokens.clone() if fresh else text
        if hide:
            text[place] = mask_token
        found = log_probabilities(text[None])[0]
        total += sum(found[p, tokens[p]] for p in (asked or [place]))
    return total


def at_once(log_probabilities, tokens, scored, mask_token):
    found = log_probabilities(torch.where(scored, mask_token, tokens)[None])[0]
    return found[torch.arange(len(tokens)), tokens][scored].sum()


def as_a_batch(log_probabilities, tokens, scored, mask_token):
    places = scored.nonzero()[:, 0]
    copies = tokens.repeat(len(places), 1)
    copies[torch.arange(len(places)), places] = mask_token
    return log_probabilities(copies)[torch.arange(len(places)), places, tokens[places]].sum()


def holed(log_probabilities, tokens, scored, mask_token):
    found = score(log_probabilities, tokens, scored, mask_token)
    tokens[1] = mask_token
    return found


@pytest.mark.parametrize("answer", [score, as_a_batch])
def test_pseudo_log_likelihood_accepts_a_right_answer(answer, capsys):
    check.pseudo_log_likelihood(answer)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: -score(*a), "sign"),
        (lambda *a: score(*a) / 4, "mean"),
        (lambda *a: score(*a, hide=False), "nothing was hidden"),
        (at_once, "all were hidden at once"),
        (lambda *a: score(*a, fresh=False), "pile up"),
        (lambda *a: score(*a, places=range(6)), "CLS"),
        (lambda *a: score(*a, asked=[1, 2, 3, 4]), "only the token"),
        (lambda *a: score(*a, places=[1, 2]), "expected"),
        (lambda *a: torch.zeros(4), "one number"),
        (lambda f, t, *rest: f(t), "tokens.None"),
        (holed, "left a hole"),
        (lambda *a: None, "return"),
    ],
)
def test_pseudo_log_likelihood_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.pseudo_log_likelihood(answer)
