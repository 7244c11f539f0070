"""SimCLR and MoCo: two views of one picture should be each other's nearest.

Chen, Kornblith, Norouzi, Hinton (2020), "A Simple Framework for Contrastive Learning of Visual Representations"; He,
Fan, Wu, Xie, Girshick (2019), "Momentum Contrast for Unsupervised Visual Representation Learning".

Either one trains any encoder with ``encode(images)`` and ``config.dim``. What the encoder says is kept; the projection
behind it, in which the views are compared, is thrown away after pretraining.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.contrastive import info_nce, nt_xent
from pfmcourse.nn.transformer import single


@dataclass(frozen=True)
class TwoViews:
    """A batch of pictures, each seen twice; row i of both is one picture."""

    first: Float[Tensor, "batch channels height width"]
    second: Float[Tensor, "batch channels height width"]


class Projection(nn.Sequential):
    """The small network behind the encoder: linear, batch norm, ReLU, linear."""

    def __init__(self, dim: int, projected: int) -> None:
        super().__init__(
            nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, projected, bias=False)
        )


class SimCLR(nn.Module):
    """An encoder that learns to recognise a picture again, among all pictures of its batch."""

    def __init__(self, encoder: nn.Module, projected: int = 64, temperature: float = 0.2) -> None:
        super().__init__()
        if temperature <= 0:
            raise CourseError(f"the temperature must be above 0, not {temperature}.")
        self.encoder, self.temperature = encoder, temperature
        self.projection = Projection(encoder.config.dim, projected)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What the encoder says about the pictures: the part that is kept."""
        return self.encoder.encode(images)

    def forward(self, batch: TwoViews) -> dict[str, Tensor]:
        """NT-Xent in nats, and the share of views whose partner is the nearest."""
        projected = self.projection(self.encode(torch.cat([batch.first, batch.second])))
        loss, found = nt_xent(*projected.chunk(2), self.temperature)
        return {"loss": loss, "found": found}


class MoCo(nn.Module):
    """As SimCLR, but the others come from a queue of earlier batches, so that the batch may be small.

    The keys in the queue were made by a copy of the encoder that changes slowly (a running mean of its weights): were
    it to change fast, old and new keys could not be compared.

    Left out: the paper exchanges pictures between GPUs before the keys' batch norm, so that the norm cannot betray
    which pictures came together. On one device there is nobody to exchange with.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projected: int = 64,
        temperature: float = 0.2,
        queue: int = 1024,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= momentum < 1 or queue < 1:
            raise CourseError(
                f"temperature={temperature} must be above 0, momentum={momentum} in [0, 1), and queue={queue} at "
                "least 1."
            )
        self.encoder, self.temperature, self.momentum = encoder, temperature, momentum
        self.projection = Projection(encoder.config.dim, projected)
        self.slow = copy.deepcopy(nn.ModuleList([self.encoder, self.projection])).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, projected), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """What the encoder says about the pictures: the part that is kept."""
        return self.encoder.encode(images)

    @torch.no_grad()
    def _follow(self) -> None:
        """The slow copy moves a little towards the encoder. Running means of the norms are its own."""
        fast = [*self.encoder.parameters(), *self.projection.parameters()]
        torch._foreach_lerp_(list(self.slow.parameters()), fast, 1 - self.momentum)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        encoder, projection = self.slow
        return F.normalize(single(projection(encoder.encode(images))), dim=1)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """The oldest keys make room for new ones; of a batch larger than the queue the last ones stay."""
        keys = keys[-len(self.queue) :]
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.oldest.copy_((self.oldest + len(keys)) % len(self.queue))

    def forward(self, batch: TwoViews) -> dict[str, Tensor]:
        """InfoNCE in nats, and the share of views whose partner is nearer than the whole queue."""
        if self.training:
            self._follow()
        keys = self._keys(batch.second)
        queries = self.projection(self.encode(batch.first))
        loss, found = info_nce(queries, keys, self.queue.clone(), self.temperature)
        if self.training:
            self._enqueue(keys)
        return {"loss": loss, "found": found}
