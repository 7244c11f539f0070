"""The recipes of lesson mae: what is held out, what a batch is, and measures that are the same each time."""

import dataclasses

import pytest
import torch

from pfmcourse import recipes
from pfmcourse.data import emoji, photographs
from pfmcourse.models.beit import BEiTWithCodes
from pfmcourse.models.mae import MAE
from pfmcourse.models.simclr import SimCLR
from pfmcourse.nn.patches import patchify
from pfmcourse.recipes import mae, simclr
from pfmcourse.recipes.mae import Tokenised
from pfmcourse.recipes.simclr import Unlabelled, fractions

PAINTERS = ("mae", "mae_emoji", "mae_photographs")
KINDS = dict.fromkeys(PAINTERS, MAE) | {"beit": BEiTWithCodes, "simclr_vit": SimCLR}


@pytest.fixture
def quick(monkeypatch):
    """Without the measures on all pictures: they take longer than everything else here."""
    monkeypatch.setattr(simclr, "metrics", lambda config, data, model: {"measured": 1.0})
    held_out = mae._held_out
    monkeypatch.setattr(mae, "_held_out", lambda name: held_out(name)[:20])


def batches(name, seed=0, **changes):
    config = recipes.config(name, "smoke", **changes)
    recipe = recipes.get(name)
    data = recipe.data(config)
    return config, data, recipe.batches(config, data, seed)


def drawn(name, number, **changes):
    return batches(name, **changes)[2](0, torch.Generator().manual_seed(number))


# One run of each ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PAINTERS, "beit"])
def test_a_recipe_runs_and_measures(name, quick):
    run = recipes.pretrain(name, "smoke", resume=False)  # so that no interrupted run of somebody else goes on here
    assert isinstance(run.model, KINDS[name]) and run.history.steps == run.config.steps
    assert 0 < run.metrics["test_loss"] < 10
    assert ("measured" in run.metrics) == (name != "mae_photographs")
    assert ("test_accuracy" in run.metrics) == (name == "beit")


@pytest.mark.parametrize("preset", ["laptop", "long"])
def test_the_three_that_are_compared_have_the_same_vit_and_pictures(preset):
    painter, contrast, guesser = (recipes.config(name, preset) for name in ("mae", "simclr_vit", "beit"))
    assert painter.pictures == contrast.pictures == guesser.pictures
    data = mae.pictures_of(painter.pictures)
    with torch.device("meta"):
        encoders = [recipes.get("mae").model(painter, data).encoder]
        encoders.append(recipes.get("simclr_vit").model(contrast, data).encoder)
    assert encoders[0].config == encoders[1].config
    assert (guesser.patch, guesser.dim, guesser.layers) == tuple(
        getattr(encoders[0].config, field) for field in ("patch", "dim", "layers")
    )


@pytest.mark.parametrize("name", KINDS)
def test_laptop_and_long_train_the_same_network(name):
    laptop, long = (recipes.config(name, preset) for preset in ("laptop", "long"))
    assert dataclasses.replace(long, steps=laptop.steps) == laptop
    assert long.steps > laptop.steps


@pytest.mark.parametrize(("name", "normalise"), [("mae", True), ("mae_emoji", False), ("mae_photographs", False)])
def test_errors_in_pixels_are_those_of_networks_that_do_not_normalise(name, normalise):
    for preset in ("smoke", "laptop", "long", "gpu"):
        config = recipes.config(name, preset)
        assert mae.mae_config(config, mae.pictures_of("emoji")).normalise is normalise


# What is held out ----------------------------------------------------------------------------------------------------


def test_no_tile_of_a_held_out_photograph_is_in_pretraining():
    names = photographs.load().split("train").names
    assert not set(names) & set(photographs.load().split("test").names)
    seen, unseen = mae.pictures_of("photographs").pictures, mae._held_out("photographs")
    per_name = [photographs.tiles([name], tile=(32, 64, 128)) for name in names]
    assert torch.equal(seen, torch.cat(per_name))
    both = {bytes(one.numpy()) for one in seen.flatten(1)} & {bytes(one.numpy()) for one in unseen.flatten(1)}
    assert not both


def test_no_concept_of_a_held_out_emoji_is_in_pretraining():
    everything = emoji.load(languages=("en",))
    train, test = everything.split("train"), everything.split("test")
    assert not set(train.concepts.tolist()) & set(test.concepts.tolist())
    assert torch.equal(mae.pictures_of("emoji").pictures, train.pictures)
    known = {bytes(one.numpy()) for one in test.pictures.flatten(1)}
    held_out = mae._held_out("emoji")
    assert len(held_out) and all(bytes(one.numpy()) in known for one in held_out.flatten(1))


def test_no_held_out_digit_is_in_pretraining():
    seen = {bytes(one.numpy()) for one in mae.pictures_of("letters").pictures.flatten(1)}
    unseen = [bytes(one.numpy()) for one in mae._held_out("letters").flatten(1)]
    assert len(unseen) >= 500 and not seen.intersection(unseen)


# Batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAINTERS)
def test_batches_depend_on_the_generator_alone(name):
    first = drawn(name, 5)
    config, data, _ = batches(name)
    assert first.shape == (config.batch, *data.pictures.shape[1:])
    assert first.min() >= 0 and first.max() <= 1
    torch.manual_seed(123)
    assert torch.equal(first, drawn(name, 5, seed=9))
    assert not torch.equal(first, drawn(name, 6))


def test_a_painter_sees_true_colours():
    generator = torch.Generator().manual_seed(0)
    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 255
    for name in ("mae_emoji", "mae_photographs"):
        config = recipes.config(name, "smoke")
        found = recipes.get(name).batches(config, Unlabelled(red), 0)(0, generator)
        wanted = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand_as(found)
        inside = found[..., 4:-4, 4:-4]
        assert torch.allclose(inside, wanted[..., 4:-4, 4:-4], atol=1e-5)


def test_beit_asks_for_the_nearest_codes_of_the_pictures_that_it_shows():
    config, data, draw = batches("beit")
    batch = draw(0, torch.Generator().manual_seed(5))
    codes = recipes.get("beit").model(config, data).codes
    patches = patchify(batch.images, config.patch)
    tokens = codes.encode(batch.images)
    nearest = torch.cdist(patches.double(), codes.codes.double()).argmin(-1)
    # Where two codes are as near, either may be the token: distances decide, not numbers.
    gap = (patches - codes.codes[tokens]).square().sum(-1) - (patches - codes.codes[nearest]).square().sum(-1)
    assert gap.abs().max() < 1e-4 and (nearest == tokens).float().mean() > 0.99
    hidden = round(config.share * patches.shape[1])
    assert (batch.mask.sum(1) == hidden).all()
    again = draw(3, torch.Generator().manual_seed(5))
    for field in ("images", "mask"):
        assert torch.equal(getattr(batch, field), getattr(again, field))


def test_beit_keeps_its_codes_with_its_weights():
    config, data, _ = batches("beit")
    model = recipes.get("beit").model(config, data)
    assert torch.equal(model.state_dict()["codes.codes"], data.codes.codes.cpu())


def test_the_vocabulary_comes_from_the_pictures_of_pretraining_and_is_the_same_again():
    first = mae.tokenised("letters", 4, 16)
    again = mae.tokenised.__wrapped__("letters", 4, 16)
    assert torch.equal(first.pictures, mae.pictures_of("letters").pictures)
    assert first.codes.codes.shape == (16, 16)
    assert torch.equal(first.codes.codes.cpu(), again.codes.codes.cpu())


# Measures ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def painter():
    config = recipes.config("mae_emoji", "smoke")
    model = recipes.get("mae_emoji").model(config, mae.pictures_of("emoji")).eval()
    torch.nn.init.normal_(model.pixels.weight, std=0.3)
    return config, model


def test_painting_error_is_the_same_each_time_and_that_of_reconstruct(painter):
    config, model = painter
    pictures = mae._held_out("emoji")[:7]
    found = mae.painting_error(config, model, pictures)
    torch.manual_seed(99)
    assert mae.painting_error(config, model, pictures) == found
    noise = torch.rand(7, model.config.encoder.patches, generator=torch.Generator().manual_seed(0))
    images = fractions(pictures)
    painted, mask = model.reconstruct(images, noise)
    error = (patchify(painted, config.patch) - patchify(images, config.patch)).square()[mask].mean()
    assert found == pytest.approx(float(error), rel=1e-5)


def test_painting_error_weighs_pictures_not_parts(painter, monkeypatch):
    config, model = painter
    pictures = mae._held_out("emoji")[:3].repeat(170, 1, 1, 1)[:503]  # 500, and 3 more
    noise = torch.rand(503, model.config.encoder.patches, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [float(model(fractions(pictures[i : i + 1]), noise[i : i + 1])["loss"]) for i in (0, 250, 500, 502)]
        parts = [float(model(fractions(pictures[part]), noise[part])["loss"]) for part in (slice(500), slice(500, 503))]
    assert len(set(each)) > 1
    assert mae.painting_error(config, model, pictures) == pytest.approx((500 * parts[0] + 3 * parts[1]) / 503)


def test_a_beit_that_always_says_one_token_is_right_as_often_as_it_is_there(quick):
    config = recipes.config("beit", "smoke")
    data: Tokenised = recipes.get("beit").data(config)
    model = recipes.get("beit").model(config, data).eval()
    held_out = fractions(mae._held_out("letters"))
    tokens = data.codes.encode(held_out)
    common = int(tokens.flatten().mode().values)
    with torch.no_grad():
        model.encoder.head.bias[common] = 9.0
    found = recipes.get("beit").metrics(config, data, model)
    assert found == recipes.get("beit").metrics(config, data, model)
    side = held_out.shape[-1] // config.patch
    mask = mae.blockwise_mask(len(held_out), side, config.share, torch.Generator().manual_seed(0))
    assert found["test_accuracy"] == pytest.approx(float((tokens == common)[mask].float().mean()))


def test_simclr_shows_its_vit_two_views_of_each_picture():
    config, data, draw = batches("simclr_vit")
    batch = draw(0, torch.Generator().manual_seed(5))
    assert batch.first.shape == batch.second.shape == (config.batch, *data.pictures.shape[1:])
    assert not torch.equal(batch.first, batch.second)
    loss = recipes.get("simclr_vit").model(config, data)(batch)["loss"]
    assert 0 < float(loss) < 10
