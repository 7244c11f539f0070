"""Lesson transformer: names of emoji from English into Chinese and Spanish, with attention and without.

The phrases are few and made of few words, so what is held out decides what is measured. Three kinds are told apart:

- **new combinations**: every English word was seen in training, but never together like this, in no skin tone: "man
  pilot" where training had "woman pilot" and "man singer". This is what a translator can be asked to do.
- **known words**: concepts that no training phrase is about, in words that training had elsewhere.
- **new words**: at least one English word that no training phrase holds. Nothing in the data says what it means.
"""

import functools
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from pfmcourse import base
from pfmcourse.data import emoji
from pfmcourse.data.emoji import Emoji
from pfmcourse.evaluate import Interval
from pfmcourse.models.seq2seq import Pairs, Seq2Seq, Seq2SeqConfig, Translator
from pfmcourse.models.transformer import Transformer, TransformerConfig
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
LETTERS = (
    "abcdefghijklmnopqrstuvwxyzàáâãäåæçèéêëìíîïñòóôõöøùúûüýßœışğ"  # a token each, whether training has them or not
)
KINDS = ("new combinations", "known words", "new words")
LONGEST = 48  # tokens of a phrase, start and end counted

# Data ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """One name in two languages."""

    english: str
    plain: str  # the English name without skin tones
    concept: int  # names of one concept are variants of one thing
    language: str  # of ``text``
    text: str
    kind: str  # one of KINDS, or "train"


@dataclass(frozen=True)
class Corpus:
    """Phrases in three parts, and the tokenizer made from the training part."""

    languages: tuple[str, ...]
    tokenizer: Tokenizer
    train: tuple[Phrase, ...]
    validation: tuple[Phrase, ...]
    test: tuple[Phrase, ...]

    def encode(self, text: str) -> list[int]:
        """The tokens of a phrase, without start and end."""
        return self.tokenizer.encode(text).ids

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The tokens as they are written; ▁ is a blank."""
        return [self.tokenizer.id_to_token(token) for token in tokens]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a row of tokens: what comes before the first end token, special tokens left out."""
        tokens = list(tokens)
        end = self.tokenizer.token_to_id(END)
        return self.tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens).strip()

    def start(self, language: str) -> int:
        """The start token that asks for this language."""
        return self.tokenizer.token_to_id(f"<{language}>")

    def source(self, phrase: Phrase) -> list[int]:
        """The English name and the end token."""
        return [*self.encode(phrase.english), self.tokenizer.token_to_id(END)]

    def target(self, phrase: Phrase) -> list[int]:
        """The start token of the language, the name in it, and the end token."""
        return [self.start(phrase.language), *self.encode(phrase.text), self.tokenizer.token_to_id(END)]

    def sources(self, phrases: Sequence[Phrase]) -> Tensor:
        """The English names as rows of tokens that end with the end token."""
        return _padded([self.source(phrase) for phrase in phrases])

    def pairs(self, phrases: Sequence[Phrase]) -> Pairs:
        """A batch for a translator."""
        return Pairs(self.sources(phrases), _padded([self.target(phrase) for phrase in phrases]))


def _padded(rows: Sequence[Sequence[int]], multiple: int = 4) -> Tensor:
    """Rows of one length, a multiple of ``multiple``, since shapes that change cost time; 0 is padding."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])


_TONE = re.compile(r"\b(?:(?:medium-)?(?:light|dark)|medium) skin tone\b")


def without_tone(name: str) -> str:
    """An English name without its skin tones."""
    return " ".join(_TONE.sub(" ", name).split())


def words(name: str) -> set[str]:
    """The words of an English name."""
    return set(re.findall(r"\w+", name))


def held_out_combinations(names: Emoji, seed: int = 0) -> dict[str, str]:
    """Names without tone, of two words or more that all occur in other names: name -> "validation" or "test".

    At most a third of a concept's names (and one at least, where there are two or more) is held out, chosen by
    ``seed``; each of a name's words must be left in two other names, tones not counted.
    """
    concepts = defaultdict(set)
    for name, concept in zip(names.names["en"], names.concepts.tolist(), strict=True):
        concepts[concept].add(without_tone(name))
    left = Counter(word for plain in concepts.values() for name in plain for word in words(name))
    found: dict[str, str] = {}
    for concept in sorted(concepts):
        plain = sorted(concepts[concept], key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
        room = max(1, len(plain) // 3) if len(plain) > 1 else 0
        for name in plain:
            if room and len(words(name)) > 1 and all(left[word] > 2 for word in words(name)):
                room -= 1
                left.subtract(words(name))
                found[name] = "validation" if len(found) % 3 == 2 else "test"
    return found


def phrases(languages: Sequence[str]) -> dict[str, tuple[Phrase, ...]]:
    """The names of all emoji, skin tones included, in each of these languages: part -> phrases.

    The parts are the same for every language: what is held out in one is held out in all.
    """
    names = emoji.load(languages=("en", *languages), skin_tones=True)
    parts = {part: names.split(part) for part in ("train", "validation", "test")}
    combinations = held_out_combinations(parts["train"])
    trained = [name for name in parts["train"].names["en"] if without_tone(name) not in combinations]
    known = {word for name in trained for word in words(name)}
    found: dict[str, list[Phrase]] = {part: [] for part in parts}
    for part, some in parts.items():
        for row, english in enumerate(some.names["en"]):
            plain, goes_to = without_tone(english), part
            if part == "train":
                goes_to = combinations.get(plain, part)
                kind = KINDS[0] if plain in combinations else "train"
            else:
                kind = KINDS[1] if words(english) <= known else KINDS[2]
            for language in languages:
                text = some.names[language][row]
                found[goes_to].append(Phrase(english, plain, int(some.concepts[row]), language, text, kind))
    return {part: tuple(some) for part, some in found.items()}


def _tokenizer(texts: Sequence[str], vocab: int) -> Tokenizer:
    """Byte-pair encoding within words. Chinese characters and signs stand alone, or whole names would become tokens.

    Every language of the data has its start token, so that a trained model can be taught another one.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Split(Regex(r"\p{Han}|[^\p{L}\p{N}▁]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    special = [PADDING, END, UNKNOWN, *(f"<{language}>" for language in emoji.LANGUAGES if language != "en")]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=list(LETTERS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@functools.cache
def corpus(languages: tuple[str, ...] = ("zh", "es"), vocab: int = 3000) -> Corpus:
    """The phrases in these languages, with a tokenizer of ``vocab`` tokens made from the training part."""
    parts = phrases(languages)
    texts = sorted({text for phrase in parts["train"] for text in (phrase.english, phrase.text)})
    return Corpus(languages, _tokenizer(texts, vocab), **parts)


# Measuring -----------------------------------------------------------------------------------------------------------


def translations(
    data: Corpus, model: Translator, phrases: Sequence[Phrase], *, beams: int = 1, batch: int = 256
) -> list[str]:
    """What the model makes of each phrase, by greedy search or with ``beams``."""
    device = next(model.parameters()).device
    order = sorted(range(len(phrases)), key=lambda index: len(phrases[index].english))
    written: dict[int, str] = {}
    for first in range(0, len(order), batch):
        chosen = [phrases[index] for index in order[first : first + batch]]
        source = data.sources(chosen).to(device)
        start = torch.tensor([data.start(phrase.language) for phrase in chosen], device=device)
        if beams > 1:
            rows, _ = model.beam_search(source, start, LONGEST - 2, beams=beams)
        else:
            rows = model.translate(source, start, LONGEST - 2)
        for index, row in zip(order[first : first + batch], rows.tolist(), strict=True):
            written[index] = data.text(row)
    return [written[index] for index in range(len(phrases))]


def _chrf() -> Any:
    return base.require("sacrebleu.metrics", "sacrebleu==2.6.0", "measuring chrF").CHRF()


def chrf(written: Sequence[str], wanted: Sequence[str]) -> float:
    """chrF of a set of translations, 0 to 100: the F-score of character n-grams (Popović 2015), by sacrebleu."""
    return float(_chrf().corpus_score(list(written), [list(wanted)]).score)


def exact(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of the translations, in percent, that are the wanted one, letter by letter."""
    return 100 * sum(a == b for a, b in zip(written, wanted, strict=True)) / len(wanted)


def phrase_chrf(written: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """chrF of each translation alone, 0 to 100. Their mean is not the chrF of the set, which pools the n-grams."""
    metric = _chrf()
    return [float(metric.sentence_score(a, [b]).score) for a, b in zip(written, wanted, strict=True)]


def by_concept(values: Sequence[float], phrases: Sequence[Phrase], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean over phrases with its 95 % interval, by a bootstrap that draws concepts and not phrases.

    The skin tones of one name, and its two languages, succeed or fail together: phrases would pretend to be many.
    """
    number = {concept: row for row, concept in enumerate(dict.fromkeys(phrase.concept for phrase in phrases))}
    rows = np.array([number[phrase.concept] for phrase in phrases])
    totals, sizes = np.bincount(rows, weights=np.asarray(values, dtype=float)), np.bincount(rows)
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(resamples, len(sizes)))
    means = totals[drawn].sum(1) / sizes[drawn].sum(1)
    return Interval(float(np.mean(values)), *(float(bound) for bound in np.percentile(means, [2.5, 97.5])))


def _metrics(config: Any, data: Corpus, model: Translator) -> dict[str, float]:
    found = {}
    for part, kind in (("validation", KINDS[0]), *(("test", kind) for kind in KINDS)):
        phrases = [phrase for phrase in getattr(data, part) if phrase.kind == kind][: config.measured or None]
        written = translations(data, model, phrases)
        wanted = [phrase.text for phrase in phrases]
        key = f"{part}_{kind.replace(' ', '_')}"
        found |= {f"{key}_chrf": chrf(written, wanted), f"{key}_exact": exact(written, wanted)}
    return found


# Training ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransformerRun:
    """One run of the Transformer."""

    steps: int = 450
    dim: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int = 512
    dropout: float = 0.0
    norm_first: bool = True
    vocab: int = 3000
    languages: tuple[str, ...] = ("zh", "es")
    batch: int = 64
    learning_rate: float = 0.005
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    measured: int = 0  # phrases of each kind that the card's metrics are measured on; 0: all


@dataclass(frozen=True)
class Seq2SeqRun:
    """One run of the recurrent baseline. It learns more slowly, so it gets more steps."""

    steps: int = 900
    dim: int = 128
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.1
    backwards: bool = True
    vocab: int = 3000
    languages: tuple[str, ...] = ("zh", "es")
    batch: int = 64
    learning_rate: float = 0.005
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    measured: int = 0


def _batches(config: Any, data: Corpus, seed: int) -> Batches:
    """Each epoch sees every training phrase once, phrases of about one length together."""
    rows = [(data.source(phrase), data.target(phrase)) for phrase in data.train]
    per_epoch = max(1, len(rows) // config.batch)

    @functools.lru_cache(maxsize=1)
    def epoch_batches(epoch: int) -> list[list[tuple[list[int], list[int]]]]:
        generator = random.Random(f"{seed} {epoch}")
        order = generator.sample(rows, per_epoch * config.batch)
        order.sort(key=lambda row: len(row[0]) + len(row[1]))  # stable: phrases of one length stay mixed
        batches = [order[first : first + config.batch] for first in range(0, len(order), config.batch)]
        generator.shuffle(batches)
        return batches

    def batch(step: int, generator: torch.Generator) -> Pairs:
        epoch, position = divmod(step, per_epoch)
        return Pairs(*map(_padded, zip(*epoch_batches(epoch)[position], strict=True)))

    return batch


def _training(config: Any, data: Corpus) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        optimizer="muon",
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        unit="phrases",
    )


def _transformer(config: TransformerRun, data: Corpus) -> nn.Module:
    return Transformer(
        TransformerConfig(
            vocab=data.tokenizer.get_vocab_size(),
            context=LONGEST,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            norm_first=config.norm_first,
        )
    )


def _seq2seq(config: Seq2SeqRun, data: Corpus) -> nn.Module:
    return Seq2Seq(
        Seq2SeqConfig(
            vocab=data.tokenizer.get_vocab_size(),
            dim=config.dim,
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
            backwards=config.backwards,
        )
    )


def _recipe(name: str, purpose: str, presets: dict[str, Any], model: Callable[[Any, Corpus], nn.Module]) -> Recipe:
    return Recipe(
        name=name,
        purpose=purpose,
        lesson="transformer",
        presets=presets,
        data=lambda config: corpus(config.languages, config.vocab),
        model=model,
        batches=_batches,
        training=_training,
        metrics=_metrics,
    )


RECIPES = [
    _recipe(
        "transformer",
        "translate names of emoji, with attention",
        {
            "smoke": TransformerRun(steps=4, dim=32, hidden=64, batch=32, measured=64),
            "laptop": TransformerRun(),
            "long": TransformerRun(steps=3000),
            "gpu": TransformerRun(steps=3000, batch=128),
        },
        _transformer,
    ),
    _recipe(
        "seq2seq",
        "translate names of emoji, through one vector",
        {
            "smoke": Seq2SeqRun(steps=4, dim=32, hidden=32, batch=32, measured=64),
            "laptop": Seq2SeqRun(),
            "long": Seq2SeqRun(steps=6000),
            "gpu": Seq2SeqRun(steps=6000, batch=128),
        },
        _seq2seq,
    ),
]
