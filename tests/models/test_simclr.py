import copy
import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.simclr import MoCo, SimCLR, TwoViews
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.contrastive import nt_xent


def convnet():
    return ConvNet(ConvNetConfig(classes=2, width=4, stages=2, dim=16, channels=3, size=16))


def vit():
    return ViT(ViTConfig(size=16, patch=4, dim=16, layers=1, heads=2))


def batch(count=8, noise=0.1, seed=0):
    """Pictures and the same pictures with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 16, 16, generator=generator)
    return TwoViews(images, images + noise * torch.randn(images.shape, generator=generator))


def moco(**changes):
    return MoCo(convnet(), **{"projected": 8, "queue": 20, "momentum": 0.9, **changes})


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# SimCLR


@pytest.mark.parametrize("encoder", [convnet, vit])
@pytest.mark.parametrize("kind", [SimCLR, MoCo])
def test_any_encoder_fits(encoder, kind):
    model = kind(encoder(), projected=8)
    out = model(batch())
    assert out.keys() == {"loss", "found"} and out["loss"].shape == out["found"].shape == ()
    assert model.encode(batch().first).shape == (8, 16)
    out["loss"].backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters() if parameter.grad is not None)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.projection.parameters())


def test_what_is_kept_is_the_encoder():
    encoder = convnet().eval()
    images = batch().first
    assert torch.equal(SimCLR(encoder).encode(images), encoder.encode(images))
    assert torch.equal(MoCo(encoder).encode(images), encoder.encode(images))


def test_the_loss_is_nt_xent_of_the_projections():
    model, pictures = SimCLR(convnet(), projected=8, temperature=0.3).double().eval(), batch()
    pictures = TwoViews(pictures.first.double(), pictures.second.double())
    first, second = (model.projection(model.encode(images)) for images in (pictures.first, pictures.second))
    expected, found = nt_xent(first, second, 0.3)
    out = model(pictures)
    assert torch.allclose(out["loss"], expected, atol=1e-9) and out["found"] == found


@pytest.mark.parametrize("encoder", [convnet, vit])
def test_simclr_learns_one_batch_by_heart(encoder):
    model, pictures = SimCLR(encoder(), projected=8), batch(noise=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    start = model(pictures)["loss"].item()
    for _ in range(40):
        optimizer.zero_grad()
        out = model(pictures)
        out["loss"].backward()
        optimizer.step()
    assert out["loss"] < start / 4 and out["found"] == 1
    assert out["loss"] < math.log(15) / 8, "far better than guessing"


# MoCo


def test_the_oldest_keys_leave_first():
    model = moco(queue=20)
    before, expected = model.queue.clone(), model.queue.clone()
    for step in range(4):  # 4 x 8 keys: once around and further
        pictures = batch(seed=step)
        twin = copy.deepcopy(model)  # the forward pass moves the slow copy and its running means
        model(pictures)
        twin._follow()
        keys = twin._keys(pictures.second)
        for row in range(8):
            expected[(8 * step + row) % 20] = keys[row]
        assert torch.equal(model.queue, expected)
        if step == 1:
            assert torch.equal(model.queue[16:], before[16:]), "not yet reached"
    assert model.oldest.item() == 32 % 20
    assert torch.allclose(model.queue.norm(dim=1), torch.ones(20), atol=1e-5)


def test_of_a_batch_larger_than_the_queue_the_last_keys_stay():
    model = moco(queue=5)
    twin = copy.deepcopy(model)
    model(batch())
    twin._follow()
    assert torch.equal(model.queue, twin._keys(batch().second)[-5:])


def test_new_keys_count_as_others_from_the_next_batch_on():
    model, pictures = moco(temperature=0.3), batch()
    for _ in range(2):
        twin = copy.deepcopy(model)  # before the forward pass moves anything
        out = model(pictures)
        twin._follow()
        queries = F.normalize(twin.projection(twin.encode(pictures.first)), dim=1)
        own = (queries * twin._keys(pictures.second)).sum(1, keepdim=True)
        candidates = torch.cat([own, queries @ twin.queue.T], dim=1) / 0.3
        assert torch.allclose(out["loss"], -candidates.log_softmax(1)[:, 0].mean(), atol=1e-5)
        assert out["found"] == (candidates.argmax(1) == 0).float().mean()


def test_the_slow_copy_starts_as_a_copy_and_gets_no_gradient():
    model = moco()
    fast = [*model.encoder.parameters(), *model.projection.parameters()]
    slow = list(model.slow.parameters())
    assert all(torch.equal(one, other) and one is not other for one, other in zip(fast, slow, strict=True))
    model(batch())["loss"].backward()
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in slow)
    assert any(parameter.grad is not None for parameter in fast)
    assert not model.queue.requires_grad


def test_the_slow_copy_is_a_running_mean_of_the_weights():
    model = moco(momentum=0.9)
    slow = [parameter.clone() for parameter in model.slow.parameters()]
    for step in range(3):
        with torch.no_grad():
            for parameter in [*model.encoder.parameters(), *model.projection.parameters()]:
                parameter.add_(torch.randn_like(parameter))
        model(batch(seed=step))
        fast = [*model.encoder.parameters(), *model.projection.parameters()]
        slow = [0.9 * old + 0.1 * new for old, new in zip(slow, fast, strict=True)]
        for found, expected in zip(model.slow.parameters(), slow, strict=True):
            assert torch.allclose(found, expected, atol=1e-5)


def test_without_momentum_the_copy_follows_at_once():
    model = moco(momentum=0.0)
    with torch.no_grad():
        model.projection[0].weight.add_(1)
    model(batch())
    assert torch.equal(model.slow[1][0].weight, model.projection[0].weight)


@pytest.mark.parametrize("kind", [SimCLR, MoCo])
def test_evaluation_changes_nothing(kind):
    model = kind(convnet(), projected=8)
    model(batch())
    with torch.no_grad():
        model.projection[0].weight.add_(0.1)  # so that a slow copy would have something to follow
    model.eval()
    kept = state(model)
    first, again = model(batch(seed=1)), model(batch(seed=1))
    assert same(state(model), kept)
    assert torch.equal(first["loss"], again["loss"])
    model.train()(batch(seed=1))
    assert not same(state(model), kept), "training does"


def test_moco_resumes_from_its_state():
    model, other = moco(), moco()
    for step in range(3):
        model(batch(seed=step))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(batch(seed=9))["loss"], other(batch(seed=9))["loss"])
    assert same(state(model), state(other))


def test_moco_learns_to_find_its_pictures():
    model, losses = moco(queue=16, projected=16), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(60):  # six batches in turn: the queue holds the two before, so never a picture of this one
        optimizer.zero_grad()
        losses.append(model(batch(noise=0.3, seed=step % 6))["loss"])
        losses[-1].backward()
        optimizer.step()
    early, late = (sum(part).item() / 6 for part in (losses[2:8], losses[-6:]))  # the first two meet a random queue
    assert late < early / 2


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"queue": 0}])
def test_wrong_settings_say_what_is_right(wrong):
    with pytest.raises(CourseError, match="must be above 0"):
        moco(**wrong)


def test_simclr_wants_a_temperature():
    with pytest.raises(CourseError, match="above 0, not -1"):
        SimCLR(convnet(), temperature=-1.0)
