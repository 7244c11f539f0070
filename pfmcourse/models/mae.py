"""The masked autoencoder: hide three patches of four, encode what is left, and paint what was hidden.

He, Chen, Xie, Li, Dollár, Girshick (2021), "Masked Autoencoders Are Scalable Vision Learners".
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.patches import patchify, sincos_positions, unpatchify
from pfmcourse.nn.transformer import Block, single


@dataclass(frozen=True)
class MAEConfig:
    """Sizes of a masked autoencoder."""

    encoder: ViTConfig = field(default_factory=lambda: ViTConfig(positions="sincos", pooling="mean"))
    decoder_dim: int = 64
    decoder_layers: int = 2
    decoder_heads: int = 4
    decoder_hidden: int = 0  # 0: 4 x decoder_dim
    share: float = 0.75  # of the patches that are hidden
    normalise: bool = True  # each patch is painted with mean 0 and variance 1, which stresses its texture

    @property
    def kept(self) -> int:
        """Patches that stay visible."""
        return int(self.encoder.patches * (1 - self.share))


class MAE(nn.Module):
    """A ViT that sees a quarter of the patches, and a small decoder that guesses the pixels of the rest."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        if not 0 < config.share < 1 or not 1 <= config.kept < config.encoder.patches:
            raise CourseError(
                f"share={config.share} of {config.encoder.patches} patches leaves {config.kept} to see: at least one "
                "must be hidden and one be seen."
            )
        self.config = config
        self.encoder = ViT(config.encoder)
        dim, side = config.decoder_dim, config.encoder.size // config.encoder.patch
        self.bridge = nn.Linear(config.encoder.dim, dim)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        positions = torch.cat([torch.zeros(1, dim), sincos_positions(side, side, dim)])
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.decoder_heads,
                config.decoder_hidden or None,
                activation=config.encoder.activation,
                epsilon=config.encoder.epsilon,
            )
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=config.encoder.epsilon)
        self.pixels = nn.Linear(dim, config.encoder.channels * config.encoder.patch**2)
        nn.init.zeros_(self.pixels.weight)  # paints nothing at first: normalised patches cost 1, not more
        nn.init.zeros_(self.pixels.bias)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What the encoder says about pictures of which it sees everything: the part that is kept."""
        return self.encoder.encode(images)

    def _visible(self, count: int, noise: Float[Tensor, "batch patches"] | None) -> tuple[Tensor, Tensor]:
        """Which patches stay, in a random order, and which are hidden: the order of random numbers decides."""
        if noise is None:
            noise = torch.rand(count, self.config.encoder.patches, device=self.mask_token.device)
        order = noise.argsort(1)
        return order[:, : self.config.kept], order[:, self.config.kept :]

    def _paint(self, images: Tensor, visible: Tensor, hidden: Tensor | None) -> Float[Tensor, "batch some numbers"]:
        """What the decoder paints in the ``hidden`` places (None: everywhere), having seen the ``visible`` ones."""
        size = self.config.encoder.size
        if images.shape[-2:] != (size, size):
            raise CourseError(
                f"this masked autoencoder has positions for pictures of {size} x {size} pixels, not of "
                f"{images.shape[-2]} x {images.shape[-1]}: resize them. Only its encoder reads other sizes."
            )
        batch = torch.arange(len(images), device=images.device)[:, None]
        seen = self.bridge(self.encoder.read(self.encoder.embed(images)[batch, visible]))
        places = self.config.encoder.patches
        x = self.mask_token.to(seen).expand(len(images), places, -1).clone()
        x[batch, visible] = seen[:, 1:]
        x = torch.cat([seen[:, :1], x], dim=1) + self.positions.to(seen)
        for block in self.blocks:
            x = block(x)
        x = x[:, 1:] if hidden is None else x[batch, 1 + hidden]
        return single(self.pixels(self.norm(x)))

    def _targets(self, images: Tensor) -> Float[Tensor, "batch patches numbers"]:
        patches = single(patchify(images, self.config.encoder.patch))
        if not self.config.normalise:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def forward(
        self, batch: Float[Tensor, "batch channels height width"], noise: Float[Tensor, "batch patches"] | None = None
    ) -> dict[str, Tensor]:
        """The mean squared error of the hidden patches' numbers. ``noise`` orders the patches: the last are hidden."""
        visible, hidden = self._visible(len(batch), noise)
        painted = self._paint(batch, visible, hidden)
        rows = torch.arange(len(batch), device=batch.device)[:, None]
        return {"loss": (painted - self._targets(batch)[rows, hidden]).square().mean()}

    @torch.no_grad()
    def reconstruct(
        self, images: Float[Tensor, "batch channels height width"], noise: Float[Tensor, "batch patches"] | None = None
    ) -> tuple[Float[Tensor, "batch channels height width"], Bool[Tensor, "batch patches"]]:
        """The pictures with their hidden patches painted, and which patches were hidden.

        Where the model paints normalised patches it does not know their mean and variance: those are taken from the
        truth, as the paper does for its figures. With ``normalise=False`` nothing is.
        """
        visible, hidden = self._visible(len(images), noise)
        patches = single(patchify(images, self.config.encoder.patch))
        painted = self._paint(images, visible, None).to(patches)
        if self.config.normalise:
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            painted = painted * (variance + 1e-6).sqrt() + mean
        mask = torch.zeros(patches.shape[:2], dtype=torch.bool, device=images.device).scatter(1, hidden, True)
        whole = torch.where(mask[..., None], painted, patches)
        columns = images.shape[-1] // self.config.encoder.patch
        return unpatchify(whole, self.config.encoder.patch, columns), mask

    def with_new_head(self, classes: int) -> ViT:
        """A copy of the encoder with a head for another task: a ViT that shares nothing with this network."""
        return self.encoder.with_new_head(classes)
