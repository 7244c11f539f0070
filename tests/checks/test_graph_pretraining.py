"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import contextlib

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.checks import CheckFailed
from pfmcourse.checks import graph_pretraining as check


def heard(x, edges, *, swap=False, own=False, mean=False):
    source, target = edges.flip(0) if swap else edges
    out = torch.zeros_like(x).index_add(0, target, x[source])
    if mean:
        out = out / torch.bincount(target, minlength=len(x))[:, None].clamp(min=mean)
    return out + x if own else out


def one_only(x, edges):
    out = torch.zeros_like(x)
    out[edges[1]] += x[edges[0]]
    return out


def largest(x, edges):
    rows = edges[1][:, None].expand(-1, x.shape[1])
    return torch.zeros_like(x).scatter_reduce(0, rows, x[edges[0]], "amax", include_self=True)


@pytest.mark.parametrize(
    "answer",
    [heard, lambda x, e: torch.zeros(len(x), len(x)).index_put((e[1], e[0]), torch.ones(e.shape[1])) @ x],
)
def test_heard_accepts_a_right_answer(answer, capsys):
    check.heard(answer)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda *a: heard(*a, swap=True), "backwards"),
        (lambda *a: heard(*a, own=True), "own vector"),
        (lambda *a: heard(*a, mean=1), "mean over"),
        (lambda *a: heard(*a, mean=-1), "nan"),
        (one_only, "hears only one"),
        (largest, "largest value"),
        (lambda *a: heard(*a)[:, 0], "shape"),
        (lambda *a: 2 * heard(*a), "should hear"),
        (lambda x, e: x.zero_(), "changed its inputs"),
        (lambda *a: None, "return"),
    ],
)
def test_heard_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.heard(answer)


def hidden(graph, share, generator, *, least=1, order=None, rounded=torch.round):
    out = torch.zeros(len(graph), dtype=torch.bool)
    for one in graph.unique():
        rows = (graph == one).nonzero()[:, 0]
        count = max(int(rounded(torch.tensor(share * len(rows)))), least)
        places = torch.randperm(len(rows), generator=generator) if order is None else order(len(rows))
        out[rows[places[:count]]] = True
    return out


def stuck(graph, share, generator):
    """Random, but a graph's last node never."""
    for _ in range(50):
        found = hidden(graph, share, generator)
        if not found[graph == 5][-20:].any():
            return found
    out = hidden(graph, share, generator)
    rows = (graph == 5).nonzero()[:, 0]
    out[rows] = False
    out[rows[: round(share * len(rows))]] = True
    return out


def test_hidden_accepts_a_right_answer(capsys):
    check.hidden(hidden)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda g, s, r: torch.rand(len(g), generator=r) < s, "none hidden|own share"),
        (lambda *a: hidden(*a, least=0), "at least one"),
        (lambda *a: hidden(*a, rounded=torch.floor), "rounded"),
        (lambda *a: hidden(*a, rounded=torch.ceil), "rounded"),
        (lambda *a: ~hidden(*a), "wrong way round"),
        (lambda *a: hidden(*a, rounded=lambda n: n.round().clamp(min=1) + 1), "one node too many"),
        (lambda *a: hidden(*a, order=torch.arange), "same nodes"),
        (lambda *a: hidden(*a, order=torch.randperm), "second time"),
        (lambda *a: hidden(*a).nonzero()[:, 0], "boolean"),
        (lambda *a: torch.zeros(len(a[0]), dtype=torch.bool), "no node"),
        (stuck, "never hidden"),
        (lambda *a: None, "return"),
    ],
)
def test_hidden_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.hidden(answer)


def held_out(scaffolds, share, generator, *, order=torch.randperm, of_scaffolds=False):
    groups, number, counts = scaffolds.unique(return_inverse=True, return_counts=True)
    order = order(len(groups), generator=generator) if order is torch.randperm else order(len(groups))
    counts = torch.ones_like(counts) if of_scaffolds else counts
    before = counts[order].cumsum(0) - counts[order]
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[order[before < share * counts.sum()]] = True
    return chosen[number]


def test_held_out_accepts_a_right_answer(capsys):
    check.held_out(held_out)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda n, s, r: torch.rand(len(n), generator=r) < s, "both sides"),
        (lambda *a: ~held_out(*a), "wrong way round"),
        (lambda *a: held_out(*a, order=torch.arange), "every generator"),
        (lambda n, s, r: held_out(n, 2 * s if s < 0.3 else s, r), "stop as soon"),
        (lambda n, s, r: torch.ones(len(n), dtype=torch.bool), "empty"),
        (lambda *a: held_out(*a).nonzero()[:, 0], "boolean"),
        (lambda *a: None, "return"),
    ],
)
def test_held_out_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.held_out(answer)


def usable(smiles, featurise, *, caught=CourseError, keep=True, stop=False):
    found = []
    for one in smiles:
        try:
            featurise([one])
        except caught:
            if stop:
                return found
            found += [] if keep else [one]
        else:
            found += [one] if keep else []
    return found


def bare(smiles, featurise):
    found = []
    for one in smiles:
        with contextlib.suppress(CourseError):
            found += featurise(one)
    return found


def test_usable_accepts_a_right_answer(capsys):
    check.usable(usable)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s, f: f(s), "ended everything"),
        (lambda s, f: usable(s, f, caught=Exception), "every exception"),
        (lambda s, f: usable(s, f, keep=False), "cannot be used"),
        (lambda s, f: usable(s, f, stop=True), "first bad SMILES"),
        (lambda s, f: list(dict.fromkeys(usable(s, f))), "comes twice"),
        (lambda s, f: [f([one]) for one in usable(s, f)], "not what featurise"),
        (lambda s, f: usable(s, f)[::-1], "expected"),
        (lambda s, f: usable(s, f) or ["CCO"], "empty list"),
        (lambda s, f: s.clear(), "return"),
        (lambda s, f: [s.clear()], "changed the list"),
        (bare, "list of SMILES"),
        (lambda s, f: None, "return"),
    ],
)
def test_usable_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.usable(answer)
