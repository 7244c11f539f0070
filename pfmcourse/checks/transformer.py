"""Checkers of lesson transformer. Each tries an answer on small cases and names the mistake that it looks like."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed
from pfmcourse.nn.attention import attention_weights

NOTHING = "your function returned None: is the `return` missing?"


def _same(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found.float(), wanted.float(), rtol=1e-4, atol=1e-6)


def causal_mask(answer: Callable[[int], Tensor]) -> None:
    """Exercise 1: true where a query may look at a key."""
    found, ones = answer(4), torch.ones(4, 4)
    if found is None:
        raise CheckFailed(NOTHING)
    found = torch.as_tensor(found)
    wanted = ones.tril().bool()
    if tuple(found.shape) != (4, 4):
        raise CheckFailed(f"4 places need the shape (4, 4), query by key, but yours is {tuple(found.shape)}")
    if torch.isinf(found.float()).any():
        raise CheckFailed("that is a mask to add to the scores (0 and -inf); here true or false is wanted")
    if found.dtype != torch.bool:
        raise CheckFailed(f"the mask should be of True and False, but yours is {found.dtype}: try .bool()")
    if torch.equal(found, ~wanted):
        raise CheckFailed("it is the wrong way round: true is where one may look, as in this course (torch has both)")
    if torch.equal(found, wanted.T):
        raise CheckFailed("your places look into the future: key j is allowed for query i where j <= i")
    if torch.equal(found, ones.tril(-1).bool()):
        raise CheckFailed("a place may look at itself, and the first has nowhere else to look: keep the diagonal")
    if found.all():
        raise CheckFailed("everybody may look everywhere: the decoder would see the token that it is to predict")
    if not torch.equal(found, wanted):
        raise CheckFailed(f"row 1 (the second query) should be {wanted[1].tolist()}, but is {found[1].tolist()}")
    if not torch.equal(torch.as_tensor(answer(1)), wanted[:1, :1]):
        raise CheckFailed("a single place may look at itself")
    passed("each place looks at itself and back, never ahead")


def masked_attention(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 2: scaled dot-product attention with a mask."""
    generator = torch.Generator().manual_seed(4)
    queries, keys, values = (torch.randn(shape, generator=generator) for shape in ((3, 8), (4, 8), (4, 5)))
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.bool)
    kept = [one.clone() for one in (queries, keys, values, mask)]
    found = answer(queries, keys, values, mask)
    if found is None:
        raise CheckFailed(NOTHING)
    if not all(map(torch.equal, (queries, keys, values, mask), kept)):
        raise CheckFailed("your function changed its inputs in place (masked_fill_, perhaps): use masked_fill")
    found = torch.as_tensor(found)
    if found.shape == (3, 4):
        raise CheckFailed("these look like the weights: the result is their product with the values, shape (3, 5)")
    if tuple(found.shape) != (3, 5):
        raise CheckFailed(f"3 queries and values of 5 numbers give the shape (3, 5), but yours is {tuple(found.shape)}")
    if torch.isnan(found).any():
        raise CheckFailed("there are nan in it: did a whole row become -inf? Mask the keys (the last axis)")

    scores = queries @ keys.T
    blocked = scores.masked_fill(~mask, -math.inf)
    root = math.sqrt(8)
    mistakes = {
        "the scale is missing: divide the scores by the root of the queries' length": blocked.softmax(1) @ values,
        "you divide by the length of a query; the paper divides by its square root": (blocked / 8).softmax(1) @ values,
        "you divide by the root of the number of keys; it is the root of the length of a query": (
            (blocked / math.sqrt(4)).softmax(1) @ values
        ),
        "the mask is not used": (scores / root).softmax(1) @ values,
        "the mask is the wrong way round: true is where one may look": (
            scores.masked_fill(mask, -math.inf) / root
        ).softmax(1)
        @ values,
        "you set masked weights to 0 after the softmax, so that a row no longer sums to 1: mask the scores before it": (
            (scores / root).softmax(1) * mask
        )
        @ values,
        "a masked score of 0 still gets weight, for e to the power 0 is 1: use -inf": (
            (scores * mask / root).softmax(1) @ values
        ),
        "the softmax runs over the queries; each query shares out its weight over the keys, the last axis": (
            (scores / root).masked_fill(~mask, -1e9).softmax(0) @ values
        ),
    }
    for said, wrong in mistakes.items():
        if _same(found, wrong):
            raise CheckFailed(said)
    wanted = attention_weights(queries, keys, mask) @ values
    if not _same(found, wanted):
        raise CheckFailed(f"the first query should get {wanted[0].numpy().round(3)}, but gets {found[0]}")
    passed("scaled, masked before the softmax, and every row a weighted mean of values")


def sublayer(answer: Callable[[Tensor, Callable, Callable, bool], Tensor]) -> None:
    """Exercise 3: one part of a block, with the norm before it or after the addition."""
    x = torch.tensor([[1.0, 2.0, 4.0], [3.0, -1.0, 1.0]])

    def norm(y: Tensor) -> Tensor:
        return (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True, unbiased=False)

    def part(y: Tensor) -> Tensor:
        return 0.5 * y**2 + 1

    for norm_first in (True, False):
        kept = x.clone()
        found = answer(x, part, norm, norm_first)
        where = f"with norm_first={norm_first}"
        if found is None:
            raise CheckFailed(NOTHING)
        if not torch.equal(x, kept):
            raise CheckFailed("your function changed x in place (`x += ...`): write x = x + ...")
        found = torch.as_tensor(found)
        if found.shape != x.shape:
            raise CheckFailed(f"{where} the stream keeps its shape {tuple(x.shape)}, but yours is {tuple(found.shape)}")
        wanted = x + part(norm(x)) if norm_first else norm(x + part(x))
        mistakes = {
            "it is the other way round": norm(x + part(x)) if norm_first else x + part(norm(x)),
            "the stream is lost: x itself must be added": part(norm(x)) if norm_first else norm(part(x)),
            "the norm stands in the stream: what is added to must be x, not norm(x)": norm(x) + part(norm(x)),
            "the norm stands behind the part; it belongs to what the part reads, or to the sum": x + norm(part(x)),
            "there is no norm": x + part(x),
            "both norms at once: before the part and after the addition": norm(x + part(norm(x))),
        }
        for said, wrong in mistakes.items():
            if _same(found, wrong) and not _same(wanted, wrong):
                raise CheckFailed(f"{where}: {said}")
        if not _same(found, wanted):
            raise CheckFailed(f"{where} the first row should be {wanted[0].numpy().round(3)}, but is {found[0]}")
    passed("the stream goes through, and the norm stands where it was asked to")


def beam_search(
    answer: Callable[[Callable[[tuple[int, ...]], Sequence[float]], int, int, int], tuple[Sequence[int], float]],
) -> None:
    """Exercise 4: beam search over a small table of next-token probabilities. Token 0 ends a text."""
    table = {
        (): (0.1, 0.5, 0.4),
        (1,): (0.25, 0.4, 0.35),
        (2,): (0.9, 0.05, 0.05),
        (1, 1): (0.4, 0.3, 0.3),
        (1, 2): (0.5, 0.3, 0.2),
    }
    asked: list[tuple[int, ...]] = []

    def log_probabilities(text: tuple[int, ...]) -> list[float]:
        asked.append(tuple(text))
        if 0 in text:
            raise CheckFailed(f"you ask what follows {tuple(text)}, but that text has ended: keep it as it is")
        if len(text) > 2:
            raise CheckFailed(f"you ask what follows {len(text)} tokens, but a text has at most 3")
        return [math.log(p) for p in table.get(tuple(text), (0.6, 0.2, 0.2))]

    def greedy() -> tuple[int, ...]:
        text: tuple[int, ...] = ()
        while len(text) < 3 and 0 not in text:
            row = table.get(text, (0.6, 0.2, 0.2))
            text = (*text, row.index(max(row)))
        return text

    def log(text: tuple[int, ...]) -> float:
        return sum(math.log(table.get(text[:i], (0.6, 0.2, 0.2))[token]) for i, token in enumerate(text))

    found = answer(log_probabilities, 2, 3, 0)
    if found is None:
        raise CheckFailed(NOTHING)
    try:
        text, score = tuple(int(token) for token in found[0]), float(found[1])
    except (TypeError, ValueError, IndexError, KeyError):
        raise CheckFailed(f"return the text and its score, ([1, 0], -0.7) for instance; yours is {found!r}") from None
    if not asked or asked[0] != ():
        raise CheckFailed("the search begins with the empty text: ask for log_probabilities(()) first")
    best = (2, 0)
    if text == greedy():
        raise CheckFailed("that is greedy search: the likeliest first token leads to a less likely text. Keep two")
    if _whole(text, 3) and set(text) <= {0, 1, 2} and log(text) < log(greedy()):
        raise CheckFailed(f"{text} is less likely than what greedy search finds: keep the largest scores")
    if text != best:
        raise CheckFailed(f"two beams find the text {best} here, but yours is {text}")
    if math.isclose(score, math.exp(log(best)), rel_tol=1e-6):
        raise CheckFailed("the score is a probability; return its logarithm, the sum of the log-probabilities")
    if math.isclose(score, -log(best), rel_tol=1e-6):
        raise CheckFailed("the sign is wrong: a log-probability is below 0")
    if math.isclose(score, log(best) / len(best), rel_tol=1e-6):
        raise CheckFailed("that is the mean over the tokens; the score is the sum")
    if not math.isclose(score, log(best), rel_tol=1e-6):
        raise CheckFailed(f"the score of {best} is {log(best):.4f}, but yours is {score:.4f}")
    text, score = answer(log_probabilities, 1, 3, 0)
    if tuple(text) != greedy():
        raise CheckFailed(f"one beam is greedy search, which finds {greedy()} here, but yours finds {tuple(text)}")
    likeliest = max(
        (one for n in (1, 2, 3) for one in itertools.product(range(3), repeat=n) if _whole(one, 3)), key=log
    )
    text, score = answer(log_probabilities, 27, 3, 0)
    if tuple(text) != likeliest:
        raise CheckFailed(f"a beam wide enough for all texts finds the likeliest, {likeliest}, but yours {tuple(text)}")
    passed("two beams find what greedy search misses, and what has ended stays as it is")


def _whole(text: tuple[int, ...], longest: int) -> bool:
    """Whether a search can return this text: it ends with its only 0, or is as long as allowed."""
    return 0 not in text[:-1] and (text[-1] == 0 or len(text) == longest)
