"""Sequence to sequence: one recurrent network reads a phrase into one vector, another writes its translation from it.

Sutskever, Vinyals, Le (2014), "Sequence to Sequence Learning with Neural Networks" (reading backwards, beam search);
Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio (2014), "Learning Phrase Representations using RNN
Encoder-Decoder for Statistical Machine Translation" (the gated unit; every step of the decoder sees the vector).

Changed: one table of token vectors serves the source, the target and the output layer, as in "Attention Is All You
Need" (2017, section 3.4), so that what differs from the Transformer is only what lies between.

`Translator` is what both have in common: the loss, and the ways to write a translation from next-token probabilities.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.transformer import single


@dataclass(frozen=True)
class Pairs:
    """Phrases with their translations, filled up with padding behind.

    A target begins with a start token, which may say into which language, and ends with the end token.
    """

    source: Int[Tensor, "batch source"]
    target: Int[Tensor, "batch target"]


@runtime_checkable
class State(Protocol):
    """What a translator keeps in mind while it writes."""

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows of the batch, in this order."""


@runtime_checkable
class TranslatorConfig(Protocol):
    """What every translator's configuration says."""

    vocab: int
    padding: int
    end: int


class Translator(nn.Module):
    """p(target | source), one token after the other. A subclass defines ``logits``, ``begin`` and ``step``."""

    config: TranslatorConfig

    def logits(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target vocab"]:
        """Unnormalised log-probabilities of the token that follows each place of ``target``."""
        raise NotImplementedError

    def begin(self, source: Int[Tensor, "batch source"], longest: int) -> State:
        """Read the source. ``longest`` is how many tokens will be written at most."""
        raise NotImplementedError

    def step(self, tokens: Int[Tensor, " batch"], state: State) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, after the token of each row has been taken into ``state``."""
        raise NotImplementedError

    def forward(self, batch: Pairs) -> dict[str, Tensor]:
        """Cross-entropy in nats a token of the targets, start tokens and padding left out."""
        logits = self.logits(batch.source, batch.target[:, :-1])
        targets = batch.target[:, 1:].flatten()
        return {"loss": F.cross_entropy(single(logits.flatten(0, 1)), targets, ignore_index=self.config.padding)}

    @torch.no_grad()
    def log_probability(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, " batch"]:
        """log p(target | source) in nats, summed over the tokens behind the start token."""
        each = self.logits(source, target[:, :-1]).log_softmax(-1).gather(2, target[:, 1:, None]).squeeze(2)
        return each.masked_fill(target[:, 1:] == self.config.padding, 0).sum(1)

    @torch.no_grad()
    def translate(
        self,
        source: Int[Tensor, "batch source"],
        start: Int[Tensor, " batch"],
        longest: int = 32,
        *,
        cached: bool = True,
    ) -> Int[Tensor, "batch written"]:
        """Greedy search: the likeliest token, again and again, up to the end token or ``longest`` tokens.

        The start token is left out; behind the end there is padding. Without ``cached`` every step reads all that
        was written once more, with the same result.
        """
        state = self.begin(source, longest) if cached else None
        written, ended = start[:, None], torch.zeros_like(start, dtype=torch.bool)
        for _ in range(longest):
            logits = self.step(written[:, -1], state) if cached else self.logits(source, written)[:, -1]
            tokens = self._without_padding(logits).argmax(1).masked_fill(ended, self.config.padding)
            written = torch.cat([written, tokens[:, None]], dim=1)
            ended = ended | (tokens == self.config.end)
            if ended.all():
                break
        return written[:, 1:]

    @torch.no_grad()
    def beam_search(
        self,
        source: Int[Tensor, "batch source"],
        start: Int[Tensor, " batch"],
        longest: int = 32,
        *,
        beams: int = 4,
        length_penalty: float = 0.0,
    ) -> tuple[Int[Tensor, "batch written"], Float[Tensor, " batch"]]:
        """Follow the ``beams`` likeliest beginnings at once; return the best translation of each row and its score.

        The score is log p, divided by ((5 + length) / 6) ** ``length_penalty`` (Wu et al. 2016, equation 14), since
        otherwise every token costs and short texts win. A wider beam mostly finds a likelier text, but need not: the
        beginning of the best one can be dropped.
        """
        if beams < 1:
            raise CourseError(f"beam search follows one beginning or more, but beams={beams}.")
        batch, device = len(source), source.device
        state = self.begin(source, longest)
        first = torch.arange(batch, device=device)
        state.select(first.repeat_interleave(beams))
        written = start.repeat_interleave(beams)[:, None]
        scores = torch.full((batch, beams), -torch.inf, device=device)
        scores[:, 0] = 0  # at first all beams of a row are the same text: count it once
        ended = torch.zeros(batch * beams, dtype=torch.bool, device=device)
        lengths = torch.zeros(batch * beams, device=device)
        for _ in range(longest):
            steps = self.step(written[:, -1], state).log_softmax(1)
            steps = steps.masked_fill(ended[:, None], -torch.inf)
            steps[:, self.config.padding] = torch.where(ended, 0.0, -torch.inf)  # what has ended stays as it is
            totals = (scores.flatten()[:, None] + steps).view(batch, -1)
            scores, chosen = totals.topk(beams, dim=1)
            rows = (first[:, None] * beams + chosen // self.config.vocab).flatten()
            tokens = (chosen % self.config.vocab).flatten()
            state.select(rows)
            written = torch.cat([written[rows], tokens[:, None]], dim=1)
            lengths = lengths[rows] + ~ended[rows]
            ended = ended[rows] | (tokens == self.config.end)
            if ended.all():
                break
        scores = scores / ((5 + lengths.view(batch, beams)) / 6) ** length_penalty
        best = scores.argmax(1)
        return written.view(batch, beams, -1)[first, best, 1:], scores[first, best]

    def _without_padding(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        blocked = torch.arange(logits.shape[1], device=logits.device) == self.config.padding
        return logits.masked_fill(blocked, -torch.inf)


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of a recurrent encoder-decoder."""

    vocab: int
    dim: int = 128  # of the token vectors
    hidden: int = 256  # of the recurrent states, and so of the vector that carries the phrase
    layers: int = 1
    dropout: float = 0.0
    backwards: bool = True  # the encoder reads from the end, so that the first words are freshest (Sutskever et al.)
    padding: int = 0
    end: int = 1


@dataclass
class RecurrentState:
    """The vector of the whole phrase, and where each layer of the decoder stands."""

    phrase: Float[Tensor, "batch hidden"]
    layers: list[Float[Tensor, "batch hidden"]]

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        """Keep these rows of the batch, in this order."""
        self.phrase, self.layers = self.phrase[rows], [layer[rows] for layer in self.layers]


class Seq2Seq(Translator):
    """A GRU that reads and a GRU that writes. Between them goes one vector a layer, however long the phrase."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        dim, hidden = config.dim, config.hidden
        self.tokens = nn.Embedding(config.vocab, dim)  # of source and target, and the output layer
        below = [dim, *[hidden] * (config.layers - 1)]
        self.encoder = nn.ModuleList(nn.GRU(size, hidden, batch_first=True) for size in below)
        self.decoder = nn.ModuleList(nn.GRU(size + hidden, hidden, batch_first=True) for size in below)
        self.output = nn.Linear(2 * hidden + dim, dim)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.tokens.weight, std=dim**-0.5)

    def encode(self, source: Int[Tensor, "batch source"]) -> list[Float[Tensor, "batch hidden"]]:
        """The state of each layer after the whole phrase. Padding behind it changes nothing."""
        length = (source != self.config.padding).sum(1)
        last = (length - 1).clamp(min=0)[:, None]
        if self.config.backwards:
            places = (last - torch.arange(source.shape[1], device=source.device)).clamp(min=0)
            source = source.gather(1, places)  # what comes after the first word is never looked at
        x, states = self._embed(source), []
        for layer in self.encoder:
            x = layer(self.dropout(x))[0]
            states.append(x.gather(1, last[:, :, None].expand(-1, -1, x.shape[2])).squeeze(1))
        return states

    def begin(self, source: Int[Tensor, "batch source"], longest: int = 0) -> RecurrentState:
        """Read the source. The state needs no more room for a longer text."""
        states = self.encode(source)
        return RecurrentState(states[-1], states)

    def step(self, tokens: Int[Tensor, " batch"], state: RecurrentState) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, after the token of each row has been taken into ``state``."""
        return self._write(tokens[:, None], state)[:, 0]

    def logits(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target vocab"]:
        """Unnormalised log-probabilities of the token that follows each place of ``target``."""
        return self._write(target, self.begin(source))

    def _embed(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        return self.tokens(tokens) * self.config.dim**0.5

    def _write(self, target: Int[Tensor, "batch time"], state: RecurrentState) -> Float[Tensor, "batch time vocab"]:
        phrase = state.phrase[:, None].expand(-1, target.shape[1], -1)
        words = x = self._embed(target)
        for number, layer in enumerate(self.decoder):
            x, last = layer(torch.cat([self.dropout(x), phrase], dim=2), state.layers[number][None].contiguous())
            state.layers[number] = last[0]
        read = self.dropout(torch.cat([x, phrase, words], dim=2))
        return F.linear(torch.tanh(self.output(read)), self.tokens.weight)
