import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as one_by_one

from pfmcourse.nn.views import NOTHING, Views, colour_matrices, crop_matrices, view

LUMA = torch.tensor([0.299, 0.587, 0.114])
COLOURS = dataclasses.replace(NOTHING, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
ALL = Views(rotation=20.0, invert=0.3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=6, height=32, width=32):
    return torch.rand(count, 3, height, width, generator=seeded(99))


def painted(images, matrices):
    """The naive way: the matrix times every pixel, and the last column added; nothing is cut off."""
    result = torch.empty_like(images)
    for picture, matrix, out in zip(images, matrices, result, strict=True):
        for y in range(picture.shape[1]):
            for x in range(picture.shape[2]):
                out[:, y, x] = matrix[:, :3] @ picture[:, y, x] + matrix[:, 3]
    return result


def greys(images):
    return (LUMA[:, None, None] * images).sum(-3)


def colours(images, views, seed=0):
    """The pictures with other colours, not cut off at 0 and 1, and the matrices."""
    matrices = colour_matrices(len(images), greys(images).mean((1, 2)), views, seeded(seed))
    return painted(images, matrices), matrices


# What a view is


def test_nothing_leaves_pictures_as_they_are():
    images = pictures()
    assert torch.allclose(view(images, NOTHING, seeded()), images, atol=1e-5)


def test_shape_range_and_input():
    images = pictures(5, 24, 40)
    kept = images.clone()
    seen = view(images, ALL, seeded())
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(images, kept), "the input stays as it was"


def test_every_picture_has_its_own_numbers_and_the_seed_decides():
    images = pictures(1).expand(6, -1, -1, -1).contiguous()
    first, again, other = (view(images, ALL, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert all(not torch.allclose(first[i], first[j], atol=1e-2) for i in range(6) for j in range(i))


def test_two_views_of_one_generator_differ():
    images, generator = pictures(), seeded()
    assert not torch.allclose(view(images, ALL, generator), view(images, ALL, generator), atol=1e-2)


def test_a_batch_is_seen_as_its_pictures_are_one_by_one():
    images = pictures()
    matrices = crop_matrices(6, ALL, generator := seeded(3))
    expected = []
    for i in range(6):
        grid = F.affine_grid(matrices[i : i + 1], [1, 3, 32, 32], align_corners=False)
        expected.append(F.grid_sample(images[i : i + 1], grid, padding_mode="border", align_corners=False))
    expected = torch.cat(expected)
    colour = colour_matrices(6, greys(expected).mean((1, 2)), ALL, generator)
    assert torch.allclose(view(images, ALL, seeded(3)), painted(expected, colour).clamp(0, 1), atol=1e-5)


# Which part


def crops(count=2000, **changes):
    return crop_matrices(count, dataclasses.replace(NOTHING, **changes), seeded())


def test_crops_lie_inside_and_have_the_size_they_should():
    matrices = crops(smallest=0.2, stretch=4 / 3)
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    assert not matrices[:, 0, 1].any() and not matrices[:, 1, 0].any()
    for side, shift in ((width, matrices[:, 0, 2]), (height, matrices[:, 1, 2])):
        assert (side > 0).all() and (side + shift.abs() <= 1 + 1e-6).all()
        assert shift.min() < -0.4 and shift.max() > 0.4, "all over the picture"
    area, ratio = width * height, width / height
    assert area.min() >= 0.2 - 1e-6 and area.min() < 0.21 and 0.98 < area.max() <= 1 + 1e-6
    assert ratio.min() >= 3 / 4 - 1e-6 and ratio.min() < 0.77 and ratio.max() <= 4 / 3 + 1e-6 and ratio.max() > 1.3
    assert abs(area.mean() - 0.6) < 0.02, "all shares alike"


def test_a_view_never_shows_less_than_it_should():
    """Where a long part does not fit, it is less long, not smaller."""
    matrices = crops(smallest=0.9, stretch=3.0)
    assert (matrices[:, 0, 0] * matrices[:, 1, 1]).min() >= 0.9 - 1e-6
    assert torch.allclose(crops(smallest=1.0, stretch=3.0), torch.eye(2, 3).expand(2000, 2, 3), atol=1e-6)


def test_the_share_of_mirrored_views():
    assert abs((crops(mirror=0.5)[:, 0, 0] < 0).float().mean() - 0.5) < 0.05
    matrices = crops(mirror=1.0, smallest=0.3)
    assert (matrices[:, 0, 0] < 0).all() and (matrices[:, 1, 1] > 0).all()
    images = pictures()
    mirrored = view(images, dataclasses.replace(NOTHING, mirror=1.0), seeded())
    assert torch.allclose(mirrored, images.flip(3), atol=1e-5)


def test_rotations_are_rotations_within_their_bounds():
    turns = crops(rotation=15.0)[:, :, :2]
    assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(2).expand(2000, 2, 2), atol=1e-6)
    angle = torch.rad2deg(torch.atan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert angle.abs().max() <= 15.001 and angle.min() < -14.8 and angle.max() > 14.8


def test_outside_of_the_picture_the_border_goes_on():
    images = torch.full((20, 3, 16, 16), 0.5)
    assert torch.allclose(view(images, dataclasses.replace(NOTHING, rotation=45.0), seeded()), images)


def test_a_crop_shows_its_part_enlarged(monkeypatch):
    """A quarter of a picture, the lower left one; its middle pixels lie between those of the picture."""
    matrix = torch.tensor([[[0.5, 0, -0.5], [0, 0.5, 0.5]]])
    monkeypatch.setattr("pfmcourse.nn.views.crop_matrices", lambda *_: matrix)
    images = pictures(1, 16, 16)
    expected = F.interpolate(images[:, :, 8:, :8], size=(16, 16), mode="bilinear", align_corners=False)
    found = view(images, NOTHING, seeded())
    assert torch.allclose(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-5)


# Which colours


def drawn(name, reach, count=6, seed=0):
    """The factors that a batch draws where only one change is on, read off a matrix by a picture of one colour."""
    matrices = colour_matrices(
        count, torch.full((count,), 0.5), dataclasses.replace(COLOURS, **{name: reach}), seeded(seed)
    )
    if name == "brightness":
        return matrices[:, 0, 0]
    if name == "contrast":
        return matrices[:, 0, 0]
    return matrices[:, 0, 0] - matrices[:, 1, 0]  # saturation: off the diagonal, rows differ by the factor


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_change_is_the_one_of_torchvision(name):
    images, reach = pictures(6, 8, 8), 0.4
    found, _ = colours(images, dataclasses.replace(COLOURS, **{name: reach}))
    factors = drawn(name, reach)
    assert (factors - 1).abs().max() <= reach + 1e-5 and len(factors.unique()) == 6
    changed = 0
    for picture, factor, result in zip(images, factors.tolist(), found, strict=True):
        expected = getattr(one_by_one, f"adjust_{name}")(picture, factor)  # cuts off at 0 and 1
        assert torch.allclose(result.clamp(0, 1), expected, atol=2e-3)  # its grey has weights of four digits
        changed += (result - picture).abs().max() > 0.01
    assert changed >= 5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_reach_as_far_as_they_should(name):
    factors = drawn(name, 0.4, count=2000)
    assert 0.6 - 1e-4 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4 + 1e-4
    assert abs(factors.mean() - 1) < 0.02


def test_all_changes_at_once_are_one_after_the_other():
    """Brightness, contrast, saturation, then hue, step by step in double precision, on one picture at a time."""
    images = pictures(4, 6, 6).double()
    views = dataclasses.replace(COLOURS, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3)
    matrices = colour_matrices(4, greys(images).mean((1, 2)), views, seeded(7))
    draws = torch.rand(4, 4, generator=seeded(7)).double()  # brightness, contrast, saturation, hue
    yiq = torch.tensor([LUMA.tolist(), [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)
    for i, picture in enumerate(images):
        brightness, contrast, saturation = (1 + 0.5 * (2 * draws[k, i] - 1) for k in range(3))
        angle = 2 * math.pi * 0.3 * (2 * draws[3, i] - 1)
        step = brightness * picture
        step = contrast * step + (1 - contrast) * greys(step).mean()
        step = saturation * step + (1 - saturation) * greys(step)
        luma, first, second = torch.einsum("ij,jyx->iyx", yiq, step)
        turned = torch.stack(
            [luma, first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()]
        )
        expected = torch.einsum("ij,jyx->iyx", yiq.inverse(), turned)
        assert torch.allclose(painted(images[i : i + 1], matrices[i : i + 1].double())[0], expected, atol=1e-5)


def test_grey_has_equal_channels_and_the_same_brightness():
    images = pictures(6, 8, 8)
    seen, _ = colours(images, dataclasses.replace(NOTHING, grey=1.0))
    assert torch.allclose(seen, greys(images)[:, None].expand_as(images), atol=1e-6)
    both, _ = colours(images, Views(grey=1.0, jitter=1.0))
    assert torch.allclose(both[:, 0], both[:, 1], atol=1e-6) and torch.allclose(both[:, 1], both[:, 2], atol=1e-6)


def test_without_saturation_all_is_grey(monkeypatch):
    """Saturation is drawn from 1 - 1 to 1 + 1; the lowest draw takes all colour away."""
    images = pictures(6, 8, 8)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    seen, _ = colours(images, dataclasses.replace(COLOURS, saturation=1.0))
    assert torch.allclose(seen, greys(images)[:, None].expand_as(images), atol=1e-6)


def test_a_full_turn_of_hue_changes_nothing_and_less_changes_colours_only(monkeypatch):
    images = pictures(6, 8, 8)
    seen, _ = colours(images, dataclasses.replace(COLOURS, hue=0.3))
    assert (seen - images).abs().amax((1, 2, 3)).min() > 0.005
    assert torch.allclose(greys(seen), greys(images), atol=1e-5), "as bright as before"
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))  # the lowest draw: a full turn back
    seen, _ = colours(images, dataclasses.replace(COLOURS, hue=1.0))
    assert torch.allclose(seen, images, atol=1e-5)


def test_hue_and_saturation_leave_grey_pictures_alone():
    images = pictures(6, 8, 8)[:, :1].expand(-1, 3, -1, -1).contiguous()
    seen, _ = colours(images, dataclasses.replace(COLOURS, hue=0.5, saturation=0.9))
    assert torch.allclose(seen, images, atol=1e-5)


def test_contrast_keeps_the_mean():
    images = pictures(6, 8, 8)
    seen, _ = colours(images, dataclasses.replace(COLOURS, contrast=0.6))
    assert torch.allclose(greys(seen).mean((1, 2)), greys(images).mean((1, 2)), atol=1e-6)


def test_inverted_is_one_minus_the_picture():
    images = pictures(6, 8, 8)
    inverted = dataclasses.replace(NOTHING, invert=1.0)
    assert torch.allclose(view(images, inverted, seeded()), 1 - images, atol=1e-5)
    jittered = dataclasses.replace(COLOURS, brightness=0.5, contrast=0.5, hue=0.2)
    plain, _ = colours(images, jittered)
    other, _ = colours(images, dataclasses.replace(jittered, invert=1.0))
    assert torch.allclose(other, 1 - plain, atol=1e-5), "after all other changes"


@pytest.mark.parametrize(("name", "share"), [("jitter", 0.8), ("grey", 0.2), ("invert", 0.3)])
def test_the_shares_of_views_that_change(name, share):
    views = dataclasses.replace(NOTHING, **{name: share})
    matrices = colour_matrices(2000, torch.full((2000,), 0.4), views, seeded())
    changed = (matrices - torch.eye(3, 4)).abs().amax((1, 2)) > 1e-6
    assert abs(changed.float().mean() - share) < 0.03


def test_strong_changes_stay_between_0_and_1():
    wild = Views(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5, jitter=1.0, invert=0.5)
    seen = view(pictures(20, 8, 8), wild, seeded())
    assert seen.min() == 0 and seen.max() == 1 and seen.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_same_seed_gives_the_same_views_on_a_gpu():
    images = pictures()
    there = view(images.cuda(), ALL, seeded(5))
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), view(images, ALL, seeded(5)), atol=1e-4)
    drawn_there = view(images.cuda(), ALL, torch.Generator("cuda").manual_seed(5))
    assert drawn_there.device.type == "cuda" and drawn_there.isfinite().all()
