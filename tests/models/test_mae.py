"""MAE: what is hidden is not seen, what is seen is not painted, as many hidden as wanted, able to learn one batch."""

import dataclasses

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.models.mae import MAE, MAEConfig
from pfmcourse.models.vit import ViTConfig
from pfmcourse.nn.patches import patchify, unpatchify

ENCODER = ViTConfig(size=8, patch=2, channels=2, dim=16, layers=2, heads=4, positions="sincos", pooling="mean")
CONFIG = MAEConfig(ENCODER, decoder_dim=8, decoder_layers=2, decoder_heads=2)
RAW = dataclasses.replace(CONFIG, normalise=False)


def large(config=CONFIG):
    """In float64, with weights so large that every patch makes a difference."""
    model = MAE(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


@pytest.fixture
def images():
    return torch.rand(5, 2, 8, 8, dtype=torch.float64)


@pytest.fixture
def noise():
    return torch.rand(5, 16)


@pytest.mark.parametrize(("share", "hidden"), [(0.75, 12), (0.5, 8), (0.1, 2), (0.9, 15)])
def test_as_many_patches_are_hidden_as_wanted(images, share, hidden):
    model = large(dataclasses.replace(CONFIG, share=share))
    _, mask = model.reconstruct(images)
    assert mask.shape == (5, 16) and (mask.sum(1) == hidden).all() and model.config.kept == 16 - hidden
    others = torch.stack([model.reconstruct(images)[1] for _ in range(60)]).float().mean((0, 1))
    assert (others - hidden / 16).abs().max() < 0.1, "every patch as often as any other"


def test_noise_says_which_patches_are_hidden(images, noise):
    _, mask = large().reconstruct(images, noise)
    for row in range(5):
        kept = noise[row].argsort()[:4].tolist()
        assert [place for place in range(16) if not mask[row, place]] == sorted(kept)


def test_seen_patches_are_returned_as_they_are_and_hidden_ones_are_painted(images, noise):
    for config in (CONFIG, RAW):
        found, mask = large(config).reconstruct(images, noise)
        same = (patchify(found, 2) == patchify(images, 2)).all(-1)
        assert torch.equal(same, ~mask)


def test_hidden_pixels_are_not_seen(images, noise):
    model = large(RAW)
    found, mask = model.reconstruct(images, noise)
    patches = patchify(images, 2)
    other = unpatchify(torch.where(mask[..., None], torch.rand_like(patches), patches), 2, 4)
    assert not torch.equal(other, images) and torch.equal(model.reconstruct(other, noise)[0], found)
    visible = unpatchify(torch.where(mask[..., None], patches, patches + 1), 2, 4)
    changed = patchify(model.reconstruct(visible, noise)[0] - found, 2)[mask]
    assert changed.abs().amax(-1).min() > 1e-4, "what is seen matters everywhere"


def test_normalised_patches_are_painted_with_the_mean_and_the_variance_of_the_truth(images, noise):
    model = large()
    found, mask = model.reconstruct(images, noise)
    model.config = RAW
    plain, _ = model.reconstruct(images, noise)
    truth, found, plain = (patchify(some, 2) for some in (images, found, plain))
    expected = plain * (truth.var(-1, keepdim=True) + 1e-6).sqrt() + truth.mean(-1, keepdim=True)
    assert (found - expected)[mask].abs().max() < 1e-12


@pytest.mark.parametrize("config", [CONFIG, RAW])
def test_the_loss_is_that_of_a_naive_loop(config, images, noise):
    model, total, count = large(config), 0.0, 0
    encoder = model.encoder
    for image, order in zip(images, noise.argsort(1).tolist(), strict=True):
        patches = patchify(image[None], 2)[0]
        seen = sorted(order[:4])  # in the order of the picture: the order within the encoder does not matter
        x = [encoder.class_token + encoder.positions[0]]
        x += [encoder.patch_embedding(patches[place]) + encoder.positions[1 + place] for place in seen]
        x = torch.stack(x)[None]
        for block in encoder.blocks:
            x = block(x)
        x = model.bridge(encoder.norm(x))[0]
        places = [model.mask_token] * 16
        for place, vector in zip(seen, x[1:], strict=True):
            places[place] = vector
        y = torch.stack([x[0], *places])[None] + model.positions
        for block in model.blocks:
            y = block(y)
        painted = model.pixels(model.norm(y))[0, 1:]
        for place in order[4:]:
            target = patches[place]
            if config.normalise:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            total += (painted[place] - target).square().sum().item()
            count += 8
    assert count == 5 * 12 * 8
    assert model(images, noise)["loss"].item() == pytest.approx(total / count, abs=1e-9)


def test_at_first_it_paints_nothing():
    images = torch.rand(16, 3, 32, 32)
    loss = MAE(MAEConfig())(images)["loss"].item()
    assert loss == pytest.approx(47 / 48, abs=1e-3), "the variance is over n - 1, the mean over n"
    grey = torch.full((2, 3, 32, 32), 0.5)
    assert MAE(MAEConfig(normalise=False))(grey)["loss"].item() == pytest.approx(0.25, abs=1e-6)
    assert MAE(MAEConfig())(grey)["loss"].item() == pytest.approx(0, abs=1e-6), "an even patch does no harm"


@pytest.mark.parametrize("config", [CONFIG, RAW])
def test_one_batch_is_overfitted(config, noise):
    model, images = MAE(dataclasses.replace(config, decoder_dim=64)), torch.randn(5, 2, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model(images, noise)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1, "where an even grey has 7 / 8 or 1"


def test_every_weight_learns_but_positions(images, noise):
    model = large()
    model(images, noise)["loss"].backward()
    for name, parameter in model.named_parameters():
        if name.endswith("positions"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


def test_the_encoder_sees_whole_pictures_and_can_be_taken_out(images):
    model = large()
    assert torch.equal(model.encode(images), model.encoder.tokens(images)[:, 1:].mean(1))
    copy = model.with_new_head(3)
    assert torch.equal(copy.encode(images), model.encode(images)) and not copy.logits(images).any()
    assert copy.logits(images).shape == (5, 3)
    with torch.no_grad():
        copy.patch_embedding.weight.zero_()
    assert not torch.equal(copy.encode(images), model.encode(images))


def test_under_bf16_the_loss_keeps_its_digits():
    images = torch.rand(2, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert MAE(CONFIG)(images)["loss"].dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 1.0, 0.99, -1.0])
def test_a_share_that_leaves_nothing_to_see_or_to_paint_is_an_error(share):
    with pytest.raises(CourseError, match=f"share={share} of 16 patches"):
        MAE(dataclasses.replace(CONFIG, share=share))


def test_pictures_of_another_size_are_an_error():
    with pytest.raises(CourseError, match="8 x 8 pixels, not of 8 x 10"):
        MAE(CONFIG)(torch.rand(1, 2, 8, 10))
    assert MAE(CONFIG).encode(torch.rand(1, 2, 8, 10)).shape == (1, 16)
