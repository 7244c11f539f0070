"""Checkers of lesson bert. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed

NO_RETURN = "your function returned None: is the `return` missing?"


def hide(answer: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """Exercise 1: what stands at the chosen places, by the rule 80, 10, 10."""
    mask_token = 99
    tokens = torch.arange(10, 22)
    places = torch.tensor([1, 3, 4, 6, 8, 11])
    chance = torch.tensor([0.10, 0.85, 0.79, 0.95, 0.0, 0.89])
    other = torch.tensor([51, 52, 53, 54, 55, 56])
    wanted = tokens.clone()
    wanted[[1, 4, 8]] = mask_token
    wanted[[3, 11]] = torch.tensor([52, 56])
    kept = tokens.clone()
    found = answer(tokens, places, chance, other, mask_token)
    if not torch.equal(tokens, kept):
        raise CheckFailed("your function changed the text itself, which is also the target: work on tokens.clone()")
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found)
    if found.shape == places.shape:
        raise CheckFailed("return the whole text with its holes, not only what stands at the places")
    if found.shape != tokens.shape:
        raise CheckFailed(f"the text has {len(tokens)} tokens, yours has the shape {tuple(found.shape)}")
    elsewhere = torch.ones(len(tokens), dtype=torch.bool)
    elsewhere[places] = False
    if not torch.equal(found[elsewhere], tokens[elsewhere]):
        raise CheckFailed("tokens changed at places that were not chosen: write to found[places] only")
    at = found[places]
    if (at == mask_token).all():
        raise CheckFailed("every chosen token became [MASK]: that is only right for 80 of 100 of them")
    if torch.equal(at, tokens[places]):
        raise CheckFailed("no chosen token changed: with chance below 0.8 it becomes [MASK]")
    if torch.equal(at == mask_token, chance >= 0.8):
        raise CheckFailed("the rule is the wrong way round: [MASK] where chance is below 0.8, not above")
    if torch.equal(at, torch.where(chance < 0.8, mask_token, other)):
        raise CheckFailed("where chance is 0.9 or more the token stays; you put a random one there, too")
    if torch.equal(at, torch.where(chance < 0.8, mask_token, tokens[places])):
        raise CheckFailed("the random tokens are missing: with chance from 0.8 to 0.9 take the one in `other`")
    if torch.equal(at, torch.where(chance < 0.8, mask_token, torch.where(chance < 0.9, tokens[places], other))):
        raise CheckFailed("random and unchanged are swapped: from 0.8 to 0.9 a random token, above that the true one")
    if not torch.equal(found, wanted):
        raise CheckFailed(f"expected {wanted[places].tolist()} at the chosen places, but found {at.tolist()}")
    passed("mostly [MASK], sometimes a random token, sometimes the truth, and nothing else touched")


def pair(answer: Callable[[Sequence[int], Sequence[int], int, int], tuple[Sequence[int], Sequence[int]]]) -> None:
    """Exercise 2: two segments as BERT reads them."""
    first, second, cls, sep = [5, 6, 7], [8, 9], 1, 2
    wanted = [cls, *first, sep, *second, sep]
    segments = [0] * 5 + [1] * 3
    found = answer(list(first), list(second), cls, sep)
    if found is None:
        raise CheckFailed(NO_RETURN)
    try:
        tokens, which = ([int(one) for one in part] for part in found)
    except (TypeError, ValueError):
        raise CheckFailed("return two lists: the tokens, and the segment of each token") from None
    if tokens == wanted[1:]:
        raise CheckFailed("the [CLS] in front is missing: the pair is judged from its vector")
    if tokens == wanted[:-1]:
        raise CheckFailed("the second [SEP], at the very end, is missing")
    if tokens == [cls, *first, *second, sep]:
        raise CheckFailed("the [SEP] between the segments is missing: nothing says where the first one ends")
    if tokens == [cls, *first, sep, cls, *second, sep]:
        raise CheckFailed("there is a second [CLS]: one pair has one, at its beginning")
    if tokens != wanted:
        raise CheckFailed(f"expected the tokens {wanted}, but found {tokens}")
    if len(which) != len(tokens):
        raise CheckFailed(f"{len(tokens)} tokens need as many segments, special tokens too, but there are {len(which)}")
    if which == [0] * 4 + [1] * 4:
        raise CheckFailed("the [SEP] in the middle closes the first segment, so it belongs to segment 0")
    if which == [0] * 5 + [1, 1, 0]:
        raise CheckFailed("the last [SEP] closes the second segment, so it belongs to segment 1")
    if which == [1 - one for one in segments] or which == [one + 1 for one in segments]:
        raise CheckFailed("segments are numbered 0 for the first and 1 for the second")
    if which != segments:
        raise CheckFailed(f"expected the segments {segments}, but found {which}")
    tokens, which = answer([5], [6, 7, 8], cls, sep)
    if (list(tokens), list(which)) != ([1, 5, 2, 6, 7, 8, 2], [0, 0, 0, 1, 1, 1, 1]):
        raise CheckFailed(
            "right for three and two tokens, but wrong for one and three: are lengths written as numbers?"
        )
    passed("[CLS] first [SEP] second [SEP], and each token knows its segment")


def mean_vectors(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 3: the mean over the tokens of each text, without its padding."""
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(3, 6, 4, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    kept = states.clone()
    total = (states * mask[..., None]).sum(1)
    wanted = total / mask.sum(1, keepdim=True)
    found = answer(states, mask)
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not torch.equal(states, kept):
        raise CheckFailed("your function changed the states in place (`*=`, perhaps)")
    found = torch.as_tensor(found).float()
    if found.shape != wanted.shape:
        raise CheckFailed(
            f"expected one vector for each of {len(wanted)} texts, the shape {tuple(wanted.shape)}, but got "
            f"{tuple(found.shape)}: the mean is over the axis of time, which is axis 1"
        )

    def close(other: Tensor) -> bool:
        return torch.allclose(found, other, atol=1e-5)

    if close(states.mean(1)):
        raise CheckFailed("the padding counts as well: the same text would get another vector in a longer batch")
    if close(total):
        raise CheckFailed("that is the sum: divide by how many tokens each text has")
    if close(total / states.shape[1]):
        raise CheckFailed("padding is out of the sum, but still in the number you divide by: take mask.sum")
    if close(total / mask.sum()):
        raise CheckFailed("you divide by the tokens of the whole batch: each text has its own number, mask.sum(1)")
    if close(states.sum(1) / mask.sum(1, keepdim=True)):
        raise CheckFailed("you divide by the right number, but padding is still in the sum: multiply by the mask first")
    if close(states[:, 0]):
        raise CheckFailed("that is the vector of [CLS] alone; the mean is over all tokens of the text")
    if close((states * mask[..., None]).amax(1)):
        raise CheckFailed("that is the maximum; the mean was asked for")
    if not close(wanted):
        raise CheckFailed(f"text 1 should begin with {wanted[1, :2].tolist()}, but begins with {found[1, :2].tolist()}")
    padded = torch.cat([states, torch.full((3, 2, 4), 7.0)], dim=1)
    longer = torch.as_tensor(answer(padded, torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], dim=1))).float()
    if not torch.allclose(longer, wanted, atol=1e-5):
        raise CheckFailed("two more places of padding change your vectors: they should not count at all")
    passed("each text's own tokens, however long the batch is")


class _Guesser:
    """A model of three lines: its guesses depend on every other token of the text. It notes what it was shown."""

    def __init__(self, vocab: int) -> None:
        generator = torch.Generator().manual_seed(6)
        self.table = torch.randn(vocab, vocab, generator=generator)
        self.shown: list[list[int]] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2:
            raise CheckFailed(
                f"log_probabilities takes texts as [batch, time], but got the shape {tuple(tokens.shape)}: one text is "
                "tokens[None]"
            )
        self.shown += tokens.tolist()
        place = torch.arange(1, tokens.shape[1] + 1)
        return ((self.table[tokens] * place[:, None]).sum(1, keepdim=True) / place[:, None]).log_softmax(-1)


def pseudo_log_likelihood(answer: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, int], Tensor]) -> None:
    """Exercise 4: hide each scored token in turn, and sum how well it is guessed."""
    vocab, mask_token = 9, 8
    tokens = torch.tensor([6, 2, 5, 1, 3, 7])
    scored = torch.tensor([False, True, True, True, True, False])

    def score(holes: list[list[int]], asked: list[list[int]]) -> float:
        total, model = 0.0, _Guesser(vocab)
        for hidden, places in zip(holes, asked, strict=True):
            text = tokens.clone()
            text[hidden] = mask_token
            found = model(text[None])[0]
            total += sum(found[place, tokens[place]].item() for place in places)
        return total

    inner, all_places = [1, 2, 3, 4], list(range(6))
    each = [[place] for place in inner]
    wanted = score(each, each)
    model, kept = _Guesser(vocab), tokens.clone()
    found = answer(model, tokens, scored, mask_token)
    if not torch.equal(tokens, kept):
        raise CheckFailed("your function left a hole in the text itself: hide the token in a copy, tokens.clone()")
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found)
    if found.numel() != 1:
        raise CheckFailed(f"the score is one number, but yours has the shape {tuple(found.shape)}: sum over the places")
    value = float(found)

    def close(other: float) -> bool:
        return math.isclose(value, other, rel_tol=1e-4)

    if close(-wanted):
        raise CheckFailed("the sign is wrong: this is a sum of log-probabilities, so the likelier text is the higher")
    if close(wanted / len(inner)):
        raise CheckFailed("you took the mean over the places; the sum was asked for")
    if close(score([[]], [inner])):
        raise CheckFailed("nothing was hidden: a model that sees the token can copy it. Put mask_token in its place")
    if close(score([inner], [inner])):
        raise CheckFailed("all were hidden at once: each token should be guessed from all the others, one copy each")
    if close(score([inner[: k + 1] for k in range(4)], each)):
        raise CheckFailed("the holes pile up: take a fresh copy of the text for each place")
    if close(score([[place] for place in all_places], [[place] for place in all_places])):
        raise CheckFailed("places are scored where `scored` is false: [CLS] and [SEP] stand there")
    if close(score(each, [inner] * 4)):
        raise CheckFailed("for each copy, only the token that is hidden in it counts")
    if not close(wanted):
        raise CheckFailed(f"expected {wanted:.4f}, got {value:.4f} after showing {len(model.shown)} texts")
    passed("each token guessed from all the others, and the logarithms summed")
