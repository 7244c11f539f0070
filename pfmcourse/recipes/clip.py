"""Lesson clip: pictures and their names, brought together.

Emoji of the training concepts with their names, and icons, which are many more. Some icons show, in another style, a
concept whose emoji are held out. The recipe clip learns from them too, as the real CLIP has seen most things somewhere
on the web; clip_unnamed leaves out every icon whose name holds a word that only held-out emoji have.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from tokenizers import Tokenizer
from torch import Tensor

from pfmcourse import base, evaluate
from pfmcourse.data import emoji, icons, minilm, subwords
from pfmcourse.models.clip import CLIP, FrozenText, ImagesWithTexts, TextTransformer, TextTransformerConfig
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.student import Student, StudentConfig, TaughtTexts
from pfmcourse.nn.views import Views, view
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, device

CONTEXT = 16  # tokens of a name
PALEST = 0.8  # of an icon's ink, for each colour: 0 is black, 1 is white

# Large parts, slightly turned and recoloured: red and blue are parts of names.
GENTLE = Views(
    smallest=0.4, rotation=15.0, jitter=0.8, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.04, grey=0.1
)


@dataclass(frozen=True)
class ClipRun:
    """One run of CLIP."""

    text: Literal["minilm", "words"] = "minilm"  # a frozen reader of English, or one that is trained here
    icons: int | None = None  # at most so many; None: all
    named: bool = True  # whether an icon's name may hold a word that of all emoji only held-out ones have
    skin_tones: bool = False
    size: int = 32  # of the pictures, in pixels
    steps: int = 300
    batch: int = 256
    share: float = 0.35  # of the batch that is emoji, if there are icons
    width: int = 24
    dim: int = 256
    joint: int = 128
    vocab: int = 1024  # of the text tower that is trained here
    text_dim: int = 128
    text_layers: int = 2
    temperature: float = 0.07
    learning_rate: float = 2e-3
    weight_decay: float = 0.1


@dataclass(frozen=True)
class Texts:
    """Texts as numbers of tokens; ``cut`` counts those that were longer than the context and lost their end."""

    tokens: Int64[Tensor, "texts time"]
    mask: Bool[Tensor, "texts time"]
    cut: int


@dataclass(frozen=True)
class Pairs:
    """Pictures with captions. The ``emoji`` first ones are emoji, the others are icons, which have one channel.

    ``captions`` numbers ``names``, which holds each name once. ``texts`` has a row for each name.
    """

    emoji: UInt8[Tensor, "emoji 3 size size"]
    icons: UInt8[Tensor, "icons 1 size size"]
    captions: Int64[Tensor, " pairs"]
    names: tuple[str, ...]
    vectors: Float[Tensor, "names dim"] | None  # of the frozen reader
    texts: Texts | None  # for the reader that is trained here
    tokenizer: Tokenizer | None


# Texts ---------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def tokenizer_of(names: tuple[str, ...], vocab: int) -> Tokenizer:
    """Pieces of words that these names are made of, and an end token, number ``vocab``.

    A short list of names has fewer pieces than asked for; then there are only so many, and the end token is after them.
    """
    text = "\n".join(name.lower() for name in names)
    while True:
        try:
            return subwords.learn(text, vocab, ("[END]",))
        except base.CourseError:
            if vocab <= subwords.BYTES:
                raise
            vocab = max(subwords.BYTES, vocab // 2)


def read(tokenizer: Tokenizer, names: Sequence[str], context: int = CONTEXT) -> Texts:
    """Names as rows of tokens with the end token behind, padded with it; what is longer than the context is cut.

    Raises CourseError for an empty name, which says nothing about its picture.
    """
    for place, name in enumerate(names):
        if not name.strip():
            raise base.CourseError(f"name {place} of {len(names)} is empty: a picture without a name cannot be a pair.")
    end = tokenizer.token_to_id("[END]")
    rows = [found.ids for found in tokenizer.encode_batch([name.lower() for name in names])]
    tokens = torch.full((len(rows), context), end)
    lengths = torch.tensor([min(len(row), context - 1) + 1 for row in rows])
    for row, found in zip(tokens, rows, strict=True):
        row[: min(len(found), context - 1)] = torch.tensor(found[: context - 1])
    return Texts(tokens, torch.arange(context) < lengths[:, None], sum(len(row) > context - 1 for row in rows))


@functools.cache
def held_words() -> tuple[str, ...]:
    """The words that only names of held-out emoji have; the s of a plural makes no difference."""
    everything = emoji.load(languages=("en",))

    def words(part: str) -> set[str]:
        return {icons.stem(word) for name in everything.split(part).names["en"] for word in name.split()}

    return tuple(sorted((words("validation") | words("test")) - words("train")))


# Pairs ---------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def pairs_of(text: str, most: int | None, named: bool, size: int, skin_tones: bool, vocab: int) -> Pairs:
    """The pairs to train on; of the icons at most ``most``, evenly taken from the list."""
    drawn = emoji.load(size, languages=("en",), skin_tones=skin_tones).split("train")
    others = icons.load(size) if named else icons.load(size).without(held_words())
    if most is not None:
        others = others.select(torch.linspace(0, len(others) - 1, most).long().unique())
    captions = [*drawn.names["en"], *others.names]
    if not all(caption.strip() for caption in captions):
        raise base.CourseError("a picture has no name: every picture of a pair needs one. Leave such pictures out.")
    names = tuple(dict.fromkeys(captions))
    number = {name: place for place, name in enumerate(names)}
    tokenizer = tokenizer_of(names, vocab) if text == "words" else None
    return Pairs(
        emoji=drawn.pictures,
        icons=others.pictures,
        captions=torch.tensor([number[caption] for caption in captions]),
        names=names,
        vectors=minilm.sentence_vectors(names, rows=128) if text == "minilm" else None,
        texts=read(tokenizer, names) if tokenizer else None,
        tokenizer=tokenizer,
    )


def coloured(
    pictures: UInt8[Tensor, "icons 1 size size"], generator: torch.Generator
) -> Float[Tensor, "icons 3 size size"]:
    """Icons in a random colour each, from 0 to 1, on white."""
    ink = 1 - pictures.float() / 255
    colour = PALEST * torch.rand(len(pictures), 3, 1, 1, generator=generator, device=generator.device)
    return 1 - ink * (1 - colour.to(pictures.device))


# What is measured ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def picture_vectors(
    model: CLIP, pictures: UInt8[Tensor, "pictures 3 size size"], rows: int = 500
) -> Float[Tensor, "pictures joint"]:
    """Where CLIP puts pictures, from 0 to 255, on the CPU."""
    model.eval()
    where = model.log_scale.device
    return torch.cat([model.encode_image(part.to(where).float() / 255).float().cpu() for part in pictures.split(rows)])


@torch.no_grad()
def text_vectors(model: CLIP, texts: Sequence[str], tokenizer: Tokenizer | None = None) -> Float[Tensor, "texts joint"]:
    """Where CLIP puts English texts, on the CPU: by MiniLM's vectors, or with ``tokenizer`` by its own text tower."""
    model.eval()
    where = model.log_scale.device
    if tokenizer is None:
        return model.encode_vectors(minilm.sentence_vectors(texts, rows=128).to(where)).float().cpu()
    found = read(tokenizer, texts)
    return model.encode_text(found.tokens.to(where), found.mask.to(where)).float().cpu()


def pixel_neighbours(
    pictures: UInt8[Tensor, "train 3 size size"],
    vectors: Float[Tensor, "train dim"],
    others: UInt8[Tensor, "test 3 size size"],
    k: int = 3,
) -> Float[Tensor, "test dim"]:
    """The mean of what the ``k`` most similar training pictures are called, pixel by pixel: no training at all.

    Pictures are compared by cosine, less the mean training picture; so are the texts' vectors, which come back
    centred.
    """
    mean = pictures.float().mean(0)
    seen, asked = (F.normalize((part.float() - mean).flatten(1), dim=1) for part in (pictures, others))
    nearest = (asked @ seen.T).topk(min(k, len(seen)), dim=1).indices
    return vectors[nearest].mean(1) - vectors.mean(0)


def heard_of(names: Sequence[str], captions: Sequence[str]) -> Int64[Tensor, " names"]:
    """How much of each held-out emoji's name the captions hold: 0 a word nowhere, 1 every word, 2 in emoji alone.

    0: a word of it is in no caption. 1: every word is, but some only in icons' captions. 2: every word is in names of
    training emoji.
    """
    unheard = set(held_words())
    spoken = {icons.stem(word) for caption in captions for word in caption.split()}

    def level(name: str) -> int:
        new = {icons.stem(word) for word in name.split()} & unheard
        return 2 if not new else 1 if new <= spoken else 0

    return torch.tensor([level(name) for name in names], dtype=torch.int64)


def metrics(config: ClipRun, data: Pairs, model: CLIP) -> Mapping[str, float]:
    """Recall at 10, both ways, on the emoji of the validation concepts."""
    held = emoji.load(config.size, languages=("en",)).split("validation")
    found = evaluate.retrieval_recall(
        picture_vectors(model, held.pictures), text_vectors(model, held.names["en"], data.tokenizer)
    )
    return {"validation_recall_10": found.mean[10]}


# The recipes ---------------------------------------------------------------------------------------------------------


def pairs(config: ClipRun) -> Pairs:
    """The pairs of a run."""
    return pairs_of(config.text, config.icons, config.named, config.size, config.skin_tones, config.vocab)


def network(config: ClipRun, data: Pairs) -> CLIP:
    """A convolutional network for pictures; for texts the table of MiniLM's vectors, or a Transformer."""
    images = ConvNet(ConvNetConfig(1, config.width, dim=config.dim, channels=3, size=config.size))
    if data.vectors is not None:
        return CLIP(images, FrozenText(data.vectors), config.joint, config.temperature)
    end = data.tokenizer.token_to_id("[END]")
    texts = TextTransformer(
        TextTransformerConfig(
            vocab=end + 1, context=CONTEXT, dim=config.text_dim, layers=config.text_layers, end=end, dropout=0.1
        )
    )
    return CLIP(images, texts, config.joint, config.temperature)


def batches(config: ClipRun, data: Pairs, seed: int) -> Batches:
    """Different pictures in every batch, slightly changed, emoji before icons; pairs with one name are no negatives."""
    drawn, others = data.emoji.to(device()), data.icons.to(device())
    captions = data.captions.to(device())
    texts = None if data.texts is None else (data.texts.tokens.to(device()), data.texts.mask.to(device()))
    emojis = min(round(config.batch * config.share) if len(others) else config.batch, len(drawn))
    count = min(config.batch - emojis, len(others))

    def draw(step: int, generator: torch.Generator) -> ImagesWithTexts:
        first = torch.randperm(len(drawn), generator=generator)[:emojis].to(drawn.device)
        second = torch.randperm(len(others), generator=generator)[:count].to(drawn.device)
        images = torch.cat([drawn[first].float() / 255, coloured(others[second], generator)])
        images = view(images, GENTLE, generator)
        same = captions[torch.cat([first, len(drawn) + second])]
        if texts is None:
            return ImagesWithTexts(images, same[:, None], same=same)
        return ImagesWithTexts(images, texts[0][same], texts[1][same], same=same)

    return draw


def training(config: ClipRun, data: Pairs) -> TrainConfig:
    """AdamW, counting pairs."""
    return TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        decay="cosine",
        unit="pairs",
    )


def _recipe(name: str, purpose: str, long: int, **changes: object) -> Recipe:
    run = ClipRun(**changes)
    return Recipe(
        name=name,
        purpose=purpose,
        lesson="clip",
        presets={
            "smoke": dataclasses.replace(
                run, icons=200 if run.icons is None else 0, steps=3, batch=32, width=4, dim=32, vocab=300, text_layers=1
            ),
            "laptop": run,
            "long": dataclasses.replace(run, steps=long, batch=512, share=0.25),
            "gpu": dataclasses.replace(
                run, steps=20_000, batch=1024, size=64, width=64, dim=512, skin_tones=True, text_layers=6, text_dim=256
            ),
        },
        data=pairs,
        model=network,
        batches=batches,
        training=training,
        metrics=metrics,
    )


# Many languages ------------------------------------------------------------------------------------------------------

UNSEEN = "ko"  # the language that the student never reads


@dataclass(frozen=True)
class StudentRun:
    """One run of a student of MiniLM that reads many languages."""

    languages: tuple[str, ...] = tuple(language for language in emoji.LANGUAGES if language != UNSEEN)
    names: Literal["train", "all"] = "all"  # of which concepts: all names are texts, no picture is looked at
    steps: int = 250
    batch: int = 512
    vocab: int = 8000
    dim: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Translations:
    """Names in several languages and the teacher's vectors of the English ones, less their mean over training names."""

    tokens: Int64[Tensor, "languages names time"]
    mask: Bool[Tensor, "languages names time"]
    vectors: Float[Tensor, "names teacher"]
    tokenizer: Tokenizer
    cut: int


@functools.lru_cache(maxsize=2)
def _translations(languages: tuple[str, ...], names: str, vocab: int, context: int) -> Translations:
    everything = emoji.load()
    chosen = everything.split("train") if names == "train" else everything
    tokenizer = tokenizer_of(tuple(name for language in languages for name in chosen.names[language]), vocab)
    found = [read(tokenizer, chosen.names[language], context) for language in languages]
    mean = minilm.sentence_vectors(everything.split("train").names["en"], rows=128).mean(0)
    return Translations(
        tokens=torch.stack([texts.tokens for texts in found]),
        mask=torch.stack([texts.mask for texts in found]),
        vectors=minilm.sentence_vectors(chosen.names["en"], rows=128) - mean,
        tokenizer=tokenizer,
        cut=sum(texts.cut for texts in found),
    )


def translations(config: StudentRun) -> Translations:
    """The names of a run."""
    return _translations(config.languages, config.names, config.vocab, StudentConfig(1).context)


def _student(config: StudentRun, data: Translations) -> Student:
    return Student(StudentConfig(data.tokenizer.get_vocab_size(), config.dim, data.vectors.shape[1]))


def _student_batches(config: StudentRun, data: Translations, seed: int) -> Batches:
    tokens, mask, vectors = (part.to(device()) for part in (data.tokens, data.mask, data.vectors))

    def draw(step: int, generator: torch.Generator) -> TaughtTexts:
        names = torch.randperm(len(vectors), generator=generator)[: config.batch].to(vectors.device)
        language = torch.randint(len(tokens), (len(names),), generator=generator).to(vectors.device)
        return TaughtTexts(tokens[language, names], mask[language, names], vectors[names])

    return draw


@torch.no_grad()
def student_vectors(student: Student, tokenizer: Tokenizer, names: Sequence[str]) -> Float[Tensor, "names teacher"]:
    """What the student says of names in any language, on the CPU: directions from the mean of the teacher's."""
    student.eval()
    texts, where = read(tokenizer, names, student.config.context), student.tokens.weight.device
    return student.encode(texts.tokens.to(where), texts.mask.to(where)).float().cpu()


@torch.no_grad()
def foreign_vectors(
    model: CLIP, student: Student, tokenizer: Tokenizer, names: Sequence[str]
) -> Float[Tensor, "names joint"]:
    """Where CLIP puts names in any language that the student reads, on the CPU."""
    model.eval()
    mean = model.text_tower.mean
    return model.encode_vectors(student_vectors(student, tokenizer, names).to(mean) + mean).float().cpu()


def _student_metrics(config: StudentRun, data: Translations, student: Student) -> Mapping[str, float]:
    """How often the teacher's right vector is the nearest of all validation names: languages read, and the unseen."""
    held = emoji.load().split("validation")
    mean = minilm.sentence_vectors(emoji.load().split("train").names["en"], rows=128).mean(0)
    wanted = minilm.sentence_vectors(held.names["en"], rows=128) - mean

    def right(language: str) -> float:
        found = student_vectors(student, data.tokenizer, held.names[language])
        return evaluate.retrieval_recall(found, wanted, ks=(1,)).forward[1]

    foreign = [right(language) for language in config.languages if language != "en"]
    return {"read_right": sum(foreign) / len(foreign), "unseen_right": right(UNSEEN)}


def _student_training(config: StudentRun, data: Translations) -> TrainConfig:
    return TrainConfig(
        steps=config.steps, learning_rate=config.learning_rate, weight_decay=config.weight_decay, unit="names"
    )


RECIPES = [
    _recipe("clip", "bring pictures and the vectors of their names together", long=1000),
    _recipe("clip_unnamed", "CLIP without any icon that is called like a held-out emoji", long=1000, named=False),
    _recipe("clip_emoji", "CLIP on emoji alone, without icons", long=400, icons=0),
    _recipe("clip_words", "CLIP with a text tower that starts from nothing", long=1000, text="words"),
    Recipe(
        name="clip_languages",
        purpose="read names in many languages as MiniLM reads the English ones",
        lesson="clip",
        presets={
            "smoke": StudentRun(languages=("en", "es"), steps=3, batch=32, vocab=500, dim=16),
            "laptop": StudentRun(),
            "long": StudentRun(steps=600),
            "gpu": StudentRun(steps=3000, batch=1800, dim=1024),
        },
        data=translations,
        model=_student,
        batches=_student_batches,
        training=_student_training,
        metrics=_student_metrics,
    ),
]
