"""The Transformer: an encoder that reads a phrase with attention alone, and a decoder that writes its translation.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention Is All You Need".

Kept: encoder and decoder, positions as sines and cosines, one table of token vectors for source, target and output.
Changed: ``norm_first`` puts the norms before each part instead of behind it, as most Transformers since have them; a
norm ends either stack, as in torch.nn.Transformer; the token vectors start smaller. Left out: dropout on the attention
weights and label smoothing.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.seq2seq import Translator
from pfmcourse.nn.attention import KeyValueCache, causal_mask
from pfmcourse.nn.transformer import Activation, Block, sinusoids


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of an encoder-decoder Transformer."""

    vocab: int
    context: int = 64  # the longest phrase or translation, in tokens
    dim: int = 128
    layers: int = 2  # of the encoder, and as many of the decoder
    heads: int = 4
    hidden: int = 512  # inside the feed-forward networks
    dropout: float = 0.0
    norm_first: bool = True
    activation: Activation = "relu"
    epsilon: float = 1e-5  # of the norms
    padding: int = 0
    end: int = 1


class EncoderDecoder(nn.Module):
    """The two stacks between vectors and vectors: what torch.nn.Transformer has, and nothing of tokens.

    ``dim``, ``layers`` and the rest are as in `TransformerConfig`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        layers: int,
        decoder_layers: int | None = None,
        *,
        activation: Activation = "relu",
        norm_first: bool = True,
        dropout: float = 0.0,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        sizes = {"activation": activation, "norm_first": norm_first, "dropout": dropout, "epsilon": epsilon}
        self.encoder = nn.ModuleList(Block(dim, heads, hidden, **sizes) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(dim, eps=epsilon)
        self.decoder = nn.ModuleList(
            Block(dim, heads, hidden, cross=True, **sizes)
            for _ in range(layers if decoder_layers is None else decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(dim, eps=epsilon)

    def encode(
        self, x: Float[Tensor, "batch source dim"], mask: Bool[Tensor, "*some"] | None = None
    ) -> Float[Tensor, "batch source dim"]:
        """A vector for each place of the source in its context."""
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x)

    def decode(
        self,
        y: Float[Tensor, "batch target dim"],
        memory: Float[Tensor, "batch source dim"],
        memory_mask: Bool[Tensor, "*some"] | None = None,
        caches: list[KeyValueCache] | None = None,
    ) -> Float[Tensor, "batch target dim"]:
        """A vector for each place of the target, from the places before it and all of the source.

        With ``caches``, one for each block, ``y`` goes on where the last call stopped.
        """
        past = caches[0].length if caches else 0
        mask = causal_mask(y.shape[1], past + y.shape[1], y.device)
        for layer, block in enumerate(self.decoder):
            y = block(y, mask, memory, memory_mask, caches[layer] if caches else None)
        return self.decoder_norm(y)

    def forward(
        self,
        x: Float[Tensor, "batch source dim"],
        y: Float[Tensor, "batch target dim"],
        mask: Bool[Tensor, "*some"] | None = None,
    ) -> Float[Tensor, "batch target dim"]:
        """``decode`` after ``encode``; ``mask`` is true where a place of the source may be looked at."""
        return self.decode(y, self.encode(x, mask), mask)


@dataclass
class AttentiveState:
    """The source as the encoder read it, and the keys and values of what was written so far."""

    memory: Float[Tensor, "batch source dim"]
    mask: Bool[Tensor, "batch 1 1 source"]
    caches: list[KeyValueCache]

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows of the batch, in this order."""
        self.memory, self.mask = self.memory[rows], self.mask[rows]
        for cache in self.caches:
            cache.select(rows)


class Transformer(Translator):
    """p(target | source). Every place of the target looks at the source's places directly, however far."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.dim)  # of source and target, and the output layer
        self.register_buffer("positions", sinusoids(config.context, config.dim), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.stacks = EncoderDecoder(
            config.dim,
            config.heads,
            config.hidden,
            config.layers,
            activation=config.activation,
            norm_first=config.norm_first,
            dropout=config.dropout,
            epsilon=config.epsilon,
        )
        for name, parameter in self.stacks.named_parameters():  # as torch.nn.Transformer starts
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.tokens.weight, std=0.3 * config.dim**-0.5)  # so that all tokens start about equally likely

    def encode(self, source: Int[Tensor, "batch source"]) -> Float[Tensor, "batch source dim"]:
        """A vector for each token of the source in its context. Padding is looked at by nobody."""
        return self.stacks.encode(self._embed(source), self._mask(source))

    def logits(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target vocab"]:
        """Unnormalised log-probabilities of the token that follows each place of ``target``."""
        states = self.stacks.decode(self._embed(target), self.encode(source), self._mask(source))
        return F.linear(states, self.tokens.weight)

    def begin(self, source: Int[Tensor, "batch source"], longest: int) -> AttentiveState:
        """Read the source, and make room for the keys and values of ``longest`` tokens."""
        caches = [KeyValueCache(longest) for _ in self.stacks.decoder]
        return AttentiveState(self.encode(source), self._mask(source), caches)

    def step(self, tokens: Int[Tensor, " batch"], state: AttentiveState) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, after the token of each row has been taken into ``state``."""
        y = self._embed(tokens[:, None], past=state.caches[0].length)
        states = self.stacks.decode(y, state.memory, state.mask, state.caches)
        return F.linear(states[:, 0], self.tokens.weight)

    @torch.no_grad()
    def alignment(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "layers batch heads target source"]:
        """How much each place of the target takes from each place of the source, in each layer of the decoder.

        Row i belongs to the state that reads token i of ``target`` and so writes token i + 1.
        """
        found: list[Tensor] = []
        hooks = [
            block.cross.register_forward_pre_hook(
                lambda module, given, named: found.append(module.weights(*given, **named)), with_kwargs=True
            )
            for block in self.stacks.decoder
        ]
        try:
            self.logits(source, target)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found)

    def _mask(self, source: Int[Tensor, "batch source"]) -> Bool[Tensor, "batch 1 1 source"]:
        """True where a token stands, in the shape that attention wants."""
        return (source != self.config.padding)[:, None, None, :]

    def _embed(self, tokens: Int[Tensor, "batch time"], past: int = 0) -> Float[Tensor, "batch time dim"]:
        end = past + tokens.shape[1]
        if end > self.config.context:
            raise CourseError(
                f"{end} tokens are more than this Transformer has positions for: it has context={self.config.context}. "
                "Cut the phrase, ask for a shorter translation, or build one with a larger context."
            )
        return self.dropout(self.tokens(tokens) * math.sqrt(self.config.dim) + self.positions[past:end])
