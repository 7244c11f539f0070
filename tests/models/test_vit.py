"""ViT: ln(classes) at first, a set of patches that know their places, heads that can be changed, DeiT's teacher."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.convnet import Pictures
from pfmcourse.models.vit import TaughtPictures, ViT, ViTConfig
from pfmcourse.nn.patches import patchify, unpatchify

CONFIG = ViTConfig(classes=5, size=8, patch=2, channels=2, dim=16, layers=2, heads=4)
DEIT = dataclasses.replace(CONFIG, distillation=True)


def large(config=CONFIG):
    """In float64, with weights so large that every patch makes a difference."""
    model = ViT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def pictures(batch=6, config=CONFIG, dtype=torch.float64):
    images = torch.rand(batch, config.channels, config.size, config.size, dtype=dtype)
    return Pictures(images, torch.randint(config.classes, (batch,)))


def taught(batch):
    return TaughtPictures(batch.images, batch.labels, (batch.labels + 1) % 5)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_at_first_all_classes_are_equally_likely(pooling):
    model = ViT(dataclasses.replace(CONFIG, pooling=pooling))
    assert model(pictures(dtype=torch.float32))["loss"].item() == pytest.approx(math.log(5), abs=1e-5)
    batch = taught(pictures(dtype=torch.float32))
    assert ViT(DEIT)(batch)["loss"].item() == pytest.approx(math.log(5), abs=1e-5)


def test_what_a_fresh_encoder_gives_out_depends_on_what_it_sees():
    images = torch.rand(20, 2, 8, 8)
    vectors = ViT(CONFIG).encode(images)
    assert vectors.std(0).mean() > 0.01


def test_a_patch_is_its_pixels_through_a_matrix_plus_its_place():
    model, images = large(), pictures().images
    for row in range(4):
        for column in range(4):
            pixels = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
            expected = pixels @ model.patch_embedding.weight.T + model.patch_embedding.bias
            expected = expected + model.positions[1 + 4 * row + column]
            assert (model.embed(images)[:, 4 * row + column] - expected).abs().max() < 1e-12


def test_patches_are_a_set_once_they_know_their_places():
    model, images, order = large(), pictures().images, torch.randperm(16)
    moved = unpatchify(patchify(images, 2)[:, order], 2, 4)
    expected = model.tokens(images)
    assert (model.tokens(moved)[:, 0] - expected[:, 0]).abs().max() > 1e-3, "where a patch stands matters"
    with torch.no_grad():
        model.positions[1:] = model.positions[1:][order].clone()
    found = model.tokens(moved)
    assert (found[:, 0] - expected[:, 0]).abs().max() < 1e-12
    assert (found[:, 1:] - expected[:, 1:][:, order]).abs().max() < 1e-12


def test_every_picture_is_read_alone_and_every_patch_counts():
    model, images = large(), pictures().images
    assert (torch.cat([model.logits(image[None]) for image in images]) - model.logits(images)).abs().max() < 1e-12
    changed = images.clone()
    changed[0, 0, 7, 7] += 1
    difference = (model.tokens(changed) - model.tokens(images)).abs().amax(-1)
    assert (difference[0] > 1e-4).all() and not difference[1:].any()


@pytest.mark.parametrize("config", [CONFIG, DEIT])
def test_pooling_takes_the_class_token_or_the_mean_of_the_patches(config):
    model, images = large(config), pictures().images
    tokens = model.tokens(images)
    special = 2 if config.distillation else 1
    assert tokens.shape == (6, special + 16, 16)
    assert torch.equal(model.encode(images), tokens[:, 0])
    mean = ViT(dataclasses.replace(config, pooling="mean")).double().eval()
    mean.load_state_dict(model.state_dict())
    assert (mean.encode(images) - tokens[:, special:].mean(1)).abs().max() < 1e-12


def test_loss_and_accuracy_are_those_of_a_naive_loop():
    model, batch = large(), pictures()
    losses, right = [], 0
    for image, label in zip(batch.images, batch.labels, strict=True):
        logits = model.logits(image[None])[0]
        losses.append(-logits.log_softmax(0)[label].item())
        right += int(logits.argmax() == label)
    found = model(batch)
    assert found["loss"].item() == pytest.approx(sum(losses) / 6, abs=1e-12)
    assert found["accuracy"].item() == pytest.approx(right / 6)


def test_a_teacher_speaks_to_a_head_of_its_own():
    model, batch = large(DEIT), taught(pictures())
    by_label, by_teacher = model.both_logits(batch.images)
    tokens = model.tokens(batch.images)
    assert (by_label - model.head(tokens[:, 0])).abs().max() < 1e-12
    assert (by_teacher - model.distillation_head(tokens[:, 1])).abs().max() < 1e-12
    halves = F.cross_entropy(by_label, batch.labels), F.cross_entropy(by_teacher, batch.teacher)
    assert model(batch)["loss"].item() == pytest.approx(sum(halves).item() / 2, abs=1e-12)
    assert (model.logits(batch.images) - (by_label + by_teacher) / 2).abs().max() < 1e-12
    halves[0].backward()
    assert model.distillation_head.weight.grad is None and model.head.weight.grad.abs().max() > 0
    with pytest.raises(CourseError, match=r"no distillation token.*distillation=True"):
        large().both_logits(batch.images)


@pytest.mark.parametrize("config", [CONFIG, DEIT, dataclasses.replace(CONFIG, positions="sincos", pooling="mean")])
def test_one_batch_is_overfitted(config):
    model, batch = ViT(config), pictures(config=config, dtype=torch.float32)
    batch = taught(batch) if config.distillation else batch
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    fixed = model.positions.detach().clone()
    for _ in range(60):
        optimizer.zero_grad()
        losses = model(batch)
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"].item() < 0.05
    assert torch.equal(model.positions, fixed) == (config.positions == "sincos")


@pytest.mark.parametrize("config", [CONFIG, DEIT])
def test_every_weight_learns(config):
    model, batch = large(config), pictures()
    model(taught(batch) if config.distillation else batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("config", [CONFIG, DEIT])
def test_attention_maps_are_what_encode_uses(config):
    model, images = large(config), pictures().images
    maps = model.attention_maps(images)
    tokens = 16 + (2 if config.distillation else 1)
    assert maps.shape == (2, 6, 4, tokens, tokens)
    assert (maps.sum(-1) - 1).abs().max() < 1e-12 and (maps > 0).all()
    x = model._sentence(model.embed(images))
    for block, weights in zip(model.blocks, maps, strict=True):
        _, _, values = block.attention.queries_keys_values(block.attention_norm(x))
        x = x + block.attention.output((weights @ values).transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    assert (model.norm(x) - model.tokens(images)).abs().max() < 1e-12


@pytest.mark.parametrize("config", [CONFIG, DEIT, dataclasses.replace(CONFIG, classes=0)])
def test_a_new_head_keeps_the_encoder_and_shares_nothing(config):
    model, images = large(config), pictures().images
    copy = model.with_new_head(3)
    assert copy.logits(images).shape == (6, 3) and not copy.logits(images).any()
    assert copy.config == dataclasses.replace(config, classes=3) and not copy.training
    tokens = model.tokens(images)
    assert torch.equal(copy.tokens(images), tokens), "in the same number type too"
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert torch.equal(model.tokens(images), tokens)
    assert model.train().with_new_head(3).training


def test_pictures_of_another_size_are_read_too():
    model = large()
    for height, width in ((8, 8), (4, 12), (16, 16)):
        images = torch.rand(2, 2, height, width, dtype=torch.float64)
        assert model.tokens(images).shape == (2, 1 + height * width // 4, 16)


def test_under_bf16_the_loss_keeps_its_digits():
    for config, batch in ((CONFIG, pictures(dtype=torch.float32)), (DEIT, taught(pictures(dtype=torch.float32)))):
        model = ViT(config)
        with torch.autocast("cpu", torch.bfloat16):
            assert model.logits(batch.images).dtype == torch.bfloat16
            assert model(batch)["loss"].dtype == torch.float32


def test_dropout_acts_in_training_only():
    model, images = ViT(dataclasses.replace(CONFIG, dropout=0.5)), pictures(dtype=torch.float32).images
    assert not torch.equal(model.encode(images), model.encode(images))
    model.eval()
    assert torch.equal(model.encode(images), model.encode(images))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 9}, "size=9 is no multiple of patch=2"),
        ({"heads": 3}, "dim=16 cannot be shared out among heads=3"),
        ({"dim": 6, "heads": 2}, "multiple of 4, not 6"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(changes, words):
    with pytest.raises(CourseError, match=words):
        ViT(dataclasses.replace(CONFIG, **changes))


def test_pictures_that_do_not_fit_are_errors():
    with pytest.raises(CourseError, match="7 x 8 pixels cannot be cut into patches of 2 x 2"):
        ViT(CONFIG).encode(torch.rand(1, 2, 7, 8))
    with pytest.raises(CourseError, match="pictures of 3 channels for a ViT with channels=2"):
        ViT(CONFIG).encode(torch.rand(1, 3, 8, 8))
