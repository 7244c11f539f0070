"""Lesson mae: a ViT learns from pictures without labels, by painting what was hidden.

The same pictures as in lesson simclr, so that the two can be compared; and tiles of photographs. The same ViT for MAE,
for BEiT and, to compare, for SimCLR.
"""

import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from pfmcourse.data import photographs
from pfmcourse.models.beit import BEiT, BEiTConfig, BEiTWithCodes, HoledPictures
from pfmcourse.models.mae import MAE, MAEConfig
from pfmcourse.nn.patch_codes import PatchCodes, learn_codes
from pfmcourse.nn.patches import blockwise_mask
from pfmcourse.recipes import Recipe, simclr
from pfmcourse.recipes.simclr import CHANGES, PicturesRun, Unlabelled, fractions, unlabelled, vit_for
from pfmcourse.train import Batches, TrainConfig, device


@dataclass(frozen=True)
class MAERun:
    """One run of a masked autoencoder."""

    pictures: Literal["letters", "emoji", "cifar10", "photographs"] = "letters"
    steps: int = 110
    batch: int = 256
    share: float = 0.75  # of the patches that are hidden
    patch: int = 4
    dim: int = 128
    layers: int = 4
    decoder_dim: int = 64
    decoder_layers: int = 2
    normalise: bool = True  # whether each patch is painted with mean 0 and variance 1
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05


@dataclass(frozen=True)
class BEiTRun:
    """One run of BEiT: guess the visual tokens of hidden patches."""

    pictures: Literal["letters", "emoji", "cifar10"] = "letters"
    steps: int = 150
    batch: int = 256
    share: float = 0.4  # of the patches that are hidden, in blocks
    vocab: int = 256  # visual tokens
    patch: int = 4
    dim: int = 128
    layers: int = 4
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05


@functools.cache
def pictures_of(name: str) -> Unlabelled:
    """Pictures to pretrain on: those of lesson simclr, or tiles of the photographs of the training part."""
    if name == "photographs":
        return Unlabelled(photographs.tiles(photographs.load().split("train").names, tile=(32, 64, 128)))
    return unlabelled(name)


def mae_config(config: MAERun, data: Unlabelled) -> MAEConfig:
    """The sizes of the network for these pictures."""
    return MAEConfig(
        encoder=vit_for(data, patch=config.patch, dim=config.dim, layers=config.layers),
        decoder_dim=config.decoder_dim,
        decoder_layers=config.decoder_layers,
        share=config.share,
        normalise=config.normalise,
    )


def _changed(config: MAERun | BEiTRun, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A batch of pictures, slightly changed; not recoloured, for a network that paints must know colours."""
    rows = torch.randint(len(pictures), (config.batch,), generator=generator).to(pictures.device)
    images = fractions(pictures[rows])
    if config.pictures == "letters":
        return CHANGES["letters"](images, generator)
    gentle = dataclasses.replace(
        CHANGES["emoji"], views=dataclasses.replace(CHANGES["emoji"].views, jitter=0.0, grey=0.0)
    )
    return gentle(images, generator)


def _batches(config: MAERun, data: Unlabelled, seed: int) -> Batches:
    pictures = data.pictures.to(device())
    return lambda step, generator: _changed(config, pictures, generator)


@torch.no_grad()
def painting_error(config: MAERun, model: MAE, data: UInt8[Tensor, "pictures channels size size"]) -> float:
    """Mean squared error of hidden patches on these pictures, unchanged; always the same patches are hidden."""
    where = model.mask_token.device
    noise = torch.rand(len(data), model.config.encoder.patches, generator=torch.Generator().manual_seed(0))
    parts = zip(fractions(data).split(500), noise.split(500), strict=True)
    losses = [(len(part), float(model(part.to(where), order.to(where))["loss"])) for part, order in parts]
    return sum(count * loss for count, loss in losses) / sum(count for count, _ in losses)


def _held_out(name: str) -> UInt8[Tensor, "pictures channels size size"]:
    """Pictures of the same kind that pretraining has not seen."""
    if name == "photographs":
        return photographs.tiles(photographs.load().split("test").names, tile=(32, 64, 128))
    task = simclr.digits_task() if name == "letters" else simclr.emoji_task()
    return (task.test_images * 255).round().to(torch.uint8)


def _metrics(config: MAERun, data: Unlabelled, model: MAE) -> dict[str, float]:
    model.eval()
    found = (
        {} if config.pictures == "cifar10" else {"test_loss": painting_error(config, model, _held_out(config.pictures))}
    )
    if config.pictures in ("letters", "emoji"):
        found |= simclr.metrics(PicturesRun(pictures=config.pictures), data, model)
    return found


@dataclass(frozen=True)
class Tokenised:
    """Pictures, and the tokenizer that was learned from them."""

    pictures: UInt8[Tensor, "pictures channels size size"]
    codes: PatchCodes


@functools.cache
def tokenised(name: str, patch: int, vocab: int) -> Tokenised:
    """The pictures of lesson simclr with a vocabulary of typical patches."""
    pictures = unlabelled(name).pictures
    some = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))[:2000]
    return Tokenised(pictures, learn_codes(fractions(pictures[some]), patch, vocab, seed=0))


def _beit(config: BEiTRun, data: Tokenised) -> BEiTWithCodes:
    channels, size = data.pictures.shape[1:3]
    beit = BEiT(BEiTConfig(config.vocab, size, config.patch, channels, config.dim, config.layers))
    return BEiTWithCodes(beit, copy.deepcopy(data.codes))


def _beit_batches(config: BEiTRun, data: Tokenised, seed: int) -> Batches:
    pictures = data.pictures.to(device())
    side = pictures.shape[-1] // config.patch

    def draw(step: int, generator: torch.Generator) -> HoledPictures:
        images = _changed(config, pictures, generator)
        return HoledPictures(images, blockwise_mask(config.batch, side, config.share, generator).to(images.device))

    return draw


@torch.no_grad()
def _beit_metrics(config: BEiTRun, data: Tokenised, model: BEiTWithCodes) -> dict[str, float]:
    model.eval()
    where = next(model.parameters()).device
    images = fractions(_held_out(config.pictures)) if config.pictures != "cifar10" else fractions(data.pictures[:500])
    side = images.shape[-1] // config.patch
    mask = blockwise_mask(len(images), side, config.share, torch.Generator().manual_seed(0))
    measured = model(HoledPictures(images.to(where), mask.to(where)))
    found = {f"test_{name}": float(value) for name, value in measured.items()}
    if config.pictures != "cifar10":
        found |= simclr.metrics(PicturesRun(pictures=config.pictures), unlabelled(config.pictures), model)
    return found


def _training(config: MAERun | BEiTRun, data: Unlabelled | Tokenised) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        unit="pictures",
    )


SMALL = {"steps": 3, "batch": 16, "dim": 32, "layers": 2}
LONG = {"letters": 2000, "emoji": 800, "photographs": 500}  # steps
LARGE = {"pictures": "cifar10", "steps": 20000, "batch": 1024, "dim": 384, "layers": 12}
RECIPES = [
    *(
        Recipe(
            name=name,
            purpose=purpose,
            lesson="mae",
            presets={
                "smoke": dataclasses.replace(base, **SMALL, decoder_dim=32, decoder_layers=1),
                "laptop": base,
                "long": dataclasses.replace(
                    base, steps={"letters": 2000, "emoji": 800, "photographs": 500}[base.pictures]
                ),
                "gpu": dataclasses.replace(base, **LARGE),
            },
            data=lambda config: pictures_of(config.pictures),
            model=lambda config, data: MAE(mae_config(config, data)),
            batches=_batches,
            training=_training,
            metrics=_metrics,
        )
        for name, purpose, base in (
            ("mae", "paint the hidden patches of letters and digits", MAERun()),
            ("mae_emoji", "paint the hidden patches of emoji", MAERun(pictures="emoji", normalise=False)),
            (
                "mae_photographs",
                "paint the hidden patches of photographs",
                MAERun(pictures="photographs", normalise=False),
            ),
        )
    ),
    Recipe(
        name="beit",
        purpose="guess the visual tokens of hidden patches of letters and digits",
        lesson="mae",
        presets={
            "smoke": BEiTRun(**SMALL, vocab=32),
            "laptop": BEiTRun(),
            "long": BEiTRun(steps=400),
            "gpu": BEiTRun(**LARGE),
        },
        data=lambda config: tokenised(config.pictures, config.patch, config.vocab),
        model=_beit,
        batches=_beit_batches,
        training=_training,
        metrics=_beit_metrics,
    ),
    Recipe(
        name="simclr_vit",
        purpose="SimCLR with the ViT of the masked autoencoder, to compare the two",
        lesson="mae",
        presets={
            preset: PicturesRun(encoder="vit", optimizer="muon", learning_rate=1.5e-3, **sizes)
            for preset, sizes in {
                "smoke": {"steps": 3, "batch": 16, "dim": 32},
                "laptop": {"steps": 100, "dim": 128},
                "long": {"steps": 300, "dim": 128},
                "gpu": {"pictures": "cifar10", "steps": 20000, "batch": 1024, "dim": 384},
            }.items()
        },
        data=lambda config: unlabelled(config.pictures),
        model=simclr.network,
        batches=simclr.batches,
        training=simclr.training,
        metrics=simclr.metrics,
    ),
]
