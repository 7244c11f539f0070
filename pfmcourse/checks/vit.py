"""Checkers of lesson vit. Each tries an answer on small cases and names the mistake that it looks like."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pfmcourse.checks import CheckFailed, passed
from pfmcourse.nn.patches import interpolate_positions

NO_RETURN = "your function returned None: is the `return` missing?"


def pool(answer: Callable[[Tensor, int, str], Tensor]) -> None:
    """Exercise 1: what stands for the whole picture, the class token or the mean of the patches."""
    tokens = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    for special, pooling in ((1, "class"), (1, "mean"), (2, "class"), (2, "mean")):
        kept = tokens.clone()
        found = answer(tokens, special, pooling)
        if not torch.equal(tokens, kept):
            raise CheckFailed("your function changed the tokens in place")
        if found is None:
            raise CheckFailed(NO_RETURN)
        case = f"with special={special} and pooling={pooling!r}"
        _pooled(torch.as_tensor(found).float(), tokens, special, pooling, case)
    passed("one vector a picture, from its class token or from its patches alone")


def _pooled(found: Tensor, tokens: Tensor, special: int, pooling: str, case: str) -> None:
    """One case of `pool`."""
    if found.shape != (3, 4):
        hint = ""
        if found.shape == (3, 1, 4):
            hint = ": an axis of length 1 is left; take tokens[:, 0], not tokens[:, :1]"
        elif found.shape == (4,):
            hint = ": you averaged over the pictures of the batch, too"
        elif found.shape[:1] == (3,):
            hint = ": the tokens stand along axis 1"
        raise CheckFailed(f"{case} expected one vector a picture, the shape (3, 4), but got {tuple(found.shape)}{hint}")

    def close(other: Tensor) -> bool:
        return torch.allclose(found, other, atol=1e-6)

    mean = tokens[:, special:].mean(1)
    if close(tokens[:, 0] if pooling == "class" else mean):
        return
    if pooling == "class":
        if close(tokens[:, -1]):
            raise CheckFailed(f"{case} you took the last token: the class token is the first")
        if close(mean) or close(tokens.mean(1)):
            raise CheckFailed(f"{case} you averaged: the class token alone was asked for")
        if close(tokens[:, special - 1]) or close(tokens[:, special]):
            raise CheckFailed(f"{case} you took another token: the class token is number 0, whatever stands behind it")
    else:
        if close(tokens[:, 0]):
            raise CheckFailed(f"{case} you took the class token: the mean of the patches was asked for")
        if close(tokens.mean(1)):
            raise CheckFailed(f"{case} special tokens are in the mean: they are no patches")
        if close(tokens[:, 1:].mean(1)):
            raise CheckFailed(f"{case} DeiT's second token is in the mean: leave out the first `special` tokens")
        if close(tokens[:, special:].sum(1)):
            raise CheckFailed(f"{case} that is the sum of the patches: divide by how many there are")
        if close(tokens[:, special:].amax(1)):
            raise CheckFailed(f"{case} that is the maximum over the patches, not their mean")
    raise CheckFailed(f"{case} your vectors are none that this checker knows: tokens[:, 0], or a mean of patches?")


def hard_distillation(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 2: DeiT's loss, half for the labels and half for the teacher's first choice."""
    generator = torch.Generator().manual_seed(2)
    by_label, by_teacher, scores = (2 * torch.randn(5, 4, generator=generator) for _ in range(3))
    labels = torch.tensor([0, 3, 1, 2, 2])
    choice = scores.argmax(1)
    terms = [F.cross_entropy(by_label, labels), F.cross_entropy(by_teacher, choice)]
    found = answer(by_label, by_teacher, labels, scores)
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found)
    if found.numel() != 1:
        raise CheckFailed(f"the loss is one number, the mean over the pictures, but yours is {tuple(found.shape)}")
    value = float(found)

    def close(other: Tensor) -> bool:
        return math.isclose(value, float(other), rel_tol=1e-4)

    def swapped() -> Tensor:
        return (F.cross_entropy(by_teacher, labels) + F.cross_entropy(by_label, choice)) / 2

    soft = F.cross_entropy(by_teacher, scores.softmax(1))
    middle = (by_label + by_teacher) / 2
    if close(sum(terms)):
        raise CheckFailed("that is the sum of both terms: the paper takes half of each")
    if close(terms[0]):
        raise CheckFailed("the teacher is not in your loss")
    if close(terms[1]):
        raise CheckFailed("the labels are not in your loss")
    if close(swapped()):
        raise CheckFailed("the heads are swapped: labels teach the class token's head, the teacher the other one")
    if close((terms[0] + soft) / 2):
        raise CheckFailed("that is soft distillation: here the teacher's first choice is a label like any other")
    if close((terms[0] + F.cross_entropy(by_teacher, scores)) / 2):
        raise CheckFailed("the teacher's scores are no labels: its choice is where they are largest, argmax")
    if close((terms[0] + F.cross_entropy(by_label, choice)) / 2):
        raise CheckFailed("both terms judge the class token's head, so the distillation token learns nothing")
    if close((F.cross_entropy(middle, labels) + F.cross_entropy(middle, choice)) / 2):
        raise CheckFailed("you judged the mean of the heads: in training each head has its own target")
    if close((terms[0] + F.cross_entropy(by_teacher, scores.argmin(1))) / 2):
        raise CheckFailed("you took the teacher's last choice: the largest score is the first one")
    if close(-sum(terms) / 2):
        raise CheckFailed("the sign is wrong: a loss is the negative log-probability")
    if not close(sum(terms) / 2):
        raise CheckFailed(f"expected {float(sum(terms) / 2):.4f}, but got {value:.4f}")
    passed("labels for one token, the teacher's choice for the other, half of each")


def rollout(answer: Callable[[Tensor], Tensor]) -> None:
    """Exercise 3: attention through all layers, after Abnar and Zuidema (2020)."""
    generator = torch.Generator().manual_seed(3)
    maps = (2 * torch.randn(3, 2, 4, 4, generator=generator)).softmax(-1)
    kept = maps.clone()
    found = answer(maps)
    if not torch.equal(maps, kept):
        raise CheckFailed("your function changed the maps in place (`+=`, perhaps)")
    if found is None:
        raise CheckFailed(NO_RETURN)
    found = torch.as_tensor(found).float()
    if found.shape == (2, 4, 4):
        raise CheckFailed("the heads are still apart: average over them first, axis 1 of the maps")
    if found.shape == (3, 4, 4):
        raise CheckFailed("the layers are still apart: multiply their matrices")
    if found.shape != (4, 4):
        raise CheckFailed(f"expected one matrix (tokens, tokens), here (4, 4), but got {tuple(found.shape)}")
    identity = torch.eye(4)
    mean = maps.mean(1)

    def product(layers: Tensor) -> Tensor:
        """The last layer stands on the left."""
        total = identity
        for layer in layers:
            total = layer @ total
        return total

    def close(other: Tensor) -> bool:
        return torch.allclose(found, other, atol=1e-5)

    half = (mean + identity) / 2
    wanted = product(half)
    if close(product(half.flip(0))):
        raise CheckFailed("the layers are in the wrong order: each new layer is multiplied from the left")
    if close(wanted.T):
        raise CheckFailed("that is the transpose: rows look, columns are looked at")
    if close(product(mean)):
        raise CheckFailed("the identity is missing: around each attention the stream goes on unchanged")
    if close(product(mean + identity)):
        raise CheckFailed("the rows no longer add up to 1: halve attention plus identity")
    if close(product((maps.amax(1) + identity) / 2)) or close(product((maps.sum(1) + identity) / 2)):
        raise CheckFailed("the heads should be averaged, not summed and not their maximum taken")
    if close(half[-1]) or close(mean[-1]):
        raise CheckFailed("that is the last layer alone")
    if close(half.prod(0)) or close(mean.prod(0)):
        raise CheckFailed("`*` multiplies entry by entry: the product of matrices is `@`")
    if close(half.mean(0)) or close(mean.mean(0)):
        raise CheckFailed("that is the mean over the layers: one layer reads what the one before has made, so multiply")
    if not close(wanted):
        raise CheckFailed(f"the first row should be {wanted[0].tolist()}, but is {found[0].tolist()}")
    other = torch.randn(5, 1, 3, 3, generator=generator).softmax(-1)
    total = torch.eye(3)
    for layer in other[:, 0]:
        total = (layer + torch.eye(3)) / 2 @ total
    if not torch.allclose(torch.as_tensor(answer(other)).float(), total, atol=1e-5):
        raise CheckFailed("right for 3 layers of 2 heads, but wrong for 5 layers of one: are sizes written as numbers?")
    passed("what each token has gathered from every other, through all layers")


def stretch(answer: Callable[[Tensor, int, int, int], Tensor]) -> None:
    """Exercise 4: positions of a square grid for pictures of another size."""
    side, rows, columns, dim = 4, 3, 6, 5
    for special in (1, 2):
        table = torch.randn(special + side * side, dim, generator=torch.Generator().manual_seed(4 + special))
        kept = table.clone()
        found = answer(table, special, rows, columns)
        if not torch.equal(table, kept):
            raise CheckFailed("your function changed the table of positions in place")
        if found is None:
            raise CheckFailed(NO_RETURN)
        _stretched(torch.as_tensor(found).float(), table, special, rows, columns)
    passed("special tokens stay, and the patches' positions are stretched as a plane")


def _stretched(found: Tensor, table: Tensor, special: int, rows: int, columns: int) -> None:
    """One case of `stretch`."""
    first, grid = table[:special], table[special:]
    side, dim = math.isqrt(len(grid)), table.shape[1]
    count = special + rows * columns
    if found.shape == (count - special, dim):
        raise CheckFailed("the positions of the special tokens are gone: put them in front again, unchanged")
    if found.ndim != 2 or found.shape[1] != dim:
        raise CheckFailed(f"expected a table (tokens, dim), here ({count}, {dim}), but got {tuple(found.shape)}")
    if len(found) != count:
        raise CheckFailed(
            f"{special} special tokens and {rows} x {columns} patches make {count} rows, but yours has {len(found)}"
        )

    def flattened(plane: Tensor) -> Tensor:
        """(1, dim, rows, columns) -> (rows x columns, dim), row by row."""
        return plane[0].permute(1, 2, 0).flatten(0, 1)

    plane = grid.view(side, side, dim).permute(2, 0, 1)[None]
    size, patches = (rows, columns), found[special:]

    def close(other: Tensor) -> bool:
        return torch.allclose(patches, other, atol=1e-5)

    def made(mode: str, of: Tensor = plane, **options: bool) -> Tensor:
        return F.interpolate(of, size=size, mode=mode, **options)

    along = F.interpolate(table.T[None], size=count, mode="linear", align_corners=False)[0].T
    if torch.allclose(found, along, atol=1e-5):
        raise CheckFailed(
            "you stretched the whole table along one axis: patches stand in a plane, special tokens do not"
        )
    if not torch.equal(found[:special], first):
        raise CheckFailed("the special tokens stand nowhere in the picture: their positions stay as they are")
    if close(made("bicubic", align_corners=True)[0].permute(1, 2, 0).flatten(0, 1)):
        raise CheckFailed("with align_corners=True the patches' centres move: use align_corners=False")
    for mode, options in (("bilinear", {"align_corners": False}), ("nearest", {})):
        if close(flattened(made(mode, **options))):
            raise CheckFailed(f"that is mode={mode!r}: the paper's interpolation is bicubic")
    if close(made("bicubic", align_corners=False)[0].permute(2, 1, 0).flatten(0, 1)):
        raise CheckFailed("the new positions are listed column by column: patches are read row by row")
    if close(flattened(made("bicubic", plane.mT, align_corners=False))):
        raise CheckFailed("rows and columns of the old grid are swapped: patches were read row by row")
    if close(flattened(made("bicubic", grid.reshape(1, dim, side, side), align_corners=False))):
        raise CheckFailed("`reshape` alone cannot move dim to the front: first (side, side, dim), then permute")
    if not close(interpolate_positions(grid, rows, columns)):
        raise CheckFailed(
            "the special tokens are right, but the patches' positions are not those of bicubic stretching"
        )
