"""Checkers of lesson gpt. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed

Pair = tuple[str, str]
RETURN = "your function returned None: is the `return` missing?"


def encode_word(answer: Callable[[Sequence[str], Sequence[Pair]], Sequence[str]]) -> None:
    """Exercise 1: a word in pieces, by merges in the order in which they were learned."""

    def tried(letters: str, merges: list[Pair]) -> list[str]:
        symbols, kept = list(letters), list(merges)
        found = answer(symbols, merges)
        if found is None:
            raise CheckFailed(RETURN)
        if symbols != list(letters) or merges != kept:
            raise CheckFailed("your function changed the word or the merges that it was given; work on a copy")
        if isinstance(found, str):
            raise CheckFailed(f"the answer is a list of pieces, such as ['he', 'r'], but yours is the text {found!r}")
        try:
            text = "".join(found := list(found))
        except TypeError:
            raise CheckFailed(f"the answer is a list of pieces, such as ['he', 'r'], but yours is {found!r}") from None
        if text != letters:
            raise CheckFailed(
                f"{letters!r} became {found}, which is not the same text any more: a merged pair takes the place of "
                "both its parts, and the next pair begins after it"
            )
        return found

    once = tried("hehe", [("h", "e")])
    if once == ["h", "e", "h", "e"]:
        raise CheckFailed(
            "'hehe' stayed in letters, though ('h', 'e') is a merge: compare pairs with tuples, not lists"
        )
    if once == ["he", "h", "e"]:
        raise CheckFailed("only the first ('h', 'e') of 'hehe' was merged: a merge holds wherever its pair stands")
    if once != ["he", "he"]:
        raise CheckFailed(f"with the one merge ('h', 'e'), 'hehe' is ['he', 'he'], but yours is {once}")
    there = tried("there", [("h", "e"), ("t", "he"), ("t", "h"), ("e", "r")])
    if there == ["t", "he", "r", "e"]:
        raise CheckFailed("after one merge you stopped: its result may be part of another one, as ('t', 'he') is")
    if there == ["th", "er", "e"]:
        raise CheckFailed(
            "'there' became ['th', 'er', 'e']: you took the first pair from the left, or the merge learned last. "
            "The merge that was learned first goes first, wherever it stands"
        )
    if there != ["the", "r", "e"]:
        raise CheckFailed(f"expected ['the', 'r', 'e'] for 'there', but got {there}: which merge was learned first?")
    short = tried("abc", [("b", "c"), ("a", "b")])
    if short == ["ab", "c"]:
        raise CheckFailed(
            "'abc' became ['ab', 'c']: you look for known pieces from the left. Byte-pair encoding goes through the "
            "merges in the order in which they were learned, and ('b', 'c') came first"
        )
    if short != ["a", "bc"]:
        raise CheckFailed(f"expected ['a', 'bc'] for 'abc' with ('b', 'c') learned first, but got {short}")
    for letters, wanted in (("aaaaa", ["aa", "aa", "a"]), ("", []), ("x", ["x"])):
        if (found := tried(letters, [("a", "a")])) != wanted:
            raise CheckFailed(f"{letters!r} with the merge ('a', 'a') is {wanted}, from left to right, not {found}")
    passed("the merges one after the other, each wherever its pair stands")


def causal_weights(answer: Callable[[Tensor], Tensor]) -> None:
    """Exercise 2: attention weights that do not look ahead."""
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)) + torch.arange(4)
    kept, past = scores.clone(), torch.ones(4, 4, dtype=torch.bool).tril()
    wanted = scores.masked_fill(~past, -math.inf).softmax(-1)
    found = answer(scores)
    if found is None:
        raise CheckFailed(RETURN)
    if not torch.equal(scores, kept):
        raise CheckFailed("your function changed the scores in place (masked_fill_, perhaps): use masked_fill")
    found = torch.as_tensor(found).float()
    if found.shape != scores.shape:
        raise CheckFailed(f"expected weights of shape {tuple(scores.shape)}, got {tuple(found.shape)}")

    def close(other: Tensor) -> bool:
        return torch.allclose(found, other, atol=1e-5)

    ahead = scores.masked_fill(past, -math.inf).softmax(-1).nan_to_num()
    if torch.allclose(found.nan_to_num(), ahead, atol=1e-5):
        raise CheckFailed(
            "the past is hidden, and the place itself: the mask is upside down. Where it is true, hide the rest"
        )
    if found[0].isnan().any():
        raise CheckFailed("the first row is nan: a place must see itself, or the first one has nothing to look at")
    if close(scores.masked_fill(~past.T, -math.inf).softmax(-1)):
        raise CheckFailed("every place sees the future and not the past: triu() where tril() is wanted")
    if close(scores.softmax(-1)):
        raise CheckFailed("the future is not hidden yet: put -inf where the key comes after the query")
    if close(scores.masked_fill(~past, 0).softmax(-1)):
        raise CheckFailed(
            "a score of 0 is not nothing, because exp(0) = 1: hidden scores must become -inf before softmax"
        )
    if close(scores.softmax(-1).masked_fill(~past, 0)):
        raise CheckFailed("the rows do not sum to 1 any more: hide the future before softmax, not after")
    if close(scores.masked_fill(~past, -math.inf).softmax(0).nan_to_num()):
        raise CheckFailed("the columns sum to 1, not the rows: softmax goes over the keys, the last axis")
    if close(scores.masked_fill(~past, -math.inf)):
        raise CheckFailed("these are the masked scores; softmax makes weights of them")
    if not close(wanted):
        raise CheckFailed(f"row 2 should be {wanted[2].numpy().round(3)}, but is {found[2].numpy().round(3)}")
    passed("each place divides its attention among itself and what came before")


def nucleus(answer: Callable[[Tensor, float], Tensor]) -> None:
    """Exercise 3: the distribution that top-p sampling draws from."""
    probabilities, p = torch.tensor([0.08, 0.45, 0.02, 0.30, 0.15]), 0.7
    kept = probabilities.clone()
    wanted = torch.tensor([0, 0.45, 0, 0.30, 0]) / 0.75
    found = answer(probabilities, p)
    if found is None:
        raise CheckFailed(RETURN)
    if not torch.equal(probabilities, kept):
        raise CheckFailed("your function changed the probabilities in place; work on a copy (clone)")
    found = torch.as_tensor(found).float()
    if found.shape != probabilities.shape:
        raise CheckFailed(
            f"expected {tuple(probabilities.shape)} probabilities, one for each token, but got {tuple(found.shape)}: "
            "what is left out gets 0"
        )

    def close(other: Sequence[float] | Tensor) -> bool:
        return torch.allclose(found, torch.as_tensor(other, dtype=found.dtype), atol=1e-4)

    if close(torch.eye(5)[0]) or close(torch.eye(5)[1]):
        raise CheckFailed(
            "the token that carries the sum over p must stay: 0.45 alone is less than 0.7. Compare with the sum of "
            "those before a token, not up to it"
        )
    if close([0.45 / 0.75, 0.30 / 0.75, 0.0, 0.0, 0.0]) or close([0.45, 0.30, 0.0, 0.0, 0.0]):
        raise CheckFailed("the tokens come sorted: put every probability back in its own place")
    if close(wanted * 0.75):
        raise CheckFailed("what is left sums to 0.75, not to 1: divide by its sum")
    if close(torch.tensor([0, 0.45, 0, 0.30, 0.15]) / 0.9):
        raise CheckFailed("one token too many: stop as soon as the sum has reached p")
    if not found.any() or found.isnan().any():
        raise CheckFailed("nothing is left: p is a bound for the sum of probabilities, not for each of them")
    if close(kept) or close(torch.tensor([0.08, 0, 0.02, 0.30, 0.15]) / 0.55):
        raise CheckFailed("too much is left: did you begin with the least likely tokens? Sort from large to small")
    if not close(wanted):
        raise CheckFailed(f"expected {wanted.numpy().round(2)}, got {found.numpy().round(2)}")
    sure = torch.tensor([0.05, 0.95])
    if not torch.allclose(torch.as_tensor(answer(sure, 0.5)).float(), torch.tensor([0.0, 1.0]), atol=1e-4):
        raise CheckFailed("where one token alone has more than p, it must stay, and alone")
    exactly = torch.as_tensor(answer(torch.tensor([0.25, 0.5, 0.25]), 0.5)).float()
    if not torch.allclose(exactly, torch.tensor([0.0, 1.0, 0.0]), atol=1e-4):
        raise CheckFailed("a token of exactly 0.5 reaches p = 0.5 by itself, and no other is needed: is there a `<=`?")
    if not torch.allclose(torch.as_tensor(answer(probabilities, 1.0)).float(), kept, atol=1e-4):
        raise CheckFailed("with p = 1 every token stays")
    passed("the fewest likely tokens that together have p, and they sum to 1")


def bits_per_byte(answer: Callable[[float, int, str], float]) -> None:
    """Exercise 4: from nats a token to bits a byte."""
    loss, tokens, text = 3.1, 9, "Prithee, how now? – naïve"
    size = len(text.encode())
    wanted = loss * tokens / math.log(2) / size
    found = answer(loss, tokens, text)
    if found is None:
        raise CheckFailed(RETURN)
    try:
        value = float(found)
    except (TypeError, ValueError):
        raise CheckFailed(f"the answer is one number, the bits for one byte, but yours is {found!r}") from None

    def close(other: float) -> bool:
        return math.isclose(value, other, rel_tol=1e-6)

    if close(loss * tokens / math.log(2) / len(text)):
        raise CheckFailed("you divided by characters: 'ï' has two bytes and '–' three. len(text.encode()) counts bytes")
    if close(loss * tokens / size):
        raise CheckFailed("these are nats a byte: one bit is ln 2 nats, so divide by math.log(2)")
    if close(loss * tokens * math.log(2) / size):
        raise CheckFailed("you multiplied by ln 2; a bit is less than a nat, so there must be more of them: divide")
    if close(loss * tokens / math.log(2)):
        raise CheckFailed("these are the bits of the whole text: divide by its bytes, len(text.encode())")
    if close(loss / math.log(2)):
        raise CheckFailed("these are bits a token: multiply by the number of tokens and divide by the bytes")
    if close(loss / math.log(2) / size):
        raise CheckFailed("the loss is a mean: multiply it by the number of tokens to get that of the whole text")
    if close(loss / math.log(2) * size / tokens):
        raise CheckFailed("the fraction is upside down: fewer tokens for the same bytes make fewer bits a byte")
    if close(2 ** (loss * tokens / size)) or close(math.exp(loss)):
        raise CheckFailed("that is a perplexity: bits are the exponent, so there is nothing to raise to a power")
    if not close(wanted):
        raise CheckFailed(f"expected {wanted:.4f}, got {value:.4f}")
    passed("nats to bits, tokens to bytes: comparable with any other compressor")
