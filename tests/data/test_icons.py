import numpy as np
import pytest
import torch

from pfmcourse import base
from pfmcourse.data import icons


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All icons, drawn here and not in an earlier run; the second reading comes from the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        icons.load.cache_clear()
        drawn = icons.load()
        icons.load.cache_clear()
        again = icons.load()
        icons.load.cache_clear()
    assert torch.equal(drawn.pictures, again.pictures)
    assert (drawn.names, drawn.fonts) == (again.names, again.fonts)
    return drawn


def test_all_icons(data):
    assert len(data) == len(data.fonts) == 7661 and len(set(data.names)) == 6714
    assert data.pictures.shape == (7661, 1, 32, 32)
    assert tuple(dict.fromkeys(data.fonts)) == icons.FONTS
    assert len(set(zip(data.names, data.fonts, strict=True))) == len(data), "a font has a name twice"
    assert {"cat", "dog", "umbrella", "camera", "rocket"} <= set(data.names)


def test_ink_on_paper(data):
    dark = (data.pictures < 128).flatten(1).float().mean(1)
    assert dark.min() >= icons.INK and dark.max() < 0.9
    assert (data.pictures[:, 0, 0, 0] > 128).float().mean() > 0.98


def test_the_same_thing_looks_alike_in_two_fonts(data):
    hearts = [index for index, name in enumerate(data.names) if name == "heart"]
    assert len(hearts) == 4
    solid = [data.pictures[index].float() for index in hearts if data.fonts[index] != "phosphor"]
    other = data.pictures[data.names.index("camera")].float()
    assert (solid[0] - solid[-1]).abs().mean() < (solid[0] - other).abs().mean()


def test_names_are_words(data):
    assert all(len(word) > 1 and word.isalpha() for name in data.names for word in name.split(" "))
    assert not any(name.endswith((" logo", " variant", " duotone")) for name in data.names)
    assert not {"android", "github", "microsoft word", "font awesome", "google"} & set(data.names)
    assert {"apple whole", "food apple"} <= set(data.names), "the fruit is no mark"


@pytest.mark.parametrize(
    ("font", "name", "words"),
    [
        ("phosphor", "cat", "cat"),
        ("phosphor", "cat-bold", ""),
        ("remixicon", "line-chart-line", "line chart"),
        ("materialdesignicons6", "traffic-light-outline", "traffic light"),
        ("materialdesignicons6", "numeric-1", ""),
        ("materialdesignicons6", "alpha-a", ""),
        ("materialdesignicons6", "apple-ios", ""),
        ("fontawesome6-solid", "apple-whole", "apple whole"),
        ("fontawesome6-solid", "font-awesome", ""),
    ],
)
def test_rules_for_names(font, name, words):
    known = frozenset({"cat", "cat-bold"})
    assert icons._words(font, name, known) == words.split()


def test_wide_icons_are_not_cut_off(data):
    at = next(i for i, pair in enumerate(zip(data.names, data.fonts, strict=True)) if pair == ("lungs", icons.FONTS[3]))
    picture = data.pictures[at, 0].numpy()
    assert np.mean(picture[:, [0, -1]] < 128) < 0.2


def test_without_keeps_a_word_out_in_every_form(data):
    kept = data.without(["Dog", "trees", "hot air"])
    assert 0 < len(data) - len(kept) < 200
    gone = set(data.names) - set(kept.names)
    assert {"dog", "dog side", "pine tree", "hot tub", "air filter"} <= gone
    assert "hotel" in kept.names and len(data.without([])) == len(data)
    with pytest.raises(base.CourseError, match=r"without\(\['dog'\]\)"):
        data.without("dog")


def test_plural_of_words():
    assert [icons.stem(word) for word in ("Cats", "glass", "tree", "bus")] == ["cat", "glass", "tree", "bu"]


def test_select_keeps_rows_together(data):
    chosen = data.select(torch.tensor([5, 3]))
    assert chosen.names == (data.names[5], data.names[3]) and chosen.fonts == (data.fonts[5], data.fonts[3])
    assert torch.equal(chosen.pictures[1], data.pictures[3])


def test_bad_size():
    with pytest.raises(base.CourseError, match="size from 16 to 256"):
        icons.load(8)
