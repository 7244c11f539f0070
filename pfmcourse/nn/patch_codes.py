"""Words for patches: a picture becomes a text whose tokens are numbers from a list of typical patches.

Bao, Dong, Piao, Wei (2021), "BEiT: BERT Pre-Training of Image Transformers", section 2.1, where a tokenizer makes
visual tokens of a picture. Changed: the paper's tokenizer is the discrete variational autoencoder of DALL-E, a
convolutional network whose tokens depend on what is around a patch too. Here the typical patches are the centres of
k-means over pixels, and a token says only which of them is nearest.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.patches import patchify, unpatchify


class PatchCodes(nn.Module):
    """A vocabulary of patches: pictures to tokens and back. Nothing in it is trained by gradients."""

    codes: Float[Tensor, "vocab numbers"]

    def __init__(self, codes: Float[Tensor, "vocab numbers"], patch: int) -> None:
        super().__init__()
        if codes.shape[1] % patch**2:
            raise CourseError(f"codes of {codes.shape[1]} numbers are no patches of {patch} x {patch} pixels.")
        self.patch = patch
        self.register_buffer("codes", codes)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Int[Tensor, "batch patches"]:
        """The number of the code that is nearest to each patch in squared distance."""
        patches = patchify(images, self.patch)
        # |x - c|^2 = |x|^2 - 2 x c + |c|^2, and |x|^2 is the same for all codes
        half_norms = self.codes.square().sum(1) / 2
        return F.linear(patches, self.codes, -half_norms).argmax(-1)

    def decode(
        self, tokens: Int[Tensor, "batch patches"], columns: int | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The pictures that these tokens stand for. ``columns`` patches stand side by side; None: it is a square."""
        columns = columns or round(tokens.shape[1] ** 0.5)
        if tokens.shape[1] % columns:
            raise CourseError(f"{tokens.shape[1]} tokens do not fill rows of {columns}: give another columns=.")
        return unpatchify(self.codes[tokens], self.patch, columns)


def learn_codes(images: Float[Tensor, "batch channels height width"], patch: int, vocab: int, seed: int) -> PatchCodes:
    """The ``vocab`` centres of k-means over all patches of the pictures, found in mini-batches.

    MiniBatchKMeans of scikit-learn (Sculley 2010, "Web-Scale K-Means Clustering"). Raises CourseError where there are
    fewer patches than codes.
    """
    patches = patchify(images, patch).flatten(0, 1).float().cpu()
    if len(patches) < vocab:
        raise CourseError(f"{len(patches)} patches cannot give vocab={vocab} codes: give more pictures or fewer codes.")
    from sklearn.cluster import MiniBatchKMeans  # slow to import, and only who learns codes needs it

    found = MiniBatchKMeans(n_clusters=vocab, batch_size=4096, n_init=1, random_state=seed).fit(patches.numpy())
    return PatchCodes(torch.as_tensor(found.cluster_centers_, dtype=torch.float32), patch)
