"""Lesson vit: a ViT, a convolutional network as large, and DeiT, which learns from it. All name printed letters.

The labels cost nothing, for a font file knows its letters. So this is supervised pretraining; what it is worth shows on
scripts that were not in it and on handwritten digits.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pfmcourse import recipes
from pfmcourse.data import glyphs
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.models.vit import TaughtPictures, ViT, ViTConfig
from pfmcourse.recipes import Recipe
from pfmcourse.recipes.simclr import CHANGES, SEEN, fractions
from pfmcourse.train import Batches, TrainConfig, device


@dataclass(frozen=True)
class Letters:
    """Letters with their classes, counted from 0: fourteen fonts to learn from, two others to be tested in."""

    images: Float[Tensor, "train 1 28 28"]
    labels: Int64[Tensor, " train"]
    test_images: Float[Tensor, "test 1 28 28"]
    test_labels: Int64[Tensor, " test"]

    @property
    def classes(self) -> int:
        """How many letters there are."""
        return int(self.labels.max()) + 1


@functools.cache
def letters() -> Letters:
    """The letters of the scripts that may be seen; Armenian and Georgian are kept for later."""
    chosen = glyphs.load().written_in(*SEEN)
    number = chosen.labels.unique()
    parts = (
        (fractions(part.images[:, None]), torch.searchsorted(number, part.labels))
        for part in (chosen.split("train"), chosen.split("test"))
    )
    (images, labels), (test_images, test_labels) = parts
    return Letters(images, labels, test_images, test_labels)


@dataclass(frozen=True)
class LettersRun:
    """One run on printed letters with their labels."""

    network: Literal["vit", "convnet", "deit"] = "vit"
    steps: int = 220
    batch: int = 128
    share: float = 1.0  # of the training pictures that are used
    changed: bool = True  # whether pictures are warped and cropped
    patch: int = 7
    dim: int = 96
    layers: int = 4
    width: int = 40  # filters of the convolutional network's first layer
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 4e-3
    weight_decay: float = 0.05


def _model(config: LettersRun, data: Letters) -> nn.Module:
    if config.network == "convnet":
        return ConvNet(ConvNetConfig(data.classes, config.width, dim=2 * config.dim))
    sizes = ViTConfig(data.classes, size=28, patch=config.patch, channels=1, dim=config.dim, layers=config.layers)
    return ViT(dataclasses.replace(sizes, distillation=config.network == "deit"))


@functools.cache
def teacher() -> ConvNet:
    """The convolutional network that teaches DeiT: the shipped checkpoint."""
    return recipes.load("convnet").model


def _batches(config: LettersRun, data: Letters, seed: int) -> Batches:
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    chosen = order[: max(1, round(config.share * len(order)))]
    images, labels = data.images[chosen].to(device()), data.labels[chosen].to(device())

    def draw(step: int, generator: torch.Generator) -> Pictures | TaughtPictures:
        rows = torch.randint(len(labels), (config.batch,), generator=generator).to(labels.device)
        shown = CHANGES["letters"](images[rows], generator) if config.changed else images[rows]
        if config.network != "deit":
            return Pictures(shown, labels[rows])
        with torch.no_grad():
            return TaughtPictures(shown, labels[rows], teacher().logits(shown).argmax(1))

    return draw


def _training(config: LettersRun, data: Letters) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        optimizer="adamw" if config.network == "convnet" else config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        unit="pictures",
    )


@torch.no_grad()
def _metrics(config: LettersRun, data: Letters, model: nn.Module) -> dict[str, float]:
    """Loss and accuracy on two fonts that the training has not seen, without changes."""
    where = next(model.parameters()).device
    measured = model.eval()(Pictures(data.test_images.to(where), data.test_labels.to(where)))
    return {f"test_{name}": float(value) for name, value in measured.items()}


RECIPES = [
    Recipe(
        name=name,
        purpose=purpose,
        lesson="vit",
        presets={
            "smoke": dataclasses.replace(base, steps=3, batch=16, dim=32, layers=2, width=4),
            "laptop": base,
            "long": dataclasses.replace(base, steps=1500),
            "gpu": dataclasses.replace(base, steps=20000, batch=1024, dim=384, layers=12, width=128),
        },
        data=lambda config: letters(),
        model=_model,
        batches=_batches,
        training=_training,
        metrics=_metrics,
    )
    for name, purpose, base in (
        ("vit", "name printed letters, read as patches", LettersRun()),
        ("convnet", "name printed letters with a convolutional network", LettersRun("convnet")),
        ("deit", "name printed letters, taught by the convolutional network too", LettersRun("deit")),
    )
]
