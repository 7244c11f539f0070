import pytest
import torch

from pfmcourse import base
from pfmcourse.data import digits

PARTS = ("train", "validation", "test")


def test_shapes_and_values():
    data = digits.load()
    assert data.images.shape == (5000, 28, 28) and data.images.dtype == torch.uint8
    assert data.labels.bincount().tolist() == [500] * 10
    assert data.images.max() == 255 and data.images.min() == 0
    assert not data.images[:, 0].any(), "the margin of MNIST is empty"


def test_pictures_are_upright_digits():
    data = digits.load()
    mean = torch.stack([data.images[data.labels == digit].float().mean(0) for digit in range(10)])
    assert mean[0, 13:15, 13:15].max() < 30 < 100 < mean[1, 13:15, 13:15].min()  # the hole of the 0, the stem of the 1
    assert mean[7, 6:10].sum() > 1.5 * mean[7, 18:22].sum()  # the bar of the 7 is on top


def test_split_is_stratified_disjoint_and_complete():
    data = digits.load()
    parts = [data.split(part) for part in PARTS]
    assert [len(part) for part in parts] == [3500, 500, 1000]
    for part in parts:
        assert part.labels.bincount().unique().numel() == 1
    together = torch.cat([part.images.flatten(1) for part in parts])
    assert len(torch.unique(together, dim=0)) == len(torch.unique(data.images.flatten(1), dim=0))
    one, two = (torch.unique(part.images.flatten(1), dim=0) for part in (parts[0], parts[2]))
    assert len(torch.unique(torch.cat([one, two]), dim=0)) == len(one) + len(two), "a picture is in train and test"


def test_unknown_part_suggests_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'test'"):
        digits.load().split("tests")
