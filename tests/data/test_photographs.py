import inspect

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from pfmcourse import base
from pfmcourse.data import photographs, source


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path))
    return tmp_path


def picture(name):
    return photographs.load().select([name]).pictures[0]


def test_sizes():
    data = photographs.load()
    assert len(data) == len(data.pictures) == 12
    assert data.names == tuple(sorted([*photographs.COLOUR, *photographs.GREY]))
    assert all(picture.dtype == torch.uint8 and len(picture) == 3 for picture in data.pictures)
    assert all(300 <= side <= 741 for picture in data.pictures for side in picture.shape[1:])
    assert picture("chelsea").shape == (3, 300, 451)


def test_the_pictures_are_the_ones_of_their_names():
    """The colours are red, green, blue, and up is up."""
    suit = picture("astronaut")[:, 390:430, 90:130].double().mean((1, 2))
    assert suit[0] > suit[1] + 50 > suit[2] + 50, "an orange suit"
    sky = picture("rocket")[:, :100, :100].double().mean((1, 2))
    assert sky[2] > sky[0] + 20, "a blue sky"
    camera = picture("camera")[0].double()
    assert camera[:150].mean() > camera[350:].mean() + 30, "sky above, grass below"


def test_grey_and_colour():
    for name, pixels in zip(photographs.load().names, photographs.load().pictures, strict=True):
        grey = bool((pixels[0] == pixels[1]).all() and (pixels[1] == pixels[2]).all())
        assert grey == (name in photographs.GREY), name
        assert pixels.double().std() > 5, name


def test_the_parts_share_no_photograph():
    data = photographs.load()
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (9, 3)
    assert not set(train.names) & set(test.names) and set(train.names) | set(test.names) == set(data.names)
    assert set(test.names) == set(photographs.HELD_OUT)
    for part in (train, test):
        assert all(torch.equal(one, picture(name)) for name, one in zip(part.names, part.pictures, strict=True))
        assert set(part.names) & set(photographs.COLOUR) and set(part.names) & set(photographs.GREY)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'test'"):
        photographs.load().split("tests")
    with pytest.raises(base.UnknownName, match="Did you mean 'chelsea'"):
        photographs.tiles(["chelsee"])


@pytest.mark.parametrize(("tile", "size", "stride"), [(64, 32, 100), (128, 32, 90), (100, 28, 77), (48, 32, 75)])
def test_tiles_are_what_pillow_cuts_out_and_shrinks_one_by_one(cache, tile, size, stride):
    """The naive loop. Pillow rounds twice, rows and columns, and a half always up: so a value may differ by one."""
    names, expected = ("coins", "chelsea"), []
    for name in names:
        pixels = Image.fromarray(picture(name).permute(1, 2, 0).numpy())
        for top in range(0, pixels.height - tile + 1, stride):
            for left in range(0, pixels.width - tile + 1, stride):
                square = pixels.crop((left, top, left + tile, top + tile))
                expected.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    found = photographs.tiles(names, tile, size, stride)
    assert found.shape == expected.shape and found.dtype == torch.uint8
    difference = found.double() - expected.double()
    assert difference.abs().max() <= 1 and difference.mean().abs() < 0.2


def test_a_tile_that_keeps_its_size_is_cut_out_unchanged(cache):
    found = photographs.tiles(["coffee"], tile=32, size=32, stride=50)
    pixels = picture("coffee")
    columns = (600 - 32) // 50 + 1
    assert len(found) == columns * ((400 - 32) // 50 + 1)
    assert torch.equal(found[columns + 2], pixels[:, 50:82, 100:132])


def test_neighbours_overlap_by_half_when_nothing_is_said(cache):
    found = photographs.tiles(["coins"])
    assert torch.equal(found, photographs.tiles(["coins"], tile=64, size=32, stride=32))
    assert len(found) == ((303 - 64) // 32 + 1) * ((384 - 64) // 32 + 1)


def test_several_sizes_come_photograph_by_photograph(cache):
    found = photographs.tiles(["moon", "coins"], tile=(64, 128))
    single = [photographs.tiles([name], side) for name in ("moon", "coins") for side in (64, 128)]
    assert torch.equal(found, torch.cat(single))


def test_shrinking_does_not_alias(cache, monkeypatch):
    """Stripes that are finer than the small pixels become grey, instead of stripes that were not there."""
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    small = photographs._cut(stripes, tile=64, size=16, stride=64)[0, :, :, 2:-2]
    assert ((small.double() - 127.5).abs() < 3).all()


def test_a_few_thousand_tiles(cache):
    train = photographs.tiles(photographs.load().split("train").names, tile=64)
    assert len(train) > 2000
    assert len(torch.unique(train.flatten(1), dim=0)) > 0.95 * len(train), "parts of some are one colour only"


def test_the_cache_gives_what_cutting_gives(cache):
    first = photographs.tiles(["coins"], tile=128)
    (file,) = cache.iterdir()
    assert torch.equal(photographs.tiles(["coins"], tile=128), first)
    file.unlink()
    assert torch.equal(photographs.tiles(["coins"], tile=128), first)
    photographs.tiles(["coins"], tile=128, stride=100)
    assert len(list(cache.iterdir())) == 2, "other numbers, another file"


@pytest.mark.parametrize(
    "numbers",
    [
        {"tile": 16},
        {"tile": (64, 16)},
        {"tile": ()},
        {"stride": 0},
        {"stride": -5},
        {"size": 0},
        {"tile": 301},
    ],
)
def test_tiles_that_cannot_be_cut(cache, numbers):
    with pytest.raises(base.CourseError, match="tile"):
        photographs.tiles(["chelsea"], **numbers)
    assert not list(cache.iterdir())


def test_no_photograph_no_tiles(cache):
    with pytest.raises(base.CourseError, match="no photograph is named"):
        photographs.tiles([])


def test_the_card_says_what_the_package_says_about_each_picture():
    functions = {"ihc": "immunohistochemistry", "motorcycle_left": "stereo_motorcycle"}
    attribution = source.source("photographs").attribution
    assert "motorcycle_left and moon state none" in source.source("photographs").licence
    people = {"chelsea": "Stefan van der Walt", "coffee": "Rachel Michetti", "camera": "Lav Varshney"}
    people |= {"rocket": "SpaceX", "brick": "CC0Textures", "gravel": "CC0Textures", "coins": "Brooklyn Museum"}
    people |= {"astronaut": "NASA", "ihc": "CMMI", "motorcycle_left": "Scharstein", "grass": "linolafett"}
    for name in photographs.load().names:
        stated = inspect.getdoc(getattr(skimage.data, functions.get(name, name)))
        free = any(words in stated for words in ("CC0", "public domain", "No known copyright"))
        assert free == (name not in ("motorcycle_left", "moon")), name
        if name in people:
            assert people[name] in stated and people[name] in attribution, name
