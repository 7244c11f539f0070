import itertools
import math

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.models.pretext import TURNS, Pretext, orders, shuffled, turned
from pfmcourse.models.vit import ViT, ViTConfig


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def convnet():
    return ConvNet(ConvNetConfig(classes=2, width=4, stages=2, dim=16, channels=3, size=24))


def vit():
    return ViT(ViTConfig(size=24, patch=4, dim=16, layers=1, heads=2))


def pictures(count=12, height=24, width=24):
    return torch.rand(count, 3, height, width, generator=seeded(99))


# Which way up


def test_turned_is_rot90_one_by_one():
    images = pictures(40)
    kept = images.clone()
    batch = turned(images, seeded())
    assert batch.labels.unique().tolist() == [0, 1, 2, 3]
    for image, label, found in zip(images, batch.labels.tolist(), batch.images, strict=True):
        assert torch.equal(found, torch.rot90(image, label, (1, 2)))
    assert torch.equal(images, kept), "the input stays as it was"


def test_one_quarter_turn_is_counterclockwise():
    images = torch.zeros(40, 1, 3, 3)
    images[:, 0, 0, 2] = 1  # top right
    batch = turned(images, seeded())
    corners = {0: (0, 2), 1: (0, 0), 2: (2, 0), 3: (2, 2)}
    for label, found in zip(batch.labels.tolist(), batch.images, strict=True):
        assert found[0].nonzero().tolist() == [list(corners[label])]


@pytest.mark.parametrize("draw", [turned, lambda images, generator: shuffled(images, orders(2, 4), generator)])
def test_all_labels_are_drawn_alike_and_the_seed_decides(draw):
    images = torch.rand(4000, 1, 2, 2)
    batch = draw(images, seeded())
    assert (batch.labels.bincount(minlength=4) - 1000).abs().max() < 120
    assert torch.equal(draw(images, seeded()).labels, batch.labels)
    assert not torch.equal(draw(images, seeded(1)).labels, batch.labels)


def test_only_squares_can_be_turned():
    with pytest.raises(CourseError, match="24 x 12 pixels"):
        turned(pictures(height=24, width=12), seeded())


# In which order


@pytest.mark.parametrize(("pieces", "height", "width"), [(2, 24, 24), (3, 24, 24), (2, 8, 20), (3, 9, 30)])
def test_shuffled_is_the_loop_over_pictures_and_pieces(pieces, height, width):
    images, known = pictures(30, height, width), orders(pieces, 10)
    kept = images.clone()
    batch = shuffled(images, known, seeded())
    assert batch.images.shape == images.shape and len(batch.labels.unique()) > 5
    p, q = height // pieces, width // pieces
    for image, label, found in zip(images, batch.labels.tolist(), batch.images, strict=True):
        for place, piece in enumerate(known[label].tolist()):
            (to_row, to_column), (row, column) = divmod(place, pieces), divmod(piece, pieces)
            there = found[:, to_row * p : (to_row + 1) * p, to_column * q : (to_column + 1) * q]
            assert torch.equal(there, image[:, row * p : (row + 1) * p, column * q : (column + 1) * q])
    assert torch.equal(images, kept), "the input stays as it was"


def test_the_first_order_leaves_all_in_place():
    images = pictures()
    assert torch.equal(shuffled(images, orders(3, 8)[:1], seeded()).images, images)


def test_all_orders_of_four_pieces():
    known = orders(2, 24)
    assert sorted(map(tuple, known.tolist())) == list(itertools.permutations(range(4)))


@pytest.mark.parametrize(("pieces", "count"), [(2, 7), (3, 30)])
def test_orders_are_distinct_permutations(pieces, count):
    known = orders(pieces, count)
    assert known.shape == (count, pieces**2) and len(known.unique(dim=0)) == count
    assert torch.equal(known.sort(1).values, torch.arange(pieces**2).expand(count, -1))
    assert torch.equal(orders(pieces, count), known), "no chance in it"


def test_each_order_is_the_farthest_from_those_before():
    """The greedy choice in plain Python, for four pieces."""
    every, chosen = list(itertools.permutations(range(4))), [(0, 1, 2, 3)]

    def merit(order):
        differing = [sum(a != b for a, b in zip(order, other, strict=True)) for other in chosen]
        return min(differing), sum(differing)

    while len(chosen) < 12:
        chosen.append(max(every, key=merit))  # max takes the first of several best ones
    assert list(map(tuple, orders(2, 12).tolist())) == chosen


def test_orders_of_nine_pieces_are_far_apart():
    known = orders(3, 30)
    differing = (known[:, None] != known).sum(2)[~torch.eye(30, dtype=torch.bool)]
    assert differing.min() >= 6, "any two differ in six of nine places"
    assert (orders(3, 9)[:, None] != orders(3, 9)).sum(2).sum() == 9 * 8 * 9, "the first nine in all places"


@pytest.mark.parametrize(("pieces", "count"), [(2, 25), (2, 1), (3, 362_881), (4, 10), (1, 2)])
def test_puzzles_that_do_not_exist(pieces, count):
    with pytest.raises(CourseError, match="there is no puzzle"):
        orders(pieces, count)


def test_pictures_that_cannot_be_cut():
    with pytest.raises(CourseError, match="28 x 28 pixels cannot be cut into 9"):
        shuffled(torch.rand(2, 1, 28, 28), orders(3, 4), seeded())
    with pytest.raises(CourseError, match="must be a square"):
        shuffled(torch.rand(2, 1, 24, 24), torch.arange(6)[None], seeded())


# The model


@pytest.mark.parametrize("encoder", [convnet, vit])
def test_any_encoder_fits_and_the_first_loss_is_that_of_guessing(encoder):
    model = Pretext(encoder(), TURNS)
    out = model(turned(pictures(), seeded()))
    assert out.keys() == {"loss", "accuracy"} and out["loss"].shape == out["accuracy"].shape == ()
    assert out["loss"].item() == pytest.approx(math.log(4), rel=1e-6)
    assert model.encode(pictures()).shape == (12, 16) and model.logits(pictures()).shape == (12, 4)
    out["loss"].backward()
    assert model.head.weight.grad.abs().sum() > 0


def test_loss_and_accuracy_by_hand():
    model = Pretext(convnet(), 10).eval()
    torch.nn.init.normal_(model.head.weight)
    batch = shuffled(pictures(), orders(2, 10), seeded())
    probabilities = model.logits(batch.images).softmax(1)
    out = model(batch)
    assert torch.allclose(out["loss"], -probabilities[torch.arange(12), batch.labels].log().mean(), atol=1e-5)
    assert out["accuracy"] == (probabilities.argmax(1) == batch.labels).float().mean()


def test_what_is_kept_is_the_encoder():
    encoder = convnet().eval()
    assert torch.equal(Pretext(encoder, 4).encode(pictures()), encoder.encode(pictures()))


@pytest.mark.parametrize("task", ["turns", "orders"])
def test_turns_and_orders_can_be_learned(task):
    """Every picture is brightest at the top left; on new pictures too the network sees what was done to them."""
    slope = torch.linspace(1, 0, 24)
    slope = (2 * slope[:, None] + slope) / 3

    def batch(seed):
        images = (slope + 0.1 * torch.randn(32, 3, 24, 24, generator=seeded(seed))).clamp(0, 1)
        return turned(images, seeded(seed)) if task == "turns" else shuffled(images, orders(2, 4), seeded(seed))

    model = Pretext(convnet(), 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(30):
        optimizer.zero_grad()
        model(batch(step))["loss"].backward()
        optimizer.step()
    assert model.eval()(batch(1000))["accuracy"] > 0.9


def test_a_batch_is_an_ordinary_batch_of_pictures():
    assert isinstance(turned(pictures(), seeded()), Pictures)
    assert convnet().with_new_head(4)(turned(pictures(), seeded()))["loss"].item() == pytest.approx(math.log(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_same_seed_gives_the_same_batch_on_a_gpu():
    images = pictures()
    for make in (turned, lambda images, generator: shuffled(images, orders(2, 24), generator)):
        there, here = make(images.cuda(), seeded()), make(images, seeded())
        assert there.images.device.type == "cuda" == there.labels.device.type
        assert torch.equal(there.images.cpu(), here.images) and torch.equal(there.labels.cpu(), here.labels)
