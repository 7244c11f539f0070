"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import math

import pytest
import torch

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import transformer as check


def test_causal_mask_accepts_a_right_answer(capsys):
    check.causal_mask(lambda n: torch.ones(n, n).tril().bool())
    check.causal_mask(lambda n: torch.arange(n)[:, None] >= torch.arange(n))
    assert capsys.readouterr().out.count("Well done") == 2


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda n: None, "return"),
        (lambda n: torch.ones(n).bool(), "shape"),
        (lambda n: torch.ones(n, n).tril(), "float32"),
        (lambda n: torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf), "-inf"),
        (lambda n: torch.ones(n, n).triu(1).bool(), "wrong way round"),
        (lambda n: torch.ones(n, n).triu().bool(), "future"),
        (lambda n: torch.ones(n, n).tril(-1).bool(), "diagonal"),
        (lambda n: torch.ones(n, n).bool(), "everywhere"),
        (lambda n: torch.eye(n).bool(), "row 1"),
        (lambda n: torch.ones(4, 4).tril().bool(), "single place"),
    ],
)
def test_causal_mask_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.causal_mask(answer)


def attend(q, k, v, mask, *, scale=None, fill=-math.inf, axis=-1, after=False):
    scores = q @ k.T / (math.sqrt(q.shape[1]) if scale is None else scale)
    if after:
        return (scores.softmax(axis) * mask) @ v
    return scores.masked_fill(~mask, fill).softmax(axis) @ v


def in_place(q, k, v, mask):
    found = attend(q, k, v, mask)
    q /= 2
    return found


def test_masked_attention_accepts_a_right_answer(capsys):
    check.masked_attention(attend)
    check.masked_attention(lambda q, k, v, mask: attend(q, k, v, mask, fill=-1e9))
    check.masked_attention(lambda q, k, v, m: torch.nn.functional.scaled_dot_product_attention(q, k, v, m))
    assert capsys.readouterr().out.count("Well done") == 3


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda q, k, v, m: None, "return"),
        (lambda q, k, v, m: (q @ k.T).softmax(1), "weights"),
        (lambda q, k, v, m: attend(q, k, v, m).T, "shape"),
        (lambda q, k, v, m: attend(q, k, v, m) * math.nan, "nan"),
        (lambda q, k, v, m: attend(q, k, v, m, scale=1), "scale is missing"),
        (lambda q, k, v, m: attend(q, k, v, m, scale=8), "square root"),
        (lambda q, k, v, m: attend(q, k, v, m, scale=len(k) ** 0.5), "number of keys"),
        (lambda q, k, v, m: attend(q, k, v, torch.ones_like(m)), "not used"),
        (lambda q, k, v, m: attend(q, k, v, ~m), "wrong way round"),
        (lambda q, k, v, m: attend(q, k, v, m, after=True), "after the softmax"),
        (lambda q, k, v, m: attend(q, k, v, m, fill=0.0), "power 0"),
        (lambda q, k, v, m: attend(q, k, v, m, axis=0), "over the queries"),
        (lambda q, k, v, m: attend(q, k, v, m) + 1, "first query"),
        (in_place, "in place"),
    ],
)
def test_masked_attention_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.masked_attention(answer)


def block(x, part, norm, first):
    return x + part(norm(x)) if first else norm(x + part(x))


def adds_in_place(x, part, norm, first):
    found = block(x, part, norm, first)
    x += 1
    return found


def test_sublayer_accepts_a_right_answer(capsys):
    check.sublayer(block)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda x, part, norm, first: None, "return"),
        (lambda x, part, norm, first: block(x, part, norm, not first), "other way round"),
        (lambda x, part, norm, first: block(x, part, norm, True), "norm_first=False: it is the other"),
        (lambda x, part, norm, first: part(norm(x)) if first else norm(part(x)), "stream is lost"),
        (lambda x, part, norm, first: norm(x) + part(norm(x)), "norm stands in the stream"),
        (lambda x, part, norm, first: x + norm(part(x)), "behind the part"),
        (lambda x, part, norm, first: x + part(x), "no norm"),
        (lambda x, part, norm, first: norm(x + part(norm(x))), "both"),
        (lambda x, part, norm, first: 2 * block(x, part, norm, first), "first row"),
        (adds_in_place, "in place"),
    ],
)
def test_sublayer_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.sublayer(answer)


def search(log_probabilities, beams, longest, end, *, ended=True, largest=True, first=(), score=lambda s, t: s):
    found = [(first, 0.0)]
    for _ in range(longest):
        grown = []
        for text, total in found:
            if ended and end in text:
                grown.append((text, total))
            else:
                grown += [((*text, token), total + p) for token, p in enumerate(log_probabilities(text))]
        found = sorted(grown, key=lambda one: one[1], reverse=largest)[:beams]
    text, total = found[0]
    return list(text), score(total, text)


def too_long(f, beams, longest, end):
    return search(f, beams, longest + 1, end)


def test_beam_search_accepts_a_right_answer(capsys):
    check.beam_search(search)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda f, b, n, e: None, "return"),
        (lambda f, b, n, e: 3, "text and its score"),
        (lambda f, b, n, e: search(f, b, n, e)[0], "text and its score"),
        (lambda f, b, n, e: search(f, 1, n, e), "greedy"),
        (lambda f, b, n, e: search(f, b, n, e, ended=False), "has ended"),
        (too_long, "at most 3"),
        (lambda f, b, n, e: search(f, b, n, e, largest=False), "largest scores"),
        (lambda f, b, n, e: search(f, b, n, e, first=(1,)), "empty text|at most 3"),
        (lambda f, b, n, e: search(f, b, n, e, score=lambda s, t: math.exp(s)), "logarithm"),
        (lambda f, b, n, e: search(f, b, n, e, score=lambda s, t: -s), "sign"),
        (lambda f, b, n, e: search(f, b, n, e, score=lambda s, t: s / len(t)), "mean"),
        (lambda f, b, n, e: search(f, b, n, e, score=lambda s, t: s - 1), "the score of"),
        (lambda f, b, n, e: search(f, 2, n, e), "one beam is greedy"),
        (lambda f, b, n, e: search(f, min(b, 2), n, e) if b < 3 else ([1, 1, 0], 0.0), "wide enough"),
        (lambda f, b, n, e: (f(()) and [2, 1], -1.0), "two beams find"),
    ],
)
def test_beam_search_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.beam_search(answer)
