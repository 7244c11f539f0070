import collections
import sys

import pytest
import torch

from pfmcourse import base
from pfmcourse.data import emoji, source

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """An empty cache, so that the pictures are drawn here and not read from an earlier run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(folder))
        emoji._load.cache_clear()
        yield folder
        emoji._load.cache_clear()


@pytest.fixture(scope="module")
def data(cache):
    return emoji.load()


def index(data, name):
    return data.names["en"].index(name)


def concept_of(data, name):
    return data.concept_names[data.concepts[index(data, name)]]


def test_what_is_left_out_is_counted(data, monkeypatch):
    assert emoji.left_out() == {"part of other emoji": 5}
    drawn = source.Source.paths
    monkeypatch.setattr(
        source.Source, "paths", lambda entry, folder: [p for p in drawn(entry, folder) if p.stem != "1F680"]
    )
    assert emoji.left_out() == {"part of other emoji": 5, "no picture": 1}  # a rocket with a name only
    assert "🚀" not in [row["character"] for row in emoji._table(False)]


def test_all_fields_are_about_the_same_emoji(data):
    assert len(data) == 1898
    assert data.pictures.shape == (1898, 3, 32, 32)
    assert set(data.names) == set(emoji.LANGUAGES) and len(emoji.LANGUAGES) == 14
    for names in data.names.values():
        assert len(names) == len(set(names)) == 1898 and all(names)
        assert not any(sign in name for name in names for sign in ":_")
    assert len(data.categories) == len(data.subcategories) == len(data.concepts) == 1898
    assert len(data.category_names) == 9 and set(data.categories) == set(data.category_names)
    assert [data.category_names[label] for label in data.labels] == list(data.categories)
    assert len(data.concept_names) == len(data.concept_sizes) == len(data.concept_categories)
    assert data.concepts.unique().numel() == len(data.concept_names)
    assert list(data.concept_sizes) == data.concepts.bincount().tolist()


def test_grinning_face(data):
    at = index(data, "grinning face")
    assert data.characters[at] == "😀"
    assert data.names["de"][at] == "grinsendes gesicht"
    assert data.names["zh"][at] == "嘿嘿"
    assert (data.categories[at], data.subcategories[at]) == ("Smileys & Emotion", "face-smiling")
    assert data.pictures[at, :, 0, 0].tolist() == [255, 255, 255], "the corner is white paper"
    red, green, blue = data.pictures[at, :, 8:12, 8:24].float().mean((1, 2))
    assert red > 200 and green > 180 and blue < 120, "the face is yellow"


@pytest.mark.parametrize(
    ("name", "character", "colour"),
    [("red square", "🟥", 0), ("green square", "🟩", 1), ("blue square", "🟦", 2), ("green apple", "🍏", 1)],
)
def test_pictures_show_what_the_names_say(data, name, character, colour):
    at = index(data, name)
    assert data.characters[at] == character
    assert data.pictures[at, :, 16, 16].argmax() == colour


def test_pictures_are_drawn_once_and_read_from_the_cache(data, cache, monkeypatch):
    assert [file.name.split("-")[0] for file in cache.iterdir()] == ["emoji"]
    emoji._load.cache_clear()
    monkeypatch.setattr(emoji, "_draw", lambda files, size: pytest.fail("drawn again"))
    assert torch.equal(emoji.load(languages=("en",)).pictures, data.pictures)


def test_missing_drawer_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(base.MissingPackage, match=r"pip install 'resvg-py==0\.5\.0'"):
        emoji._draw(["1F600.svg"], 16)


def test_concepts_gather_the_variants(data):
    for names in (
        ("person surfing", "man surfing", "woman surfing"),
        ("man walking", "woman walking facing right"),
        ("red heart", "blue heart"),
        ("dog face", "dog"),
        ("bus", "oncoming bus"),
        ("keycap 1", "keycap #"),
        ("one o’clock", "eleven-thirty"),
        ("France", "Kenya", "Scotland"),
        ("right arrow", "up-left arrow"),
        ("thumbs up", "thumbs down"),
        ("kiss", "kiss woman man"),
        ("person frowning", "woman red hair"),
        ("full moon", "crescent moon"),
    ):
        assert len({concept_of(data, name) for name in names}) == 1, names
    for one, other in (
        ("dog", "cat"),
        ("man surfing", "man swimming"),
        ("alarm clock", "one o’clock"),
        ("France", "pirate flag"),
        ("neutral face", "crying face"),
        ("moon cake", "full moon"),
        ("beach with umbrella", "umbrella"),
        ("woman dancing", "woman running"),
        ("speaking head", "loudspeaker"),
        ("upside-down face", "melting face"),
    ):
        assert concept_of(data, one) != concept_of(data, other), (one, other)


def test_split_is_by_concept_and_covers_all(data):
    parts = {part: data.split(part) for part in PARTS}
    concepts = {part: set(chosen.concepts.tolist()) for part, chosen in parts.items()}
    assert sum(map(len, parts.values())) == len(data)
    assert sum(map(len, concepts.values())) == len(data.concept_names), "a concept is in two parts"
    characters = [character for chosen in parts.values() for character in chosen.characters]
    assert sorted(characters) == sorted(data.characters)
    assert 130 < len(parts["validation"]) < 220 and 220 < len(parts["test"]) < 340
    for part in ("validation", "test"):
        assert set(parts[part].categories) == set(data.category_names)
        sizes = collections.Counter(parts[part].concepts.tolist())
        assert max(sizes.values()) <= emoji.LARGE
    assert "flag of a country" in {data.concept_names[concept] for concept in concepts["train"]}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_held_out_picture_is_a_redrawing_of_one_in_train(data, part):
    train, held_out = data.split("train").pictures.flatten(1), data.split(part).pictures.flatten(1)
    distance = torch.cdist(held_out.float(), train.float()).min(1).values / train.shape[1] ** 0.5
    assert distance.min() > 10  # root mean square of 255 grey levels; twins are at 4 to 7, two calm faces at 11


def test_a_random_split_would_leak(data):
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    held_out, train = (set(data.concepts[rows].tolist()) for rows in (order[:260], order[260:]))
    assert len(held_out & train) > 50


def test_split_by_seed(data):
    assert data.split("test").characters == data.split("test", seed=0).characters
    assert data.split("test", seed=1).characters != data.split("test").characters
    with pytest.raises(base.UnknownName, match="Did you mean 'train'"):
        data.split("training")


def test_select_keeps_rows_together(data):
    chosen = data.select(torch.tensor([index(data, "dog"), index(data, "grinning face")]))
    assert chosen.characters == ("🐕", "😀")
    assert chosen.names["fr"][0] == data.names["fr"][index(data, "dog")]
    assert torch.equal(chosen.pictures[1], data.pictures[index(data, "grinning face")])
    assert chosen.concept_names == data.concept_names


def test_skin_tones_stay_with_their_concept(data):
    toned = emoji.load(size=8, languages=("en",), skin_tones=True)
    assert len(toned) == 3773 and toned.pictures.shape == (3773, 3, 8, 8)
    assert toned.concept_names == data.concept_names and toned.concept_sizes == data.concept_sizes
    assert concept_of(toned, "thumbs up dark skin tone") == "thumbs"
    for part in PARTS:
        assert set(data.split(part).characters) <= set(toned.split(part).characters)
        assert set(toned.split(part).concepts.tolist()) == set(data.split(part).concepts.tolist())


def test_bad_arguments():
    with pytest.raises(base.UnknownName, match="Known: ar, de, en"):
        emoji.load(languages=("english",))
    with pytest.raises(base.CourseError, match="size from 8 to 512"):
        emoji.load(size=4)


def test_every_file_is_joined_by_code_points():
    names = {path.stem for path in source.source("emoji_pictures").paths(source.verified("emoji_pictures"))}
    assert {"1F600", "0023-FE0F-20E3"} <= names
    assert emoji._plain("0023-FE0F-20E3") == "0023-20E3"
