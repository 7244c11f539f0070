"""Words for patches: the nearest code, pictures and back, and codes that find what is typical."""

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.nn.patch_codes import PatchCodes, learn_codes
from pfmcourse.nn.patches import patchify


def test_a_token_is_the_number_of_the_nearest_code():
    codes, images = PatchCodes(torch.rand(7, 12), 2), torch.rand(3, 3, 4, 6)
    expected = [
        [min(range(7), key=lambda i: (patch - codes.codes[i]).square().sum()) for patch in picture]
        for picture in patchify(images, 2)
    ]
    tokens = codes.encode(images)
    assert tokens.shape == (3, 6) and tokens.dtype == torch.long and tokens.tolist() == expected
    assert len(tokens.unique()) > 2


def test_tokens_become_pictures_that_become_the_same_tokens():
    codes, tokens = PatchCodes(torch.randn(7, 12), 2), torch.randint(7, (5, 9))
    pictures = codes.decode(tokens)
    assert pictures.shape == (5, 3, 6, 6) and torch.equal(codes.encode(pictures), tokens)
    wide = codes.decode(tokens[:, :8], columns=4)
    assert wide.shape == (5, 3, 4, 8) and torch.equal(codes.encode(wide), tokens[:, :8])


def test_codes_travel_with_the_weights_and_are_not_trained():
    codes = PatchCodes(torch.rand(4, 4), 2)
    assert not list(codes.parameters())
    other = PatchCodes(torch.zeros(4, 4), 2)
    other.load_state_dict(codes.state_dict())
    assert torch.equal(other.codes, codes.codes)


def test_what_is_typical_is_found():
    """Patches are noisy copies of five: each of the five becomes a code, and copies of one get one token."""
    typical = 3 * torch.randn(5, 8)
    kinds = torch.randint(5, (40, 9))
    noisy = PatchCodes(typical, 2).decode(kinds) + 0.05 * torch.randn(40, 2, 6, 6)
    codes = learn_codes(noisy, patch=2, vocab=5, seed=0)
    distances = torch.cdist(typical, codes.codes)
    assert distances.min(1).values.max() < 0.1
    assert torch.equal(distances.argmin(1)[kinds], codes.encode(noisy))
    assert (codes.decode(codes.encode(noisy)) - noisy).abs().mean() < 0.1
    assert torch.equal(learn_codes(noisy, patch=2, vocab=5, seed=0).codes, codes.codes), "the seed decides"


def test_too_few_patches_are_an_error():
    with pytest.raises(CourseError, match="8 patches cannot give vocab=9 codes"):
        learn_codes(torch.rand(2, 1, 4, 4), patch=2, vocab=9, seed=0)


def test_codes_and_tokens_must_fit():
    with pytest.raises(CourseError, match="codes of 10 numbers are no patches of 2 x 2"):
        PatchCodes(torch.rand(3, 10), 2)
    with pytest.raises(CourseError, match="8 tokens do not fill rows of 3"):
        PatchCodes(torch.rand(3, 4), 2).decode(torch.zeros(1, 8, dtype=torch.long))
