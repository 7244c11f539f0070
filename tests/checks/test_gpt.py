"""Each checker accepts a right answer, and names the mistake in answers that people really give."""

import math
from itertools import pairwise

import pytest
import torch

from pfmcourse.checks import CheckFailed
from pfmcourse.checks import gpt as check


def merge(symbols, pair, times=100, overlapping=False):
    out, place = [], 0
    while place < len(symbols):
        if tuple(symbols[place : place + 2]) == pair and times:
            out.append("".join(pair))
            place, times = place + (1 if overlapping else 2), times - 1
        else:
            out.append(symbols[place])
            place += 1
    return out


def encode(symbols, merges, **options):
    for pair in merges:
        symbols = merge(symbols, pair, **options)
    return symbols


def leftmost(symbols, merges):
    symbols = list(symbols)
    while found := [i for i, pair in enumerate(pairwise(symbols)) if pair in merges]:
        symbols[found[0] : found[0] + 2] = ["".join(symbols[found[0] : found[0] + 2])]
    return symbols


def longest(symbols, merges):
    text, known, out = "".join(symbols), {"".join(pair) for pair in merges}, []
    while text:
        size = next(n for n in range(len(text), 0, -1) if n == 1 or text[:n] in known)
        out.append(text[:size])
        text = text[size:]
    return out


def in_place(symbols, merges):
    symbols[:] = encode(symbols, merges)
    return symbols


def test_encode_word_accepts_a_right_answer(capsys):
    check.encode_word(encode)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda w, m: encode(w, m, times=1), "only the first"),
        (lambda w, m: encode(w, m[:1]), "you stopped"),
        (leftmost, "first pair from the left"),
        (lambda w, m: encode(w, m[::-1]), "learned last"),
        (longest, "known pieces from the left"),
        (lambda w, m: encode(w, m, overlapping=True), "not the same text"),
        (lambda w, m: encode(w, [list(pair) for pair in m]), "tuples"),
        (lambda w, m: " ".join(encode(w, m)), "list of pieces"),
        (lambda w, m: None, "return"),
        (in_place, "changed the word"),
        (lambda w, m: encode(w[::-1], [p[::-1] for p in m])[::-1], "not the same text"),
    ],
)
def test_encode_word_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.encode_word(answer)


PAST = torch.ones(4, 4, dtype=torch.bool).tril()


def causal(scores, *, visible=PAST, hidden=-math.inf, axis=-1):
    return scores.masked_fill(~visible, hidden).softmax(axis)


def changed(scores):
    return scores.masked_fill_(~PAST, -math.inf).softmax(-1)


def test_causal_weights_accepts_a_right_answer(capsys):
    check.causal_weights(causal)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda s: causal(s, visible=PAST.T), "sees the future"),
        (lambda s: causal(s, visible=~PAST), "upside down"),
        (lambda s: causal(s, visible=PAST.tril(-1)), "must see itself"),
        (lambda s: s.softmax(-1), "not hidden"),
        (lambda s: causal(s, hidden=0), "0 is not nothing"),
        (lambda s: s.softmax(-1) * PAST, "sum to 1 any more"),
        (lambda s: causal(s, axis=0), "columns"),
        (lambda s: s.masked_fill(~PAST, -math.inf), "masked scores"),
        (lambda s: causal(s / 2), "row 2"),
        (lambda s: causal(s)[0], "shape"),
        (changed, "in place"),
        (lambda s: None, "return"),
    ],
)
def test_causal_weights_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.causal_weights(answer)


def top_p(probabilities, p, *, before=True, normalised=True, unsorted=True, descending=True, extra=0):
    ordered, rows = probabilities.sort(descending=descending)
    total = ordered.cumsum(0) - (ordered if before else 0)
    count = max(1, int((total < p - 1e-6).sum())) + extra
    ordered[count:] = 0
    if normalised:
        ordered = ordered / ordered.sum()
    return torch.zeros_like(ordered).scatter(0, rows, ordered) if unsorted else ordered


def emptied(probabilities, p):
    found = top_p(probabilities, p)
    probabilities.zero_()
    return found


def test_nucleus_accepts_a_right_answer(capsys):
    check.nucleus(top_p)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda q, p: top_p(q, p, before=False), "carries the sum over p"),
        (lambda q, p: top_p(q, p, unsorted=False), "sorted"),
        (lambda q, p: top_p(q, p, unsorted=False, normalised=False), "sorted"),
        (lambda q, p: top_p(q, p, normalised=False), "sums to 0.75"),
        (lambda q, p: top_p(q, p, extra=1), "one token too many"),
        (lambda q, p: q.where(q >= p, 0), "not for each of them"),
        (lambda q, p: q.where(q >= p, 0) / q.where(q >= p, 0).sum(), "not for each of them"),
        (lambda q, p: top_p(q, p, descending=False), "least likely"),
        (lambda q, p: top_p(q, p)[top_p(q, p) > 0], "what is left out gets 0"),
        (lambda q, p: top_p(q, 0.7) if len(q) == 5 else q, "it must stay, and alone"),
        (lambda q, p: top_p(q, p + 1e-5), "<="),
        (lambda q, p: top_p(q, min(p, 0.7)), "p = 1"),
        (emptied, "in place"),
        (lambda q, p: None, "return"),
    ],
)
def test_nucleus_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.nucleus(answer)


def bits(loss, tokens, text):
    return loss * tokens / math.log(2) / len(text.encode())


def test_bits_per_byte_accepts_a_right_answer(capsys):
    check.bits_per_byte(bits)
    assert "Well done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda loss, n, t: loss * n / math.log(2) / len(t), "characters"),
        (lambda loss, n, t: loss * n / len(t.encode()), "nats a byte"),
        (lambda loss, n, t: loss * n * math.log(2) / len(t.encode()), "multiplied"),
        (lambda loss, n, t: loss * n / math.log(2), "whole text"),
        (lambda loss, n, t: loss / math.log(2), "bits a token"),
        (lambda loss, n, t: loss / math.log(2) / len(t.encode()), "is a mean"),
        (lambda loss, n, t: loss / math.log(2) * len(t.encode()) / n, "upside down"),
        (lambda loss, n, t: math.exp(loss), "perplexity"),
        (lambda loss, n, t: bits(loss, n, t) + 1, "expected"),
        (lambda loss, n, t: None, "return"),
    ],
)
def test_bits_per_byte_names_the_mistake(answer, named):
    with pytest.raises(CheckFailed, match=named):
        check.bits_per_byte(answer)
