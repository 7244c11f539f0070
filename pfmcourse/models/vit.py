"""The Vision Transformer: a Transformer that reads a picture as a sentence of patches.

Dosovitskiy et al. (2020), "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale". And DeiT, which
learns from a teacher by way of a second token: Touvron et al. (2020), "Training data-efficient image transformers &
distillation through attention".

Changed: a layer's matrix is drawn so that what it gives out is as large as what it gets, for 0.02, which suits a width
of 768, lets next to nothing pass in a narrow network.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import Pictures
from pfmcourse.nn.patches import interpolate_positions, patchify, sincos_positions
from pfmcourse.nn.transformer import Activation, Block, single


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a ViT."""

    classes: int = 0  # 0: no head
    size: int = 32  # of the pictures, in pixels
    patch: int = 4  # of a patch
    channels: int = 3
    dim: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 0  # of the feed-forward networks; 0: 4 x dim
    positions: Literal["learned", "sincos"] = "learned"
    pooling: Literal["class", "mean"] = "class"  # what stands for the whole picture
    distillation: bool = False  # DeiT's second token and head
    dropout: float = 0.0
    activation: Activation = "gelu"
    epsilon: float = 1e-6  # of the norms
    patch_bias: bool = True  # whether the matrix that reads a patch has a bias; CLIP's has none
    norm_before: bool = False  # one more norm in front of the first block, as in CLIP

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return (self.size // self.patch) ** 2


class ViT(nn.Module):
    """Pictures to classes. Each patch is a token; a further token, the class token, gathers what the whole shows."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        if config.size % config.patch:
            raise CourseError(f"size={config.size} is no multiple of patch={config.patch}.")
        self.config = config
        dim, self.special = config.dim, 1 + config.distillation
        self.patch_embedding = nn.Linear(config.channels * config.patch**2, dim, bias=config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(dim))
        if config.distillation:
            self.distillation_token = nn.Parameter(torch.zeros(dim))
            self.distillation_head = nn.Linear(dim, config.classes) if config.classes else nn.Identity()
        self.positions = nn.Parameter(
            torch.zeros(self.special + config.patches, dim), requires_grad=config.positions == "learned"
        )
        self.first_norm = nn.LayerNorm(dim, eps=config.epsilon) if config.norm_before else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.heads,
                config.hidden or None,
                activation=config.activation,
                dropout=config.dropout,
                epsilon=config.epsilon,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(dim, eps=config.epsilon)
        self.head = nn.Linear(dim, config.classes) if config.classes else nn.Identity()
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(("head", "distillation_head")) or name.endswith("bias"):
                nn.init.zeros_(parameter)  # all classes alike at first: the loss starts at ln(classes)
            elif name.endswith("token"):
                nn.init.normal_(parameter, std=0.02)
            elif parameter.ndim == 2 and name != "positions":
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
                if name.endswith(("output.weight", "down.weight")):  # they add to the stream, 2 x layers times
                    parameter.mul_((2 * self.config.layers) ** -0.5)
        side = self.config.size // self.config.patch
        # Learned positions start from the fixed ones too: that the plane is a plane need not be learned anew.
        self.positions[self.special :] = sincos_positions(side, side, self.config.dim)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        """A vector for each patch: its pixels through one matrix, plus where it stands.

        Pictures may have another size than the configuration says: the positions are stretched. Raises CourseError for
        a size that is no multiple of a patch, and for another number of channels.
        """
        if images.shape[1] != self.config.channels:
            raise CourseError(f"pictures of {images.shape[1]} channels for a ViT with channels={self.config.channels}.")
        height, width = (side // self.config.patch for side in images.shape[-2:])
        positions = interpolate_positions(self.positions[self.special :], height, width)
        return self.patch_embedding(patchify(images, self.config.patch)) + positions

    def _sentence(self, patches: Float[Tensor, "batch some dim"]) -> Float[Tensor, "batch tokens dim"]:
        """What the first block reads: the embedded patches with the special tokens in front."""
        tokens = [self.class_token, self.distillation_token] if self.config.distillation else [self.class_token]
        special = torch.stack(tokens) + self.positions[: self.special]
        special = repeat(special, "some dim -> batch some dim", batch=len(patches)).to(patches)
        return self.first_norm(torch.cat([special, patches], dim=1))

    def read(self, patches: Float[Tensor, "batch some dim"]) -> Float[Tensor, "batch tokens dim"]:
        """All tokens after the last norm, for these embedded patches: the class token, DeiT's token, the patches."""
        x = self.dropout(self._sentence(patches))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def tokens(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens dim"]:
        """All tokens after the last norm: the class token, with DeiT its second token, then the patches, row by row."""
        return self.read(self.embed(images))

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What stands for the whole picture: the class token, or the mean of the patches."""
        tokens = self.tokens(images)
        return tokens[:, 0] if self.config.pooling == "class" else tokens[:, self.special :].mean(1)

    def both_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """DeiT: what the head of the class token says, and what that of the distillation token says."""
        if not self.config.distillation:
            raise CourseError("this ViT has no distillation token: make it with ViTConfig(distillation=True).")
        tokens = self.tokens(images)
        return self.head(tokens[:, 0]), self.distillation_head(tokens[:, 1])

    def logits(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes; with DeiT the mean of the two heads."""
        if self.config.distillation:
            by_label, by_teacher = self.both_logits(images)
            return (by_label + by_teacher) / 2
        return self.head(self.encode(images))

    def forward(self, batch: "Pictures | TaughtPictures") -> dict[str, Tensor]:
        """Cross-entropy in nats a picture, and the share named right.

        With DeiT and a teacher's answers the loss is half for the labels and half for the teacher's first choice, each
        at its own head (hard-label distillation, section 4).
        """
        if isinstance(batch, TaughtPictures):
            by_label, by_teacher = map(single, self.both_logits(batch.images))
            loss = (F.cross_entropy(by_label, batch.labels) + F.cross_entropy(by_teacher, batch.teacher)) / 2
            logits = by_label + by_teacher
        else:
            logits = single(self.logits(batch.images))
            loss = F.cross_entropy(logits, batch.labels)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.labels).float().mean()}

    @torch.no_grad()
    def attention_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "layers batch heads tokens tokens"]:
        """Who looks where in each layer, for pictures: rows look at columns, and each row adds up to 1."""
        maps = []
        x = self._sentence(self.embed(images))
        for block in self.blocks:
            maps.append(block.attention.weights(block.attention_norm(x)))
            x = block(x)
        return torch.stack(maps)

    def with_new_head(self, classes: int) -> "ViT":
        """A copy with the same encoder and a fresh head for another task; the copy shares nothing with this network."""
        copy = ViT(dataclasses.replace(self.config, classes=classes)).to(self.class_token)
        heads = ("head.", "distillation_head.")
        state = {name: value for name, value in self.state_dict().items() if not name.startswith(heads)}
        copy.load_state_dict(state, strict=False)
        return copy.train(self.training)


@dataclass(frozen=True)
class TaughtPictures:
    """A batch of pictures with their labels and what a teacher takes each one for."""

    images: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, " batch"]
    teacher: Int[Tensor, " batch"]
