import dataclasses

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.nn.augment import Warp, affine_matrices, augment, change_thickness, elastic_field

STILL = Warp(rotation=0.0, shear=0.0, scale=0.0, shift=0.0, elastic=0.0, thickness=0.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=6):
    images = torch.zeros(count, 1, 28, 28)
    images[:, :, 6:22, 12:15] = 1
    images[:, :, 19:22, 12:22] = 1
    return images


def test_no_change_is_no_change():
    images = torch.rand(3, 2, 28, 28)
    assert torch.allclose(augment(images, STILL, seeded()), images, atol=1e-5)


def test_every_picture_changes_in_its_own_way_and_the_seed_decides():
    images = pictures()
    first, again, other = (augment(images, Warp(), seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert all(not torch.allclose(first[0], one) for one in first[1:])
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1


def test_the_input_stays_as_it_was():
    images = pictures()
    kept = images.clone()
    augment(images, Warp(), seeded())
    assert torch.equal(images, kept)


def test_a_batch_is_warped_as_its_pictures_are_one_by_one():
    """The naive loop: the same matrices and fields, one picture at a time."""
    images, warp = torch.rand(4, 1, 28, 28), Warp(thickness=0.0)
    matrices = affine_matrices(4, warp, generator := seeded(3))
    field = elastic_field(4, 28, 28, warp, generator)
    single = [
        F.grid_sample(
            images[i : i + 1],
            F.affine_grid(matrices[i : i + 1], [1, 1, 28, 28], align_corners=False) + field[i : i + 1],
            align_corners=False,
        )
        for i in range(4)
    ]
    assert torch.allclose(augment(images, warp, seeded(3)), torch.cat(single), atol=1e-6)


def test_affine_matrices_stay_in_their_bounds():
    still = affine_matrices(50, STILL, seeded())
    assert torch.allclose(still, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(50, 2, 3))

    turned = affine_matrices(500, dataclasses.replace(STILL, rotation=15.0), seeded())[:, :, :2]
    assert torch.allclose(turned @ turned.transpose(1, 2), torch.eye(2).expand(500, 2, 2), atol=1e-6)
    angle = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert angle.abs().max() <= 15 and angle.min() < -14 and angle.max() > 14

    scaled = affine_matrices(500, dataclasses.replace(STILL, scale=0.2), seeded())
    assert ((scaled[:, [0, 1], [0, 1]] - 1).abs() <= 0.2).all()
    assert (scaled[:, 0, 0] - scaled[:, 1, 1]).abs().max() > 0.1, "width and height change on their own"

    moved = affine_matrices(500, dataclasses.replace(STILL, shift=0.1), seeded())[:, :, 2]
    assert moved.abs().max() <= 0.1 and moved.std(0).min() > 0.04


def test_a_shift_moves_the_picture_by_so_many_pixels(monkeypatch):
    images = pictures(1)
    matrix = torch.tensor([[[1.0, 0, 2 * 3 / 28], [0, 1, 0]]])  # reads three pixels further to the right
    monkeypatch.setattr("pfmcourse.nn.augment.affine_matrices", lambda *_: matrix)
    assert torch.allclose(augment(images, STILL, seeded()), images.roll(-3, dims=3), atol=1e-5)


def test_the_elastic_field_is_smooth_and_small():
    field = elastic_field(20, 28, 28, Warp(elastic=0.15), seeded())
    assert field.shape == (20, 28, 28, 2)
    assert field.abs().max() < 0.3  # bicubic interpolation overshoots a little
    step = (field[:, 1:] - field[:, :-1]).abs().max()
    assert step < 0.1, "neighbouring pixels move together"


def test_thickness():
    images = pictures(3)
    thinner, same, thicker = change_thickness(images, torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(same, images[1])
    assert thinner.sum() < same.sum() < thicker.sum()
    assert thicker[0, 10, 11:16].tolist() == [1] * 5 and thicker[0, 10, 10] == 0, "one pixel on each side"
    assert thinner[0, 10, 13] == 1 and thinner[0, 10, 12] == 0
    half = change_thickness(images[:1], torch.tensor([0.5]))
    assert torch.allclose(half[0], (same + thicker) / 2)


def test_the_share_of_pictures_whose_strokes_change():
    warp = dataclasses.replace(STILL, thickness=0.6)
    images = pictures(400)
    ink = augment(images, warp, seeded()).sum((1, 2, 3)) - images[0].sum()
    assert 0.5 < (ink.abs() > 1e-2).float().mean() < 0.7
    assert (ink > 1).any() and (ink < -1).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_same_seed_gives_the_same_pictures_on_a_gpu():
    images = pictures()
    there = augment(images.cuda(), Warp(), seeded(5))
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), augment(images, Warp(), seeded(5)), atol=1e-4)
