"""The recipes on molecules: what is held out stays so, draws are fair, and frozen, tuned and from nothing differ."""

import dataclasses

import numpy as np
import pytest
import torch

from pfmcourse.base import CourseError, UnknownName
from pfmcourse.data import molecules
from pfmcourse.models.gin import GIN, GINConfig
from pfmcourse.models.graph_pretraining import Described, HiddenAtoms, Surroundings, TwoGraphs
from pfmcourse.recipes import graphs
from pfmcourse.train import seed_everything

COUNT = 600  # molecules
RECIPES = {recipe.name: recipe for recipe in graphs.RECIPES}
BATCHES = {
    "properties": Described,
    "attributes": HiddenAtoms,
    "graphmae": HiddenAtoms,
    "context": Surroundings,
    "graphcl": TwoGraphs,
}


@pytest.fixture(scope="module")
def melting():
    return graphs.task("melting", COUNT)


@pytest.fixture
def encoder():
    """A small GIN whose norms have seen some molecules."""
    seed_everything(0)
    model = GIN(GINConfig(dim=8, layers=2)).to(graphs.device())
    model.encode(graphs.pool(COUNT).graphs.select(range(64)))
    return model.eval()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# What is held out ----------------------------------------------------------------------------------------------------


def test_no_scaffold_that_is_tested_on_is_pretrained_on():
    everything, pool = molecules.load(COUNT), graphs.pool(COUNT)
    train = everything.part("train")
    assert pool.graphs.count == len(train)
    assert torch.equal(pool.graphs.nodes.cpu(), train.atoms)
    learned = set(train.scaffolds.tolist())
    for part in ("validation", "test"):
        held = everything.part(part)
        assert len(held) and not learned & set(held.scaffolds.tolist())


def test_the_pool_says_of_every_molecule_what_varies():
    targets, train = graphs.pool(COUNT).targets.cpu(), molecules.load(COUNT).part("train")
    assert targets.shape == (len(train), int((train.descriptors.std(0) > 1e-6).sum()))
    assert targets.isfinite().all() and float(targets.abs().max()) <= graphs.FURTHEST
    assert torch.allclose(targets.median(0).values, targets.median(0).values.clamp(-1.5, 1.5))


def test_standardised_uses_the_others_and_pulls_in_what_is_far():
    like = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    found = graphs.standardised(torch.tensor([[2.0, 5.0], [1000.0, 5.0]]), like)
    assert torch.allclose(found, torch.tensor([[0.0, 0.0], [graphs.FURTHEST, 0.0]]))


@pytest.mark.parametrize("name", graphs.UNITS)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_task_has_known_values_and_no_scaffold_twice(name, part):
    task = graphs.task(name, COUNT, part)
    assert (task.name, task.unit) == (name, graphs.UNITS[name])
    for chosen, values in ((task.train, task.values), (task.test, task.test_values)):
        assert len(chosen) == len(values) and values.isfinite().all()
        assert torch.equal(chosen.properties[name], values)
    assert not set(task.train.scaffolds.tolist()) & set(task.test.scaffolds.tolist())
    assert {molecules.PARTS[number] for number in task.test.parts.tolist()} == {part}


def test_an_unknown_property_is_named():
    with pytest.raises(UnknownName, match="melting"):
        graphs.task("meltin", COUNT)


# Draws ---------------------------------------------------------------------------------------------------------------


def test_a_larger_draw_begins_with_the_smaller_one(melting):
    for seed in (0, 1):
        few, many = melting.draw(10, seed), melting.draw(100, seed)
        assert torch.equal(many[:10], few)
        assert len(many.unique()) == 100 and int(many.max()) < len(melting.train)
    assert not torch.equal(melting.draw(10, 0), melting.draw(10, 1))


@pytest.mark.parametrize("count", [0, 10**6])
def test_a_draw_that_cannot_be_says_how_many_there_are(melting, count):
    with pytest.raises(CourseError, match=f"there are {len(melting.train)}"):
        melting.draw(count, 0)


def test_the_error_is_in_the_propertys_unit(melting):
    assert melting.error(melting.test_values) == 0
    assert melting.error(melting.test_values + 3) == pytest.approx(3, rel=1e-4)
    half = melting.test_values.clone()
    half[::2] += 10
    share = len(half[::2]) / len(half)
    assert melting.error(half) == pytest.approx(10 * share**0.5, rel=1e-4)


# Regressions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [True, False])
def test_ridge_finds_a_line(scale):
    generator = torch.Generator().manual_seed(0)
    x, others = torch.randn(200, 3, generator=generator), torch.randn(20, 3, generator=generator)
    weights = torch.tensor([2.0, -1.0, 0.5])
    found = graphs.ridge(x, x @ weights + 7, others, scale)
    assert torch.allclose(found, others @ weights + 7, atol=0.02)


def test_ridge_does_not_care_about_units_when_scaled():
    generator = torch.Generator().manual_seed(1)
    x, others = torch.randn(30, 4, generator=generator), torch.randn(9, 4, generator=generator)
    values = x[:, 0] + torch.randn(30, generator=generator)
    units = torch.tensor([1.0, 1000.0, 0.01, 5.0])
    assert torch.allclose(graphs.ridge(x, values, others), graphs.ridge(x * units, values, others * units), atol=1e-3)


def test_ridge_of_noise_stays_near_the_mean():
    generator = torch.Generator().manual_seed(2)
    x, values = torch.randn(40, 60, generator=generator), torch.randn(40, generator=generator)
    assert float(graphs.ridge(x, values, torch.randn(50, 60, generator=generator)).std()) < 0.6


def test_the_forest_learns_a_step_and_repeats_itself():
    x = torch.linspace(-1, 1, 40)[:, None]
    values = (x[:, 0] > 0).float()
    found = graphs.forest(x, values, torch.tensor([[-0.8], [0.8]]), seed=3)
    assert found[0] < 0.05 and found[1] > 0.95
    assert torch.equal(found, graphs.forest(x, values, torch.tensor([[-0.8], [0.8]]), seed=3))


# Frozen --------------------------------------------------------------------------------------------------------------


def test_vectors_do_not_depend_on_company(melting, encoder):
    some = melting.train.select(torch.arange(20))
    whole, parts = graphs.vectors(encoder, some), graphs.vectors(encoder, some, rows=3)
    assert whole.shape == (20, encoder.config.features) and torch.allclose(whole, parts, atol=1e-5)


class Watched(GIN):
    """Keeps the sizes of what it encodes."""

    def encode(self, graphs):
        self.seen.append(graphs.count)
        return super().encode(graphs)


def test_frozen_is_ridge_on_the_vectors_and_encodes_no_molecule_twice(melting, encoder):
    watched = Watched(encoder.config).to(graphs.device())
    watched.load_state_dict(encoder.state_dict())
    watched.seen, before = [], state(watched)
    found = graphs.frozen(watched, melting, (10, 30), (0, 1))
    drawn = torch.cat([melting.draw(30, seed) for seed in (0, 1)]).unique()
    assert sum(watched.seen) == len(drawn) + len(melting.test)
    assert same(before, state(watched))
    assert {count: len(errors) for count, errors in found.items()} == {10: 2, 30: 2}
    tested = graphs.vectors(encoder, melting.test)
    for count in (10, 30):
        for seed in (0, 1):
            rows = melting.draw(count, seed)
            predicted = graphs.ridge(graphs.vectors(encoder, melting.train.select(rows)), melting.values[rows], tested)
            assert found[count][seed] == pytest.approx(melting.error(predicted), rel=1e-3)


def test_frozen_never_learns_from_tested_values(melting, encoder):
    found = graphs.frozen(encoder, melting, (20,), (0,))
    other = dataclasses.replace(melting, test_values=melting.test_values + 1000)
    spread = graphs.frozen(encoder, other, (20,), (0,))
    assert spread[20][0] > found[20][0] + 500  # the predictions have not followed


# Tuned ---------------------------------------------------------------------------------------------------------------


def test_tuning_leaves_the_encoder_as_it_is(melting, encoder):
    before = state(encoder)
    model = graphs.tuned(encoder, melting, melting.draw(12, 0), steps=3)
    assert same(before, state(encoder))
    assert not torch.equal(model.encoder.fields.cpu(), encoder.fields.cpu())


@pytest.mark.parametrize("from_ridge", [True, False])
def test_norms_keep_what_they_learned_only_when_started_from_ridge(melting, encoder, from_ridge):
    model = graphs.tuned(encoder, melting, melting.draw(12, 0), steps=2, from_ridge=from_ridge)
    kept = torch.equal(model.encoder.norms[0].running_mean, encoder.norms[0].running_mean)
    assert kept == from_ridge


def test_tuning_starts_at_the_ridge_regression(melting, encoder, monkeypatch):
    rows = melting.draw(40, 0)
    monkeypatch.setattr(graphs, "fit", lambda *_: None)
    model = graphs.tuned(encoder, melting, rows)
    # on the molecules that it was fitted on, where no vector is pulled in from far away
    known, values = melting.train.select(rows), melting.values[rows]
    found = graphs.vectors(encoder, known)
    near = (graphs.standardised(found, found).abs() < graphs.FURTHEST).all(1)
    expected = graphs.ridge(found, values, found)
    assert near.sum() > 10
    assert torch.allclose(graphs.predictions(model, known)[near], expected[near], atol=0.5)
    assert float((graphs.predictions(model, known) - values).std()) < float(values.std())


def test_from_nothing_starts_at_the_mean(melting, monkeypatch):
    rows = melting.draw(15, 0)
    monkeypatch.setattr(graphs, "fit", lambda *_: None)
    model = graphs.started_from_nothing(melting, rows, config=GINConfig(dim=8, layers=1))
    found = graphs.predictions(model, melting.test)
    assert torch.allclose(found, melting.values[rows].mean().expand(len(found)), rtol=1e-4)


def test_a_seed_decides_from_nothing(melting):
    def trained(seed):
        config = GINConfig(dim=8, layers=1)
        model = graphs.started_from_nothing(melting, melting.draw(15, 0), seed, 3, config)
        return graphs.predictions(model, melting.test)

    first, again, other = trained(0), trained(0), trained(1)
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)


def test_predictions_do_not_depend_on_company(melting, encoder):
    model = graphs.tuned(encoder, melting, melting.draw(12, 0), steps=1)
    some = melting.test.select(torch.arange(10))
    assert torch.allclose(graphs.predictions(model, some), graphs.predictions(model, some, rows=3), atol=1e-2)


# The recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_batches_depend_on_the_generator_alone(name):
    config = RECIPES[name].presets["smoke"]
    data = graphs.pool(config.molecules)
    draw = graphs.batches(config, data, 0)
    first, again, other = (draw(0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert isinstance(first, BATCHES[config.way])

    def nodes(batch):
        return next(getattr(batch, field) for field in ("graphs", "near", "first") if hasattr(batch, field)).nodes

    assert torch.equal(nodes(first), nodes(again)) and not torch.equal(nodes(first), nodes(other))
    loss = graphs.network(config, data).to(graphs.device())(first)["loss"]
    assert loss.isfinite()


def test_targets_belong_to_their_molecules():
    config = dataclasses.replace(RECIPES["graph_properties"].presets["smoke"], batch=5)
    data = graphs.pool(config.molecules)
    batch = graphs.batches(config, data, 0)(0, torch.Generator().manual_seed(4))
    rows = torch.randint(data.graphs.count, (5,), generator=torch.Generator().manual_seed(4)).to(graphs.device())
    assert torch.equal(batch.targets, data.targets[rows])
    assert torch.equal(batch.graphs.nodes, data.graphs.select(rows).nodes)


@pytest.mark.parametrize("name", RECIPES)
def test_the_kept_part_is_the_gin_of_the_run(name):
    config = RECIPES[name].presets["smoke"]
    encoder = graphs.network(config, graphs.pool(config.molecules)).encoder
    assert isinstance(encoder, GIN)
    assert (encoder.config.dim, encoder.config.layers) == (config.dim, config.layers)


@pytest.mark.parametrize("name", RECIPES)
def test_long_and_laptop_train_the_same_model(name):
    laptop, long = (RECIPES[name].presets[preset] for preset in ("laptop", "long"))
    assert dataclasses.replace(long, steps=laptop.steps) == laptop


def test_the_metric_is_measured_on_validation_scaffolds():
    config = RECIPES["graph_properties"].presets["smoke"]
    data = graphs.pool(config.molecules)
    model = graphs.network(config, data).to(graphs.device()).eval()
    found = graphs.metrics(config, data, model)["validation_melting_200"]
    task = graphs.task("melting", config.molecules, "validation")
    count = min(200, len(task.train))
    expected = graphs.frozen(model, task, (count,), (0, 1, 2))[count]
    assert found == pytest.approx(float(np.mean(expected)), rel=1e-4)
