"""The ViT recipes: which letters may be seen, how many of them, what changes them, and who teaches DeiT."""

import dataclasses

import pytest
import torch

from pfmcourse import recipes
from pfmcourse.data import glyphs
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.models.vit import TaughtPictures, ViT
from pfmcourse.recipes import vit as recipe
from pfmcourse.recipes.simclr import SEEN, TEST, VALIDATION

NAMES = ("vit", "convnet", "deit")


@pytest.fixture(autouse=True)
def taught(monkeypatch, tmp_path_factory):
    """A teacher that needs no checkpoint: a fresh network with random weights in its head, too."""
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.manual_seed(3)
    teacher = ConvNet(ConvNetConfig(recipe.letters().classes, width=4, dim=16)).eval()
    torch.nn.init.normal_(teacher.head.weight)
    monkeypatch.setattr(recipe, "teacher", lambda: teacher)
    return teacher


def batch(name, step=0, *, number=0, **changes):
    """The batch of a step at the smoke preset."""
    config = recipes.config(name, "smoke", **changes)
    draw = recipes.get(name).batches(config, recipe.letters(), 0)
    return draw(step, torch.Generator().manual_seed(number))


def same_picture(images):
    """A picture as bytes, so that pictures can be counted."""
    return {image.numpy().tobytes() for image in images}


# The letters ---------------------------------------------------------------------------------------------------------


def test_labels_count_from_0_without_a_gap():
    letters = recipe.letters()
    assert letters.labels.unique().tolist() == list(range(letters.classes))
    assert set(letters.test_labels.tolist()) <= set(range(letters.classes))


def test_a_label_means_the_same_letter_in_both_parts():
    """Numbers are given once for both, though the test fonts lack some letters."""
    chosen, letters = glyphs.load().written_in(*SEEN), recipe.letters()
    name_of = {}
    for part, labels in (("train", letters.labels), ("test", letters.test_labels)):
        original = chosen.split(part).labels
        assert len(original) == len(labels)
        for number, label in zip(labels.tolist(), original.tolist(), strict=True):
            assert name_of.setdefault(number, label) == label
    assert len(set(name_of.values())) == len(name_of) == letters.classes


def test_scripts_that_are_kept_for_later_are_in_neither_part():
    letters, printed = recipe.letters(), glyphs.load()
    kept = printed.written_in(VALIDATION, TEST)
    assert not set(printed.written_in(*SEEN).labels.tolist()) & set(kept.labels.tolist())
    seen = same_picture(letters.images) | same_picture(letters.test_images)
    unseen = same_picture(recipe.fractions(kept.images[:, None]))
    # One Armenian letter is the Latin o in four fonts, though not in the font that decides what is one shape.
    assert len(unseen) > 1000 and len(seen & unseen) < 0.02 * len(unseen)


def test_the_test_fonts_are_not_in_training():
    printed = glyphs.load().written_in(*SEEN)
    assert set(glyphs.HELD_OUT) <= set(printed.fonts)
    train, test = printed.split("train"), printed.split("test")
    assert not set(train.font.tolist()) & set(test.font.tolist())
    assert {printed.fonts[font] for font in test.font.tolist()} == set(glyphs.HELD_OUT)
    letters = recipe.letters()
    assert torch.equal(letters.images, recipe.fractions(train.images[:, None]))
    assert torch.equal(letters.test_images, recipe.fractions(test.images[:, None]))


# Batches -------------------------------------------------------------------------------------------------------------


def drawn(share, batches=12):
    """Which training letters come up in some batches of 400 when this share of them is used."""
    shown = [batch("vit", number=n, share=share, changed=False, batch=400).images for n in range(batches)]
    return same_picture(torch.cat(shown))


def test_a_smaller_share_is_a_part_of_a_larger_one():
    some, more = drawn(0.05), drawn(0.1)
    assert some < more < same_picture(recipe.letters().images)
    assert len(some) <= round(0.05 * len(recipe.letters().labels))
    assert len(more) > 1.8 * len(some)  # all of them, but for pictures that are alike


def test_a_share_that_is_less_than_one_picture_is_one():
    assert len(drawn(1e-6, batches=1)) == 1


@pytest.mark.parametrize("changed", [True, False])
def test_labels_stay_with_their_pictures(changed):
    letters, shown = recipe.letters(), batch("vit", changed=changed)
    assert isinstance(shown, Pictures) and shown.images.shape == (16, 1, 28, 28)
    of = {}  # picture -> the labels that it has; o and O may look alike
    for image, label in zip(letters.images, letters.labels.tolist(), strict=True):
        of.setdefault(image.numpy().tobytes(), set()).add(label)
    keys = [image.numpy().tobytes() for image in shown.images]
    if changed:
        assert not any(key in of for key in keys)
        assert shown.images.min() >= 0 and shown.images.max() <= 1 + 1e-6
    else:
        assert all(label in of[key] for key, label in zip(keys, shown.labels.tolist(), strict=True))


def test_changed_or_not_the_same_letters_are_drawn():
    labels = [batch("vit", changed=changed, number=4).labels for changed in (True, False)]
    assert torch.equal(*labels)


def test_vit_and_convnet_see_the_same_pictures():
    one, other = batch("vit", number=5), batch("convnet", number=5)
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_deits_batches_carry_what_the_teacher_says_of_the_changed_pictures(taught):
    shown, plain = batch("deit", number=5), batch("vit", number=5)
    assert isinstance(shown, TaughtPictures)
    assert torch.equal(shown.images, plain.images) and torch.equal(shown.labels, plain.labels)
    with torch.no_grad():
        assert torch.equal(shown.teacher, taught.logits(shown.images).argmax(1))
        unchanged = taught.logits(batch("deit", number=5, changed=False).images).argmax(1)
    assert not torch.equal(shown.teacher, unchanged)  # the teacher looks at what the network sees
    assert not torch.equal(shown.teacher, shown.labels)
    assert not shown.teacher.requires_grad


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_run_at_smoke(name):
    run = recipes.pretrain(name, "smoke", resume=False)
    assert isinstance(run.model, ConvNet if name == "convnet" else ViT)
    assert run.history.steps == 3 and run.history.unit == "pictures"
    assert set(run.metrics) == {"test_loss", "test_accuracy"}
    assert 0 <= run.metrics["test_accuracy"] <= 1
    if name != "convnet":
        assert run.model.config.distillation == (name == "deit")
    letters = recipe.letters()
    with torch.no_grad():
        logits = run.model.logits(letters.test_images)
    right = (logits.argmax(1) == letters.test_labels).float().mean().item()
    assert run.metrics["test_accuracy"] == pytest.approx(right, abs=0.01)


def test_the_networks_are_of_about_the_same_size():
    sizes = {}
    for name in NAMES:
        config = recipes.config(name, "laptop")
        model = recipes.get(name).model(config, recipe.letters())
        sizes[name] = sum(weight.numel() for weight in model.parameters())
    assert 0.75 < sizes["convnet"] / sizes["vit"] < 1.33
    classes, dim = recipe.letters().classes, recipes.config("deit", "laptop").dim
    assert sizes["deit"] - sizes["vit"] == 2 * dim + (dim + 1) * classes  # a token, its position, a head


@pytest.mark.parametrize("name", NAMES)
def test_laptop_and_long_train_the_same_network_on_the_same_pictures(name):
    laptop, long = (recipes.config(name, preset) for preset in ("laptop", "long"))
    assert dataclasses.replace(laptop, steps=long.steps) == long
    assert long.steps > laptop.steps
    for preset in ("smoke", "laptop", "long", "gpu"):
        assert recipes.config(name, preset).network == name


def test_muon_is_for_transformers_alone():
    """A filter is a tensor of four axes; Muon is for matrices."""
    kinds = {}
    for name in NAMES:
        config = recipes.config(name, "laptop")
        kinds[name] = recipes.get(name).training(config, recipe.letters()).optimizer
    assert kinds == {"vit": "muon", "convnet": "adamw", "deit": "muon"}
