"""A student that reads many languages learns where a teacher, who reads one, puts the same text.

Reimers, Gurevych (2020), "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation". The
teacher's vectors are made beforehand; the student never sees what they are used for, such as pictures.

Changed: the student reads a bag of pieces of words, for names need no grammar; and both vectors have length 1, so that
the squared distance is 2 - 2 cosine.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.transformer import single


@dataclass(frozen=True)
class StudentConfig:
    """Sizes of a Student."""

    vocab: int
    dim: int = 256
    teacher: int = 384  # numbers in a vector of the teacher
    context: int = 24  # the longest text, in tokens
    dropout: float = 0.1


@dataclass(frozen=True)
class TaughtTexts:
    """Texts in any language, and what the teacher says of each in its own."""

    tokens: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]  # true where a token stands, false for padding
    vectors: Float[Tensor, "batch teacher"]


class Student(nn.Module):
    """Texts to vectors of length 1 in the directions of the teacher's."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.dim)
        nn.init.normal_(self.tokens.weight, std=0.05)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(config.dim, config.teacher, bias=False)

    def encode(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch teacher"]:
        """A vector of length 1 for each text. Raises CourseError for more than ``context`` tokens."""
        if tokens.shape[1] > self.config.context:
            raise CourseError(
                f"{tokens.shape[1]} tokens are more than this student reads: it has context={self.config.context}. Cut "
                "the text."
            )
        there = mask[..., None].to(self.tokens.weight)
        total = (self.dropout(self.tokens(tokens)) * there).sum(1)
        return F.normalize(single(self.project(total / there.sum(1).clamp(min=1))), dim=1)

    def forward(self, batch: TaughtTexts) -> dict[str, Tensor]:
        """The mean squared distance to the teacher's vectors, and how often the right one of the batch is nearest."""
        with torch.autocast(batch.tokens.device.type, enabled=False):
            similar = self.encode(batch.tokens, batch.mask) @ F.normalize(single(batch.vectors), dim=1).T
        right = torch.arange(len(similar), device=similar.device)
        return {"loss": (2 - 2 * similar.diagonal()).mean(), "found": (similar.argmax(1) == right).float().mean()}
