"""Lesson start_here: a small convolutional network learns to name printed letters.

The labels cost nothing, because a font file knows its letters; and there is no digit among them. The lesson then asks
what the network has learned is worth for handwritten digits, of which only a few carry a label.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from pfmcourse.data import glyphs
from pfmcourse.data.glyphs import Glyphs
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.nn.augment import Warp, augment
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, device


@dataclass(frozen=True)
class LettersRun:
    """One run on printed letters."""

    steps: int = 400
    batch: int = 128
    width: int = 16  # filters of the first layer
    dim: int = 128  # of the features
    learning_rate: float = 4e-3
    weight_decay: float = 0.05


def pixels(images: UInt8[Tensor, "batch height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Pictures as the network takes them: one channel, 0 for paper to 1 for ink."""
    return images[:, None].float() / 255


def warped_batches(
    images: Float[Tensor, "pictures channels height width"], labels: Int64[Tensor, " pictures"], batch: int, warp: Warp
) -> Batches:
    """Batches of pictures drawn with replacement, each one warped anew. For pretraining and adapting alike."""
    images, labels = images.to(device()), labels.to(device())

    def draw(step: int, generator: torch.Generator) -> Pictures:
        rows = torch.randint(len(labels), (batch,), generator=generator).to(labels.device)
        return Pictures(augment(images[rows], warp, generator), labels[rows])

    return draw


def _batches(config: LettersRun, data: Glyphs, seed: int) -> Batches:
    train = data.split("train")
    return warped_batches(pixels(train.images), train.labels, config.batch, Warp())


def _training(config: LettersRun, data: Glyphs) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        unit="pictures",
    )


@torch.no_grad()
def _metrics(config: LettersRun, data: Glyphs, model: ConvNet) -> dict[str, float]:
    """Loss and accuracy on two fonts that the training has not seen, without augmentation."""
    test, where = data.split("test"), model.head.weight.device
    measured = model.eval()(Pictures(pixels(test.images).to(where), test.labels.to(where)))
    return {f"test_{name}": float(value) for name, value in measured.items()}


RECIPES = [
    Recipe(
        name="letters",
        purpose="name printed letters of seven scripts",
        lesson="start_here",
        presets={
            "smoke": LettersRun(steps=6, batch=32, width=8, dim=32),
            "laptop": LettersRun(),
            "long": LettersRun(steps=6000),
            "gpu": LettersRun(steps=6000, batch=512, width=64, dim=256),
        },
        data=lambda config: glyphs.load(),
        model=lambda config, data: ConvNet(ConvNetConfig(len(data.letters), config.width, dim=config.dim)),
        batches=_batches,
        training=_training,
        metrics=_metrics,
    )
]
