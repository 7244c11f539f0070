"""The recipes of lesson clip: what a name becomes, what is kept from training, and which pairs a batch holds."""

import dataclasses
import hashlib
import re

import pytest
import torch
import torch.nn.functional as F

from pfmcourse import recipes
from pfmcourse.base import CourseError
from pfmcourse.data import emoji, icons, minilm
from pfmcourse.models.clip import FrozenText, TextTransformer
from pfmcourse.recipes import clip
from pfmcourse.recipes.clip import ClipRun, StudentRun

TINY = ClipRun(icons=60, steps=2, batch=24, width=4, dim=16, joint=8, vocab=300, text_dim=16, text_layers=1)
NAMES = ("red apple", "green apple", "dog", "hot dog", "sailboat")


def made_up(texts, longest=64, rows=16):
    """A vector of length 1 for each text, the same for the same text, without MiniLM."""
    seeds = (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts)
    drawn = [torch.randn(minilm.DIM, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return F.normalize(torch.stack(drawn), dim=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No test here waits for MiniLM."""
    caches = (clip.pairs_of, clip._translations)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(minilm, "sentence_vectors", made_up)
    yield
    for cache in caches:
        cache.cache_clear()


def tiny(**changes):
    return dataclasses.replace(TINY, **changes)


def drawn(config, number=0):
    """One batch of a run, and the run's pairs."""
    data = clip.pairs(config)
    generator = torch.Generator().manual_seed(number)
    return clip.batches(config, data, 0)(number, generator), data


# Names ---------------------------------------------------------------------------------------------------------------


def test_a_name_is_read_with_its_end_and_padded():
    tokenizer = clip.tokenizer_of(NAMES, 280)
    end = tokenizer.token_to_id("[END]")
    texts = clip.read(tokenizer, NAMES, context=12)
    assert texts.tokens.shape == texts.mask.shape == (5, 12) and texts.cut == 0
    for name, row, there in zip(NAMES, texts.tokens, texts.mask, strict=True):
        assert tokenizer.decode(row[there][:-1].tolist()) == name
        assert row[there][-1] == end and (row[~there] == end).all()


def test_a_long_name_is_cut_and_counted():
    tokenizer = clip.tokenizer_of(NAMES, 256)  # a token for each letter
    exact, longer = "a" * 7, "a" * 8
    texts = clip.read(tokenizer, [exact, longer, "b" * 30], context=8)
    assert texts.cut == 2 and texts.mask.all()
    assert texts.tokens.shape == (3, 8) and (texts.tokens[:, -1] == tokenizer.token_to_id("[END]")).all()
    assert torch.equal(texts.tokens[0], texts.tokens[1])


def test_capital_letters_make_no_difference():
    tokenizer = clip.tokenizer_of(("Red Apple",), 260)
    assert torch.equal(*(clip.read(tokenizer, [name]).tokens for name in ("RED apple", "red Apple")))


@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
def test_an_empty_name_is_an_error_that_says_where(empty):
    with pytest.raises(CourseError, match="name 1 of 3 is empty"):
        clip.read(clip.tokenizer_of(NAMES, 280), ["dog", empty, "cat"])


def test_few_names_have_fewer_pieces():
    tokenizer = clip.tokenizer_of(NAMES, 1024)
    assert 256 <= tokenizer.token_to_id("[END]") < 1024
    assert tokenizer.token_to_id("[END]") == tokenizer.get_vocab_size() - 1


# What is kept from training ------------------------------------------------------------------------------------------


def stems(names):
    return {icons.stem(word) for name in names for word in name.split()}


def test_held_words_are_in_held_out_names_and_in_no_training_name():
    everything, held = emoji.load(languages=("en",)), set(clip.held_words())
    train, validation, test = (stems(everything.split(p).names["en"]) for p in ("train", "validation", "test"))
    assert len(held) > 100 and held == (validation | test) - train


def test_clip_learns_from_all_icons():
    data, everything = clip.pairs(tiny(icons=None, text="words")), icons.load()
    of_icons = [data.names[number] for number in data.captions[len(data.emoji) :].tolist()]
    assert of_icons == list(everything.names) and torch.equal(data.icons, everything.pictures)


def test_no_icon_of_the_unnamed_pairs_has_a_held_word():
    data = clip.pairs(tiny(icons=None, named=False, text="words"))
    held = set(clip.held_words())
    of_icons = [data.names[number] for number in data.captions[len(data.emoji) :].tolist()]
    assert len(of_icons) == len(data.icons) > 6000
    assert not held & stems(of_icons)
    left = set(icons.load().names) - set(of_icons)
    pieces = held | {icons.stem(piece) for word in held for piece in re.split(r"\W+", word)}
    assert left and all(pieces & stems([name]) for name in left)


def test_how_much_of_a_name_the_captions_hold():
    held = clip.held_words()
    assert {"telescope", "accordion"} <= set(held) and not {"red", "apple"} & set(held)
    names = ["red apple", "telescope", "Telescopes red", "accordion", "telescope accordion"]
    assert clip.heard_of(names, ["a red apple", "telescope off"]).tolist() == [2, 1, 1, 0, 0]
    assert clip.heard_of(names, []).tolist() == [2, 0, 0, 0, 0]


def test_without_named_icons_every_held_word_is_new():
    data = clip.pairs(tiny(icons=None, named=False, text="words"))
    names = emoji.load(languages=("en",)).split("test").names["en"]
    assert set(clip.heard_of(names, data.names).tolist()) == {0, 2}


def test_no_held_out_picture_is_among_the_pairs():
    data, everything = clip.pairs(TINY), emoji.load(languages=("en",))
    trained = {picture.numpy().tobytes() for picture in data.emoji}
    for part in ("validation", "test"):
        assert not trained & {picture.numpy().tobytes() for picture in everything.split(part).pictures}


# Pairs ---------------------------------------------------------------------------------------------------------------


def test_every_caption_is_its_pictures_name():
    data, train = clip.pairs(TINY), emoji.load(languages=("en",)).split("train")
    assert torch.equal(data.emoji, train.pictures) and len(data.icons) == 60
    assert len(set(data.names)) == len(data.names)
    assert [data.names[number] for number in data.captions[: len(train)].tolist()] == list(train.names["en"])
    everything = icons.load()
    pictures = {}
    for picture, name in zip(everything.pictures, everything.names, strict=True):
        pictures.setdefault(name, set()).add(picture.numpy().tobytes())
    for picture, number in zip(data.icons, data.captions[len(train) :].tolist(), strict=True):
        assert picture.numpy().tobytes() in pictures[data.names[number]]


def test_vectors_or_tokens_stand_for_the_names():
    frozen, words = clip.pairs(TINY), clip.pairs(tiny(text="words"))
    assert torch.equal(frozen.vectors, made_up(frozen.names)) and frozen.texts is frozen.tokenizer is None
    assert words.vectors is None and len(words.texts.tokens) == len(words.names)
    assert torch.equal(words.texts.tokens, clip.read(words.tokenizer, words.names).tokens)


def test_a_picture_without_a_name_is_an_error(monkeypatch):
    everything = icons.load()
    nameless = dataclasses.replace(everything, names=("", *everything.names[1:]))
    monkeypatch.setattr(icons, "load", lambda size: nameless)
    with pytest.raises(CourseError, match="a picture has no name"):
        clip.pairs(tiny(icons=None, text="words"))


def test_icons_are_white_where_paper_is_and_coloured_where_ink_is():
    pictures = torch.tensor([[[[255, 0], [0, 255]]], [[[255, 128], [0, 255]]]], dtype=torch.uint8)
    found = clip.coloured(pictures, torch.Generator().manual_seed(1))
    assert found.shape == (2, 3, 2, 2)
    paper = (pictures == 255).expand(-1, 3, -1, -1)
    assert (found[paper] == 1).all()
    ink = found[0, :, 0, 1]
    assert torch.allclose(ink, found[0, :, 1, 0]) and ink.min() >= 0 and ink.max() <= clip.PALEST
    assert not torch.allclose(ink, found[1, :, 1, 0]), "each icon has a colour of its own"
    half = 1 - (1 - found[1, :, 1, 0]) * (1 - 128 / 255)
    assert torch.allclose(found[1, :, 0, 1], half, atol=1e-6)


# Batches -------------------------------------------------------------------------------------------------------------


def test_a_batch_has_its_share_of_emoji_first():
    batch, data = drawn(TINY)
    count = round(TINY.batch * TINY.share)
    assert batch.images.shape == (24, 3, 32, 32) and batch.images.min() >= 0 and batch.images.max() <= 1 + 1e-6
    of_emoji = set(data.captions[: len(data.emoji)].tolist())
    of_icons = set(data.captions[len(data.emoji) :].tolist())
    assert set(batch.same[:count].tolist()) <= of_emoji and set(batch.same[count:].tolist()) <= of_icons
    assert torch.equal(batch.tokens[:, 0], batch.same), "the row of the table is the number of the name"


def test_a_batch_has_distinct_pictures(monkeypatch):
    monkeypatch.setattr(clip, "view", lambda images, views, generator: images)
    monkeypatch.setattr(clip, "coloured", lambda pictures, generator: pictures.expand(-1, 3, -1, -1) / 255)
    for number in range(3):
        batch, data = drawn(tiny(batch=100), number)
        count = round(100 * TINY.share)
        rows = []
        for images, known in ((batch.images[:count], data.emoji), (batch.images[count:], data.icons)):
            known = {(picture.expand(3, -1, -1).float() / 255).numpy().tobytes() for picture in known}
            found = [image.numpy().tobytes() for image in images]
            assert set(found) <= known
            rows += found
        assert len(batch.images) == count + 60, "there are no more icons"
        assert len(set(rows)) >= len(rows) - 2, "drawn without replacement; a few drawings are alike in the set itself"


def test_pairs_with_one_caption_are_marked():
    data = clip.pairs(tiny(icons=None, text="words"))
    config = tiny(icons=None, text="words", batch=2000)
    batch = clip.batches(config, data, 0)(0, torch.Generator().manual_seed(0))
    texts = [tuple(row.tolist()) for row in batch.tokens]
    assert len(batch.same.unique()) < len(batch.same), "an icon's name stands in several fonts"
    by_number = {}
    for number, text in zip(batch.same.tolist(), texts, strict=True):
        assert by_number.setdefault(number, text) == text
    assert torch.equal(batch.tokens, data.texts.tokens[batch.same])
    assert torch.equal(batch.mask, data.texts.mask[batch.same])


def test_emoji_alone_fill_the_batch():
    batch, data = drawn(tiny(icons=0))
    assert len(data.icons) == 0 and len(batch.images) == 24
    assert batch.same.max() < len(data.names)


# What is measured ----------------------------------------------------------------------------------------------------


def pictures(*rows):
    """Grey pictures of two columns, of which a row says how bright they are."""
    return torch.tensor(rows, dtype=torch.uint8)[:, None, None, :].expand(-1, 3, 2, -1).contiguous()


def test_pixel_neighbours_on_a_toy():
    train = pictures([0, 255], [10, 255], [255, 0], [255, 20])
    vectors = torch.eye(4)
    asked = pictures([5, 240], [240, 9])
    one = clip.pixel_neighbours(train, vectors, asked, k=1) + vectors.mean(0)
    assert set(one.argmax(1).tolist()) <= {0, 1, 2, 3} and one[0, :2].sum() == 1 and one[1, 2:].sum() == 1
    two = clip.pixel_neighbours(train, vectors, asked, k=2)
    assert torch.allclose(two, torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]) - 0.25)
    everything = clip.pixel_neighbours(train, vectors, asked, k=9)
    assert torch.allclose(everything, torch.zeros(2, 4)), "more than there are: all of them, which says nothing"


def test_brightness_makes_no_neighbours():
    """The mean picture is taken off, and only the direction counts."""
    train = pictures([0, 200], [200, 0], [0, 0], [200, 200])
    faint = pictures([95, 105])
    found = clip.pixel_neighbours(train, torch.eye(4), faint, k=1)
    assert found.argmax().item() == 0


@pytest.mark.parametrize("text", ["minilm", "words"])
def test_vectors_of_pictures_and_texts(text):
    config = tiny(text=text)
    data = clip.pairs(config)
    model = clip.network(config, data)
    assert isinstance(model.text_tower, FrozenText if text == "minilm" else TextTransformer)
    seen = clip.picture_vectors(model, data.emoji[:7], rows=3)
    said = clip.text_vectors(model, data.names[:7], data.tokenizer)
    assert seen.shape == said.shape == (7, 8) and not model.training
    assert torch.allclose(seen, clip.picture_vectors(model, data.emoji[:7]), atol=1e-5), "in parts or at once"
    tokens = torch.arange(7)[:, None] if text == "minilm" else data.texts.tokens[:7]
    with torch.no_grad():
        expected = model.encode_text(tokens, None if text == "minilm" else data.texts.mask[:7])
    assert torch.allclose(said, expected, atol=1e-5)


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "clip_unnamed", "clip_emoji", "clip_words"])
def test_a_smoke_run(name):
    run = recipes.pretrain(name, "smoke", resume=False)
    assert run.history.steps == 3 and 0 <= run.metrics["validation_recall_10"] <= 1
    assert len(run.data.icons) == (0 if name == "clip_emoji" else 200)


# Many languages ------------------------------------------------------------------------------------------------------

READS = StudentRun(languages=("en", "de"), steps=2, batch=16, vocab=400, dim=16)


def test_the_student_never_reads_the_unseen_language():
    assert clip.UNSEEN in emoji.LANGUAGES and clip.UNSEEN not in StudentRun().languages
    assert len(StudentRun().languages) == len(emoji.LANGUAGES) - 1


@pytest.mark.parametrize("names", ["train", "all"])
def test_which_names_the_student_reads(names):
    data, everything = clip.translations(dataclasses.replace(READS, names=names)), emoji.load()
    chosen = everything.split("train") if names == "train" else everything
    assert data.tokens.shape == data.mask.shape == (2, len(chosen), 24) and data.cut >= 0
    mean = made_up(everything.split("train").names["en"]).mean(0)
    assert torch.allclose(data.vectors, made_up(chosen.names["en"]) - mean)
    for row in (0, 100, len(chosen) - 1):
        found = data.tokens[1, row][data.mask[1, row]][:-1].tolist()
        assert chosen.names["de"][row].lower().startswith(data.tokenizer.decode(found))


def test_a_students_batch_puts_one_language_beside_the_teachers_english():
    data = clip.translations(READS)
    batch = clip._student_batches(READS, data, 0)(0, torch.Generator().manual_seed(0))
    assert batch.tokens.shape == (16, 24) and batch.vectors.shape == (16, minilm.DIM)
    languages = set()
    for tokens, vector in zip(batch.tokens, batch.vectors, strict=True):
        name = int((data.vectors - vector).abs().sum(1).argmin())
        found = [language for language in range(2) if torch.equal(data.tokens[language, name], tokens)]
        assert found, "the text is a name of the same emoji"
        languages.update(found)
    assert languages == {0, 1}


def test_a_student_speaks_to_clip():
    config = tiny(icons=0)
    model = clip.network(config, clip.pairs(config))
    run = recipes.pretrain("clip_languages", "smoke", resume=False)
    names = emoji.load().split("test").names["de"][:5]
    said = clip.student_vectors(run.model, run.data.tokenizer, names)
    assert said.shape == (5, minilm.DIM) and torch.allclose(said.norm(dim=1), torch.ones(5), atol=1e-5)
    told = clip.foreign_vectors(model, run.model, run.data.tokenizer, names)
    with torch.no_grad():
        expected = model.encode_vectors(said + model.text_tower.mean)
    assert torch.allclose(told, expected, atol=1e-5)
    assert set(run.metrics) == {"read_right", "unseen_right"}
