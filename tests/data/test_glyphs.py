import numpy as np
import pytest
import torch

from pfmcourse import base
from pfmcourse.data import glyphs


def picture(letter, font):
    data = glyphs.load()
    rows = (data.labels == data.letters.index(letter)) & (data.font == data.fonts.index(font))
    return data.images[rows]


def test_sizes():
    data = glyphs.load()
    assert data.images.shape == (4384, 28, 28) and data.images.dtype == torch.uint8
    assert len(data.letters) == len(data.scripts) == 311 and len(data.fonts) == 16
    assert data.labels.unique().tolist() == list(range(311))
    assert data.font.unique().tolist() == list(range(16))


def test_no_digit_is_among_the_letters():
    assert all(letter.isalpha() for letter in glyphs.load().letters)


def test_pictures_are_upright_and_bright_on_dark():
    (capital,) = picture("L", "DejaVuSans")
    ink = capital.nonzero()
    top, left, bottom, right = (*ink.min(0).values.tolist(), *ink.max(0).values.tolist())
    assert bottom - top == glyphs.BOX - 1
    assert (capital[top:bottom, left] > 100).all(), "the stem is on the left"
    assert (capital[bottom, left : right + 1] > 100).all(), "the foot is at the bottom"
    assert capital[top : top + 8, right - 3 : right].max() == 0


def test_letters_of_one_shape_are_one_class():
    letters = glyphs.load().letters
    assert "A" in letters and "Α" not in letters and "А" not in letters  # the Greek and the Cyrillic one
    assert "Я" in letters and "Ω" in letters and "ش" in letters
    assert len(picture("A", "DejaVuSans")) == 3, "Latin, Greek and Cyrillic draw it once each"


def test_the_layout_is_that_of_mnist():
    data = glyphs.load()
    ink = data.images.double()
    place = torch.arange(28.0, dtype=torch.float64)
    total = ink.sum((1, 2))
    centres = torch.stack([(ink.sum(2) * place).sum(1) / total, (ink.sum(1) * place).sum(1) / total])
    assert (centres - 13.5).abs().max() < 0.55, "to the nearest pixel"
    rows, columns = data.images.amax(2) > 0, data.images.amax(1) > 0
    longest = torch.maximum(rows.sum(1), columns.sum(1))
    assert longest.max() == glyphs.BOX and (longest == glyphs.BOX).double().mean() > 0.98  # else the edge is too faint


def test_centred_does_not_care_where_the_letter_stood():
    letter = np.zeros((90, 90), dtype=np.uint8)
    letter[20:60, 30:35] = 255
    moved = np.roll(letter, (17, -12), axis=(0, 1))
    assert np.array_equal(glyphs.centred(letter), glyphs.centred(moved))
    assert glyphs.centred(letter)[4:24].max(1).min() > 0


def test_split_is_by_font_and_complete():
    data = glyphs.load()
    train, test = data.split("train"), data.split("test")
    assert len(train) + len(test) == len(data)
    assert not set(train.font.tolist()) & set(test.font.tolist())
    assert {data.fonts[number] for number in test.font.unique().tolist()} == set(glyphs.HELD_OUT)
    assert set(test.labels.tolist()) <= set(train.labels.tolist()), "a letter that is tested was never shown"


def test_unknown_part_suggests_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'test'"):
        glyphs.load().split("tests")


def test_the_cache_is_what_drawing_gives(tmp_path, monkeypatch):
    before = glyphs.load()
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path))
    glyphs.load.cache_clear()
    monkeypatch.setattr(glyphs, "SCRIPTS", {"Latin": "Ab", "Greek": "ΑΩ"})
    small = glyphs.load()
    glyphs.load.cache_clear()
    assert small.letters == ("A", "b", "Ω") and small.scripts == ("Latin", "Latin", "Greek")
    (drawn,) = small.images[(small.labels == 1) & (small.font == small.fonts.index("DejaVuSerif"))]
    monkeypatch.undo()
    old = before.images[
        (before.labels == before.letters.index("b")) & (before.font == before.fonts.index("DejaVuSerif"))
    ]
    assert torch.equal(drawn, old[0])
