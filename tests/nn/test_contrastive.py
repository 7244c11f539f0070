import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.nn.contrastive import clip_loss, info_nce, nt_xent


def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


def naive_nt_xent(first, second, temperature):
    """Equation 1 of the paper, for every view and every other view, one by one."""
    views = [*first, *second]
    count, total = len(first), 0.0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = sum(torch.exp(cosine(views[i], views[k]) / temperature) for k in range(2 * count) if k != i)
        total = total - torch.log(torch.exp(cosine(views[i], views[partner]) / temperature) / others)
    return total / (2 * count)


def naive_info_nce(queries, keys, queue, temperature):
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        own = torch.exp(cosine(query, key) / temperature)
        others = sum(torch.exp(cosine(query, other) / temperature) for other in queue)
        total = total - torch.log(own / (own + others))
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_is_the_double_loop_of_the_paper(temperature):
    first, second = vectors(5, 4).requires_grad_(), vectors(5, 4, seed=1).requires_grad_()
    loss, _ = nt_xent(first, second, temperature)
    expected = naive_nt_xent(first, second, temperature)
    assert abs(loss.item() - expected.item()) < 1e-9
    found, wanted = (torch.autograd.grad(x, (first, second)) for x in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-9 and one.abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_info_nce_is_the_naive_loop(temperature):
    queries, keys = vectors(5, 4).requires_grad_(), vectors(5, 4, seed=1)
    queue = F.normalize(vectors(7, 4, seed=2), dim=1)
    loss, _ = info_nce(queries, keys, queue, temperature)
    expected = naive_info_nce(queries, keys, queue, temperature)
    assert abs(loss.item() - expected.item()) < 1e-9
    (found,), (wanted,) = (torch.autograd.grad(x, queries) for x in (loss, expected))
    assert (found - wanted).abs().max() < 1e-9 and found.abs().max() > 1e-3


def test_blind_vectors_guess():
    """Vectors of many dimensions are nearly at right angles: all candidates look alike."""
    first, second = vectors(40, 4000), vectors(40, 4000, seed=1)
    loss, found = nt_xent(first, second, 1.0)
    assert abs(loss.item() - math.log(2 * 40 - 1)) < 0.01 and found < 0.2
    queue = F.normalize(vectors(100, 4000, seed=2), dim=1)
    loss, found = info_nce(first, second, queue, 1.0)
    assert abs(loss.item() - math.log(101)) < 0.01 and found < 0.2


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_perfect_vectors(temperature):
    """Both views of a picture alike, all others at right angles: e^(1/t) against 2N - 2 times e^0."""
    first = torch.eye(6, dtype=torch.float64)
    loss, found = nt_xent(first, first, temperature)
    assert loss.item() == pytest.approx(math.log(1 + 10 * math.exp(-1 / temperature)), abs=1e-12)
    assert found == 1
    loss, found = info_nce(first[:4], first[:4], first[4:], temperature)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-1 / temperature)), abs=1e-12)
    assert found == 1


def test_the_share_that_is_found():
    first = torch.eye(4, dtype=torch.float64)
    second = first[[0, 1, 3, 2]]  # two of four pictures are taken for one another
    assert nt_xent(first, second, 0.2)[1] == 0.5
    assert info_nce(first, second, first[2:], 0.2)[1] == 0.5  # their likes lie in the queue


def test_the_length_of_vectors_does_not_matter():
    first, second = vectors(5, 8), vectors(5, 8, seed=1)
    longer = torch.linspace(0.1, 30, 5, dtype=torch.float64)[:, None]
    assert torch.allclose(nt_xent(first, second, 0.2)[0], nt_xent(longer * first, second / longer, 0.2)[0], atol=1e-12)
    queue = F.normalize(vectors(7, 8, seed=2), dim=1)
    plain, other = info_nce(first, second, queue, 0.2), info_nce(longer * first, second / longer, queue, 0.2)
    assert torch.allclose(plain[0], other[0], atol=1e-12)


def test_neither_the_order_of_pictures_nor_of_views_matters():
    first, second = vectors(5, 8), vectors(5, 8, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = nt_xent(first, second, 0.2)[0]
    assert torch.allclose(nt_xent(first[order], second[order], 0.2)[0], loss, atol=1e-12)
    assert torch.allclose(nt_xent(second, first, 0.2)[0], loss, atol=1e-12)
    assert not torch.allclose(nt_xent(first, second[order], 0.2)[0], loss, atol=1e-3), "who belongs to whom does"
    queue = F.normalize(vectors(5, 8, seed=2), dim=1)
    plain, other = info_nce(first, second, queue, 0.2), info_nce(first[order], second[order], queue[order], 0.2)
    assert torch.allclose(plain[0], other[0], atol=1e-12)


def test_one_picture_alone_is_always_found():
    loss, found = nt_xent(vectors(1, 4), vectors(1, 4, seed=1), 0.2)
    assert loss.item() == 0 and found == 1


def test_half_precision_is_counted_in_single():
    first, second = vectors(6, 16).bfloat16(), vectors(6, 16, seed=1).bfloat16()
    loss, _ = nt_xent(first, second, 0.05)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss.double(), naive_nt_xent(first.double(), second.double(), 0.05), atol=1e-4)
    queue = F.normalize(vectors(7, 16, seed=2), dim=1).float()
    loss, _ = info_nce(first, second, queue, 0.05)
    expected = naive_info_nce(first.double(), second.double(), queue.double(), 0.05)
    assert loss.dtype == torch.float32 and torch.allclose(loss.double(), expected, atol=1e-4)


def test_gradients_are_finite_where_all_vectors_are_alike():
    first = torch.ones(4, 8, requires_grad=True)
    loss, _ = nt_xent(first, first.detach(), 0.05)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6) and first.grad.isfinite().all()


# CLIP


def naive_clip(images, texts, scale, same=None):
    """Figure 3 of the paper, pair by pair, in both directions; captions with one number are left out of the sums."""
    count, total = len(images), 0.0
    for one, other in ((images, texts), (texts, images)):
        for i in range(count):
            others = [k for k in range(count) if k == i or same is None or same[k] != same[i]]
            candidates = sum(torch.exp(cosine(one[i], other[k]) * scale) for k in others)
            total = total - torch.log(torch.exp(cosine(one[i], other[i]) * scale) / candidates)
    return total / (2 * count)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(
    "same", [None, torch.tensor([0, 1, 0, 2, 0]), torch.arange(5), torch.zeros(5, dtype=torch.long)]
)
def test_clip_loss_is_the_naive_loop(scale, same):
    images, texts = vectors(5, 4).requires_grad_(), vectors(5, 4, seed=1).requires_grad_()
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    loss, _ = clip_loss(images, texts, scale, same)
    expected = naive_clip(images, texts, scale, same)
    assert abs(loss.item() - expected.item()) < 1e-9
    found, wanted = (torch.autograd.grad(x, (images, texts, scale)) for x in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-9
        assert one.abs().max() > 1e-6 or (same is not None and not same.any()), "all captions alike: nothing to learn"


def test_clip_loss_of_blind_and_of_perfect_vectors():
    loss, found = clip_loss(vectors(40, 4000), vectors(40, 4000, seed=1), 1)
    assert abs(loss.item() - math.log(40)) < 0.01 and found < 0.2
    first = torch.eye(6, dtype=torch.float64)
    loss, found = clip_loss(first, first, 10.0)
    assert loss.item() == pytest.approx(math.log(1 + 5 * math.exp(-10)), abs=1e-12) and found == 1
    loss, found = clip_loss(first, first[[0, 1, 2, 3, 5, 4]], 10.0)
    assert found.item() == pytest.approx(4 / 6), "two pictures are taken for one another"


def test_clip_loss_treats_both_sides_alike_and_cares_for_neither_order_nor_length():
    images, texts, same = vectors(5, 8), vectors(5, 8, seed=1), torch.tensor([3, 1, 3, 0, 2])
    loss, order = clip_loss(images, texts, 7.0, same)[0], torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(clip_loss(texts, images, 7.0, same)[0], loss, atol=1e-12)
    assert torch.allclose(clip_loss(images[order], texts[order], 7.0, same[order])[0], loss, atol=1e-12)
    assert torch.allclose(clip_loss(30 * images, texts / 7, 7.0, same)[0], loss, atol=1e-12)
    assert not torch.allclose(clip_loss(images, texts[order], 7.0, same)[0], loss, atol=1e-3)


def test_the_same_caption_twice_is_no_mistake():
    """Two pictures of one caption: told apart by nothing, and punished for it unless one says so."""
    images = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]]
    loss, found = clip_loss(images, images, 100.0)
    assert loss.item() == pytest.approx(math.log(2) / 2, abs=1e-9) and found == 0.75
    loss, found = clip_loss(images, images, 100.0, torch.tensor([5, 5, 1, 2]))
    assert loss.item() == pytest.approx(0, abs=1e-9) and found == 1


def test_clip_loss_is_counted_in_single_precision():
    images, texts = vectors(64, 16), vectors(64, 16, seed=1)
    expected = naive_clip(images.bfloat16().double(), texts.bfloat16().double(), 100.0)
    loss, _ = clip_loss(images.bfloat16(), texts.bfloat16(), 100.0)
    assert loss.dtype == torch.float32 and abs(loss.item() - expected.item()) < 1e-3
    images, texts = images.float(), texts.float()
    plain = clip_loss(images, texts, 100.0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip_loss(images, texts, 100.0)[0], plain), "autocast changes nothing"
        assert (F.normalize(images) @ F.normalize(texts).T).dtype == torch.bfloat16, "though it would"
