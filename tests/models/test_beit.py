"""BEiT: hidden pixels are not seen, only hidden patches are asked for, ln(vocab) at first, ways that share a bias."""

import dataclasses
import math

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.models.beit import BEiT, BEiTBlock, BEiTConfig, MaskedPictures, RelativePositions
from pfmcourse.models.convnet import Pictures
from pfmcourse.nn.patches import blockwise_mask, patchify, unpatchify

CONFIG = BEiTConfig(vocab=11, size=8, patch=2, channels=2, dim=16, layers=2, heads=4)
SCALED = dataclasses.replace(CONFIG, relative="each", absolute=False, layer_scale=0.1)
BARE = dataclasses.replace(CONFIG, relative="none", absolute=False)


def large(config=CONFIG):
    """In float64, with weights so large that every patch makes a difference."""
    model = BEiT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def holes(batch=5, dtype=torch.float64):
    images = torch.rand(batch, 2, 8, 8, dtype=dtype)
    mask = blockwise_mask(batch, 4, 0.4, torch.Generator().manual_seed(0))
    return MaskedPictures(images, mask, torch.randint(CONFIG.vocab, (batch, 16)))


@pytest.mark.parametrize("config", [CONFIG, SCALED, BARE])
def test_at_first_all_tokens_are_equally_likely(config):
    assert BEiT(config)(holes(dtype=torch.float32))["loss"].item() == pytest.approx(math.log(11), abs=1e-5)


@pytest.mark.parametrize("config", [CONFIG, SCALED])
def test_the_mask_token_hides_pixels(config):
    model, batch = large(config), holes()
    patches = patchify(batch.images, 2)
    other = unpatchify(torch.where(batch.mask[..., None], torch.rand_like(patches), patches), 2, 4)
    assert not torch.equal(other, batch.images)
    logits = model.logits(batch.images, batch.mask)
    assert torch.equal(model.logits(other, batch.mask), logits)
    assert (model.encode(other) - model.encode(batch.images)).abs().max() > 1e-3, "nothing is hidden from encode"
    seen = unpatchify(torch.where(batch.mask[..., None], patches, torch.rand_like(patches)), 2, 4)
    assert (model.logits(seen, batch.mask) - logits).abs().amax(-1).min() > 1e-4, "what is seen matters everywhere"


@pytest.mark.parametrize("config", [CONFIG, SCALED, BARE])
def test_loss_and_accuracy_are_those_of_a_naive_loop(config):
    model, batch = large(config), holes()
    total, right, count = 0.0, 0, 0
    for image, mask, tokens in zip(batch.images, batch.mask, batch.tokens, strict=True):
        logits = model.logits(image[None], mask[None])[0]
        for place in mask.nonzero()[:, 0].tolist():
            total -= logits[place].log_softmax(0)[tokens[place]].item()
            right += int(logits[place].argmax() == tokens[place])
            count += 1
    found = model(batch)
    assert count == 5 * 6
    assert found["loss"].item() == pytest.approx(total / count, abs=1e-12)
    assert found["accuracy"].item() == pytest.approx(right / count)


def test_tokens_of_seen_patches_do_not_count():
    model, batch = large(), holes()
    other = dataclasses.replace(batch, tokens=batch.tokens.where(batch.mask, (batch.tokens + 1) % 11))
    assert not torch.equal(other.tokens, batch.tokens) and torch.equal(model(other)["loss"], model(batch)["loss"])


def test_without_any_positions_patches_are_a_set():
    images, order = holes().images, torch.randperm(16)
    moved = unpatchify(patchify(images, 2)[:, order], 2, 4)
    model = large(BARE)
    assert (model.tokens(moved)[:, 1:] - model.tokens(images)[:, 1:][:, order]).abs().max() < 1e-12
    for changes in ({"absolute": True}, {"relative": "shared"}, {"relative": "each"}):
        model = large(dataclasses.replace(BARE, **changes))
        assert (model.encode(moved) - model.encode(images)).abs().max() > 1e-3, changes


def test_two_ways_that_are_the_same_share_a_number():
    module = RelativePositions(3, 2)
    assert module.table.shape == (5 * 5 + 3, 2) and not module.table.any()
    torch.nn.init.normal_(module.table)
    bias, numbers = module(), {}
    assert bias.shape == (2, 10, 10)
    for query in range(10):
        for key in range(10):
            if query and key:
                (row, column), (other, another) = divmod(query - 1, 3), divmod(key - 1, 3)
                way = (row - other, column - another)
            else:
                way = "class to class" if query == key else "class to patch" if query == 0 else "patch to class"
            expected = numbers.setdefault(way, bias[:, query, key])
            assert torch.equal(bias[:, query, key], expected), way
    assert len(numbers) == 5 * 5 + 3 == len(torch.stack([*numbers.values()]).unique(dim=0))


def test_attention_with_a_bias_is_its_formula():
    block = BEiTBlock(SCALED).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.4)
    x, layer, bias = torch.randn(2, 17, 16, dtype=torch.float64), block.attention, block.relative()
    gathered = []
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        queries, keys, values = (matrix[part] for matrix in layer.project.weight.chunk(3))
        scores = (x @ queries.T + layer.query_bias[part]) @ (x @ keys.T).transpose(1, 2) / 2 + bias[head]
        gathered.append(scores.softmax(-1) @ (x @ values.T + layer.value_bias[part]))
    expected = torch.cat(gathered, -1) @ layer.output.weight.T + layer.output.bias
    assert (layer(x, bias) - expected).abs().max() < 1e-12
    middle = x + block.attention_scale * layer(block.attention_norm(x), bias)
    expected = middle + block.feed_forward_scale * block.feed_forward(block.feed_forward_norm(middle))
    assert (block(x, None) - expected).abs().max() < 1e-12


def test_layers_share_a_bias_or_have_their_own():
    def tables(config):
        return [name for name, _ in BEiT(config).named_parameters() if name.endswith("table")]

    assert tables(CONFIG) == ["relative.table"]
    assert tables(SCALED) == ["blocks.0.relative.table", "blocks.1.relative.table"]
    assert tables(BARE) == []
    scales = [value for name, value in BEiT(SCALED).named_parameters() if name.endswith("scale")]
    assert len(scales) == 4 and all((scale == torch.tensor(0.1)).all() for scale in scales)
    assert not any(name.endswith("scale") for name, _ in BEiT(CONFIG).named_parameters())


@pytest.mark.parametrize("config", [CONFIG, SCALED])
def test_one_batch_is_overfitted(config):
    model, batch = BEiT(config), holes(dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        losses = model(batch)
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"].item() < 0.05 and losses["accuracy"].item() == 1


@pytest.mark.parametrize("config", [CONFIG, SCALED, BARE])
def test_every_weight_learns(config):
    model = large(config)
    model(holes())["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


def test_encode_is_the_mean_of_the_patches():
    model, images = large(), holes().images
    assert (model.encode(images) - model.tokens(images)[:, 1:].mean(1)).abs().max() < 1e-12
    nothing = torch.zeros(5, 16, dtype=torch.bool)
    assert torch.equal(model.tokens(images, nothing), model.tokens(images))


@pytest.mark.parametrize("config", [CONFIG, SCALED])
def test_a_new_head_keeps_the_encoder_and_shares_nothing(config):
    model, images = large(config), holes().images
    expected = model.encode(images)
    copy = model.with_new_head(3)
    assert torch.equal(copy.encode(images), expected) and copy.logits(images).shape == (5, 3) and not copy.training
    batch = Pictures(images, torch.tensor([0, 1, 2, 0, 1]))
    assert copy(batch)["loss"].item() == pytest.approx(math.log(3), abs=1e-9)
    optimizer = torch.optim.Adam([parameter for parameter in copy.parameters() if parameter.requires_grad], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        losses = copy(batch)
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"].item() < 0.1 and losses["accuracy"].item() == 1
    for name, parameter in copy.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == (name != "encoder.mask_token"), name
    assert torch.equal(model.encode(images), expected)


def test_under_bf16_the_loss_keeps_its_digits():
    for config in (CONFIG, SCALED):
        model, batch = BEiT(config), holes(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            assert model.logits(batch.images, batch.mask).dtype == torch.bfloat16
            assert model(batch)["loss"].dtype == torch.float32


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
        BEiT(dataclasses.replace(CONFIG, **changes))


def test_what_cannot_be_read_or_asked_is_an_error():
    with pytest.raises(CourseError, match="reads pictures of 2 x 8 x 8, not of 2 x 8 x 10"):
        BEiT(CONFIG).encode(torch.rand(1, 2, 8, 10))
    batch = holes(dtype=torch.float32)
    with pytest.raises(CourseError, match="no patch of this batch is hidden"):
        BEiT(CONFIG)(dataclasses.replace(batch, mask=torch.zeros_like(batch.mask)))
