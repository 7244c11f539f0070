"""CLIP: unit vectors in one space, a temperature with a floor, text towers that stop where a text ends."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.clip import (
    CLIP,
    CLIPConfig,
    FrozenText,
    ImagesWithTexts,
    TextTransformer,
    TextTransformerConfig,
    prompt_ensemble,
    zero_shot,
)
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.contrastive import clip_loss
from pfmcourse.nn.transformer import sinusoids

END = 9
WORDS = TextTransformerConfig(vocab=10, context=6, dim=8, layers=2, heads=2, end=END)


def convnet():
    return ConvNet(ConvNetConfig(classes=2, width=4, stages=2, dim=16, channels=3, size=16))


def vit():
    return ViT(ViTConfig(size=16, patch=4, dim=16, layers=1, heads=2))


def reader(**changes):
    return TextTransformer(dataclasses.replace(WORDS, **changes))


def frozen():
    return FrozenText(F.normalize(torch.randn(12, 24), dim=1))


def texts(count=8):
    """Texts of three to six tokens, padded with zeros, and their mask."""
    tokens, lengths = torch.randint(1, END, (count, 6)), 3 + torch.arange(count) % 4
    mask = torch.arange(6) < lengths[:, None]
    tokens[torch.arange(count), lengths - 1] = END
    return tokens.where(mask, 0), mask


def batch(tower, count=8, same=None):
    images = torch.rand(count, 3, 16, 16)
    tokens, mask = texts(count) if isinstance(tower, TextTransformer) else (torch.arange(count)[:, None], None)
    return ImagesWithTexts(images, tokens, mask, same)


def large(model):
    """In float64, with weights so large that everything makes a difference."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


# Both towers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_tower", [convnet, vit])
@pytest.mark.parametrize("text_tower", [reader, frozen])
def test_any_towers_fit_and_all_of_them_learn(image_tower, text_tower):
    model = CLIP(image_tower(), text_tower(), joint=5)
    pairs = batch(model.text_tower)
    out = model(pairs)
    assert out.keys() == {"loss", "found", "temperature"} and all(value.shape == () for value in out.values())
    assert not out["temperature"].requires_grad and out["temperature"].item() == pytest.approx(0.07)
    out["loss"].backward()
    for name, parameter in model.named_parameters():
        assert ".head." in name or parameter.grad.abs().max() > 0, name
    for vectors in (model.encode_image(pairs.images), model.encode_text(pairs.tokens, pairs.mask)):
        assert vectors.shape == (8, 5) and torch.allclose(vectors.norm(dim=1), torch.ones(8), atol=1e-6)
    assert model.config == CLIPConfig(model.image_tower.config, model.text_tower.config, 5, 0.07, 100.0)


def test_the_loss_is_that_of_the_projected_towers():
    model, same = large(CLIP(vit(), reader(), joint=5)), torch.tensor([0, 1, 2, 0, 3, 4, 5, 2])
    pairs = batch(model.text_tower, same=same)
    pairs = dataclasses.replace(pairs, images=pairs.images.double())
    seen = model.image_tower.encode(pairs.images) @ model.image_projection.weight.T
    said = model.text_tower.encode(pairs.tokens, pairs.mask) @ model.text_projection.weight.T
    expected, found = clip_loss(seen, said, model.log_scale.exp(), same)
    out = model(pairs)
    assert abs(out["loss"].item() - expected.item()) < 1e-9 and out["found"] == found
    assert abs(out["loss"].item() - model(dataclasses.replace(pairs, same=None))["loss"].item()) > 1e-3
    assert torch.allclose(model.encode_image(pairs.images), seen / seen.norm(dim=1, keepdim=True), atol=1e-12)
    assert torch.allclose(
        model.encode_text(pairs.tokens, pairs.mask), said / said.norm(dim=1, keepdim=True), atol=1e-12
    )


@pytest.mark.parametrize("image_tower", [convnet, vit])
@pytest.mark.parametrize("text_tower", [reader, frozen])
def test_one_batch_is_learned_by_heart(image_tower, text_tower):
    model = CLIP(image_tower(), text_tower(), joint=16)
    pairs, optimizer = batch(model.text_tower), torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        out = model(pairs)
        out["loss"].backward()
        optimizer.step()
    assert out["loss"] < math.log(8) / 10 and out["found"] == 1


def test_under_autocast_vectors_and_loss_keep_their_digits():
    model = CLIP(vit(), reader(), joint=5)
    pairs = batch(model.text_tower)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.image_tower.embed(pairs.images).dtype == torch.float32
        vectors = model.encode_image(pairs.images)
        assert vectors.dtype == torch.float32 and (vectors.norm(dim=1) - 1).abs().max() < 1e-6
        assert model(pairs)["loss"].dtype == torch.float32
        assert zero_shot(vectors, vectors).dtype == torch.float32
    halved = model.bfloat16()
    assert halved(dataclasses.replace(pairs, images=pairs.images.bfloat16()))["loss"].dtype == torch.float32


# The temperature -----------------------------------------------------------------------------------------------------


def test_the_scale_stays_below_its_limit_and_can_come_down_again():
    model = CLIP(vit(), frozen(), largest_scale=50)
    with torch.no_grad():
        model.log_scale.fill_(math.log(500))
    assert model.eval().scale().item() == pytest.approx(50, rel=1e-5)
    assert model.log_scale.item() == pytest.approx(math.log(500)), "reading it changes nothing"
    (gradient,) = torch.autograd.grad(model.scale(), model.log_scale)
    assert gradient.item() == pytest.approx(50, rel=1e-5), "the gradient is not cut"
    out = model.train()(batch(model.text_tower))
    assert out["temperature"].item() == pytest.approx(1 / 50, rel=1e-5)
    assert model.log_scale.item() == pytest.approx(math.log(50)), "training pulls it back"


def test_the_temperature_is_learned():
    """Where vectors say nothing of their pairs a high temperature is best: then the loss is no more than guessing."""
    model = CLIP(vit(), frozen())
    model(batch(model.text_tower))["loss"].backward()
    assert model.log_scale.grad > 0, "downhill is a smaller scale"


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"temperature": 0.001}, {"temperature": -1.0}])
def test_temperatures_that_cannot_be_are_errors(changes):
    with pytest.raises(CourseError, match="must be above 0 and at least 1 / largest_scale"):
        CLIP(vit(), frozen(), **changes)
    with pytest.raises(CourseError, match="largest_scale=-3 above 0"):
        CLIP(vit(), frozen(), largest_scale=-3)


# Texts that are read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [END, None])
def test_a_texts_vector_is_what_is_known_at_its_end(end):
    model = large(reader(end=end))
    tokens, mask = texts()
    for row, length in enumerate(mask.sum(1).tolist()):
        x = (model.tokens(tokens[row, :length]) + model.positions.weight[:length])[None]
        for block in model.blocks:
            x = block(x, torch.ones(length, length, dtype=torch.bool).tril())
        expected = model.norm(x)[0, -1]
        assert (model.encode(tokens, mask)[row] - expected).abs().max() < 1e-12


def test_what_follows_the_end_does_not_matter_with_or_without_a_mask():
    model = large(reader())
    tokens, mask = texts()
    expected = model.encode(tokens, mask)
    other = tokens.where(mask, torch.randint(10, tokens.shape))  # the end token among them: the first one counts
    assert (model.encode(other, mask) - expected).abs().max() < 1e-12
    assert (model.encode(other) - expected).abs().max() < 1e-12
    changed = tokens.clone()
    changed[:, 0] = 1 + changed[:, 0] % 8
    assert ((model.encode(changed, mask) - expected).abs().amax(1) > 1e-4).all(), "what stands before it does"
    turned = model.encode(tokens[:, [1, 0, 2, 3, 4, 5]], mask)
    assert (turned - expected).abs().max() > 1e-4, "and so does its order"


def test_without_an_end_token_the_highest_counts_wherever_the_mask_is_true():
    model = large(reader(end=None))
    tokens, mask = torch.tensor([[1, 7, 3, 9, 9]]), torch.tensor([[True, True, True, False, False]])
    assert (model.encode(tokens, mask) - model.encode(tokens[:, :2])).abs().max() < 1e-12
    assert (model.encode(tokens) - model.encode(tokens[:, :4])).abs().max() < 1e-12


def test_a_hidden_token_is_not_seen():
    model = large(reader())
    tokens, mask = (
        torch.tensor([[1, 2, 3, END], [1, 4, 3, END]]),
        torch.tensor([[True, False, True, True]]).expand(2, 4),
    )
    one, other = model.encode(tokens, mask)
    assert torch.equal(one, other)
    one, other = model.encode(tokens)
    assert (one - other).abs().max() > 1e-4


def test_positions_start_from_sines_and_the_vectors_from_what_is_read():
    model = reader()
    assert torch.allclose(model.positions.weight, 0.02 * math.sqrt(2) * sinusoids(6, 8))
    assert model.encode(*texts(20)).std(0).mean() > 0.05


def test_dropout_acts_in_training_only():
    model, (tokens, mask) = reader(dropout=0.5), texts()
    assert not torch.equal(model.encode(tokens, mask), model.encode(tokens, mask))
    model.eval()
    assert torch.equal(model.encode(tokens, mask), model.encode(tokens, mask))


def test_texts_that_cannot_be_read_are_errors():
    with pytest.raises(CourseError, match=r"7 tokens are more.*context=6\. Cut the text to 5 tokens and the end token"):
        reader().encode(torch.full((2, 7), END))
    with pytest.raises(CourseError, match=r"text 1 of the batch lacks the end token, number 9"):
        reader().encode(torch.tensor([[1, END], [1, 2]]))
    with pytest.raises(CourseError, match=r"end=10 is not in the vocabulary, whose tokens are 0 to 9"):
        reader(end=10)


# Texts whose vectors stand in a table --------------------------------------------------------------------------------


def test_the_table_is_centred_and_its_numbers_are_about_one():
    tower = FrozenText(F.normalize(0.5 + torch.randn(200, 24), dim=1))
    vectors = tower.encode(torch.arange(200)[:, None])
    assert torch.allclose(vectors, (tower.vectors - tower.vectors.mean(0)) * 24**0.5, atol=1e-6)
    assert vectors.mean(0).abs().max() < 1e-5 and 0.5 < vectors.std() < 1.5
    rows = torch.tensor([[7], [3], [7]])
    assert torch.equal(tower.encode(rows, torch.ones(3, 1, dtype=torch.bool)), vectors[[7, 3, 7]])
    assert tower.config.texts == 200 and tower.config.dim == 24


def test_vectors_outside_of_the_table_stand_on_the_same_footing():
    model, new = CLIP(vit(), frozen(), joint=5).eval(), F.normalize(torch.randn(4, 24), dim=1)
    table = model.text_tower.vectors
    assert torch.equal(model.encode_vectors(table[2:5]), model.encode_text(torch.tensor([[2], [3], [4]])))
    expected = ((new - table.mean(0)) @ model.text_projection.weight.T).detach()
    assert torch.allclose(model.encode_vectors(new), expected / expected.norm(dim=1, keepdim=True), atol=1e-6)
    mean = torch.full((24,), 0.25)
    assert torch.equal(FrozenText(table, mean).encode_vectors(mean[None]), torch.zeros(1, 24))


def test_of_a_frozen_tower_only_the_mean_is_saved_and_nothing_is_trained():
    tower = frozen()
    assert tower.state_dict().keys() == {"mean"} and not list(tower.parameters())
    other = FrozenText(torch.rand(3, 24))
    other.load_state_dict(tower.state_dict())
    new = torch.randn(2, 24)
    assert torch.equal(other.encode_vectors(new), tower.encode_vectors(new)), "a table of other texts changes nothing"


def test_a_table_used_wrongly_says_so():
    with pytest.raises(CourseError, match=r"4 tokens a text.*encode_vectors"):
        frozen().encode(torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(CourseError, match="table of 0 text vectors"):
        FrozenText(torch.empty(0, 4))
    with pytest.raises(CourseError, match="only finite numbers"):
        FrozenText(torch.full((2, 4), math.nan))
    with pytest.raises(CourseError, match="a TextTransformer reads tokens, not vectors: call encode_text"):
        CLIP(vit(), reader()).encode_vectors(torch.rand(2, 8))


# Zero-shot -----------------------------------------------------------------------------------------------------------


def test_zero_shot_logits_are_scaled_cosines():
    images, prompts = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    found = zero_shot(images, prompts, 7)
    for row, image in enumerate(images):
        for column, prompt in enumerate(prompts):
            expected = 7 * image @ prompt / image.norm() / prompt.norm()
            assert abs(found[row, column].item() - expected.item()) < 1e-12


def test_an_ensemble_is_the_mean_of_unit_vectors_at_length_one():
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 30.0])  # lengths do not count
    found = prompt_ensemble(torch.stack([torch.stack([east, east]), torch.stack([north, east])]))
    assert torch.allclose(found, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))
    one = torch.randn(1, 4, 6)
    assert torch.allclose(prompt_ensemble(one), F.normalize(one[0], dim=1))


def test_an_ensemble_finds_what_its_noisy_prompts_miss():
    classes = torch.eye(20, dtype=torch.float64)
    prompts = F.normalize(classes + 0.35 * torch.randn(30, 20, 20, dtype=torch.float64), dim=-1)
    images = F.normalize(classes + 0.1 * torch.randn(20, 20, dtype=torch.float64), dim=-1)
    alone = [(zero_shot(images, one).argmax(1) == torch.arange(20)).double().mean() for one in prompts]
    together = (zero_shot(images, prompt_ensemble(prompts)).argmax(1) == torch.arange(20)).double().mean()
    assert together == 1 and torch.stack(alone).mean() < 0.95
