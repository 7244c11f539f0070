"""Lesson bert: BERT on Shakespeare, and what RoBERTa changed, one thing at a time.

Every text of a batch is full: ``[CLS] tokens [SEP]``, or a pair, ``[CLS] first [SEP] second [SEP]``. So no work goes
into padding.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from pfmcourse.data import subwords
from pfmcourse.models.bert import BERT, BERTConfig, MaskedText
from pfmcourse.nn.masking import IGNORED, mask_tokens
from pfmcourse.recipes import Recipe
from pfmcourse.recipes.gpt import Text, corpus, training
from pfmcourse.train import Batches, generator_of, map_tensors

ASKED = 0.15  # share of the tokens that are hidden when models are compared, however they were trained

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class BERTRun:
    """One BERT run."""

    steps: int = 400
    batch: int = 32
    context: int = 64
    vocab: int = 2048  # byte pairs; the special tokens come on top
    dim: int = 192
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    share: float = 0.3  # of the tokens that are hidden
    next_sentence: bool = True
    dynamic: bool = False  # hide other tokens each time that a text comes along
    learning_rate: float = 0.002  # of the tables and norms
    muon_learning_rate: float = 0.02  # of the matrices
    weight_decay: float = 0.0
    measured: int = 0  # texts of each held-out part; 0: all


@dataclass(frozen=True)
class Tokens:
    """The numbers of the special tokens."""

    pad: int
    cls: int
    sep: int
    mask: int

    @classmethod
    def after(cls, vocab: int) -> "Tokens":
        """They stand behind the byte pairs."""
        return cls(*range(vocab, vocab + len(SPECIAL)))


def _singles(config: BERTRun, stream: Tensor, begins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Running text from each of ``begins``: tokens, segments, follows."""
    special = Tokens.after(config.vocab)
    text = stream[begins[:, None] + torch.arange(config.context - 2)]
    edge = torch.ones(len(begins), 1, dtype=torch.long)
    tokens = torch.cat([edge * special.cls, text, edge * special.sep], dim=1)
    return tokens, torch.zeros_like(tokens), torch.zeros(len(begins), dtype=torch.long)


def _pairs(
    config: BERTRun, stream: Tensor, begins: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Two segments each: half of the second ones follow the first, half are from anywhere in the corpus."""
    special, room = Tokens.after(config.vocab), config.context - 3
    count = len(begins)
    cut = torch.randint(room // 3, room - room // 3 + 1, (count, 1), generator=generator)  # the first one's length
    elsewhere = torch.randint(len(stream) - config.context, (count, 1), generator=generator)
    follows = torch.randint(2, (count,), generator=generator)
    place = torch.arange(config.context).expand(count, -1)
    second = place > cut + 1
    begins = begins[:, None]
    begin_of_second = torch.where(follows[:, None] == 0, begins + cut, elsewhere)
    source = torch.where(second, begin_of_second + place - cut - 2, begins + place - 1)
    tokens = stream[source.clamp(0, len(stream) - 1)]
    tokens[:, 0], tokens[:, -1] = special.cls, special.sep
    tokens = tokens.scatter(1, cut + 1, special.sep)
    return tokens, second.long(), follows


def examples(
    config: BERTRun, stream: Int[Tensor, " time"], begins: Int[Tensor, " batch"], generator: torch.Generator
) -> MaskedText:
    """Texts, or pairs of segments, that begin at these tokens of a stream, with holes."""
    make = functools.partial(_pairs, generator=generator) if config.next_sentence else _singles
    tokens, segments, follows = make(config, stream, begins)
    special = Tokens.after(config.vocab)
    hidden = mask_tokens(
        tokens,
        tokens < config.vocab,
        share=config.share,
        mask_token=special.mask,
        vocab=config.vocab,
        generator=generator,
    )
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return MaskedText(hidden.tokens, segments, mask, hidden.places, hidden.targets, follows)


def _begins(config: BERTRun, stream: Tensor, start: int = 0) -> Tensor:
    """Where texts begin that lie end to end."""
    room = config.context - 2
    return torch.arange(start, len(stream) - config.context, room)


def _batches(config: BERTRun, data: Text, seed: int) -> Batches:
    stream = data.train
    per_epoch = max(1, (len(_begins(config, stream)) - 1) // config.batch)

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> tuple[int, Tensor]:
        generator = generator_of(seed, epoch)
        start = int(torch.randint(config.context - 2, (1,), generator=generator)) if config.dynamic else 0
        return start, torch.randperm(len(_begins(config, stream, start)), generator=generator)

    @functools.cache
    def made_once() -> MaskedText:
        """BERT wrote its examples to a file before training: the same pairs with the same holes in every epoch."""
        return examples(config, stream, _begins(config, stream), generator_of(seed))

    def batch(step: int, generator: torch.Generator) -> MaskedText:
        epoch, position = divmod(step, per_epoch)
        start, shuffled = order(epoch)
        chosen = shuffled[position * config.batch : (position + 1) * config.batch]
        if config.dynamic:
            return examples(config, stream, _begins(config, stream, start)[chosen], generator)
        return map_tensors(made_once(), lambda tensor: tensor[chosen])

    return batch


@torch.no_grad()
def masked_loss(config: BERTRun, data: Text, model: BERT, part: str, rows: int = 256) -> float:
    """Loss on the hidden tokens (nats each) of a held-out part's running text; the same holes for every model."""
    alike = BERTRun(context=config.context, vocab=config.vocab, share=ASKED, next_sentence=False)
    stream = getattr(data, part)
    batch = examples(alike, stream, _begins(alike, stream)[: config.measured or None], generator_of(0))
    where, total, count = model.tokens.weight.device, 0.0, 0
    for at in range(0, len(batch.tokens), rows):
        piece = map_tensors(batch, lambda tensor, at=at: tensor[at : at + rows].to(where))
        logits = model.logits(piece.tokens, piece.segments, places=piece.places)
        total += float(nn.functional.cross_entropy(logits.flatten(0, 1), piece.targets.flatten(), reduction="sum"))
        count += int((piece.targets != IGNORED).sum())
    return total / count


@torch.no_grad()
def next_sentence_accuracy(config: BERTRun, data: Text, model: BERT, part: str, rows: int = 256) -> float:
    """How often it knows whether the second segment follows the first, on pairs of a held-out part, without holes."""
    stream = getattr(data, part)
    begins = _begins(config, stream)[: config.measured or None]
    tokens, segments, follows = _pairs(config, stream, begins, generator_of(0))
    where, right = model.tokens.weight.device, 0
    for at in range(0, len(tokens), rows):
        here = slice(at, at + rows)
        states = model.encode(tokens[here].to(where), segments[here].to(where))
        right += int((model.follows_logits(states).argmax(1).cpu() == follows[here]).sum())
    return right / len(tokens)


def _metrics(config: BERTRun, data: Text, model: BERT) -> dict[str, float]:
    found = {f"{part}_masked_loss": masked_loss(config, data, model, part) for part in ("validation", "test")}
    if config.next_sentence:
        found["test_next_sentence_accuracy"] = next_sentence_accuracy(config, data, model, "test")
    return found


def _model(config: BERTRun, data: Text) -> BERT:
    return BERT(
        BERTConfig(
            vocab=config.vocab + len(SPECIAL),
            context=config.context,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            segments=2 if config.next_sentence else 1,
            next_sentence=config.next_sentence,
            dropout=config.dropout,
        )
    )


SMOKE = {"steps": 3, "batch": 4, "dim": 64, "layers": 2, "measured": 20}
GPU = {"steps": 6000, "batch": 256, "context": 128, "dim": 384, "layers": 6, "heads": 6, "dropout": 0.1}
LONG = {"steps": 3500, "weight_decay": 0.1}

RECIPES = [
    Recipe(
        name=name,
        purpose=purpose,
        lesson="bert",
        presets={
            "smoke": BERTRun(**SMOKE, **changes),
            "laptop": BERTRun(**changes),
            "long": BERTRun(**LONG, **changes),
            "gpu": BERTRun(**GPU, **changes),
        },
        data=lambda config: corpus("shakespeare", config.vocab, SPECIAL),
        model=_model,
        batches=_batches,
        training=training,
        metrics=_metrics,
    )
    for name, purpose, changes in (
        ("bert", "guess hidden tokens, and whether two segments belong together", {}),
        ("bert_dynamic", "the same, with other tokens hidden each time", {"dynamic": True}),
        ("roberta", "only guess hidden tokens, in running text", {"dynamic": True, "next_sentence": False}),
    )
]


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def padded(
    data: Text, texts: Sequence[str], vocab: int, longest: int
) -> tuple[Int[Tensor, "texts time"], Bool[Tensor, "texts time"]]:
    """``[CLS] text [SEP]`` for each text, cut to ``longest`` tokens in all and padded, with a mask of what is text."""
    special = Tokens.after(vocab)
    rows = [
        torch.tensor([special.cls, *ids[: longest - 2], special.sep])
        for ids in subwords.encode_each(data.tokenizer, texts)
    ]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=special.pad)
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]
