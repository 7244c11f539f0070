"""Checkers of lesson mae. Each tries an answer on small cases and names the mistake that it looks like."""

from collections.abc import Callable

import torch
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed

NO_RETURN = "your function returned None: is the `return` missing?"


def masking(answer: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """Exercise 1: which patches stay, and the way back from the shuffled order."""
    noise = torch.rand(3, 8, generator=torch.Generator().manual_seed(3))
    batch, patches, kept = *noise.shape, 3
    order = noise.argsort(1)
    before = noise.clone()
    found = answer(noise, kept)
    if not torch.equal(noise, before):
        raise CheckFailed("your function changed the noise itself (`sort_`, perhaps): it belongs to the caller")
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise CheckFailed("return two things: the numbers of the visible patches, and the way back")
    visible, restore = map(torch.as_tensor, found)
    if visible.is_floating_point():
        raise CheckFailed("the visible patches are named by their numbers, 0 to patches - 1: argsort, not sort")
    if visible.shape == (batch, patches - kept):
        raise CheckFailed(f"kept={kept} patches of {patches} are seen; you return as many as should be hidden")
    if visible.shape != (batch, kept):
        raise CheckFailed(
            f"each of {batch} pictures keeps exactly {kept} patches: expected the shape {(batch, kept)}, but found "
            f"{tuple(visible.shape)}. A threshold on the noise keeps another number each time; its order does not"
        )
    sets = visible.sort(1).values
    if torch.equal(sets, order[:, -kept:].sort(1).values):
        raise CheckFailed("you keep the patches with the largest noise; by the course's rule the smallest stay")
    if torch.equal(sets, torch.arange(kept).expand(batch, -1)):
        raise CheckFailed("every picture keeps its first patches: the noise has to be sorted first")
    if torch.equal(sets, sets[:1].expand(batch, -1)):
        raise CheckFailed("all pictures keep the same patches: sort each row of the noise, along axis 1")
    if torch.equal(sets, order.argsort(1)[:, :kept].sort(1).values):
        raise CheckFailed("that is the rank of the first patches: the visible ones are the first of the order itself")
    if not torch.equal(sets, order[:, :kept].sort(1).values):
        raise CheckFailed(f"picture 0 should keep {order[0, :kept].tolist()}, but keeps {visible[0].tolist()}")
    if restore.shape != (batch, patches):
        raise CheckFailed(
            f"the way back has a place for every patch, hidden or not: the shape {(batch, patches)}, not "
            f"{tuple(restore.shape)}"
        )
    if torch.equal(restore, order):
        raise CheckFailed("that is the shuffled order again: the way back is its inverse, so sort once more")
    if not torch.equal(restore.sort(1).values, torch.arange(patches).expand(batch, -1)):
        raise CheckFailed("each row of the way back should hold every number from 0 to patches - 1 once")
    if not torch.equal(restore.argsort(1)[:, :kept], visible):
        raise CheckFailed(
            "visible patches first, then the hidden ones: shuffled.gather(1, restore) should give the patches in their "
            "old order, and does not"
        )
    more = torch.rand(2, 5, generator=torch.Generator().manual_seed(4))
    seen, back = map(torch.as_tensor, answer(more, 2))
    shuffled = torch.cat([seen, torch.full((2, 3), -1)], dim=1).gather(1, back)
    if not torch.equal(shuffled.ge(0), more.argsort(1).argsort(1) < 2):
        raise CheckFailed("right for 8 patches, but wrong for 5: is a length written as a number?")
    passed("exactly as many as asked, another choice for each picture, and a way back")


def normalise(
    forth: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], back: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    """Exercise 2: each patch with mean 0 and variance 1, and its colours again."""
    patches = torch.rand(2, 4, 12, generator=torch.Generator().manual_seed(5)) * 3 + 1
    patches[1, 2] = 0.5  # a patch of bare paper
    before = patches.clone()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    deviation = (variance + 1e-6).sqrt()
    wanted = (patches - mean) / deviation
    found = forth(patches)
    if not torch.equal(patches, before):
        raise CheckFailed("your function changed the patches in place (`-=`, perhaps); they are still needed")
    if found is None:
        raise CheckFailed(NO_RETURN)
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise CheckFailed("return three things: the normalised patches, their means, and their deviations")
    normal = torch.as_tensor(found[0]).float()
    if normal.shape != patches.shape:
        raise CheckFailed(f"normalised patches keep their shape {tuple(patches.shape)}, but yours is {normal.shape}")
    if not normal.isfinite().all():
        raise CheckFailed(
            "a patch of one colour has variance 0, and you divide by its root: add 1e-6 to the variance first"
        )

    def close(other: Tensor) -> bool:
        return torch.allclose(normal, other, atol=1e-4)

    def over(*axes: int) -> Tensor:
        spread, middle = torch.var_mean(patches, dim=axes, keepdim=True)
        return (patches - middle) / (spread + 1e-6).sqrt()

    if close(patches - mean):
        raise CheckFailed("the mean is gone, but the variance is not 1 yet: divide by the deviation")
    if close((patches - mean) / (variance + 1e-6)):
        raise CheckFailed("you divide by the variance; the deviation is its root")
    if close(patches / deviation):
        raise CheckFailed("the variance is 1, but the mean is still there: subtract it first")
    if close(over(1, 2)) or close(over(0, 1, 2)):
        raise CheckFailed(
            "mean and variance are those of a whole picture or batch: each patch has its own, over its last axis"
        )
    if close(over(1)) or close(over(0)):
        raise CheckFailed("mean and variance run across the patches: they belong to one patch, dim=-1")
    biased = patches.var(-1, keepdim=True, correction=0)
    if close((patches - mean) / (biased + 1e-6).sqrt()):
        raise CheckFailed("you divide by n where MAE divides by n - 1: take torch.var as it is, correction=1")
    if not close(wanted):
        raise CheckFailed(f"the first patch should begin {wanted[0, 0, :3].tolist()}, not {normal[0, 0, :3].tolist()}")
    painted = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(6))  # not what forth gave
    truth = painted * deviation + mean
    try:
        colours = back(painted, *found[1:])
    except RuntimeError as error:
        raise CheckFailed(f"the way back fails: {error}. Did the means keep their last axis, keepdim=True?") from None
    if colours is None:
        raise CheckFailed("the way back returned None: is the `return` missing?")
    colours = torch.as_tensor(colours).float()
    if colours.shape != truth.shape:
        raise CheckFailed(f"the way back should give patches of the shape {tuple(truth.shape)}, not {colours.shape}")
    textured = variance[..., 0] > 0.01  # on bare paper the deviation is next to nothing, wherever 1e-6 was added

    def same(other: Tensor) -> bool:
        return torch.allclose(colours[textured], other[textured], atol=1e-4)

    if same((painted + mean) * deviation):
        raise CheckFailed("the way back goes in the other order: multiply by the deviation first, then add the mean")
    if same(painted * deviation):
        raise CheckFailed("on the way back the mean is missing: without it nobody knows how bright a patch is")
    if same(painted + mean):
        raise CheckFailed("on the way back the deviation is missing: the patch would have the wrong contrast")
    if not same(truth):
        raise CheckFailed("the way back should undo the way there: painted * deviation + mean")
    passed("mean 0 and variance 1 for each patch, bare paper included, and the colours again")


def hidden_error(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 3: the mean squared error where patches were hidden."""
    generator = torch.Generator().manual_seed(7)
    painted, truth = torch.rand(2, 3, 6, 4, generator=generator)
    mask = torch.tensor([[1, 1, 1, 0, 1, 0], [0, 1, 1, 1, 1, 0], [1, 1, 0, 1, 0, 1]], dtype=torch.bool)
    square = (painted - truth).square()
    wanted = square[mask].mean()
    kept = painted.clone(), truth.clone(), mask.clone()
    found = answer(painted, truth, mask)
    if not all(map(torch.equal, (painted, truth, mask), kept)):
        raise CheckFailed("your function changed its arguments in place: work on a copy")
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found).float()
    if found.numel() != 1:
        raise CheckFailed(f"the error is one number, but yours has the shape {tuple(found.shape)}: take the mean")

    def close(other: Tensor) -> bool:
        return torch.allclose(found.squeeze(), other, rtol=1e-4)

    if close(square.mean()):
        raise CheckFailed(
            "all patches count. The visible ones should not: copying what one sees is easy, and it would be rewarded"
        )
    if close(square[~mask].mean()):
        raise CheckFailed("you measure the visible patches: true in the mask means hidden")
    if close((square * mask[..., None]).mean()):
        raise CheckFailed(
            "visible patches are out of the sum, but still in the number you divide by: that error shrinks when fewer "
            "patches are hidden"
        )
    if close(square[mask].sum()) or close(square.mean(-1)[mask].sum()):
        raise CheckFailed("that is a sum: the mean over the hidden patches does not grow with the batch")
    if close(square.sum(-1)[mask].mean()):
        raise CheckFailed("summed over the numbers of a patch: take the mean of these too, or large patches cost more")
    if close(square[mask].sum() / mask.sum()):
        raise CheckFailed("you divide by the hidden patches; divide by all their numbers")
    if close((painted - truth)[mask].mean()) or close((truth - painted)[mask].mean()):
        raise CheckFailed("the square is missing: without it errors of both signs cancel")
    if close((painted - truth)[mask].abs().mean()):
        raise CheckFailed("that is the absolute error; MAE squares it")
    if close(wanted.sqrt()):
        raise CheckFailed("that is the root of the mean squared error: leave out the root")
    if not close(wanted):
        raise CheckFailed(f"expected {float(wanted):.4f}, but found {float(found):.4f}")
    passed("only what was hidden counts, and each of its numbers counts the same")


def nearest_code(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 4: the visual token of each patch."""
    generator = torch.Generator().manual_seed(8)
    patches, codes = torch.rand(7, 4, generator=generator), torch.rand(5, 4, generator=generator)
    codes = codes * torch.tensor([0.3, 0.8, 1.0, 1.4, 0.6])[:, None]  # long codes attract who forgets their length
    distance = (patches[:, None] - codes).square().sum(-1)
    wanted = distance.argmin(1)
    found = answer(patches, codes)
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found)
    if found.shape == patches.shape:
        raise CheckFailed("those are the codes themselves; the token is the number of the code")
    if found.shape == (len(patches), len(codes)):
        raise CheckFailed("those are all distances; the token is where each row is smallest")
    if found.shape == (len(codes),):
        raise CheckFailed("you looked for the nearest patch of each code: the smallest along the axis of the codes")
    if found.shape != wanted.shape:
        raise CheckFailed(f"{len(patches)} patches have {len(patches)} tokens, yours has the shape {found.shape}")
    if found.is_floating_point():
        raise CheckFailed("that is how far the nearest code is; the token is which one: argmin, not min")
    if torch.equal(found, distance.argmax(1)):
        raise CheckFailed("that is the code farthest away: the distance should be smallest")
    if torch.equal(found, (patches @ codes.T).argmax(1)):
        raise CheckFailed(
            "the largest product favours long codes: subtract half of each code's squared length, or take distances"
        )
    cosine = torch.nn.functional.normalize(patches, dim=1) @ torch.nn.functional.normalize(codes, dim=1).T
    if torch.equal(found, cosine.argmax(1)):
        raise CheckFailed("the cosine forgets how dark a patch is: grey and black would be one token")
    apart = patches[:, None] - codes
    if torch.equal(found, apart.abs().sum(-1).argmin(1)):
        raise CheckFailed("you add up absolute differences; the distance that was asked for squares them")
    if torch.equal(found, apart.sum(-1).argmin(1)):
        raise CheckFailed("the square is missing: without it differences of both signs cancel")
    if torch.equal(found, apart.square().sum(1).argmin(1)):
        raise CheckFailed("you sum over the codes: the numbers of a patch stand along the last axis")
    if not torch.equal(found, wanted):
        raise CheckFailed(f"expected the tokens {wanted.tolist()}, but found {found.tolist()}")
    passed("each patch has become the number of the typical patch nearest to it")
