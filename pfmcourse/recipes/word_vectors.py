"""Lesson word_vectors: NNLM, CBOW, skip-gram and GloVe on Shakespeare's plays.

All four read the same words of the same plays and learn vectors of the same size. Three plays are kept for choosing
and three for reporting (see ``pfmcourse.data.shakespeare``).
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pfmcourse.data import shakespeare, source, word_pairs
from pfmcourse.evaluate import word_similarity
from pfmcourse.models.glove import Counts, GloVe, GloVeConfig
from pfmcourse.models.nnlm import NNLM, NNLMConfig
from pfmcourse.models.word2vec import CBOW, SkipGram, TextBlocks, Word2Vec, Word2VecConfig
from pfmcourse.nn.negative_sampling import draw_noise, expected_loss, keep_probability, noise_distribution
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, generator_of

UNKNOWN, START = "<unk>", "<s>"

# Data ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """Running text as numbers: each word, and which speech it stands in."""

    words: Int[Tensor, " time"]
    speech: Int[Tensor, " time"]

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Corpus:
    """The plays as streams, and the vocabulary: every word that the training plays hold often enough."""

    vocabulary: tuple[str, ...]  # most frequent first, then <unk> and <s>
    counts: Int[Tensor, " vocab"]  # in the training plays; 0 for <s>
    train: Stream
    validation: Stream
    test: Stream

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.vocabulary)}

    @property
    def known_counts(self) -> Int[Tensor, " vocab"]:
        """The counts that word2vec goes by: <unk> counts nothing, because it is left out of the text."""
        counts = self.counts.clone()
        counts[self.index[UNKNOWN]] = 0
        return counts

    @property
    def noise(self) -> Float[Tensor, " vocab"]:
        """Where negatives are drawn from: word frequencies to the power 0.75; <unk> and <s> are never drawn."""
        return noise_distribution(self.known_counts)

    def known(self, part: Stream) -> Stream:
        """The stream without the words that are not in the vocabulary, as word2vec reads it."""
        keep = part.words != self.index[UNKNOWN]
        return Stream(part.words[keep], part.speech[keep])


@functools.cache
def corpus(min_count: int = 5) -> Corpus:
    """Shakespeare's words; those that the training plays hold fewer than ``min_count`` times become ``<unk>``."""
    plays = shakespeare.load()
    parts = {name: plays.sentences(name) for name in ("train", "validation", "test")}
    found = Counter(word for sentence in parts["train"] for word in sentence)
    frequent = [word for word, count in found.most_common() if count >= min_count]
    vocabulary = (*frequent, UNKNOWN, START)
    index = {word: row for row, word in enumerate(vocabulary)}
    unknown = index[UNKNOWN]
    streams = {
        name: Stream(
            torch.tensor([index.get(word, unknown) for sentence in sentences for word in sentence]),
            torch.repeat_interleave(torch.tensor([len(sentence) for sentence in sentences])),
        )
        for name, sentences in parts.items()
    }
    counts = torch.bincount(streams["train"].words, minlength=len(vocabulary))
    return Corpus(vocabulary, counts, **streams)


def similarity(data: Corpus, vectors: Float[Tensor, "vocab dim"]) -> dict[str, float]:
    """Spearman's rho of cosines with what people said of word pairs, for both sets that gensim ships."""
    return {
        name: word_similarity(vectors, data.index, word_pairs.load(name)).rho for name in ("wordsim353", "simlex999")
    }


# Word2Vec: skip-gram and CBOW ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word2VecRun:
    """One Word2Vec run. An epoch sees each training word once, less those that subsampling drops."""

    epochs: int = 12
    dim: int = 64
    window: int = 5
    negatives: int = 5
    subsample: float = 1e-3  # threshold of word frequency above which occurrences are dropped
    min_count: int = 5
    blocks: int = 256  # a batch: this many blocks
    time: int = 32  # of this many centre words
    draws: int = 32  # and this many shared negatives
    learning_rate: float = 0.03
    weight_decay: float = 0.3


def _data(config: "Word2VecRun | NNLMRun | GloVeRun") -> Corpus:
    return corpus(config.min_count)


def _steps_per_epoch(config: Word2VecRun, data: Corpus) -> int:
    stream = data.known(data.train)
    expected = float(keep_probability(data.known_counts, config.subsample)[stream.words].sum())
    return max(1, round(expected / (config.blocks * config.time)))


def epoch_stream(config: Word2VecRun, data: Corpus, seed: int, epoch: int) -> Stream:
    """The words that survive subsampling in one epoch: another draw each time, the same for the same seed."""
    stream = data.known(data.train)
    generator = generator_of(seed, epoch)
    keep = (
        torch.rand(len(stream), generator=generator)
        < keep_probability(data.known_counts, config.subsample)[stream.words]
    )
    return Stream(stream.words[keep], stream.speech[keep])


def _text_blocks(config: Word2VecRun, data: Corpus, seed: int) -> Batches:
    per_epoch, noise = _steps_per_epoch(config, data), data.noise
    margin, size = config.window, config.blocks * config.time
    epoch_words = functools.lru_cache(maxsize=1)(functools.partial(epoch_stream, config, data, seed))

    def batch(step: int, generator: torch.Generator) -> TextBlocks:
        epoch, position = divmod(step, per_epoch)
        stream = epoch_words(epoch)
        # Batches lie end to end in the epoch's text, in a ring, from a start that differs between epochs.
        start = torch.randint(len(stream), (1,), generator=torch.Generator().manual_seed(epoch))
        places = (torch.arange(-margin, size + margin) + start + position * size) % len(stream)
        span = config.time + 2 * margin
        return TextBlocks(
            tokens=stream.words[places].unfold(0, span, config.time),
            speech=stream.speech[places].unfold(0, span, config.time),
            radius=torch.randint(1, margin + 1, (config.blocks, config.time), generator=generator),
            noise=draw_noise(noise, config.blocks, config.draws, generator),
        )

    return batch


def _word2vec_training(config: Word2VecRun, data: Corpus) -> TrainConfig:
    per_epoch = _steps_per_epoch(config, data)
    return TrainConfig(
        steps=config.epochs * per_epoch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=0.0,
        clip=0.0,
        precision="fp32",
        unit="words",
        units_per_step=len(data.known(data.train)) // per_epoch,
    )


def heldout_pairs(
    config: Word2VecRun, data: Corpus, part: Stream
) -> tuple[Int[Tensor, "pairs two"], Float[Tensor, " pairs"]]:
    """Every (centre, context) pair of a held-out part, with the chance that training would have met it."""
    stream, keep = data.known(part), keep_probability(data.known_counts, config.subsample)
    pairs, weights = [], []
    for distance in range(1, config.window + 1):
        same = stream.speech[:-distance] == stream.speech[distance:]
        left, right = stream.words[:-distance][same], stream.words[distance:][same]
        weight = keep[left] * keep[right] * (config.window + 1 - distance) / config.window
        pairs += [torch.stack([left, right], 1), torch.stack([right, left], 1)]
        weights += [weight, weight]
    return torch.cat(pairs), torch.cat(weights)


@torch.no_grad()
def heldout_loss(
    config: Word2VecRun,
    data: Corpus,
    inputs: Float[Tensor, "vocab dim"],
    outputs: Float[Tensor, "vocab dim"],
    part: Stream,
) -> float:
    """Skip-gram's loss on a held-out part (nats a pair), for any two tables: ours, gensim's, a baseline's."""
    pairs, weights = heldout_pairs(config, data, part)
    return expected_loss(inputs.cpu(), outputs.cpu(), pairs, weights, data.noise, config.negatives)


def frequency_tables(
    config: Word2VecRun, data: Corpus
) -> tuple[Float[Tensor, "vocab one"], Float[Tensor, "vocab one"]]:
    """The best that one can do without looking at the centre word: score each context word by its frequency alone.

    The loss is least where exp(score) = p(context) / (negatives * noise(context)).
    """
    seen = data.known_counts * keep_probability(data.known_counts, config.subsample)
    score = torch.log((seen / seen.sum()).clamp(min=1e-12) / (config.negatives * data.noise.clamp(min=1e-12)))
    return torch.ones(len(seen), 1), score[:, None].float()


def _skip_gram_metrics(config: Word2VecRun, data: Corpus, model: SkipGram) -> dict[str, float]:
    tables = model.inputs.weight, model.outputs.weight
    return {
        "validation_loss": heldout_loss(config, data, *tables, data.validation),
        "test_loss": heldout_loss(config, data, *tables, data.test),
        **similarity(data, model.vectors().cpu()),
    }


@torch.no_grad()
def _cbow_loss(config: Word2VecRun, data: Corpus, model: CBOW, part: Stream) -> float:
    """CBOW's loss on a held-out part (nats a word), with fixed random negatives."""
    held = Corpus(data.vocabulary, data.counts, part, part, part)
    batch = _text_blocks(config, held, seed=0)
    steps, where = max(1, _steps_per_epoch(config, held)), model.inputs.weight.device
    losses = []
    for step in range(steps):
        blocks = batch(step, torch.Generator().manual_seed(step))
        moved = TextBlocks(*(getattr(blocks, name).to(where) for name in ("tokens", "speech", "radius", "noise")))
        losses.append(float(model(moved)["loss"]))
    return sum(losses) / len(losses)


def _cbow_metrics(config: Word2VecRun, data: Corpus, model: CBOW) -> dict[str, float]:
    return {
        "validation_loss": _cbow_loss(config, data, model, data.validation),
        "test_loss": _cbow_loss(config, data, model, data.test),
        **similarity(data, model.vectors().cpu()),
    }


def _word2vec(kind: type[Word2Vec], config: Word2VecRun, data: Corpus) -> Word2Vec:
    return kind(Word2VecConfig(len(data.vocabulary), config.dim, config.window, config.negatives))


# NNLM ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NNLMRun:
    """One NNLM run."""

    steps: int = 1000
    dim: int = 64
    context: int = 4
    hidden: int = 128
    batch: int = 512
    min_count: int = 5
    learning_rate: float = 0.02
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    measured: int = 0  # words of each held-out part that perplexity is measured on; 0: all


def ngram_windows(data: Corpus, part: Stream, context: int) -> Int[Tensor, "time window"]:
    """Each word of a part behind the ``context`` words before it; before a speech begins stands ``<s>``."""
    time = torch.arange(len(part))
    first = torch.zeros(len(part), dtype=torch.long)
    begins = torch.cat([torch.tensor([True]), part.speech[1:] != part.speech[:-1]])
    first[begins] = time[begins]
    first = first.cummax(0).values  # where each word's own speech begins
    columns = []
    for back in range(context, -1, -1):
        place = time - back
        columns.append(torch.where(place >= first, part.words[place.clamp(min=0)], data.index[START]))
    return torch.stack(columns, dim=1)


def _nnlm_batches(config: NNLMRun, data: Corpus, seed: int) -> Batches:
    windows = ngram_windows(data, data.train, config.context)
    per_epoch = max(1, len(windows) // config.batch)

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.randperm(len(windows), generator=generator_of(seed, epoch))

    def batch(step: int, generator: torch.Generator) -> Tensor:
        epoch, position = divmod(step, per_epoch)
        return windows[order(epoch)[position * config.batch : (position + 1) * config.batch]]

    return batch


@torch.no_grad()
def perplexity(data: Corpus, model: NNLM, part: Stream, measured: int = 0) -> float:
    """exp of the mean cross-entropy per word: among how many equally likely words the model hesitates.

    ``measured`` takes only the part's first words; 0 takes all.
    """
    windows = ngram_windows(data, part, model.config.context).to(model.words.weight.device)[: measured or None]
    return math.exp(sum(float(model(block)["loss"]) * len(block) for block in windows.split(256)) / len(windows))


def _nnlm_metrics(config: NNLMRun, data: Corpus, model: NNLM) -> dict[str, float]:
    return {
        "validation_perplexity": perplexity(data, model, data.validation, config.measured),
        "test_perplexity": perplexity(data, model, data.test, config.measured),
        **similarity(data, model.vectors().cpu()),
    }


# GloVe ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GloVeRun:
    """One GloVe run. An epoch sees each nonzero entry of the co-occurrence table once."""

    epochs: int = 6
    dim: int = 64
    window: int = 10
    most: float = 10.0
    power: float = 0.75
    min_count: int = 5
    batch: int = 16384
    learning_rate: float = 0.02


def cooccurrence(data: Corpus, part: Stream, window: int, flat: bool = False) -> scipy.sparse.coo_array:
    """How often each word meets each other one within ``window`` words of a speech.

    A meeting weighs one over the distance, as in GloVe; with ``flat`` each weighs one.
    """
    stream, size = data.known(part), len(data.vocabulary)
    total = scipy.sparse.csr_array((size, size))
    for distance in range(1, window + 1):
        same = stream.speech[:-distance] == stream.speech[distance:]
        left, right = stream.words[:-distance][same].numpy(), stream.words[distance:][same].numpy()
        meetings = scipy.sparse.coo_array(
            (np.full(len(left), 1.0 if flat else 1 / distance), (left, right)), shape=(size, size)
        )
        total = total + meetings.tocsr()
    return (total + total.T).tocoo()


def _table(config: GloVeRun, data: Corpus) -> dict[str, Tensor]:
    """The nonzero entries, from the cache."""
    key = {
        "min_count": config.min_count,
        "window": config.window,
        "sha256": source.source("shakespeare").sha256,
        "v": 1,
    }

    def build() -> dict[str, Tensor]:
        table = cooccurrence(data, data.train, config.window)
        words = torch.from_numpy(np.stack([table.row, table.col], axis=1).astype(np.int64))
        return {"words": words, "count": torch.from_numpy(table.data.astype(np.float32))}

    return source.cached("cooccurrence", key, build)


def _glove_batches(config: GloVeRun, data: Corpus, seed: int) -> Batches:
    table = _table(config, data)
    per_epoch = max(1, len(table["count"]) // config.batch)

    @functools.lru_cache(maxsize=1)
    def shuffled(epoch: int) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(table["count"]), generator=generator_of(seed, epoch))
        return table["words"][order], table["count"][order]

    def batch(step: int, generator: torch.Generator) -> Counts:
        epoch, position = divmod(step, per_epoch)
        words, count = shuffled(epoch)
        here = slice(position * config.batch, (position + 1) * config.batch)
        return Counts(words[here], count[here])

    return batch


def _glove_training(config: GloVeRun, data: Corpus) -> TrainConfig:
    per_epoch = max(1, len(_table(config, data)["count"]) // config.batch)
    return TrainConfig(
        steps=config.epochs * per_epoch,
        learning_rate=config.learning_rate,
        clip=0.0,
        precision="fp32",
        unit="entries",
    )


# Recipes -------------------------------------------------------------------------------------------------------------

RECIPES = [
    Recipe(
        name="nnlm",
        purpose="predict the next word from the four before it",
        lesson="word_vectors",
        presets={
            "smoke": NNLMRun(steps=4, batch=64, measured=2000),
            "laptop": NNLMRun(),
            "long": NNLMRun(steps=4000, learning_rate=0.005, weight_decay=0.2),
            "gpu": NNLMRun(steps=4000, learning_rate=0.005, weight_decay=0.2),
        },
        data=_data,
        model=lambda config, data: NNLM(NNLMConfig(len(data.vocabulary), config.dim, config.context, config.hidden)),
        batches=_nnlm_batches,
        training=lambda config, data: TrainConfig(
            steps=config.steps,
            optimizer="muon",
            learning_rate=config.learning_rate,
            muon_learning_rate=config.muon_learning_rate,
            weight_decay=config.weight_decay,
            unit="words",
        ),
        metrics=_nnlm_metrics,
    ),
    *(
        Recipe(
            name=name,
            purpose=purpose,
            lesson="word_vectors",
            presets={
                "smoke": Word2VecRun(epochs=1, blocks=1024),
                "laptop": Word2VecRun(),
                "long": Word2VecRun(epochs=60),
                "gpu": Word2VecRun(epochs=60),
            },
            data=_data,
            model=functools.partial(_word2vec, kind),
            batches=_text_blocks,
            training=_word2vec_training,
            metrics=metrics,
        )
        for name, kind, purpose, metrics in (
            ("cbow", CBOW, "predict a word from the mean of its neighbours", _cbow_metrics),
            ("skip_gram", SkipGram, "predict each neighbour of a word", _skip_gram_metrics),
        )
    ),
    Recipe(
        name="glove",
        purpose="fit the logarithms of co-occurrence counts",
        lesson="word_vectors",
        presets={
            "smoke": GloVeRun(epochs=1, window=3, batch=65536),
            "laptop": GloVeRun(),
            "long": GloVeRun(epochs=30),
            "gpu": GloVeRun(epochs=30),
        },
        data=_data,
        model=lambda config, data: GloVe(GloVeConfig(len(data.vocabulary), config.dim, config.most, config.power)),
        batches=_glove_batches,
        training=_glove_training,
        metrics=lambda config, data, model: similarity(data, model.vectors().cpu()),
    ),
]
