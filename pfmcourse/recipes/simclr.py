"""Lesson simclr: an encoder learns from pictures without labels, by recognising them again.

Two sets of pictures. "letters": printed letters of five scripts and handwritten digits, whose labels are not looked at;
the letters of two more scripts are kept for validation (Armenian) and test (Georgian). "emoji": the training concepts.

What two views of a picture have in common is what the network learns; so letters are warped as pens and fonts warp
them, and emoji are cropped and recoloured.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from pfmcourse import evaluate
from pfmcourse.data import cifar10, digits, emoji, glyphs
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.pretext import TURNS, Pretext, orders, shuffled, turned
from pfmcourse.models.simclr import MoCo, SimCLR, TwoViews
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.augment import Warp, augment
from pfmcourse.nn.views import NOTHING, Views, crop_matrices, view
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, device

SEEN = ("Latin", "Greek", "Cyrillic", "Hebrew", "Arabic")  # scripts to pretrain on
VALIDATION, TEST = "Armenian", "Georgian"  # scripts never seen in pretraining: one to choose by, one to report
TEST_FONTS = ("DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSansMono-Oblique", "DejaVuSans-BoldOblique")
PUZZLES = orders(2, 24)  # every order of 2 x 2 pieces

PictureSet = Literal["letters", "emoji", "cifar10"]


@dataclass(frozen=True)
class Unlabelled:
    """Pictures without labels, to pretrain on."""

    pictures: UInt8[Tensor, "pictures channels size size"]


@functools.cache
def unlabelled(name: PictureSet) -> Unlabelled:
    """The pictures that a network is pretrained on, of training parts only.

    Letters and digits are grey, 28 pixels wide, 0 for paper to 255 for ink; emoji and CIFAR-10 have three channels and
    32 pixels.
    """
    if name == "letters":
        letters = glyphs.load().written_in(*SEEN).images
        return Unlabelled(torch.cat([letters, digits.load().split("train").images])[:, None])
    if name == "emoji":
        return Unlabelled(emoji.load(languages=("en",)).split("train").pictures)
    return Unlabelled(cifar10.load().split("train").images)


@dataclass(frozen=True)
class Task:
    """A classification with few labels: pictures from 0 to 1, classes counted from 0."""

    name: str
    images: Float[Tensor, "train channels size size"]
    labels: Int64[Tensor, " train"]
    test_images: Float[Tensor, "test channels size size"]
    test_labels: Int64[Tensor, " test"]
    metric: str = "accuracy"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.labels.max()) + 1


def fractions(pictures: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """From 0 to 1 instead of from 0 to 255."""
    return pictures.float() / 255


@functools.cache
def letters_task(script: str = TEST) -> Task:
    """Name the letters of a script that pretraining has not seen: learn in eight fonts, be tested in four others."""
    letters = glyphs.load().written_in(script)
    held = torch.tensor([name in TEST_FONTS for name in letters.fonts])[letters.font]
    images, labels = fractions(letters.images[:, None]), letters.labels.unique(return_inverse=True)[1]
    return Task(f"{script} letters", images[~held], labels[~held], images[held], labels[held])


@functools.cache
def digits_task(part: Literal["validation", "test"] = "test") -> Task:
    """Name handwritten digits; pretraining has seen the training digits, without their labels."""
    train, test = digits.load().split("train"), digits.load().split(part)
    return Task("digits", fractions(train.images[:, None]), train.labels, fractions(test.images[:, None]), test.labels)


@functools.cache
def emoji_task(part: Literal["validation", "test"] = "test") -> Task:
    """Name the category of emoji whose concepts are in no other part. Flags are left out: the test has one."""
    everything = emoji.load(languages=("en",))
    flags = everything.category_names.index("Flags")
    (train, labels), (test, test_labels) = (
        (chosen.pictures[chosen.labels != flags], chosen.labels[chosen.labels != flags])
        for chosen in (everything.split("train"), everything.split(part))
    )
    number = torch.cumsum(torch.arange(len(everything.category_names)) != flags, 0) - 1  # without the gap
    return Task(
        "emoji", fractions(train), number[labels], fractions(test), number[test_labels], metric="balanced_accuracy"
    )


# Views ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """How a set of pictures may be changed without becoming other things."""

    warp: Warp | None  # of letters
    views: Views

    def __call__(
        self, images: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        """Every picture changed in its own random way."""
        if self.warp is not None:
            images = augment(images, self.warp, generator)
        if images.shape[1] == 3:
            return view(images, self.views, generator)
        if self.views.smallest == 1:
            return images
        grid = F.affine_grid(
            crop_matrices(len(images), self.views, generator).to(images.device), list(images.shape), align_corners=False
        )
        return F.grid_sample(images, grid, align_corners=False)


CHANGES = {
    "letters": Change(Warp(), dataclasses.replace(NOTHING, smallest=0.7, stretch=4 / 3)),
    "emoji": Change(None, Views(smallest=0.3)),
    "cifar10": Change(None, Views(smallest=0.2)),
}


# The recipes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PicturesRun:
    """One run on pictures without labels."""

    pictures: PictureSet = "letters"
    method: Literal["simclr", "moco", "rotation", "jigsaw"] = "simclr"
    encoder: Literal["convnet", "vit"] = "convnet"
    steps: int = 250
    batch: int = 256
    width: int = 24  # filters of the convolutional network's first layer
    dim: int = 256  # of the features
    projected: int = 64  # numbers that two views are compared by
    temperature: float = 0.2
    queue: int = 1024  # MoCo's
    momentum: float = 0.99  # of MoCo's slow encoder
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.05


def vit_for(pictures: Unlabelled, **changes: object) -> ViTConfig:
    """The ViT of the vision lessons for these pictures: 49 patches of a letter, 64 of an emoji."""
    channels, size = pictures.pictures.shape[1:3]
    base = ViTConfig(size=size, channels=channels, layers=4, positions="sincos", pooling="mean")
    return dataclasses.replace(base, **changes)


def _encoder(config: PicturesRun, data: Unlabelled) -> nn.Module:
    channels, size = data.pictures.shape[1:3]
    if config.encoder == "vit":
        return ViT(vit_for(data, dim=config.dim))
    return ConvNet(ConvNetConfig(1, config.width, dim=config.dim, channels=channels, size=size))


def network(config: PicturesRun, data: Unlabelled) -> nn.Module:
    """The encoder with what its method needs around it."""
    encoder = _encoder(config, data)
    if config.method == "simclr":
        return SimCLR(encoder, config.projected, config.temperature)
    if config.method == "moco":
        return MoCo(encoder, config.projected, config.temperature, config.queue, config.momentum)
    return Pretext(encoder, TURNS if config.method == "rotation" else len(PUZZLES))


def batches(config: PicturesRun, data: Unlabelled, seed: int) -> Batches:
    """Pictures drawn with replacement: two views of each, or one that is turned or cut and shuffled."""
    change, pictures = CHANGES[config.pictures], data.pictures.to(device())

    def draw(step: int, generator: torch.Generator) -> object:
        rows = torch.randint(len(pictures), (config.batch,), generator=generator).to(pictures.device)
        images = fractions(pictures[rows])
        if config.method in ("simclr", "moco"):
            return TwoViews(*change(torch.cat([images, images]), generator).chunk(2))
        images = change(images, generator)  # the same care as for the others
        return turned(images, generator) if config.method == "rotation" else shuffled(images, PUZZLES, generator)

    return draw


def training(config: PicturesRun, data: Unlabelled) -> TrainConfig:
    """AdamW, or Muon on the matrices of a Transformer, counting pictures."""
    return TrainConfig(
        steps=config.steps,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        unit="pictures",
    )


@torch.no_grad()
def features(
    model: nn.Module, images: Float[Tensor, "pictures channels height width"], rows: int = 500
) -> Float[Tensor, "pictures dim"]:
    """What an encoder says about pictures, some at a time, on the CPU."""
    where = next(model.parameters()).device
    model.eval()
    return torch.cat([model.encode(part.to(where)).float().cpu() for part in images.split(rows)])


def probed(model: nn.Module, task: Task) -> float:
    """Score of a linear probe on frozen features, all training labels known."""
    found = features(model, task.images), task.labels, features(model, task.test_images), task.test_labels
    return evaluate.linear_probe(*found, strengths=(0.01, 0.1), metric=task.metric)


def neighbours_found(model: nn.Module, task: Task) -> float:
    """Share of the test pictures whose nearest training picture, by cosine, is of the same class: no label is used."""
    train, test = (
        F.normalize(features(model, x) - features(model, task.images).mean(0), dim=1)
        for x in (task.images, task.test_images)
    )
    nearest = (test @ train.T).argmax(1)
    return float((task.labels[nearest] == task.test_labels).float().mean())


def metrics(config: PicturesRun, data: Unlabelled, model: nn.Module) -> dict[str, float]:
    """How well the frozen features serve the tasks of these pictures."""
    if config.pictures == "letters":
        return {
            "georgian_neighbours": neighbours_found(model, letters_task()),
            "digits_neighbours": neighbours_found(model, digits_task()),
        }
    if config.pictures == "emoji":
        return {"emoji_probe": probed(model, emoji_task())}
    train, test = (cifar10.load().split(part) for part in ("train", "test"))
    return {
        "cifar10_probe": probed(
            model, Task("cifar10", fractions(train.images), train.labels, fractions(test.images), test.labels)
        )
    }


SMOKE = {"steps": 3, "batch": 32, "width": 4, "dim": 32}
GPU = {"pictures": "cifar10", "steps": 20000, "batch": 1024, "width": 64, "dim": 512}


def _recipe(name: str, purpose: str, **changes: object) -> Recipe:
    base = PicturesRun(**{"method": name if name in ("moco", "rotation", "jigsaw") else "simclr", **changes})
    return Recipe(
        name=name,
        purpose=purpose,
        lesson="simclr",
        presets={
            "smoke": dataclasses.replace(base, **SMOKE),
            "laptop": base,
            "long": dataclasses.replace(base, steps=1200 if base.pictures == "emoji" else 2500),
            "gpu": dataclasses.replace(base, **GPU),
        },
        data=lambda config: unlabelled(config.pictures),
        model=network,
        batches=batches,
        training=training,
        metrics=metrics,
    )


RECIPES = [
    _recipe("simclr", "recognise letters and digits again when they are warped"),
    _recipe("simclr_emoji", "recognise emoji again when they are cropped and recoloured", pictures="emoji"),
    _recipe("moco", "SimCLR with a queue and a slow encoder"),
    _recipe("rotation", "tell by how much a letter or digit was turned"),
    _recipe("jigsaw", "tell in which order the quarters of a letter or digit stand"),
]
