"""PPMI against the formula, cell by cell, and the vectors against the table they compress."""

import numpy as np
import scipy.sparse
import torch

from pfmcourse.models.ppmi import ppmi, svd_vectors


def test_ppmi_follows_the_formula():
    counts = np.random.default_rng(0).integers(0, 4, size=(6, 5)).astype(float)
    found = ppmi(scipy.sparse.coo_array(counts)).toarray()
    total = counts.sum()
    for i, j in np.ndindex(counts.shape):
        joint, word, context = counts[i, j] / total, counts[i].sum() / total, counts[:, j].sum() / total
        wanted = max(0.0, np.log(joint / (word * context))) if joint else 0.0
        assert np.isclose(found[i, j], wanted)
    assert (found > 0).any()


def test_vectors_of_full_size_keep_every_angle_of_a_symmetric_table():
    root = np.random.default_rng(1).normal(size=(7, 7))
    table = root @ root.T  # symmetric and positive: its SVD is its eigendecomposition
    vectors = svd_vectors(scipy.sparse.csr_array(table), dim=7)
    assert torch.allclose(vectors @ vectors.T, torch.tensor(table, dtype=torch.float32), atol=1e-3)
