"""Word2Vec to and from gensim. gensim keeps only the words that it has seen, in its own order; tables follow ours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pfmcourse.base import CourseError, require
from pfmcourse.models.word2vec import CBOW, SkipGram, Word2Vec, Word2VecConfig


def from_gensim(reference: Any, vocabulary: Sequence[str]) -> Word2Vec:
    """Our SkipGram or CBOW with the weights of a ``gensim.models.Word2Vec`` trained with negative sampling.

    ``vocabulary`` gives the order of our rows. Words that gensim does not know get vectors of zeros; a word that only
    gensim knows raises CourseError, because its weights would be lost.
    """
    lost = set(reference.wv.key_to_index) - set(vocabulary)
    if lost:
        raise CourseError(f"gensim's model has {len(lost)} words that the vocabulary lacks, such as {min(lost)!r}.")
    if not reference.negative:
        raise CourseError("this gensim model was trained without negative sampling, so it has no output vectors.")
    config = Word2VecConfig(len(vocabulary), reference.vector_size, reference.window, reference.negative)
    ours = (SkipGram if reference.sg else CBOW)(config)
    rows = torch.tensor([reference.wv.key_to_index.get(word, -1) for word in vocabulary])
    known = rows >= 0
    with torch.no_grad():
        for table, weights in ((ours.inputs, reference.wv.vectors), (ours.outputs, reference.syn1neg)):
            table.weight.zero_()
            table.weight[known] = torch.from_numpy(np.asarray(weights))[rows[known]]
    return ours


def to_gensim(ours: Word2Vec, vocabulary: Sequence[str]) -> Any:
    """gensim's ``KeyedVectors`` with our input vectors, for ``most_similar`` and all that builds on it."""
    models = require("gensim.models", "gensim==4.4.0", "handing word vectors to gensim")
    vectors = models.KeyedVectors(ours.config.dim)
    vectors.add_vectors(list(vocabulary), ours.vectors().cpu().numpy())
    return vectors
