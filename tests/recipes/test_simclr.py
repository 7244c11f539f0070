"""The contrastive recipes: what is kept from pretraining, that two views are two, and what the numbers measure."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfmcourse import recipes
from pfmcourse.data import digits, emoji, glyphs
from pfmcourse.models.convnet import Pictures
from pfmcourse.models.simclr import MoCo, SimCLR, TwoViews
from pfmcourse.models.vit import ViT
from pfmcourse.recipes import simclr
from pfmcourse.recipes.simclr import CHANGES, PicturesRun, Task, Unlabelled
from pfmcourse.train import fit

NAMES = ("simclr", "simclr_emoji", "moco", "rotation", "jigsaw")
TINY = PicturesRun(steps=2, batch=6, width=4, dim=16, projected=8, queue=12)


def rows(pictures):
    """The pictures as a set of bytes."""
    return {picture.numpy().tobytes() for picture in pictures}


def known(count=40):
    """A few pictures to draw from."""
    return Unlabelled(simclr.unlabelled("letters").pictures[:: 6564 // count])


class Flat(nn.Module):
    """Pixels as features."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, images):
        return self.scale * images.flatten(1)


# What is kept from pretraining ---------------------------------------------------------------------------------------


def test_pretraining_sees_the_scripts_it_names_and_the_training_digits():
    letters = glyphs.load().written_in(*simclr.SEEN).images
    found = simclr.unlabelled("letters").pictures
    assert found.shape == (len(letters) + 3500, 1, 28, 28)
    assert torch.equal(found[: len(letters), 0], letters)
    assert torch.equal(found[len(letters) :, 0], digits.load().split("train").images)


def test_no_letter_of_a_held_out_script_is_in_pretraining():
    everything = glyphs.load()
    seen = {everything.letters[label] for label in everything.written_in(*simclr.SEEN).labels.unique()}
    for script in (simclr.VALIDATION, simclr.TEST):
        held = {everything.letters[label] for label in everything.written_in(script).labels.unique()}
        assert held and not held & seen
        assert script not in simclr.SEEN


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_digit_that_is_tested_on_is_in_pretraining(part):
    task = simclr.digits_task(part)
    pixels = rows((255 * task.test_images).round().byte())
    assert not pixels & rows(simclr.unlabelled("letters").pictures)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_concept_that_is_tested_on_is_in_pretraining(part):
    everything = emoji.load(languages=("en",))
    pretrained = rows(simclr.unlabelled("emoji").pictures)
    concepts = {int(c) for c, p in zip(everything.concepts, everything.pictures, strict=True) if rows([p]) & pretrained}
    tested = rows((255 * simclr.emoji_task(part).test_images).round().byte())
    held = {int(c) for c, p in zip(everything.concepts, everything.pictures, strict=True) if rows([p]) & tested}
    assert held and concepts and not held & concepts


# The tasks -----------------------------------------------------------------------------------------------------------

TASKS = {
    "Georgian": (lambda: simclr.letters_task(), 39, 8 * 39, 4 * 39),
    "Armenian": (lambda: simclr.letters_task(simclr.VALIDATION), 71, 8 * 71, 4 * 71),
    "digits": (lambda: simclr.digits_task(), 10, 3500, 1000),
    "validation digits": (lambda: simclr.digits_task("validation"), 10, 3500, 500),
    "emoji": (lambda: simclr.emoji_task(), 8, None, None),
    "validation emoji": (lambda: simclr.emoji_task("validation"), 8, None, None),
}


@pytest.mark.parametrize("name", TASKS)
def test_labels_count_from_zero_without_gaps_and_every_class_is_tested(name):
    make, classes, train, test = TASKS[name]
    task = make()
    assert task.classes == classes
    assert task.labels.unique().tolist() == task.test_labels.unique().tolist() == list(range(classes))
    assert len(task.images) == len(task.labels) and len(task.test_images) == len(task.test_labels)
    assert train is None or (len(task.images), len(task.test_images)) == (train, test)
    for images in (task.images, task.test_images):
        assert images.dtype == torch.float32 and 0 <= float(images.min()) < float(images.max()) <= 1


@pytest.mark.parametrize("script", [simclr.VALIDATION, simclr.TEST])
def test_letters_are_tested_in_other_fonts(script):
    task, letters = simclr.letters_task(script), glyphs.load().written_in(script)
    learned, tested = (rows((255 * x[:, 0]).round().byte()) for x in (task.images, task.test_images))
    fonts = {"learned": set(), "tested": set()}
    for picture, font in zip(letters.images, letters.font, strict=True):
        for name, where in (("learned", learned), ("tested", tested)):
            if rows([picture]) & where:
                fonts[name].add(letters.fonts[font])
    assert fonts["tested"] == set(simclr.TEST_FONTS)
    assert len(fonts["learned"]) == 8 and not fonts["learned"] & fonts["tested"]


def test_the_same_letter_has_the_same_label_in_both_parts():
    task, letters = simclr.letters_task(), glyphs.load().written_in(simclr.TEST)
    named = {rows([p]).pop(): int(label) for p, label in zip(letters.images, letters.labels, strict=True)}
    for images, labels in ((task.images, task.labels), (task.test_images, task.test_labels)):
        letter = [named[rows([p]).pop()] for p in (255 * images[:, 0]).round().byte()]
        assert len(set(zip(letter, labels.tolist(), strict=True))) == 39


def test_emoji_have_their_category_and_flags_are_left_out():
    everything, task = emoji.load(languages=("en",)), simclr.emoji_task()
    categories = [name for name in everything.category_names if name != "Flags"]
    of_picture = {rows([p]).pop(): c for p, c in zip(everything.pictures, everything.categories, strict=True)}
    for images, labels in ((task.images, task.labels), (task.test_images, task.test_labels)):
        found = [of_picture[rows([p]).pop()] for p in (255 * images).round().byte()]
        assert sum(categories[label] == name for label, name in zip(labels, found, strict=True)) >= 0.99 * len(found)
        assert "Flags" not in found


# Views and batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_every_picture_changes_in_its_own_way_and_stays_in_range(name):
    channels, size = (1, 28) if name == "letters" else (3, 32)
    one = torch.rand(channels, size, size)
    images = one.expand(8, -1, -1, -1)
    found = CHANGES[name](images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape and float(found.min()) >= -1e-5 and float(found.max()) <= 1 + 1e-5
    assert len(rows(found)) == 8
    again = CHANGES[name](images, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)
    assert torch.equal(images[0], one)


def test_grey_letters_are_cropped_unless_told_otherwise():
    change = dataclasses.replace(CHANGES["letters"], warp=None)
    images = torch.rand(4, 1, 28, 28)
    whole = dataclasses.replace(change, views=dataclasses.replace(change.views, smallest=1.0))
    assert torch.equal(whole(images, torch.Generator()), images)
    assert not torch.allclose(change(images, torch.Generator()), images, atol=0.05)


@pytest.mark.parametrize("method", ["simclr", "moco", "rotation", "jigsaw"])
def test_batches_depend_on_the_generator_alone(method):
    draw = simclr.batches(dataclasses.replace(TINY, method=method), known(), 0)
    first, same, other = (draw(0, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    for field in dataclasses.fields(first):
        one, two, three = (getattr(batch, field.name) for batch in (first, same, other))
        assert torch.equal(one, two) and not torch.equal(one, three)
        assert len(one) == TINY.batch


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_both_views_are_of_one_picture_and_differ(method):
    data = Unlabelled(torch.zeros(4, 1, 28, 28, dtype=torch.uint8))
    data.pictures[:, :, 8:20, 8:20] = torch.tensor([60, 120, 180, 240]).byte()[:, None, None, None]  # which is which
    batch = simclr.batches(dataclasses.replace(TINY, method=method, batch=32), data, 0)(0, torch.Generator())
    assert isinstance(batch, TwoViews)
    assert not any(torch.equal(a, b) for a, b in zip(batch.first, batch.second, strict=True))

    def brightest(images):
        return images.flatten(1).amax(1)

    assert torch.allclose(brightest(batch.first), brightest(batch.second), atol=0.1)
    assert float(brightest(batch.first).max() - brightest(batch.first).min()) > 0.3


@pytest.mark.parametrize(("method", "classes"), [("rotation", 4), ("jigsaw", 24)])
def test_puzzles_have_all_their_answers(method, classes):
    config = dataclasses.replace(TINY, method=method, batch=200)
    batch = simclr.batches(config, known(), 0)(0, torch.Generator().manual_seed(0))
    assert isinstance(batch, Pictures)
    assert batch.labels.unique().tolist() == list(range(classes))
    assert simclr.network(config, known()).head.out_features == classes


# Networks ------------------------------------------------------------------------------------------------------------


def test_the_network_has_the_sizes_of_the_run():
    model = simclr.network(dataclasses.replace(TINY, temperature=0.7), known())
    assert isinstance(model, SimCLR) and model.temperature == 0.7
    assert (model.encoder.config.width, model.encoder.config.dim, model.encoder.config.channels) == (4, 16, 1)
    assert model.projection[-1].out_features == 8
    moco = simclr.network(dataclasses.replace(TINY, method="moco", momentum=0.5), known())
    assert isinstance(moco, MoCo) and moco.queue.shape == (12, 8) and moco.momentum == 0.5


@pytest.mark.parametrize("pictures", ["letters", "emoji"])
def test_a_transformer_fits_too(pictures):
    config = dataclasses.replace(TINY, encoder="vit", dim=32, pictures=pictures, batch=2)
    data = simclr.unlabelled(pictures)
    model = simclr.network(config, data)
    assert isinstance(model.encoder, ViT)
    assert model(simclr.batches(config, data, 0)(0, torch.Generator()))["loss"].isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_laptop_and_long_train_the_same_network(name):
    laptop, long = (recipes.config(name, preset) for preset in ("laptop", "long"))
    assert dataclasses.replace(laptop, steps=long.steps) == long and long.steps > laptop.steps
    assert recipes.config(name, "gpu").pictures == "cifar10"
    assert len({recipes.config(name, preset).method for preset in ("smoke", "laptop", "long", "gpu")}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_run_at_smoke_ends_with_its_metrics_and_again_with_the_same(name, monkeypatch):
    task = simclr.digits_task("validation")  # a few of them are enough here
    few = Task("few", task.images[::50], task.labels[::50], task.test_images[::10], task.test_labels[::10])
    monkeypatch.setattr(simclr, "digits_task", lambda: few)
    one, two = (recipes.pretrain(name, "smoke", seed=3, resume=False) for _ in range(2))
    wanted = {"emoji_probe"} if name == "simclr_emoji" else {"georgian_neighbours", "digits_neighbours"}
    assert set(one.metrics) == wanted and all(0 < value <= 1 for value in one.metrics.values())
    assert one.metrics == two.metrics
    assert one.history.units == 3 * 32 and one.history.unit == "pictures"
    ours, theirs = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_an_interrupted_run_goes_on_with_its_queue_and_ends_the_same(method, tmp_path):
    config = dataclasses.replace(TINY, method=method, steps=5)
    draw = simclr.batches(config, known(), 0)

    def made():
        torch.manual_seed(1)
        return simclr.network(config, known())

    def stopped(step, generator):
        if step == 3:
            raise KeyboardInterrupt
        return draw(step, generator)

    straight, halted, other = made(), made(), made()
    schedule, path = dataclasses.replace(simclr.training(config, known()), precision="fp32"), tmp_path / "run"
    fit(straight, draw, schedule)
    assert fit(halted, stopped, schedule, checkpoint=path).interrupted
    assert fit(other, draw, schedule, checkpoint=path).resumed_at == 3
    ours, theirs = straight.state_dict(), other.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert method == "simclr" or int(straight.oldest) == 5 * 6 % 12


# Measuring -----------------------------------------------------------------------------------------------------------


def test_features_do_not_depend_on_how_many_at_a_time():
    model = simclr.network(TINY, known())
    images = simclr.fractions(known().pictures)
    whole = simclr.features(model, images)
    assert whole.shape == (len(images), 16) and not whole.requires_grad and not model.training
    assert torch.allclose(whole, simclr.features(model, images, rows=7), atol=1e-5)


def test_neighbours_agree_with_a_naive_loop():
    images, test_images = torch.rand(12, 1, 4, 4), torch.rand(9, 1, 4, 4)
    task = Task("noise", images, torch.arange(12) % 3, test_images, torch.arange(9) % 3)
    mean = images.flatten(1).mean(0)
    right = 0
    for picture, label in zip(test_images, task.test_labels, strict=True):
        cosines = [F.cosine_similarity(picture.flatten() - mean, other.flatten() - mean, dim=0) for other in images]
        right += int(task.labels[int(torch.stack(cosines).argmax())] == label)
    assert simclr.neighbours_found(Flat(), task) == pytest.approx(right / 9)


def test_a_perfect_encoder_and_one_that_sees_nothing():
    labels = torch.arange(40) % 4
    images = F.one_hot(labels, 4).float().view(40, 1, 2, 2)
    task = Task("easy", images, labels, images[:20], labels[:20])
    assert simclr.neighbours_found(Flat(), task) == simclr.probed(Flat(), task) == 1.0
    blind = dataclasses.replace(task, images=torch.rand(40, 1, 2, 2), test_images=torch.rand(20, 1, 2, 2))
    assert simclr.probed(Flat(), blind) < 0.8
