"""GPT: a Transformer that reads from left to right and predicts the next token at every place.

Radford, Narasimhan, Salimans, Sutskever (2018), "Improving Language Understanding by Generative Pre-Training"; with the
changes of Radford, Wu, Child, Luan, Amodei, Sutskever (2019), "Language Models are Unsupervised Multitask Learners"
(GPT-2): norms in front of each part and one more at the end. GPT-2's weights fit into this network.

Left out: dropout on the attention weights. Changed: only the initialisation of the positions, see ``__init__``.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.attention import KeyValueCache, causal_mask
from pfmcourse.nn.sampling import choose
from pfmcourse.nn.transformer import Activation, Block, single, sinusoids


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT."""

    vocab: int
    context: int = 128  # the longest text it can look back on, in tokens
    dim: int = 192
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    activation: Activation = "gelu"  # GPT-2 has "gelu_tanh", which a CPU takes four times as long for
    epsilon: float = 1e-5  # of the norms


class GPT(nn.Module):
    """p(token | all tokens before it)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.dim)  # also the output layer: what is near is likely
        self.positions = nn.Embedding(config.context, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.dim,
                config.heads,
                activation=config.activation,
                dropout=config.dropout,
                epsilon=config.epsilon,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.epsilon)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("output.weight", "down.weight"))  # they add to the stream, 2 x layers times
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers) if deep else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        # The positions are learned, but start from sines and cosines: so the network knows from the first step who is
        # whose neighbour, which it would otherwise need thousands of steps to find out.
        self.positions.weight.data.copy_(0.02 * math.sqrt(2) * sinusoids(config.context, config.dim))

    def encode(
        self, tokens: Int[Tensor, "batch time"], caches: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """What the network knows at each place of what it has read so far.

        With ``caches``, one for each block, ``tokens`` go on where the last call stopped. Raises CourseError for more
        than ``context`` tokens.
        """
        past = caches[0].length if caches else 0
        time = tokens.shape[1]
        if past + time > self.config.context:
            raise CourseError(
                f"{past + time} tokens are more than this GPT can look back on: it has context={self.config.context}. "
                "Cut the text, or build a GPT with a larger context."
            )
        x = self.dropout(self.tokens(tokens) + self.positions.weight[past : past + time])
        mask = causal_mask(time, past + time, tokens.device) if time > 1 else None  # the last may look everywhere
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache=caches[layer] if caches else None)
        return self.norm(x)

    def logits(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        """Unnormalised log-probabilities of the token that follows each place."""
        return self.encode(tokens) @ self.tokens.weight.T

    def forward(self, batch: Int[Tensor, "batch window"]) -> dict[str, Tensor]:
        """Cross-entropy in nats a token: each token but the first, given those before it."""
        logits = self.logits(batch[:, :-1])
        return {"loss": F.cross_entropy(single(logits.flatten(0, 1)), batch[:, 1:].flatten())}

    @torch.no_grad()
    def generate(
        self,
        tokens: Int[Tensor, "batch time"],
        count: int,
        *,
        temperature: float | int = 1.0,
        top_k: int = 0,
        top_p: float | int = 1.0,
        generator: torch.Generator | None = None,
        cache: bool = True,
    ) -> Int[Tensor, "batch longer"]:
        """``tokens`` and ``count`` more, each drawn given all before it (see nn.sampling; temperature=0: the best).

        ``cache`` keeps keys and values instead of computing them again for every token; the result is the same. A text
        that outgrows ``context`` goes on from its last half. Raises CourseError for an empty beginning.
        """
        if not tokens.shape[1]:
            raise CourseError("generate needs at least one token to begin with.")
        context = self.config.context
        begin = max(0, tokens.shape[1] - context)  # where what it looks back on begins
        caches = self._caches() if cache else None
        for _ in range(count):
            if tokens.shape[1] - begin > context:
                begin, caches = tokens.shape[1] - max(1, context // 2), self._caches() if cache else None
            read = begin + (caches[0].length if caches else 0)
            scores = self.encode(tokens[:, read:], caches)[:, -1] @ self.tokens.weight.T
            chosen = choose(scores, generator, temperature=temperature, top_k=top_k, top_p=top_p)
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        return tokens

    def _caches(self) -> list[KeyValueCache]:
        return [KeyValueCache(self.config.context) for _ in self.blocks]


@dataclass(frozen=True)
class LabelledText:
    """A batch of texts with their classes, padded at the end."""

    tokens: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]  # true where a token stands
    labels: Int[Tensor, " batch"]


class GPTClassifier(nn.Module):
    """A GPT that is fine-tuned to name a text's class from what it knows at the last token (GPT-1, section 3.2).

    The objective is the cross-entropy of the class, plus ``language_weight`` times the language model's own, which
    GPT-1 keeps up with weight 0.5. The class is read at a text's last token; GPT-1 puts a new token there.
    """

    def __init__(self, gpt: GPT, classes: int, language_weight: float = 0.5) -> None:
        super().__init__()
        self.gpt = copy.deepcopy(gpt)
        self.classes_head = nn.Linear(gpt.config.dim, classes)
        self.language_weight = language_weight
        nn.init.zeros_(self.classes_head.weight)  # all classes alike at first
        nn.init.zeros_(self.classes_head.bias)
        self.to(gpt.tokens.weight)

    def encode(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        """What the network knows at the last token of each text. What follows it is padding, which it cannot see."""
        return _last(self.gpt.encode(tokens), mask)

    def logits(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self.classes_head(self.encode(tokens, mask))

    def forward(self, batch: LabelledText) -> dict[str, Tensor]:
        """The mean loss of a batch, and the two parts that it is made of."""
        states = self.gpt.encode(batch.tokens)
        right = F.cross_entropy(single(self.classes_head(_last(states, batch.mask))), batch.labels)
        if not self.language_weight:
            return {"loss": right}
        targets = batch.tokens[:, 1:].masked_fill(~batch.mask[:, 1:], -100)
        logits = states[:, :-1] @ self.gpt.tokens.weight.T
        language = F.cross_entropy(single(logits.flatten(0, 1)), targets.flatten(), ignore_index=-100)
        return {"loss": right + self.language_weight * language, "class_loss": right, "language_loss": language}


def _last(states: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
