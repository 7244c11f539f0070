"""Checkers of lesson graph_pretraining. Each tries an answer on small cases and names the mistake it looks like."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pfmcourse.base import CourseError
from pfmcourse.checks import CheckFailed, passed

NO_RETURN = "your function returned None: is the `return` missing?"


def heard(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 1: the sum of what the neighbours say, from a list of edges."""
    x = torch.tensor([[1.0, 2.0], [10.0, 0.0], [0.0, 7.0], [3.0, 3.0], [5.0, 1.0]])
    edges = torch.tensor([[0, 2, 3, 1, 0, 2], [1, 1, 1, 2, 2, 3]])  # node 4 is alone; not every edge goes both ways
    source, target = edges

    def summed(of: Tensor, to: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, to, x[of])

    wanted, kept = summed(source, target), (x.clone(), edges.clone())
    found = answer(x, edges)
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not torch.equal(x, kept[0]) or not torch.equal(edges, kept[1]):
        raise CheckFailed("your function changed its inputs: add into a new tensor of zeros")
    found = torch.as_tensor(found)
    if found.shape != x.shape:
        raise CheckFailed(f"every node gets a vector: expected the shape {tuple(x.shape)}, got {tuple(found.shape)}")

    def same(other: Tensor) -> bool:
        return torch.allclose(found.float(), other, atol=1e-5)

    last = torch.zeros_like(x)
    for one, other in zip(source.tolist(), target.tolist(), strict=True):
        last[other] = x[one]
    counts = torch.bincount(target, minlength=len(x)).clamp(min=1)[:, None]
    if found.isnan().any():
        raise CheckFailed("node 4 has no neighbours and gets nan: nothing heard is a row of zeros")
    if same(summed(target, source)):
        raise CheckFailed("the messages run backwards: row 0 of the edges is who speaks, row 1 who hears")
    if same(wanted + x):
        raise CheckFailed("a node's own vector is in its sum: only the neighbours speak here")
    if same(wanted / counts):
        raise CheckFailed("that is the mean over the neighbours: it forgets how many there are, so take the sum")
    if same(last):
        raise CheckFailed(
            "a node with several neighbours hears only one: `out[target] += ...` writes a row once, use index_add_"
        )
    if same(torch.zeros_like(x).scatter_reduce(0, target[:, None].expand(-1, 2), x[source], "amax", include_self=True)):
        raise CheckFailed("that is the largest value among the neighbours; the sum was asked for")
    if not same(wanted):
        node = int((found.float() - wanted).abs().sum(1).argmax())
        raise CheckFailed(f"node {node} should hear {wanted[node].tolist()}, but gets {found[node].tolist()}")
    passed("one round of messages, for as many graphs as there are")


def hidden(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> None:
    """Exercise 2: a share of each graph's nodes, one at least."""
    sizes = torch.tensor([20, 2, 40, 1, 13, 100, 3])
    graph = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    first = (sizes.cumsum(0) - sizes)[graph]
    seen = []
    for share in (0.15, 0.4):
        wanted = (share * sizes).round().clamp(min=1).long()
        for seed in range(6):
            found = answer(graph, share, torch.Generator().manual_seed(seed))
            if found is None:
                raise CheckFailed(NO_RETURN)
            found = torch.as_tensor(found)
            if found.dtype != torch.bool or found.shape != graph.shape:
                raise CheckFailed(
                    f"return a boolean for each of the {len(graph)} nodes, true where it is hidden; you return "
                    f"{found.dtype} of shape {tuple(found.shape)}"
                )
            counts = torch.bincount(graph[found], minlength=len(sizes))
            if not counts.sum():
                raise CheckFailed("no node is hidden at all")
            if torch.equal(sizes - counts, wanted):
                raise CheckFailed("it is the wrong way round: true are the nodes that stay visible")
            if (counts == 0).any():
                raise CheckFailed(
                    f"a graph with {int(sizes[counts == 0][0])} node(s) has none hidden: then it asks nothing. Round, "
                    "and hide at least one"
                )
            if torch.equal(counts, torch.minimum(wanted + 1, sizes)):
                raise CheckFailed("one node too many of each graph: is there a `<=` where `<` is meant?")
            if not torch.equal(counts, wanted):
                place = int((counts != wanted).nonzero()[0])
                raise CheckFailed(
                    f"of a graph with {int(sizes[place])} nodes {int(wanted[place])} should be hidden at a share of "
                    f"{share}, but {int(counts[place])} are. Does each graph get its own share, rounded?"
                )
            if share == 0.15:
                seen.append(found)
    if all(torch.equal(one, seen[0]) for one in seen):
        raise CheckFailed("every draw hides the same nodes: use the generator")
    again = torch.as_tensor(answer(graph, 0.15, torch.Generator().manual_seed(0)))
    if not torch.equal(again, seen[0]):
        raise CheckFailed("the same generator hides other nodes the second time: draw all random numbers from it")
    place = torch.arange(len(graph)) - first
    several = torch.stack([torch.as_tensor(answer(graph, 0.15, torch.Generator().manual_seed(s))) for s in range(60)])
    if not several[:, graph == 5].any(0).float().mean() > 0.9 or not several[:, (graph == 1) & (place == 1)].any():
        raise CheckFailed("some nodes are never hidden in many draws: each is as likely as any other of its graph")
    passed("each molecule gets its own share of questions, and the smallest one, too")


def held_out(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> None:
    """Exercise 3: whole scaffolds held out."""
    generator = torch.Generator().manual_seed(1)
    scaffolds = torch.cat([torch.randint(40, (360,), generator=generator), torch.arange(40, 100)])
    scaffolds = scaffolds[torch.randperm(len(scaffolds), generator=generator)] * 7 + 3  # numbers with gaps
    groups = scaffolds.unique()
    largest = int(torch.unique(scaffolds, return_counts=True)[1].max())
    draws = []
    for share in (0.2, 0.5):
        for seed in range(4):
            found = answer(scaffolds, share, torch.Generator().manual_seed(seed))
            if found is None:
                raise CheckFailed(NO_RETURN)
            found = torch.as_tensor(found)
            if found.dtype != torch.bool or found.shape != scaffolds.shape:
                raise CheckFailed(
                    f"return a boolean for each of the {len(scaffolds)} molecules, true where it is held out; you "
                    f"return {found.dtype} of shape {tuple(found.shape)}"
                )
            if found.all() or not found.any():
                raise CheckFailed("one of the two sides is empty")
            both = set(scaffolds[found].tolist()) & set(scaffolds[~found].tolist())
            if both:
                raise CheckFailed(
                    f"{len(both)} of {len(groups)} scaffolds stand on both sides: whole scaffolds must be held out, "
                    "never single rows"
                )
            count, least = int(found.sum()), share * len(scaffolds)
            reached = range(int(least), int(least) + largest)
            if count not in reached and len(scaffolds) - count in reached:
                raise CheckFailed("it is the wrong way round: true are the molecules that are held out")
            if count not in reached:
                raise CheckFailed(
                    f"{count} of {len(scaffolds)} molecules are held out at a share of {share}: stop as soon as "
                    f"{least:.0f} are reached. The share is of molecules, not of scaffolds"
                )
            if share == 0.2:
                draws.append(found)
    if all(torch.equal(one, draws[0]) for one in draws):
        raise CheckFailed("every generator gives the same split: go through the scaffolds in a random order")
    passed("no ring system is on both sides: what is held out is new in kind, not only in number")


def usable(answer: Callable[[Sequence[str], Callable[[list[str]], object]], list[str]]) -> None:
    """Exercise 4: those molecules of a list that can be read."""
    bad = {"", "C1CC", "water", "[Na+].[Cl-]"}

    def read(smiles: Sequence[str]) -> Sequence[str]:
        if isinstance(smiles, str):
            raise CheckFailed(f"featurise takes a list of SMILES; you gave it the string {smiles!r}: write [one]")
        for place, one in enumerate(smiles):
            if one in bad:
                raise CourseError(f"molecule {place} of {len(smiles)}, {one!r}, cannot be used: it cannot be read.")
        return smiles

    def broken(smiles: Sequence[str]) -> None:
        raise ZeroDivisionError("a mistake in the program, not in a SMILES")

    asked = ["CCO", "C1CC", "c1ccccc1", "", "CCO", "water", "CC"]
    kept = list(asked)
    try:
        found = answer(asked, read)
    except CourseError as error:
        raise CheckFailed(
            f"the first bad SMILES ended everything ({error}): ask for one molecule at a time, in a try"
        ) from error
    if found is None:
        raise CheckFailed(NO_RETURN)
    if asked != kept:
        raise CheckFailed("your function changed the list itself: build a new one")
    if not isinstance(found, tuple | list):
        raise CheckFailed(f"the answer is a list of SMILES, but yours is {found!r}")
    found, good = list(found), [one for one in asked if one not in bad]
    if found and not all(isinstance(one, str) for one in found):
        raise CheckFailed("return the SMILES that can be used, not what featurise made of them")
    if found == [one for one in asked if one in bad]:
        raise CheckFailed("those are the ones that cannot be used")
    if found == list(dict.fromkeys(good)):
        raise CheckFailed("a SMILES that comes twice should be in the answer twice")
    if found == good[:1]:
        raise CheckFailed("only what came before the first bad SMILES is returned: is there a `return` or `break`?")
    if found != good:
        raise CheckFailed(f"for {asked} expected {good}, got {found}")
    if answer(["C1CC"], read) != []:
        raise CheckFailed("where nothing can be used, return an empty list")
    try:
        answer(["CCO"], broken)
    except ZeroDivisionError:
        passed("bad input is left out, and other mistakes are not hidden")
        return
    raise CheckFailed(
        "you catch every exception, so a mistake in the program looks like a bad SMILES: only CourseError"
    )
