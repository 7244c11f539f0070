"""CLIP: an encoder of pictures and an encoder of texts learn to say the same of what belongs together.

Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever (2021), "Learning
Transferable Visual Models From Natural Language Supervision", section 2. With a text encoder that stays as it is: Zhai,
Wang, Mustafa, Steiner, Keysers, Kolesnikov, Beyer (2022), "LiT: Zero-Shot Transfer with Locked-image text Tuning",
where it is the encoder of pictures that does.

A tower is any network with ``config.dim`` and ``encode``: of pictures alone (`ConvNet`, `ViT`), or of tokens and their
mask (`TextTransformer`, `FrozenText`). CLIP's own weights fit into a ViT and a TextTransformer: see `convert.clip`.

Changed: the initialisation of the text Transformer, as in `pfmcourse.models.vit`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.attention import causal_mask
from pfmcourse.nn.contrastive import clip_loss
from pfmcourse.nn.transformer import Activation, Block, single, sinusoids

# Towers of texts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextTransformerConfig:
    """Sizes of a TextTransformer."""

    vocab: int
    context: int = 32  # the longest text, in tokens, the end token included
    dim: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 0  # of the feed-forward networks; 0: 4 x dim
    end: int | None = None  # the token that ends a text; None: the one with the highest number, as in CLIP's own code
    dropout: float = 0.0
    activation: Activation = "gelu"  # CLIP has "gelu_quick"
    epsilon: float = 1e-5  # of the norms


class TextTransformer(nn.Module):
    """Texts to vectors: a Transformer that reads from left to right; what it knows at the end token is the text's."""

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        if config.end is not None and not 0 <= config.end < config.vocab:
            raise CourseError(f"end={config.end} is not in the vocabulary, whose tokens are 0 to {config.vocab - 1}.")
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.dim)
        self.positions = nn.Embedding(config.context, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.dim,
                config.heads,
                config.hidden or None,
                activation=config.activation,
                dropout=config.dropout,
                epsilon=config.epsilon,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.epsilon)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
                if name.endswith(("output.weight", "down.weight")):  # they add to the stream, 2 x layers times
                    parameter.mul_((2 * self.config.layers) ** -0.5)
        nn.init.normal_(self.tokens.weight, std=0.02)
        # The positions are learned, but start from sines and cosines, as large as the tokens: see pfmcourse.models.gpt.
        self.positions.weight.copy_(0.02 * math.sqrt(2) * sinusoids(self.config.context, self.config.dim))

    def _ends(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None
    ) -> Int[Tensor, " batch"]:
        """Where each text ends. Padding may have the end token's number: the first one counts."""
        if self.config.end is None:
            return (tokens if mask is None else tokens.masked_fill(~mask, -1)).argmax(1)
        found = tokens == self.config.end
        if not (ended := found.any(1)).all():
            raise CourseError(
                f"text {int((~ended).nonzero()[0])} of the batch lacks the end token, number {self.config.end}, at "
                "which its vector is read. Append it to every text, after cutting it to the context if it is longer."
            )
        return found.to(torch.uint8).argmax(1)

    def encode(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """A vector for each text. ``mask`` is true where a token stands, false for padding.

        Raises CourseError for more than ``context`` tokens, and for a text without the end token.
        """
        time = tokens.shape[1]
        if time > self.config.context:
            raise CourseError(
                f"{time} tokens are more than this text encoder can read: it has context={self.config.context}. Cut "
                f"the text to {self.config.context - 1} tokens and the end token, or build one with a larger context."
            )
        ends = self._ends(tokens, mask)
        looks = causal_mask(time, time, tokens.device)
        if mask is not None:
            looks = looks & mask[:, None, None, :]
        x = self.dropout(self.tokens(tokens) + self.positions.weight[:time])
        for block in self.blocks:
            x = block(x, looks)
        return self.norm(x[torch.arange(len(x), device=x.device), ends])


@dataclass(frozen=True)
class FrozenTextConfig:
    """Sizes of a FrozenText."""

    texts: int
    dim: int


class FrozenText(nn.Module):
    """Texts whose vectors another model has made beforehand: a table of them, which training leaves alone.

    A "token" is a row of the table, so that a batch of texts has the shape [batch, 1]. What is new here is that the
    mean is taken off and all is multiplied by sqrt(dim): sentence vectors of length 1 lie in a narrow cone, and their
    numbers are as small as 1 / sqrt(dim). ``mean`` comes from the table, unless given; it is saved with the weights,
    the table is not.
    """

    def __init__(self, vectors: Float[Tensor, "texts dim"], mean: Float[Tensor, " dim"] | None = None) -> None:
        super().__init__()
        if not vectors.isfinite().all() or not len(vectors):
            raise CourseError(f"the table of {len(vectors)} text vectors must have a row, and only finite numbers.")
        self.config = FrozenTextConfig(*vectors.shape)
        self.register_buffer("vectors", vectors.detach().clone(), persistent=False)
        self.register_buffer("mean", (vectors.mean(0) if mean is None else mean).detach().clone())

    def encode(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """The texts in these rows of the table. Raises CourseError for more than one number a text."""
        if tokens.shape[1] != 1:
            raise CourseError(
                f"{tokens.shape[1]} tokens a text: a table of text vectors wants one, the row it stands in. For texts "
                "outside of the table, make their vectors with the model that made it and call encode_vectors."
            )
        return self.encode_vectors(self.vectors[tokens[:, 0]])

    def encode_vectors(self, vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Vectors of texts that need not be in the table, by the same model, on the same footing."""
        return (vectors.to(self.mean) - self.mean) * math.sqrt(self.config.dim)


# Both ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImagesWithTexts:
    """A batch of pictures, each with its text; row i of all is one pair."""

    images: Float[Tensor, "batch channels height width"]
    tokens: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"] | None = None  # true where a token stands, false for padding
    same: Int[Tensor, " batch"] | None = None  # numbers of the captions: pairs with one number are no negatives


@dataclass(frozen=True)
class CLIPConfig:
    """What a CLIP is made of."""

    image: Any  # the configuration of the image tower
    text: Any  # of the text tower
    joint: int = 128  # numbers of a vector in the space that both share
    temperature: float = 0.07  # that training starts from
    largest_scale: float = 100.0  # of the logits: 1 / the smallest temperature


class CLIP(nn.Module):
    """Pictures and texts to vectors of length 1 in one space, where a picture lies next to what is said of it."""

    def __init__(
        self,
        image_tower: nn.Module,
        text_tower: nn.Module,
        joint: int = 128,
        temperature: float = 0.07,
        largest_scale: float | int = 100.0,
    ) -> None:
        super().__init__()
        if not 0 < 1 / largest_scale <= temperature:
            raise CourseError(
                f"temperature={temperature} must be above 0 and at least 1 / largest_scale, and "
                f"largest_scale={largest_scale} above 0."
            )
        self.config = CLIPConfig(image_tower.config, text_tower.config, joint, temperature, float(largest_scale))
        self.image_tower, self.text_tower = image_tower, text_tower
        self.image_projection = nn.Linear(image_tower.config.dim, joint, bias=False)
        self.text_projection = nn.Linear(text_tower.config.dim, joint, bias=False)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by: 1 / temperature, learned, at most ``largest_scale`` (section 2.5)."""
        limit = math.log(self.config.largest_scale)
        # The gradient passes as if nothing were cut, so that the scale can come down again.
        return (self.log_scale - (self.log_scale - limit).clamp(min=0).detach()).exp()

    def encode_image(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch joint"]:
        """A vector of length 1 for each picture."""
        return _project(self.image_projection, self.image_tower.encode(images))

    def encode_text(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch joint"]:
        """A vector of length 1 for each text; ``mask`` is true where a token stands."""
        return _project(self.text_projection, self.text_tower.encode(tokens, mask))

    def encode_vectors(self, vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch joint"]:
        """A vector of length 1 for each text, of which a frozen model has made the vector given.

        Raises CourseError where the text tower reads tokens.
        """
        if not isinstance(self.text_tower, FrozenText):
            raise CourseError(f"a {type(self.text_tower).__name__} reads tokens, not vectors: call encode_text.")
        return _project(self.text_projection, self.text_tower.encode_vectors(vectors))

    def forward(self, batch: ImagesWithTexts) -> dict[str, Tensor]:
        """The symmetric loss in nats, the share of pictures whose text is the nearest of the batch, the temperature."""
        if self.training:
            with torch.no_grad():  # or it would have a long way back
                self.log_scale.clamp_(max=math.log(self.config.largest_scale))
        images, texts = self.encode_image(batch.images), self.encode_text(batch.tokens, batch.mask)
        scale = self.scale()
        loss, found = clip_loss(images, texts, single(scale), batch.same)
        return {"loss": loss, "found": found, "temperature": 1 / scale.detach()}


def _project(projection: nn.Linear, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch joint"]:
    """Into the joint space, at length 1: outside of autocast, for a small temperature magnifies rounding errors."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(single(projection(features.to(projection.weight.dtype))), dim=1)


# What can be done with it --------------------------------------------------------------------------------------------


def prompt_ensemble(vectors: Float[Tensor, "templates classes joint"]) -> Float[Tensor, "classes joint"]:
    """One vector of length 1 for each class: the mean of those of its prompts, each of length 1 (section 3.1.4)."""
    return F.normalize(F.normalize(single(vectors), dim=-1).mean(0), dim=-1)


def zero_shot(
    images: Float[Tensor, "batch joint"],
    prompts: Float[Tensor, "classes joint"],
    scale: float | int | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, "batch classes"]:
    """Logits of classes that were never trained: cosine of each picture and each class's prompt, times ``scale``.

    With CLIP's own scale a softmax of them is what the network believes (section 3.1.2).
    """
    with torch.autocast(images.device.type, enabled=False):
        return F.normalize(single(images), dim=1) @ F.normalize(single(prompts), dim=1).T * scale
