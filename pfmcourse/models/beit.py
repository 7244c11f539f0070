"""BEiT: a Transformer that sees a picture with holes and guesses which visual token stood in each.

Bao, Dong, Piao, Wei (2021), "BEiT: BERT Pre-Training of Image Transformers". Each patch has two views: its pixels,
which the network reads, and a visual token, the number of a typical patch, which it guesses where the pixels are
hidden. The tokens come from outside; `pfmcourse.nn.patch_codes` makes some.

Not in the paper's text but in its code, and here: a learned bias on the attention for every way from one patch to
another, and a learned scale on what each layer adds (Touvron et al. 2021, "Going deeper with Image Transformers").
Left out: dropping whole layers at random. Changed: the initialisation, see ``_initialise``.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import Pictures
from pfmcourse.nn.patch_codes import PatchCodes
from pfmcourse.nn.patches import patchify, sincos_positions
from pfmcourse.nn.transformer import Activation, FeedForward, single


@dataclass(frozen=True)
class BEiTConfig:
    """Sizes of a BEiT."""

    vocab: int  # visual tokens
    size: int = 32  # of the pictures, in pixels
    patch: int = 4  # of a patch
    channels: int = 3
    dim: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 0  # of the feed-forward networks; 0: 4 x dim
    layer_scale: float = 0.0  # what the scale of each layer's additions begins with; 0: no scale
    relative: Literal["none", "shared", "each"] = "shared"  # bias on the attention, one for all layers or one for each
    absolute: bool = True  # whether each place has a vector too
    activation: Activation = "gelu"
    epsilon: float = 1e-6  # of the norms

    @property
    def side(self) -> int:
        """Patches in a row of a picture."""
        return self.size // self.patch

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return self.side**2


@dataclass(frozen=True)
class MaskedPictures:
    """A batch of pictures with holes."""

    images: Float[Tensor, "batch channels height width"]  # whole: the network does not look where it must not
    mask: Bool[Tensor, "batch patches"]  # true where a patch is hidden
    tokens: Int[Tensor, "batch patches"]  # the visual token of each patch


class RelativePositions(nn.Module):
    """A learned number for each head and each way from one patch to another, and for ways from and to the class token.

    Two patches that stand to each other as two others do share a number.
    """

    ways: Int[Tensor, "tokens tokens"]

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        reach = 2 * side - 1  # from -(side - 1) to side - 1
        self.table = nn.Parameter(torch.zeros(reach**2 + 3, heads))
        row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
        ways = torch.empty(1 + side**2, 1 + side**2, dtype=torch.long)
        down, across = (place[:, None] - place + side - 1 for place in (row, column))
        ways[1:, 1:] = down * reach + across
        ways[0, :], ways[:, 0], ways[0, 0] = reach**2, reach**2 + 1, reach**2 + 2
        self.register_buffer("ways", ways, persistent=False)

    def forward(self) -> Float[Tensor, "heads tokens tokens"]:
        """What is added to the attention's scores; rows are who looks, columns are what is looked at."""
        return rearrange(self.table[self.ways], "query key heads -> heads query key")


class BEiTAttention(nn.Module):
    """Multi-head attention with a bias on its scores.

    Keys have no bias of their own: it would add the same number to all scores of a query, which changes nothing.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise CourseError(f"dim={dim} cannot be shared out among heads={heads}: choose a multiple.")
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)  # queries, keys and values, in this order
        self.query_bias = nn.Parameter(torch.zeros(dim))
        self.value_bias = nn.Parameter(torch.zeros(dim))
        self.output = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], bias: Float[Tensor, "heads time time"] | None
    ) -> Float[Tensor, "batch time dim"]:
        """What each token gathers from the others."""
        biases = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        queries, keys, values = (
            rearrange(part, "batch time (heads dim) -> batch heads time dim", heads=self.heads)
            for part in F.linear(x, self.project.weight, biases).chunk(3, dim=-1)
        )
        if queries.is_cuda:  # one kernel that does not write the weights to memory
            offset = None if bias is None else bias.to(queries.dtype)
            mixed = F.scaled_dot_product_attention(queries, keys, values, offset)
        else:
            scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-2, -1)
            weights = (scores if bias is None else scores + bias).softmax(-1)
            mixed = weights.to(values.dtype) @ values
        return self.output(rearrange(mixed, "batch heads time dim -> batch time (heads dim)"))


class BEiTBlock(nn.Module):
    """A Transformer's block with norms in front, whose additions may be scaled, number by number."""

    def __init__(self, config: BEiTConfig) -> None:
        super().__init__()
        dim, scale = config.dim, config.layer_scale
        self.attention_norm = nn.LayerNorm(dim, eps=config.epsilon)
        self.attention = BEiTAttention(dim, config.heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=config.epsilon)
        self.feed_forward = FeedForward(dim, config.hidden or 4 * dim, config.activation)
        self.relative = RelativePositions(config.side, config.heads) if config.relative == "each" else None
        self.attention_scale = nn.Parameter(torch.full((dim,), scale)) if scale else None
        self.feed_forward_scale = nn.Parameter(torch.full((dim,), scale)) if scale else None

    def forward(
        self, x: Float[Tensor, "batch time dim"], bias: Float[Tensor, "heads time time"] | None
    ) -> Float[Tensor, "batch time dim"]:
        """The stream after this block. ``bias`` is that of all layers; a block that has its own uses that."""
        added = self.attention(self.attention_norm(x), bias if self.relative is None else self.relative())
        x = x + (added if self.attention_scale is None else self.attention_scale * added)
        added = self.feed_forward(self.feed_forward_norm(x))
        return x + (added if self.feed_forward_scale is None else self.feed_forward_scale * added)


class BEiT(nn.Module):
    """p(visual token of a hidden patch | the patches that are seen), and a vector for each patch of a whole picture."""

    def __init__(self, config: BEiTConfig) -> None:
        super().__init__()
        if config.size % config.patch:
            raise CourseError(f"size={config.size} is no multiple of patch={config.patch}.")
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Linear(config.channels * config.patch**2, dim)
        self.class_token = nn.Parameter(torch.zeros(dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.positions = nn.Parameter(torch.zeros(1 + config.patches, dim)) if config.absolute else None
        self.relative = RelativePositions(config.side, config.heads) if config.relative == "shared" else None
        self.blocks = nn.ModuleList(BEiTBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim, eps=config.epsilon)
        self.head = nn.Linear(dim, config.vocab)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("head"):
                nn.init.zeros_(parameter)  # all tokens alike at first: the loss starts at ln(vocab)
            elif name in ("class_token", "mask_token"):
                nn.init.normal_(parameter, std=0.02)
            elif parameter.ndim == 2 and not name.endswith("table") and name != "positions":
                # A layer gives out what is as large as what it gets; the paper's 0.02 suits a width of 768.
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
                if name.endswith(("output.weight", "down.weight")):  # they add to the stream, 2 x layers times
                    parameter.mul_((2 * self.config.layers) ** -0.5)
            elif name.endswith(".bias") and "norm" not in name:
                nn.init.zeros_(parameter)
        if self.positions is not None:  # that the plane is a plane need not be learned
            self.positions[1:] = sincos_positions(self.config.side, self.config.side, self.config.dim)

    def tokens(
        self, images: Float[Tensor, "batch channels height width"], mask: Bool[Tensor, "batch patches"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The class token and all patches after the last norm. Where ``mask`` is true the mask token is read instead.

        The mask token takes the patch's place before positions are added, so that no pixel gets past it. Raises
        CourseError for pictures of another size.
        """
        config = self.config
        if images.shape[1:] != (config.channels, config.size, config.size):
            raise CourseError(
                f"this BEiT reads pictures of {config.channels} x {config.size} x {config.size}, not of "
                f"{' x '.join(map(str, images.shape[1:]))}: resize them."
            )
        x = self.patch_embedding(patchify(images, config.patch))
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_token.to(x), x)
        x = torch.cat([self.class_token.to(x).expand(len(x), 1, -1), x], dim=1)
        if self.positions is not None:
            x = x + self.positions.to(x)
        bias = None if self.relative is None else self.relative()
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What stands for the whole picture, of which everything is seen: the mean of the patches' vectors.

        No task has taught the class token anything, so the paper too takes the mean when it fine-tunes (section 2.6).
        """
        return self.tokens(images)[:, 1:].mean(1)

    def logits(
        self, images: Float[Tensor, "batch channels height width"], mask: Bool[Tensor, "batch patches"]
    ) -> Float[Tensor, "batch patches vocab"]:
        """Unnormalised log-probabilities of the visual token of each patch, hidden or not."""
        return self.head(self.tokens(images, mask)[:, 1:])

    def forward(self, batch: MaskedPictures) -> dict[str, Tensor]:
        """Cross-entropy in nats a hidden patch, and the share of hidden patches whose token is guessed right."""
        if not batch.mask.any():
            raise CourseError("no patch of this batch is hidden, so that there is nothing to guess.")
        hidden = self.tokens(batch.images, batch.mask)[:, 1:][batch.mask]  # no logits for what nobody asks
        logits, truth = single(self.head(hidden)), batch.tokens[batch.mask]
        return {
            "loss": F.cross_entropy(logits, truth),
            "accuracy": (logits.argmax(1) == truth).float().mean(),
        }

    def with_new_head(self, classes: int) -> "BEiTClassifier":
        """A copy of the encoder with a head for another task; it shares nothing with this network."""
        return BEiTClassifier(self, classes)


@dataclass(frozen=True)
class HoledPictures:
    """A batch of pictures with holes, before anybody has made tokens of them."""

    images: Float[Tensor, "batch channels height width"]
    mask: Bool[Tensor, "batch patches"]  # true where a patch is hidden


class BEiTWithCodes(nn.Module):
    """A BEiT and the tokenizer whose words it guesses. The two belong together: other codes, other words."""

    def __init__(self, encoder: BEiT, codes: PatchCodes) -> None:
        super().__init__()
        self.encoder, self.codes = encoder, codes

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What the encoder says about pictures without holes: the part that is kept."""
        return self.encoder.encode(images)

    def forward(self, batch: HoledPictures) -> dict[str, Tensor]:
        """BEiT's loss and accuracy, on the tokens that the codes make of the pictures."""
        return self.encoder(MaskedPictures(batch.images, batch.mask, self.codes.encode(batch.images)))


class BEiTClassifier(nn.Module):
    """A copy of a BEiT with one new layer on the mean of the patches, fine-tuned to name what a picture shows."""

    def __init__(self, beit: BEiT, classes: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(beit)
        self.encoder.head = nn.Identity()  # nobody asks for visual tokens any more
        self.encoder.mask_token.requires_grad_(False)
        self.head = nn.Linear(beit.config.dim, classes).to(beit.class_token)
        nn.init.zeros_(self.head.weight)  # all classes alike at first: the loss starts at ln(classes)
        nn.init.zeros_(self.head.bias)
        self.train(beit.training)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What stands for the whole picture: the mean of the patches' vectors."""
        return self.encoder.encode(images)

    def logits(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self.head(self.encode(images))

    def forward(self, batch: Pictures) -> dict[str, Tensor]:
        """Cross-entropy in nats a picture, and the share of pictures named right."""
        logits = single(self.logits(batch.images))
        return {
            "loss": F.cross_entropy(logits, batch.labels),
            "accuracy": (logits.argmax(1) == batch.labels).float().mean(),
        }
