"""Recipes: names and overrides, one run of each, the same seed twice, and checkpoints that are what their cards say."""

import dataclasses
import hashlib
import json
import math

import pytest
import torch
from torch import nn

from pfmcourse import base, recipes
from pfmcourse.recipes import AlteredCheckpoint, Recipe
from pfmcourse.train import TrainConfig


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of this module's own, so that no interrupted run of somebody else is resumed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclasses.dataclass(frozen=True)
class Sizes:
    steps: int = 8
    width: int = 3
    scale: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)


class Line(nn.Module):
    """A small model with a buffer of whole numbers, which halving must not touch."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.register_buffer("order", torch.arange(70_001)[-2:])

    def forward(self, batch):
        return {"loss": ((self.layer(batch) - batch.sum(1, keepdim=True)) ** 2).mean()}


LINE = Recipe(
    name="line",
    purpose="fit a line",
    lesson="plain",
    presets={name: Sizes() for name in base.PRESETS} | {"smoke": Sizes(steps=2)},
    data=lambda config: torch.linspace(-1, 1, 12).view(4, 3)[:, : config.width],
    model=lambda config, data: Line(config.width),
    batches=lambda config, data, seed: lambda step, generator: data + torch.randn(data.shape, generator=generator),
    training=lambda config, data: TrainConfig(steps=config.steps, learning_rate=0.1, precision="fp32"),
    metrics=lambda config, data, model: {"error": model(data)["loss"].item(), "training": float(model.training)},
)


@pytest.fixture
def line(monkeypatch):
    """A registry that holds one recipe, trained in no time."""
    monkeypatch.setattr(recipes, "_registry", lambda: {"line": LINE})


@pytest.fixture
def clone(tmp_path, monkeypatch, line):
    monkeypatch.setattr(base, "repository", lambda: tmp_path)
    return tmp_path / "data" / "checkpoints"


def equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Names ---------------------------------------------------------------------------------------------------------------


def test_the_recipes_of_all_modules_are_there_once():
    assert {"cbow", "glove", "nnlm", "skip_gram"} <= set(recipes.names())
    assert recipes.names() == sorted(recipes.names())
    assert all(recipes.get(name).name == name for name in recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_has_every_preset_and_says_what_it_is(name):
    recipe = recipes.get(name)
    assert set(recipe.presets) == set(base.PRESETS)
    assert len({type(config) for config in recipe.presets.values()}) == 1
    assert all(
        dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen for config in recipe.presets.values()
    )
    assert recipe.purpose and recipe.lesson
    json.dumps([dataclasses.asdict(config) for config in recipe.presets.values()])  # the card holds it


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipes.get("skipgram"), "unknown recipe 'skipgram'. Did you mean 'skip_gram'?"),
        (lambda: recipes.load("GloVe"), "unknown recipe 'GloVe'. Did you mean 'glove'?"),
        (lambda: recipes.card("nlm"), "unknown recipe 'nlm'. Did you mean 'nnlm'?"),
        (lambda: recipes.config("glove", "laptob"), "unknown preset 'laptob'. Did you mean 'laptop'?"),
        (lambda: recipes.config("glove", "smoke", windows=3), "unknown parameter 'windows'. Did you mean 'window'?"),
        (lambda: recipes.pretrain("glove", "smoke", dims=3), "unknown parameter 'dims'. Did you mean 'dim'?"),
    ],
)
def test_unknown_names_suggest_the_nearest(call, message):
    with pytest.raises(base.UnknownName) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_an_override_of_the_wrong_type_is_refused_before_any_work():
    with pytest.raises(base.CourseError, match=r"parameter 'dim' wants int, but got '64' \(str\)"):
        recipes.pretrain("glove", "smoke", dim="64")


def test_overrides_change_single_fields(monkeypatch):
    preset = recipes.get("glove").presets["smoke"]
    assert recipes.config("glove", "smoke", dim=7) == dataclasses.replace(preset, dim=7)
    monkeypatch.setenv("PFMCOURSE_PRESET", "smoke")
    assert recipes.config("glove") == preset


# Running -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_trains_at_smoke(name):
    run = recipes.pretrain(name, "smoke")
    assert run.history.steps == run.history.planned >= 1
    assert all(math.isfinite(row["loss"]) for row in run.history.rows)
    assert run.metrics and all(math.isfinite(value) for value in run.metrics.values())
    assert not run.model.training
    assert (run.recipe.name, run.preset, run.seed) == (name, "smoke", 0)
    assert run.config == run.recipe.presets["smoke"]


@pytest.mark.parametrize("name", recipes.names())
def test_the_same_seed_gives_the_same_bits_and_another_others(name, monkeypatch):
    recipe = recipes.get(name)

    def short(config, data):
        return dataclasses.replace(recipe.training(config, data), steps=2)

    quick = dataclasses.replace(recipe, training=short, metrics=lambda config, data, model: {})
    everything = {**recipes._registry(), name: quick}  # a recipe may load another one's checkpoint
    monkeypatch.setattr(recipes, "_registry", lambda: everything)
    first, second, other = (recipes.pretrain(name, "smoke", seed, resume=False) for seed in (3, 3, 4))
    assert equal(first.model, second.model)
    assert first.history.curve() == second.history.curve()
    assert not equal(first.model, other.model)
    assert other.seed == 4


def test_the_seed_reaches_initialisation_order_and_training(line, monkeypatch):
    seen = []

    def model(config, data):
        made = LINE.model(config, data)
        seen.append(made.layer.weight.tolist())
        return made

    def batches(config, data, seed):
        seen.append(seed)

        def batch(step, generator):
            seen.append(generator.initial_seed())
            return data

        return batch

    monkeypatch.setattr(recipes, "_registry", lambda: {"line": dataclasses.replace(LINE, model=model, batches=batches)})
    for seed in (5, 6, 5):
        recipes.pretrain("line", "smoke", seed, resume=False)
    first, second, third = seen[:4], seen[4:8], seen[8:]
    assert first == third
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert (first[1], second[1]) == (5, 6)


def test_an_interrupted_run_goes_on_where_it_stopped(line, monkeypatch):
    def stopping(config, data, seed):
        drawn = LINE.batches(config, data, seed)

        def batch(step, generator):
            if step == 5:
                raise KeyboardInterrupt
            return drawn(step, generator)

        return batch

    straight = recipes.pretrain("line", "laptop", seed=1, resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "_registry", lambda: {"line": dataclasses.replace(LINE, batches=stopping)})
        halted = recipes.pretrain("line", "laptop", seed=1)
    assert halted.history.interrupted and halted.history.steps == 5
    assert recipes.pretrain("line", "laptop", seed=2).history.resumed_at is None  # another run's state is not touched
    assert recipes.pretrain("line", "laptop", seed=1, scale=2.0).history.resumed_at is None
    assert recipes.pretrain("line", "laptop", seed=1, resume=False).history.resumed_at is None
    resumed = recipes.pretrain("line", "laptop", seed=1)
    assert resumed.history.resumed_at == 5
    assert equal(resumed.model, straight.model)


# Checkpoints ---------------------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(clone):
    run = recipes.pretrain("line", "long", seed=2, resume=False, width=2)
    before = run.model.layer.weight.detach().clone()
    weights, card = recipes.save(run, "pfmcourse pretrain line --preset long")
    assert (weights, card) == (clone / "line.safetensors", clone / "line.json")
    assert sorted(path.name for path in clone.iterdir()) == ["line.json", "line.safetensors"]
    found = recipes.load("line")
    assert equal(found.model, run.model)
    assert found.model.layer.weight.dtype == torch.float32
    assert torch.equal(found.model.layer.weight, before.half().float())
    assert not torch.equal(found.model.layer.weight, before)
    assert found.model.order.tolist() == [69_999, 70_000]
    assert not found.model.training
    assert found.config == run.config == Sizes(width=2)
    assert (found.preset, found.seed, found.history) == ("long", 2, None)
    # The metrics are those of the rounded weights.
    assert LINE.metrics(found.config, found.data, found.model) == found.metrics == recipes.card("line")["metrics"]
    assert found.metrics["error"] != run.metrics["error"]
    assert found.metrics["error"] == pytest.approx(run.metrics["error"], rel=0.05)


def test_the_card_tells_the_story(clone):
    run = recipes.pretrain("line", "long", seed=2, resume=False)
    weights, _ = recipes.save(run, "pfmcourse pretrain line --preset long --seed 2")
    card = recipes.card("line")
    assert card["command"] == "pfmcourse pretrain line --preset long --seed 2"
    assert (card["recipe"], card["purpose"], card["preset"], card["seed"]) == ("line", "fit a line", "long", 2)
    assert (card["steps"], card["torch"]) == (8, torch.__version__)
    assert card["config"] == {"steps": 8, "width": 3, "scale": 1.0, "betas": [0.9, 0.95]}
    assert card["loss"] == [{"step": row["step"], "loss": row["loss"]} for row in run.history.rows]
    assert card["bytes"] == weights.stat().st_size
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card["hardware"].startswith("cpu, 1 process(es)")


def test_one_changed_byte_is_noticed(clone):
    weights, _ = recipes.save(recipes.pretrain("line", "long", resume=False), "command")
    content = bytearray(weights.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AlteredCheckpoint) as caught:
        recipes.load("line")
    message = str(caught.value)
    assert f"expected SHA-256 {expected} ({len(content)} bytes)" in message
    assert f"found {hashlib.sha256(content).hexdigest()} ({len(content)} bytes)" in message
    assert "git checkout" in message


def test_missing_weights_are_noticed(clone):
    weights, _ = recipes.save(recipes.pretrain("line", "long", resume=False), "command")
    weights.unlink()
    with pytest.raises(AlteredCheckpoint, match=r"line\.safetensors is not what its card says.*\(0 bytes\)"):
        recipes.load("line")


def test_weights_of_another_model_are_noticed(clone, monkeypatch):
    recipes.save(recipes.pretrain("line", "long", resume=False), "command")
    other = dataclasses.replace(LINE, model=lambda config, data: nn.Linear(config.width, 1))
    monkeypatch.setattr(recipes, "_registry", lambda: {"line": other})
    with pytest.raises(AlteredCheckpoint, match="does not fit the model of recipe 'line'"):
        recipes.load("line")


def test_without_a_checkpoint_the_command_is_named(clone):
    for call in (recipes.load, recipes.card):
        with pytest.raises(
            base.CourseError, match=r"no checkpoint of 'line' in .*pfmcourse pretrain line --preset long"
        ):
            call("line")


def test_a_loaded_model_cannot_be_saved_again(clone):
    recipes.save(recipes.pretrain("line", "long", resume=False), "command")
    with pytest.raises(base.CourseError, match="only a run that was just trained can be saved"):
        recipes.save(recipes.load("line"), "command")
