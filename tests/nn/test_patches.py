"""Patches: cut and put together again, each where it should be; positions in the plane; rectangles to hide."""

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.nn.patches import blockwise_mask, interpolate_positions, patchify, sincos_positions, unpatchify


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 8, 4), (6, 9, 3), (4, 10, 2), (5, 5, 5), (3, 2, 1)])
def test_cut_and_put_together_again(height, width, patch):
    images = torch.rand(3, 2, height, width)
    patches = patchify(images, patch)
    assert patches.shape == (3, height * width // patch**2, 2 * patch**2)
    assert torch.equal(unpatchify(patches, patch, width // patch), images)


def test_each_patch_is_where_it_should_be():
    images = torch.rand(2, 3, 6, 8)
    patches = patchify(images, 2)
    for row in range(3):
        for column in range(4):
            square = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 4 * row + column], square.flatten(1)), "channel by channel, each row by row"


@pytest.mark.parametrize(("height", "width", "patch"), [(7, 8, 4), (8, 6, 4), (2, 2, 3), (0, 4, 2)])
def test_a_picture_that_does_not_fit_is_an_error(height, width, patch):
    with pytest.raises(CourseError, match=f"{height} x {width} pixels cannot be cut into patches of {patch} x {patch}"):
        patchify(torch.zeros(1, 1, height, width), patch)


# Positions -----------------------------------------------------------------------------------------------------------


def test_positions_say_the_column_in_one_half_and_the_row_in_the_other():
    plane = sincos_positions(3, 5, 16).unflatten(0, (3, 5))
    across, down = plane.split(8, dim=-1)
    assert torch.equal(across, across[:1].expand(3, -1, -1)), "the same in every row"
    assert torch.equal(down, down[:, :1].expand(-1, 5, -1)), "the same in every column"
    distances = torch.cdist(plane.flatten(0, 1), plane.flatten(0, 1)) + 9 * torch.eye(15)
    assert distances.min() > 0.1, "no two places are alike"


def test_positions_in_a_plane_need_a_multiple_of_four():
    with pytest.raises(CourseError, match="multiple of 4, not 6"):
        sincos_positions(2, 2, 6)


def test_positions_at_the_same_size_stay_as_they_are():
    positions = torch.randn(9, 4)
    assert interpolate_positions(positions, 3, 3) is positions


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (3, 12), (5, 2), (1, 9)])
def test_positions_are_stretched(rows, columns):
    level = torch.ones(9, 4) * torch.arange(4)
    assert (interpolate_positions(level, rows, columns) - torch.arange(4)).abs().max() < 1e-5, "no weight is lost"
    row, column = torch.arange(16.0) // 4, torch.arange(16.0) % 4
    stretched = interpolate_positions(torch.stack([row, column], 1), rows, columns).unflatten(0, (rows, columns))
    assert (stretched[..., 0] - stretched[:, :1, 0]).abs().max() < 1e-5, "what says the row still says only the row"
    assert (stretched[..., 1] - stretched[:1, :, 1]).abs().max() < 1e-5
    assert (stretched[:, 0, 0].diff() > 0).all() and (stretched[0, :, 1].diff() > 0).all(), "in the same order"


# Rectangles to hide --------------------------------------------------------------------------------------------------


def masks(count=200, side=8, share=0.4, seed=0):
    return blockwise_mask(count, side, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("side", "share", "hidden"), [(8, 0.4, 26), (14, 0.4, 78), (4, 0.75, 12), (3, 0.4, 4), (2, 0.3, 1)]
)
def test_every_picture_hides_the_same_share(side, share, hidden):
    found = masks(side=side, share=share)
    assert found.shape == (200, side * side) and found.dtype == torch.bool
    assert (found.sum(1) == hidden).all()


def test_what_is_hidden_hangs_together():
    """Of a hidden patch's four neighbours most are hidden too, unlike with patches drawn one by one."""

    def together(mask):
        plane = mask.view(-1, 8, 8)
        pairs = [(plane[:, 1:], plane[:, :-1]), (plane[:, :, 1:], plane[:, :, :-1])]
        return sum((a & b).sum() for a, b in pairs) / sum((a | b).sum() for a, b in pairs)

    one_by_one = torch.rand(200, 64).argsort(1) < 26
    assert together(masks()) > 0.55
    assert together(one_by_one) < 0.35


def test_a_single_rectangle_is_a_rectangle():
    """As many patches as the smallest rectangle has: nothing is random but where it lies."""
    for plane in masks(side=4, share=1 / 16).view(-1, 4, 4):
        assert plane.sum() == 1
    for plane in masks(side=14, share=16 / 196).view(-1, 14, 14):
        rows, columns = plane.any(1).sum(), plane.any(0).sum()
        assert plane.sum() == 16
        assert rows * columns <= 2 * 16, "one rectangle, or a cut one beside it"


def test_every_patch_is_hidden_sometimes_and_the_seed_decides():
    found = masks(2000).float().mean(0)
    assert found.min() > 0.05 and found.max() < 0.8
    assert torch.equal(masks(), masks())
    assert not torch.equal(masks(), masks(seed=1))
    assert len(masks().unique(dim=0)) > 190


@pytest.mark.parametrize("share", [0.0, 0.001, 0.999, 1.0])
def test_a_share_that_hides_nothing_or_everything_is_an_error(share):
    with pytest.raises(CourseError, match=f"share={share} of 64 patches"):
        masks(share=share)
