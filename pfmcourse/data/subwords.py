"""Byte-pair encoding with the library `tokenizers`: the words that are frequent whole, the rest in pieces.

Sennrich, Haddow, Birch (2016), "Neural Machine Translation of Rare Words with Subword Units"; on bytes instead of
characters as in GPT-2 (Radford et al. 2019), so that no text is unknown.
"""

import functools
import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from pfmcourse.base import CourseError
from pfmcourse.data import source

BYTES = 256


@functools.lru_cache(maxsize=8)
def learn(text: str, vocab: int, special: tuple[str, ...] = ()) -> Tokenizer:
    """The ``vocab - 256`` most useful merges of neighbouring pieces of ``text``; the same text gives the same ones.

    Tokens 0 to 255 are bytes. The ``special`` tokens come last: their numbers start at ``vocab``. Raises CourseError
    for fewer tokens than there are bytes, and where the text is too short for so many.
    """
    if vocab < BYTES:
        raise CourseError(f"vocab={vocab} is less than the {BYTES} bytes, of which every text is made: take more.")
    tokenizer = Tokenizer(models.BPE())
    # GPT-2's rule: a word keeps the space before it, and no piece crosses from one word to the next.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_pieces(text), trainer)
    if tokenizer.get_vocab_size() < vocab:
        raise CourseError(
            f"a text of {len(text):,} characters has only {tokenizer.get_vocab_size()} different pieces, but "
            f"vocab={vocab} was wanted. Take a smaller vocabulary or a longer text."
        )
    tokenizer.add_special_tokens(list(special))
    tokenizer.encode_special_tokens = True  # a text that says [MASK] means these six letters
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Int64[Tensor, " time"]:
    """The text as token numbers, from the cache where this tokenizer has read it before."""
    key = {
        "text": hashlib.sha256(text.encode()).hexdigest(),
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "v": 1,
    }

    def build() -> dict[str, Tensor]:
        parts = tokenizer.encode_batch(_pieces(text), add_special_tokens=False)
        return {"tokens": torch.from_numpy(np.concatenate([np.array(part.ids, dtype=np.int64) for part in parts]))}

    return source.cached("tokens", key, build)["tokens"]


def encode_each(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The token numbers of each of several texts."""
    return [encoded.ids for encoded in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _pieces(text: str) -> list[str]:
    """The text in parts that a tokenizer may read one by one: cut where GPT-2's rule would cut it as well."""
    return re.split(r"(?<=[^\n]\n)(?=\n\S)", text)
