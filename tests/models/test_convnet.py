import math

import pytest
import torch

from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures

SMALL = ConvNetConfig(classes=5, width=4, dim=16)


def batch(count=8):
    return Pictures(torch.rand(count, 1, 28, 28), torch.arange(count) % 5)


@pytest.mark.parametrize(("size", "stages", "channels"), [(28, 3, 1), (32, 3, 3), (28, 2, 1), (17, 4, 1)])
def test_shapes(size, stages, channels):
    model = ConvNet(ConvNetConfig(7, width=4, stages=stages, dim=16, channels=channels, size=size))
    images = torch.rand(3, channels, size, size)
    assert model.encode(images).shape == (3, 16)
    assert model.logits(images).shape == (3, 7)
    assert (model.encode(images) >= 0).all()


def test_the_first_loss_is_that_of_blind_guessing():
    out = ConvNet(SMALL)(batch())
    assert math.isclose(out["loss"].item(), math.log(5), rel_tol=1e-6)
    assert out["loss"].shape == out["accuracy"].shape == ()


def test_loss_and_accuracy_by_hand():
    model, pictures = ConvNet(SMALL).eval(), batch()
    torch.nn.init.normal_(model.head.weight)
    probabilities = model.logits(pictures.images).softmax(1)
    picked = probabilities[torch.arange(8), pictures.labels]
    out = model(pictures)
    assert torch.allclose(out["loss"], -picked.log().mean())
    assert torch.allclose(out["accuracy"], (probabilities.argmax(1) == pictures.labels).float().mean())


def test_one_batch_can_be_learned_by_heart():
    model, pictures = ConvNet(SMALL), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(pictures)["loss"]
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_a_picture_does_not_depend_on_its_neighbours_in_use():
    model = ConvNet(SMALL)
    model(batch(32))  # gives batch norm something to remember
    model.eval()
    images = torch.rand(6, 1, 28, 28)
    assert torch.allclose(model.encode(images)[2:3], model.encode(images[2:3]), atol=1e-5)


def test_the_layout_in_memory_changes_nothing():
    model = ConvNet(SMALL).eval()
    torch.nn.init.normal_(model.head.weight)
    other = ConvNet(SMALL).to(memory_format=torch.contiguous_format)
    other.load_state_dict(model.state_dict())
    images = torch.rand(4, 1, 28, 28)
    assert torch.allclose(model.logits(images), other.eval().logits(images), atol=1e-5)


def test_a_new_head_keeps_the_encoder_and_shares_nothing():
    model = ConvNet(SMALL)
    model(batch(32))
    torch.nn.init.normal_(model.head.weight)
    copy = model.eval().with_new_head(10)
    images = torch.rand(4, 1, 28, 28)
    assert not copy.training and copy.config.classes == 10
    assert torch.equal(copy.encode(images), model.encode(images))
    assert copy.logits(images).shape == (4, 10) and not copy.logits(images).any()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    copy.train()
    copy(Pictures(images, torch.arange(4)))["loss"].backward()
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
