"""BERT: a Transformer that reads in both directions, and guesses the words that were hidden from it.

Devlin, Chang, Lee, Toutanova (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding"; and, with ``next_sentence=False`` and one segment, Liu et al. (2019), "RoBERTa: A Robustly Optimized
BERT Pretraining Approach". Weights of both fit into this network.

Left out: dropout on the attention weights. Changed: the initialisation, see ``_initialise``.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.gpt import LabelledText
from pfmcourse.nn.masking import IGNORED
from pfmcourse.nn.transformer import Activation, Block, even_sinusoids, look_at_neighbours, single


@dataclass(frozen=True)
class BERTConfig:
    """Sizes of a BERT."""

    vocab: int
    context: int = 64  # the longest text, in tokens
    dim: int = 192
    layers: int = 4
    heads: int = 4
    segments: int = 2
    next_sentence: bool = True
    neighbours: bool = True  # whether the first block starts out looking at neighbours
    dropout: float = 0.0
    activation: Activation = "gelu"
    epsilon: float = 1e-12  # of the norms


@dataclass(frozen=True)
class MaskedText:
    """A batch of texts with holes."""

    tokens: Int[Tensor, "batch time"]
    segments: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]  # true where a token stands, false for padding
    places: Int[Tensor, "batch masked"]  # where to guess
    targets: Int[Tensor, "batch masked"]  # what stood there, or IGNORED
    follows: Int[Tensor, " batch"]  # 0 where the second segment follows the first, 1 where it is from elsewhere


class BERT(nn.Module):
    """p(token | the tokens on both sides), and a vector for every token in its context."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.dim)  # also the output layer
        self.positions = nn.Embedding(config.context, config.dim)
        self.segments = nn.Embedding(config.segments, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.dim,
                config.heads,
                activation=config.activation,
                norm_first=False,
                dropout=config.dropout,
                epsilon=config.epsilon,
            )
            for _ in range(config.layers)
        )
        self.transform = nn.Linear(config.dim, config.dim)  # in front of the output layer (the reference code has it)
        self.transform_norm = nn.LayerNorm(config.dim, eps=config.epsilon)
        self.token_bias = nn.Parameter(torch.zeros(config.vocab))
        if config.next_sentence:
            self.pooler = nn.Linear(config.dim, config.dim)
            self.follows_head = nn.Linear(config.dim, 2)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # A layer gives out what is as large as what it gets. BERT draws all with 0.02, which at its width of
                # 768 is half of this, but in a narrow network so little that no signal passes at first.
                table = name.startswith(("tokens", "positions", "segments"))
                nn.init.normal_(parameter, std=0.02 if table else self.config.dim**-0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        # To guess a hidden word one must look at its neighbours. From random tables and heads this network still
        # guesses by frequency after hundreds of steps, for it has to find out who they are. So the positions, which
        # are learned, start from sines and cosines, and the heads of the first block start by looking one or two
        # places back or ahead.
        scale = 0.02 * math.sqrt(2)  # as large as the random vectors of the tokens
        self.positions.weight.data.copy_(scale * even_sinusoids(self.config.context, self.config.dim))
        offsets = [(-1) ** (head + 1) * (1 + head // 2) for head in range(self.config.heads)]  # -1, 1, -2, 2, ...
        if self.config.neighbours:
            look_at_neighbours(self.blocks[0].attention, offsets)

    def encode(
        self,
        tokens: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """A vector for each token in its context. ``mask`` is true where a token stands, false for padding.

        Without ``segments`` all belongs to the first. Raises CourseError for more than ``context`` tokens.
        """
        return self.layers(tokens, segments, mask)[-1]

    def layers(
        self,
        tokens: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> list[Float[Tensor, "batch time dim"]]:
        """The vectors before the first block and after each: what ``encode`` gives, at every depth."""
        time = tokens.shape[1]
        if time > self.config.context:
            raise CourseError(
                f"{time} tokens are more than this BERT can read: it has context={self.config.context}. Cut the text."
            )
        segment = self.segments.weight[0] if segments is None else self.segments(segments)
        x = self.tokens(tokens) + self.positions.weight[:time] + segment
        states = [self.dropout(self.embedding_norm(x))]
        looks = None if mask is None else mask[:, None, None, :]
        for block in self.blocks:
            states.append(block(states[-1], looks))
        return states

    def logits(
        self,
        tokens: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        places: Int[Tensor, "batch masked"] | None = None,
    ) -> Float[Tensor, "batch asked vocab"]:
        """Unnormalised log-probabilities of the token at each place, or only at ``places``."""
        states = self.encode(tokens, segments, mask)
        return self._guess(states if places is None else _at(states, places))

    def follows_logits(self, states: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch two"]:
        """Whether the second segment follows the first (column 0) or is from elsewhere (column 1)."""
        return self.follows_head(torch.tanh(self.pooler(states[:, 0])))

    def forward(self, batch: MaskedText) -> dict[str, Tensor]:
        """Mean cross-entropy in nats of the hidden tokens, plus that of whether the segments belong together."""
        states = self.encode(batch.tokens, batch.segments, batch.mask)
        logits = single(self._guess(_at(states, batch.places)).flatten(0, 1))  # no logits for what nobody asks
        masked = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORED)
        if not self.config.next_sentence:
            return {"loss": masked}
        follows = F.cross_entropy(single(self.follows_logits(states)), batch.follows)
        return {"loss": masked + follows, "masked_loss": masked, "follows_loss": follows}

    def _guess(self, states: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        hidden = self.transform_norm(F.gelu(self.transform(states)))
        return F.linear(hidden, self.tokens.weight, self.token_bias)

    @torch.no_grad()
    def pseudo_log_likelihood(
        self,
        tokens: Int[Tensor, "batch time"],
        scored: Bool[Tensor, "batch time"],
        mask_token: int,
        segments: Int[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """How likely the network finds each text: the sum of log p(token | all other tokens), in nats.

        Each place where ``scored`` is true is hidden in turn, in a copy of the text of its own; leave out padding and
        special tokens. All copies are one batch. The sum is no log-probability of the text, since every token sees the
        others, but of two texts with the same tokens the likelier one tends to have the higher sum (Salazar, Liang,
        Nguyen, Kirchhoff 2020, "Masked Language Model Scoring").
        """
        row, place = scored.nonzero(as_tuple=True)
        each = torch.arange(len(row), device=tokens.device)
        copies, truth = tokens[row], tokens[row, place]
        copies[each, place] = mask_token
        logits = self.logits(
            copies,
            None if segments is None else segments[row],
            None if mask is None else mask[row],
            place[:, None],
        )
        found = single(logits[:, 0]).log_softmax(-1)[each, truth]
        return found.new_zeros(len(tokens)).index_add(0, row, found)


@dataclass(frozen=True)
class Choices:
    """A batch of questions with several texts to choose from, padded at the end."""

    tokens: Int[Tensor, "batch choices time"]
    mask: Bool[Tensor, "batch choices time"]  # true where a token stands
    labels: Int[Tensor, " batch"]  # which is right


class BERTClassifier(nn.Module):
    """A copy of a BERT with one new layer, which is fine-tuned to name a text's class (section 4.1).

    The layer reads the vector of the first token ("first", as BERT does), or the mean of all ("mean"), which suits a
    network whose first token no pretraining task has used.
    """

    def __init__(self, bert: BERT, classes: int, pooling: Literal["first", "mean"] = "mean") -> None:
        super().__init__()
        self.bert = copy.deepcopy(bert)
        self.pooling = pooling
        self.classes_head = nn.Linear(bert.config.dim, classes)
        nn.init.zeros_(self.classes_head.weight)  # all classes alike at first
        nn.init.zeros_(self.classes_head.bias)
        self.to(bert.tokens.weight)

    def logits(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        states = self.bert.encode(tokens, mask=mask)
        if self.pooling == "first":
            return self.classes_head(states[:, 0])
        return self.classes_head((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    def forward(self, batch: LabelledText) -> dict[str, Tensor]:
        """Mean cross-entropy in nats a text."""
        return {"loss": F.cross_entropy(single(self.logits(batch.tokens, batch.mask)), batch.labels)}


class BERTChooser(nn.Module):
    """A copy of a BERT that is fine-tuned to choose among texts: each gets a score by itself (section 4.4)."""

    def __init__(self, bert: BERT, pooling: Literal["first", "mean"] = "mean") -> None:
        super().__init__()
        self.scorer = BERTClassifier(bert, 1, pooling)

    def logits(
        self, tokens: Int[Tensor, "batch choices time"], mask: Bool[Tensor, "batch choices time"]
    ) -> Float[Tensor, "batch choices"]:
        """How good each text is, as unnormalised log-probabilities among the choices."""
        scores = self.scorer.logits(tokens.flatten(0, 1), mask.flatten(0, 1))
        return scores.unflatten(0, tokens.shape[:2])[..., 0]

    def forward(self, batch: Choices) -> dict[str, Tensor]:
        """Mean cross-entropy in nats a question."""
        return {"loss": F.cross_entropy(single(self.logits(batch.tokens, batch.mask)), batch.labels)}


def _at(
    states: Float[Tensor, "batch time dim"], places: Int[Tensor, "batch masked"]
) -> Float[Tensor, "batch masked dim"]:
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
