"""PPMI + SVD: word vectors by counting, without learning.

Church, Hanks (1990), "Word Association Norms, Mutual Information, and Lexicography" (the association);
Bullinaria, Levy (2007), "Extracting Semantic Representations from Word Co-occurrence Statistics" (its positive part);
Levy, Goldberg (2014), "Neural Word Embedding as Implicit Matrix Factorization": skip-gram with negative sampling
factorises this very table, shifted by the logarithm of the number of negatives.
"""

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from sklearn.utils.extmath import randomized_svd
from torch import Tensor


def ppmi(table: scipy.sparse.sparray) -> scipy.sparse.coo_array:
    """Positive pointwise mutual information of a table of co-occurrence counts (words times contexts).

    max(0, log p(word, context) / (p(word) p(context))): how much more often two words meet than by chance. Pairs that
    never meet stay 0.
    """
    counts = table.tocoo()
    words, contexts = counts.sum(axis=1), counts.sum(axis=0)
    chance = words[counts.row] * contexts[counts.col] / counts.data.sum()
    information = np.log(counts.data / chance)
    kept = information > 0
    return scipy.sparse.coo_array((information[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape)


def svd_vectors(table: scipy.sparse.sparray, dim: int, seed: int = 0) -> Float[Tensor, "words dim"]:
    """The first ``dim`` left singular vectors, each times the square root of its singular value.

    The square root is the choice of Levy, Goldberg, Dagan (2015), section 3.3: it suits word similarity better than
    the singular values themselves.
    """
    left, values, _ = randomized_svd(table.tocsr(), n_components=dim, random_state=seed)
    return torch.from_numpy((left * np.sqrt(values)).astype(np.float32))
