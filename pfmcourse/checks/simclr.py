"""Checkers of lesson simclr. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed

NO_RETURN = "your function returned None: is the `return` missing?"


def partners(answer: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    """Exercise 1: the partner of each view, and who is a candidate."""
    for pictures in (3, 5):
        views = 2 * pictures
        numbers = torch.arange(views)
        wanted, candidates = numbers.roll(pictures), ~torch.eye(views, dtype=torch.bool)
        found = answer(pictures)
        if found is None:
            raise CheckFailed(NO_RETURN)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise CheckFailed("return two tensors: the partner of each view, and the table of candidates")
        partner, candidate = (torch.as_tensor(part) for part in found)
        if partner.shape == (pictures,):
            raise CheckFailed("only the first views have a partner in your answer: each of both views asks once")
        if partner.shape != (views,):
            raise CheckFailed(f"{pictures} pictures have {views} views, but you return {tuple(partner.shape)} partners")
        if torch.equal(partner, numbers):
            raise CheckFailed("each view is its own partner: then the answer is known before the picture is seen")
        if torch.equal(partner, numbers + pictures):
            raise CheckFailed(f"the second views point beyond the last row, {views - 1}: go round with % views")
        if torch.equal(partner, numbers ^ 1):
            raise CheckFailed(
                "that is for views in the order a1 a2 b1 b2; here all first views come before all second ones"
            )
        if torch.equal(partner, (numbers + 1) % views):
            raise CheckFailed("the partner is not the next row: the second views begin `pictures` rows further down")
        if not torch.equal(partner, wanted):
            raise CheckFailed(
                f"for {pictures} pictures expected the partners {wanted.tolist()}, got {partner.tolist()}"
            )
        if candidate.shape != candidates.shape:
            raise CheckFailed(f"the table of candidates is {views} x {views}, yours is {tuple(candidate.shape)}")
        if candidate.dtype != torch.bool:
            raise CheckFailed(f"the table of candidates holds booleans, yours {candidate.dtype}")
        if candidate.all():
            raise CheckFailed("a view is a candidate for itself: with a cosine of 1 it would always win")
        if torch.equal(candidate, ~candidates):
            raise CheckFailed("the table is the wrong way round: true are all others, false is the view itself")
        if torch.equal(candidate, candidates & (numbers != wanted[:, None])):
            raise CheckFailed("the partner itself is no candidate in your table, but it is the right answer")
        if torch.equal(candidate, numbers == wanted[:, None]):
            raise CheckFailed("only the partner is a candidate in your table: then there is nothing to choose from")
        if not torch.equal(candidate, candidates):
            raise CheckFailed("the table of candidates is false where a view meets itself, and true everywhere else")
    passed("each view looks for one partner among all views but itself")


def contrastive_loss(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Exercise 2: NT-Xent from a table of cosines."""
    generator = torch.Generator().manual_seed(3)
    views, temperature = 8, 0.3
    vectors = F.normalize(torch.randn(views, 5, generator=generator), dim=1)
    cosines, partner = vectors @ vectors.T, torch.arange(views).roll(views // 2)
    itself = torch.eye(views, dtype=torch.bool)
    scores = (cosines / temperature).masked_fill(itself, -torch.inf)
    each = F.cross_entropy(scores, partner, reduction="none")
    positive = scores[torch.arange(views), partner]
    strangers = scores.clone()
    strangers[torch.arange(views), partner] = -torch.inf
    kept = cosines.clone()
    found = answer(cosines, partner, temperature)
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not torch.equal(cosines, kept):
        raise CheckFailed("your function changed the table of cosines itself: work on a copy (`/`, not `/=`)")
    found = torch.as_tensor(found)
    if found.numel() != 1:
        raise CheckFailed(f"the loss is one number, but yours has the shape {tuple(found.shape)}: take the mean")
    value = float(found)

    def close(other: Tensor) -> bool:
        return math.isclose(value, float(other), rel_tol=1e-4, abs_tol=1e-6)

    if math.isnan(value):
        raise CheckFailed("the loss is nan: perhaps -inf was multiplied by 0; fill it in with masked_fill instead")
    if close(-each.mean()):
        raise CheckFailed("the sign is wrong: the loss is minus the logarithm")
    if close(each.sum()):
        raise CheckFailed("that is the sum over the views; the mean was asked for")
    if close(F.cross_entropy(cosines / temperature, partner)):
        raise CheckFailed("each view is among its own candidates: take the diagonal out before the softmax")
    if close(F.cross_entropy((cosines / temperature).masked_fill(itself, 0.0), partner)):
        raise CheckFailed("a score of 0 on the diagonal still counts, as exp(0) = 1: fill in -inf")
    if close(F.cross_entropy((cosines * temperature).masked_fill(itself, -torch.inf), partner)):
        raise CheckFailed("you multiply by the temperature: divide, so that a low one makes differences large")
    if close(F.cross_entropy(cosines.masked_fill(itself, -torch.inf), partner)):
        raise CheckFailed("the temperature is not used: divide the cosines by it")
    if close((strangers.logsumexp(1) - positive).mean()):
        raise CheckFailed("the partner is missing in the sum below the fraction: it runs over all others, partner too")
    if close(each[: views // 2].mean()):
        raise CheckFailed("only the first views are asked: the mean is over both views of each picture")
    if not close(each.mean()):
        raise CheckFailed(f"expected {float(each.mean()):.4f}, got {value:.4f}")
    if not math.isfinite(float(answer(cosines, partner, 0.005))):
        raise CheckFailed(
            "at a temperature of 0.005 exp() overflows: leave exp and log to cross_entropy, log_softmax or logsumexp"
        )
    turned = torch.randperm(views, generator=generator)
    place = torch.argsort(turned)
    again = float(answer(cosines[turned][:, turned], place[partner[turned]], temperature))
    if not math.isclose(again, float(each.mean()), rel_tol=1e-4):
        raise CheckFailed("with the views in another order the loss should be the same: use `partner`, not i + N")
    passed("a softmax over all other views, sharpened by the temperature")


def follow(answer: Callable[[list[Tensor], list[Tensor], float], None]) -> None:
    """Exercise 3: the slow weights move a little towards the fast ones, in place."""
    generator = torch.Generator().manual_seed(5)

    def weights() -> list[Tensor]:
        return [torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), ())]

    for momentum in (0.9, 0.75):
        slow, fast = weights(), weights()
        old, new = ([one.clone() for one in many] for many in (slow, fast))
        listed = list(slow)  # the same tensors, should the entries of the list be exchanged

        def all_are(tensors: list[Tensor], share: float, old: list = old, new: list = new) -> bool:
            wanted = (share * a + (1 - share) * b for a, b in zip(old, new, strict=True))
            return all(torch.allclose(one, two, atol=1e-6) for one, two in zip(tensors, wanted, strict=True))

        returned = answer(slow, fast, momentum)
        if not all_are(fast, 0.0):
            raise CheckFailed("the fast weights changed: they belong to the optimizer, only the slow ones follow")
        if all_are(listed, 1.0):
            if len(slow) == len(listed) and all_are(slow, momentum):
                raise CheckFailed("you put new tensors into the list: the network still holds the old ones, use copy_")
            if returned is not None:
                raise CheckFailed("you return new tensors, but the slow ones themselves have to change: use copy_")
            raise CheckFailed(
                "the slow weights did not move: `ours = ...` only gives a name to a new tensor, use ours.copy_(...)"
            )
        if all_are(listed, 0.0):
            raise CheckFailed("the slow weights are now equal to the fast ones: a share `momentum` of the old stays")
        if all_are(listed, 1 - momentum):
            raise CheckFailed("the shares are swapped: the large one, `momentum`, is that of the slow weights")
        if all_are(listed[:1], momentum, old[:1], new[:1]) and not all_are(listed[1:], momentum, old[1:], new[1:]):
            raise CheckFailed("only the first tensor is right: is there a `return` inside the loop?")
        added = (momentum * a + b for a, b in zip(old, new, strict=True))
        if all(torch.allclose(one, two, atol=1e-6) for one, two in zip(listed, added, strict=True)):
            raise CheckFailed("the shares do not add up to 1: the fast weights come in with 1 - momentum")
        if momentum != 0.9 and all_are(listed, 0.9):
            raise CheckFailed("right for a momentum of 0.9 only: is it written as a number?")
        if not all_are(listed, momentum):
            raise CheckFailed(
                f"for slow {float(old[2]):.3f}, fast {float(new[2]):.3f} and momentum {momentum} expected "
                f"{float(momentum * old[2] + (1 - momentum) * new[2]):.3f}, got {float(listed[2]):.3f}"
            )
    passed("a slow copy that follows, and keeps old keys comparable with new ones")


def alignment_and_uniformity(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Exercise 4: how near partners are, and how evenly pictures are spread over the sphere."""
    generator = torch.Generator().manual_seed(7)
    first = torch.randn(6, 4, generator=generator) * 2
    second = first + 0.7 * torch.randn(6, 4, generator=generator)
    x, y = F.normalize(first, dim=1), F.normalize(second, dim=1)
    kept = first.clone()
    found = answer(first, second)
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not torch.equal(first, kept):
        raise CheckFailed("your function changed the vectors themselves: work on copies")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise CheckFailed("return two numbers: alignment, and uniformity")
    values = [torch.as_tensor(one) for one in found]
    if any(one.numel() != 1 for one in values):
        raise CheckFailed(
            f"both are single numbers, but yours have the shapes {[tuple(one.shape) for one in values]}: take means"
        )
    aligned, spread = (float(one) for one in values)

    def close(value: float, other: Tensor) -> bool:
        return math.isclose(value, float(other), rel_tol=1e-4, abs_tol=1e-6)

    squares = (x - y).square().sum(1)
    wanted = squares.mean()
    apart = (x[:, None] - x[None]).square().sum(2)
    other = ~torch.eye(len(x), dtype=torch.bool)
    uniform = (-2 * apart[other]).exp().mean().log()
    if close(aligned, uniform) and close(spread, wanted):
        raise CheckFailed("both are right, in the wrong order: alignment comes first")
    if close(aligned, (first - second).square().sum(1).mean()):
        raise CheckFailed("the vectors have their own lengths: normalise each of them to length 1 first")
    if close(aligned, squares.sqrt().mean()):
        raise CheckFailed("that is the mean distance: alignment takes the squared distance")
    if close(aligned, (x - y).square().mean()):
        raise CheckFailed("you average over the axes of a vector, too: sum over those, and average over the pictures")
    columns = F.normalize(first, dim=0) - F.normalize(second, dim=0)
    if close(aligned, columns.square().sum(1).mean()):
        raise CheckFailed("you normalise down the columns: each row is a vector, so normalise along dim=1")
    if close(aligned, (x - y).square().sum(0).mean()):
        raise CheckFailed("you sum over the pictures: the numbers of one vector stand along dim=1")
    if close(aligned, (x - y).sum(1).mean()):
        raise CheckFailed("the square is missing: without it differences cancel")
    if close(aligned, squares.sum()):
        raise CheckFailed("alignment is the mean over the pictures; that is the sum")
    if close(aligned, (x[:, None] - y[None]).square().sum(2).mean()):
        raise CheckFailed("alignment is between partners, row i with row i; you took all pairs")
    if not close(aligned, wanted):
        raise CheckFailed(f"expected an alignment of {float(wanted):.4f}, got {aligned:.4f}")
    lengths = (first[:, None] - first[None]).square().sum(2)
    if close(spread, (-2 * lengths[other]).exp().mean().log()):
        raise CheckFailed("uniformity, too, is about vectors of length 1: normalise first")
    if close(spread, (-2 * apart).exp().mean().log()):
        raise CheckFailed("pairs of a picture with itself are in the mean: leave the diagonal out")
    if close(spread, uniform.exp()):
        raise CheckFailed("the logarithm is missing: uniformity is log of the mean")
    if close(spread, (-2 * apart[other]).mean()):
        raise CheckFailed("that is the mean of the logarithms: first the mean of exp(...), then its logarithm")
    if close(spread, (-2 * apart[other].sqrt()).exp().mean().log()):
        raise CheckFailed("the distances in the exponent are squared ones (torch.cdist gives the distance)")
    if close(spread, (-apart[other]).exp().mean().log()):
        raise CheckFailed("the factor 2 is missing in the exponent")
    if close(spread, (2 * apart[other]).exp().mean().log()):
        raise CheckFailed("the sign in the exponent is wrong: pairs that are far apart should hardly count")
    if close(spread, (-2 * apart[other]).exp().sum().log()):
        raise CheckFailed("that is the logarithm of the sum; the mean over the pairs was asked for")
    if not close(spread, uniform):
        raise CheckFailed(f"expected a uniformity of {float(uniform):.4f}, got {spread:.4f}")
    passed("partners near, strangers spread: the two halves of the contrastive loss")
