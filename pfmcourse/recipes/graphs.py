"""Lesson graph_pretraining: a GIN learns from molecules whose properties nobody measured.

It is pretrained on the molecules of the training scaffolds, in five ways; then a property is learned from few
measurements, with the GIN frozen or tuned, and compared with a GIN that starts from nothing, with fingerprints and with
descriptors.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from pfmcourse import base
from pfmcourse.data import molecules
from pfmcourse.data.molecules import Molecules
from pfmcourse.models import graph_pretraining as tasks
from pfmcourse.models.gin import GIN, GINConfig
from pfmcourse.models.graph_pretraining import Described, Measured, Regressor
from pfmcourse.nn.graphs import Graphs
from pfmcourse.recipes import Recipe
from pfmcourse.train import Batches, TrainConfig, device, fit, seed_everything

Way = Literal["properties", "attributes", "context", "graphcl", "graphmae"]

UNITS = {"boiling": "K", "melting": "K", "logp": "", "permittivity": ""}  # the last two are logarithms
FURTHEST = 4.0  # standard deviations: descriptors beyond are pulled in, for some molecules have absurd ones


@dataclass(frozen=True)
class GraphRun:
    """One run on molecules without measurements."""

    way: Way = "properties"
    molecules: int = 26_000  # to read; about a fifth of them is held out
    steps: int = 400
    batch: int = 128
    dim: int = 96
    layers: int = 5
    share: float = 0.15  # of the atoms that are hidden or touched
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Pool:
    """The molecules to pretrain on, and their descriptors with mean 0 and variance 1."""

    graphs: Graphs
    targets: Float[Tensor, "graphs targets"]


def graphs_of(chosen: Molecules) -> Graphs:
    """The molecules as the networks take them, on the device of this machine."""
    return Graphs(chosen.atoms, chosen.edges, chosen.bonds, chosen.graph, len(chosen)).to(device())


def standardised(
    values: Float[Tensor, "rows columns"], like: Float[Tensor, "others columns"]
) -> Float[Tensor, "rows columns"]:
    """Each column less the mean of ``like`` and over its standard deviation, at most `FURTHEST` from 0."""
    mean, spread = like.double().mean(0), like.double().std(0)
    return ((values.double() - mean) / spread.clamp(min=1e-6)).clamp(-FURTHEST, FURTHEST).float()


@functools.cache
def pool(count: int) -> Pool:
    """What is learned from at this number of molecules: the training scaffolds only."""
    train = molecules.load(count).part("train")
    varied = train.descriptors.std(0) > 1e-6  # a descriptor that is the same for all says nothing
    described = train.descriptors[:, varied]
    return Pool(graphs_of(train), standardised(described, described).to(device()))


# Measured properties -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A measured property: molecules to learn it from, and molecules of other scaffolds to be tested on."""

    name: str
    unit: str
    train: Molecules
    values: Float[Tensor, " train"]
    test: Molecules
    test_values: Float[Tensor, " test"]

    def draw(self, count: int, seed: int) -> Int64[Tensor, " labels"]:
        """Rows of ``train`` whose values are known; a larger draw of the same seed begins with the smaller one.

        Raises CourseError for more than there are.
        """
        if not 1 <= count <= len(self.train):
            raise base.CourseError(
                f"{count} measurements of {self.name!r} cannot be drawn: there are {len(self.train)} to learn from."
            )
        return torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))[:count]

    def error(self, predicted: Float[Tensor, " test"]) -> float:
        """Root of the mean squared error on the test molecules, in the property's unit."""
        return float((predicted.cpu() - self.test_values).square().mean().sqrt())


@functools.cache
def task(name: str, count: int = 26_000, part: Literal["validation", "test"] = "test") -> Task:
    """The molecules with this property, of all that are read. Raises UnknownName for a property that is not known."""
    if name not in UNITS:
        raise base.unknown_name("property", name, UNITS)
    everything = molecules.load(count)

    def known(part: str) -> tuple[Molecules, Tensor]:
        chosen = everything.part(part)
        values = chosen.properties[name]
        rows = values.isfinite().nonzero()[:, 0]
        return chosen.select(rows), values[rows]

    return Task(name, UNITS[name], *known("train"), *known(part))


@torch.no_grad()
def vectors(model: nn.Module, chosen: Molecules, rows: int = 512) -> Float[Tensor, "molecules features"]:
    """What a GIN says about molecules, some at a time, on the CPU."""
    model.eval()
    graphs = graphs_of(chosen)
    parts = torch.arange(len(chosen)).split(rows)
    return torch.cat([model.encode(graphs.select(part)).float().cpu() for part in parts])


def ridge(
    features: Float[Tensor, "train columns"],
    values: Float[Tensor, " train"],
    others: Float[Tensor, "test columns"],
    scale: bool = True,
) -> Float[Tensor, " test"]:
    """Predictions of a linear model with an L2 penalty, chosen by leave-one-out on ``train``.

    ``scale``: the columns are standardised first; not wanted for the bits of fingerprints, of which most are rare.
    """
    if scale:
        features, others = standardised(features, features), standardised(others, features)
    weights, bias = _ridge(features, values)
    return (others.double() @ weights + bias).float()


def _ridge(features: Tensor, values: Tensor) -> tuple[Tensor, float]:
    from sklearn.linear_model import RidgeCV

    with threadpool_limits(limits=1, user_api="blas"):  # small products: threads would wait for each other
        model = RidgeCV(np.logspace(-1, 4, 11)).fit(features.double().numpy(), values.double().numpy())
    return torch.from_numpy(model.coef_), float(model.intercept_)


def forest(
    features: Float[Tensor, "train columns"],
    values: Float[Tensor, " train"],
    others: Float[Tensor, "test columns"],
    seed: int = 0,
) -> Float[Tensor, " test"]:
    """Predictions of a random forest of 100 trees (Breiman 2001, "Random Forests")."""
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(100, max_features=0.3, n_jobs=1, random_state=seed)
    model.fit(features.numpy(), values.numpy())
    return torch.from_numpy(model.predict(others.numpy())).float()


def frozen(encoder: nn.Module, task: Task, counts: tuple[int, ...], seeds: tuple[int, ...]) -> dict[int, list[float]]:
    """Test error of ridge regression on the GIN's vectors, for each number of measurements and each seed's draw."""
    rows = {seed: task.draw(min(max(counts), len(task.train)), seed) for seed in seeds}
    needed, place = torch.cat(list(rows.values())).unique(return_inverse=True)  # no molecule is encoded twice
    found, tested = vectors(encoder, task.train.select(needed)), vectors(encoder, task.test)
    values, starts = task.values[needed], dict(zip(seeds, place.split([len(r) for r in rows.values()]), strict=True))
    return {
        count: [task.error(ridge(found[starts[seed][:count]], values[starts[seed][:count]], tested)) for seed in seeds]
        for count in counts
    }


def tuned(
    encoder: GIN,
    task: Task,
    rows: Int64[Tensor, " labels"],
    seed: int = 0,
    steps: int = 100,
    learning_rate: float = 1e-3,
    from_ridge: bool = True,
) -> Regressor:
    """A copy of the GIN trained further on some measurements, 64 at a time; the GIN itself stays as it is.

    ``from_ridge``: the head starts as the ridge regression on the frozen vectors, and the batch norms keep the means
    that they learned (Kumar, Raghunathan, Jones, Ma, Liang 2022, "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution"). Otherwise all is trained, the head from zero: how to start from nothing.
    """
    values, chosen = task.values[rows], task.train.select(rows)
    seed_everything(seed)
    model = Regressor(copy.deepcopy(encoder), float(values.mean()), float(values.std()), frozen_norms=from_ridge).to(
        device()
    )
    if from_ridge:
        found = vectors(model, chosen)
        mean, spread = found.double().mean(0), found.double().std(0).clamp(min=1e-6)
        weights, bias = _ridge(standardised(found, found), (values - values.mean()) / values.std())
        with torch.no_grad():
            model.head.weight.copy_((weights / spread)[None])
            model.head.bias.fill_(bias - float((weights * mean / spread).sum()))
    graphs, wanted = graphs_of(chosen), values.to(device())

    def draw(step: int, generator: torch.Generator) -> Measured:
        some = torch.randperm(len(wanted), generator=generator)[:64].to(wanted.device)
        return Measured(graphs.select(some), wanted[some])

    config = TrainConfig(
        steps, learning_rate, weight_decay=0.05, precision="fp32", seed=seed, unit="graphs", units_per_step=64
    )
    fit(model, draw, config)
    return model


def started_from_nothing(
    task: Task, rows: Int64[Tensor, " labels"], seed: int = 0, steps: int = 300, config: GINConfig | None = None
) -> Regressor:
    """A new GIN trained on some measurements alone."""
    seed_everything(seed)
    return tuned(GIN(config or GINConfig()), task, rows, seed, steps, from_ridge=False)


def predictions(model: Regressor, chosen: Molecules, rows: int = 512) -> Float[Tensor, " molecules"]:
    """What a tuned GIN predicts, some molecules at a time, on the CPU."""
    graphs, parts = graphs_of(chosen), torch.arange(len(chosen)).split(rows)
    return torch.cat([model.predict(graphs.select(part)).cpu() for part in parts])


# The recipes ---------------------------------------------------------------------------------------------------------


def network(config: GraphRun, data: Pool) -> nn.Module:
    """A GIN with what its way of pretraining needs around it."""
    encoder = GIN(GINConfig(dim=config.dim, layers=config.layers))
    if config.way == "properties":
        return tasks.PropertyPrediction(encoder, data.targets.shape[1])
    others = {
        "attributes": tasks.AttributeMasking,
        "context": tasks.ContextPrediction,
        "graphcl": tasks.GraphCL,
        "graphmae": tasks.GraphMAE,
    }
    return others[config.way](encoder)


def batches(config: GraphRun, data: Pool, seed: int) -> Batches:
    """Molecules drawn with replacement, prepared for the way of pretraining."""
    hidden = GINConfig().hidden

    def draw(step: int, generator: torch.Generator) -> object:
        rows = torch.randint(data.graphs.count, (config.batch,), generator=generator).to(data.graphs.graph.device)
        graphs = data.graphs.select(rows)
        if config.way == "properties":
            return Described(graphs, data.targets[rows])
        if config.way == "context":
            return tasks.surroundings(graphs, generator)
        if config.way == "graphcl":
            return tasks.two_views(graphs, config.share, hidden, generator)
        return tasks.hide_atoms(graphs, config.share, hidden, generator)

    return draw


def training(config: GraphRun, data: Pool) -> TrainConfig:
    """AdamW, counting molecules."""
    return TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        decay="cosine",
        clip=5.0,
        precision="auto" if device().type == "cuda" else "fp32",  # on a CPU as fast, and a better regressor
        unit="molecules",
        units_per_step=config.batch,
    )


def metrics(config: GraphRun, data: Pool, model: nn.Module) -> Mapping[str, float]:
    """Error in K of the melting points of the validation scaffolds: ridge on frozen vectors, 200 measurements."""
    melting = task("melting", config.molecules, "validation")
    count = min(200, len(melting.train))
    return {"validation_melting_200": float(np.mean(frozen(model, melting, (count,), (0, 1, 2))[count]))}


SMOKE = {"molecules": 600, "steps": 3, "batch": 16, "dim": 16, "layers": 2}


def _recipe(name: str, way: Way, purpose: str, **changes: object) -> Recipe:
    run = GraphRun(way, **changes)
    return Recipe(
        name=name,
        purpose=purpose,
        lesson="graph_pretraining",
        presets={
            "smoke": dataclasses.replace(run, **SMOKE),
            "laptop": run,
            "long": dataclasses.replace(run, steps=800),
            "gpu": dataclasses.replace(run, molecules=52_000, steps=50_000, batch=1024, dim=300),
        },
        data=lambda config: pool(config.molecules),
        model=network,
        batches=batches,
        training=training,
        metrics=metrics,
    )


RECIPES = [
    _recipe("graph_properties", "properties", "predict what a program computes from a molecule's structure"),
    _recipe("attribute_masking", "attributes", "guess hidden atoms of a molecule"),
    _recipe("context_prediction", "context", "tell an atom's surroundings from those in another molecule"),
    _recipe("graphcl", "graphcl", "recognise a molecule again when atoms or bonds are gone", share=0.2),
    _recipe("graphmae", "graphmae", "rebuild hidden atoms from what the others carry", share=0.25),
]
