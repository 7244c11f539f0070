"""Lesson gpt: a small GPT learns to write plays, and another one to write Python."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from pfmcourse import evaluate
from pfmcourse.data import python_source, shakespeare, subwords
from pfmcourse.models.gpt import GPT, GPTConfig, LabelledText
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, generator_of


@dataclass(frozen=True)
class GPTRun:
    """One GPT run."""

    steps: int = 600
    batch: int = 32
    context: int = 64
    vocab: int = 2048
    dim: int = 192
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    learning_rate: float = 0.01  # of the tables and norms
    muon_learning_rate: float = 0.02  # of the matrices
    weight_decay: float = 0.0
    corpus: Literal["shakespeare", "python"] = "shakespeare"
    measured: int = 0  # tokens of each held-out part that are predicted; 0: all


@dataclass(frozen=True)
class Text:
    """A corpus as tokens, split by play or by package."""

    tokenizer: Tokenizer
    train: Int[Tensor, " train"]
    validation: Int[Tensor, " validation"]
    test: Int[Tensor, " test"]

    def bytes_of(self, tokens: Int[Tensor, " some"]) -> int:
        """The length of a text in bytes."""
        return len(self.tokenizer.decode(tokens.tolist()).encode())


def text(corpus: str, part: str) -> str:
    """A part of a corpus, as it is printed."""
    return shakespeare.load().text(part) if corpus == "shakespeare" else python_source.load().text(part)


@functools.lru_cache(maxsize=4)
def corpus(name: str, vocab: int, special: tuple[str, ...] = ()) -> Text:
    """A corpus in pieces that were learned from its training part."""
    tokenizer = subwords.learn(text(name, "train"), vocab, special)
    parts = (subwords.encode(tokenizer, text(name, part)) for part in ("train", "validation", "test"))
    return Text(tokenizer, *parts)


def windows(tokens: Int[Tensor, " time"], length: int, batch: int, seed: int, step: int) -> Int[Tensor, "batch length"]:
    """The batch of a step: pieces of ``length`` tokens, end to end, in another order and from another start each epoch.

    A window's last token is the next one's first, so each token is predicted once in an epoch.
    """
    stride = length - 1
    per_epoch = max(1, (len(tokens) - length) // stride // batch)
    epoch, position = divmod(step, per_epoch)
    start, order = _epoch(len(tokens), stride, seed, epoch)
    chosen = order[position * batch : (position + 1) * batch]
    return tokens[start + chosen[:, None] * stride + torch.arange(length)]


@functools.lru_cache(maxsize=4)
def _epoch(tokens: int, stride: int, seed: int, epoch: int) -> tuple[int, Tensor]:
    generator = generator_of(seed, epoch)
    start = int(torch.randint(min(stride, max(1, tokens - stride - 1)), (1,), generator=generator))
    return start, torch.randperm((tokens - 1 - start) // stride, generator=generator)


@torch.no_grad()
def negative_log_likelihood(model: GPT, tokens: Int[Tensor, " time"], rows: int = 64) -> float:
    """The sum over all tokens of -log p(token | those before it), in nats.

    The model looks back on at least half its context, except at the very beginning. The first token has nothing before
    it; it counts as one among ``vocab``.
    """
    context, half = model.config.context, model.config.context // 2
    tokens = tokens.to(model.tokens.weight.device)
    total = math.log(model.config.vocab)
    first = min(len(tokens) - 1, context - half)
    if first:
        total += _loss_sum(model, tokens[None, : first + 1], first)
    begins = range(0, len(tokens) - 1 - context, half)
    for chunk in (begins[at : at + rows] for at in range(0, len(begins), rows)):
        total += _loss_sum(model, torch.stack([tokens[at : at + context + 1] for at in chunk]), half)
    done = begins[-1] + context if len(begins) else first
    if done < len(tokens) - 1:
        rest = tokens[None, -context - 1 :]
        total += _loss_sum(model, rest, len(tokens) - 1 - done)
    return total


def _loss_sum(model: GPT, rows: Tensor, last: int) -> float:
    """The summed loss of each row's ``last`` tokens."""
    scores = model.encode(rows[:, :-1])[:, -last:] @ model.tokens.weight.T
    return float(nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, -last:].flatten(), reduction="sum"))


def bits_per_byte(data: Text, model: GPT, part: str, measured: int = 0) -> float:
    """Bits that the model needs for a byte of a held-out part, or of its first ``measured`` tokens."""
    tokens = getattr(data, part)[: measured or None]
    return evaluate.bits_per_byte(negative_log_likelihood(model, tokens), data.bytes_of(tokens))


def _metrics(config: GPTRun, data: Text, model: GPT) -> dict[str, float]:
    return {
        f"{part}_bits_per_byte": bits_per_byte(data, model, part, config.measured) for part in ("validation", "test")
    }


def _model(config: GPTRun, data: Text) -> GPT:
    sizes = GPTConfig(config.vocab, config.context, config.dim, config.layers, config.heads, config.dropout)
    return GPT(sizes)


def _batches(config: GPTRun, data: Text, seed: int) -> Batches:
    return lambda step, generator: windows(data.train, config.context + 1, config.batch, seed, step)


def training(config: Any, data: Text) -> TrainConfig:
    """Muon and AdamW at the configuration's rates, counting tokens; recipes of BERT train in the same way."""
    return TrainConfig(
        steps=config.steps,
        optimizer="muon",
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        unit="tokens",
        units_per_step=config.batch * config.context,
    )


RECIPES = [
    Recipe(
        name=name,
        purpose=purpose,
        lesson="gpt",
        presets=presets,
        data=lambda config: corpus(config.corpus, config.vocab),
        model=_model,
        batches=_batches,
        training=training,
        metrics=_metrics,
    )
    for name, purpose, presets in (
        (
            "gpt",
            "predict the next piece of a play",
            {
                "smoke": GPTRun(steps=3, batch=4, dim=64, layers=2, measured=1000),
                "laptop": GPTRun(),
                "long": GPTRun(steps=6000, context=128, weight_decay=0.1),
                "gpu": GPTRun(
                    steps=3000, batch=64, context=256, dim=384, layers=6, heads=6, dropout=0.2, learning_rate=3e-3
                ),
            },
        ),
        (
            "gpt_python",
            "predict the next piece of a program",
            {
                "smoke": GPTRun(steps=3, batch=4, dim=64, layers=2, corpus="python", measured=1000),
                "laptop": GPTRun(steps=40, corpus="python", measured=15_000),
                "long": GPTRun(steps=6000, context=128, weight_decay=0.1, corpus="python"),
                "gpu": GPTRun(
                    steps=3000, batch=64, context=256, dim=384, layers=6, heads=6, learning_rate=3e-3, corpus="python"
                ),
            },
        ),
    )
]


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def labelled(data: Text, texts: Sequence[str], labels: Int[Tensor, " texts"], longest: int) -> LabelledText:
    """Texts as one padded batch, each cut to its first ``longest`` tokens."""
    rows = [torch.tensor(ids[:longest]) for ids in subwords.encode_each(data.tokenizer, texts)]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return LabelledText(tokens, torch.arange(tokens.shape[1]) < lengths[:, None], labels)
