"""A small convolutional network that names what a picture shows.

The plan of LeCun, Bottou, Bengio and Haffner (1998), "Gradient-Based Learning Applied to Document Recognition": layers
that find local patterns, each followed by one that makes the map smaller, then a layer that sees the whole picture.

Changed since: 3 x 3 filters, and twice as many where the map is half as large (Simonyan and Zisserman 2014, "Very Deep
Convolutional Networks for Large-Scale Image Recognition"); maxima instead of averages; ReLU; batch norm (Ioffe and
Szegedy 2015), placed behind the maximum, where the map is a quarter of the size.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class ConvNetConfig:
    """Sizes of a ConvNet."""

    classes: int
    width: int = 24  # filters of the first layer
    stages: int = 3  # each has twice the filters of the one before, on a map of half the side
    dim: int = 128  # of the features
    channels: int = 1
    size: int = 28  # of the pictures, in pixels


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures with their labels."""

    images: Float[Tensor, "batch channels height width"]  # 0 for paper to 1 for ink
    labels: Int[Tensor, " batch"]


class Stage(nn.Module):
    """3 x 3 filters, the maximum of every 2 x 2, batch norm, ReLU."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch filters half other"]:
        """Maps of half the side."""
        return F.relu(self.norm(F.max_pool2d(self.filters(maps), 2)))


class ConvNet(nn.Module):
    """Pictures to classes, by way of a vector of features that other tasks can use."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels, *(config.width * 2**stage for stage in range(config.stages))]
        self.stages = nn.Sequential(*(Stage(*pair) for pair in itertools.pairwise(widths)))
        self.whole = nn.Linear(widths[-1] * (config.size // 2**config.stages) ** 2, config.dim, bias=False)
        self.norm = nn.BatchNorm1d(config.dim)
        self.head = nn.Linear(config.dim, config.classes)
        nn.init.zeros_(self.head.weight)  # all classes alike at first: the loss starts at ln(classes)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)  # the layout that convolutions are fastest in

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """The features: what the network says about a picture before it settles on a class."""
        return F.relu(self.norm(self.whole(self.stages(images).flatten(1))))

    def logits(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self.head(self.encode(images))

    def forward(self, batch: Pictures) -> dict[str, Tensor]:
        """Cross-entropy in nats a picture, and the share of pictures named right."""
        logits = self.logits(batch.images).float()
        right = (logits.argmax(1) == batch.labels).float().mean()
        return {"loss": F.cross_entropy(logits, batch.labels), "accuracy": right}

    def with_new_head(self, classes: int) -> "ConvNet":
        """A copy with the same encoder and a fresh head for another task; the copy shares nothing with this network."""
        config = ConvNetConfig(**{**vars(self.config), "classes": classes})
        copy = ConvNet(config).to(self.head.weight.device)
        encoder = {name: value for name, value in self.state_dict().items() if not name.startswith("head.")}
        copy.load_state_dict(encoder, strict=False)
        return copy.train(self.training)
