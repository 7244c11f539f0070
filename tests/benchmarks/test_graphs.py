"""Graphs against their peers: same machine, network, weights and molecules, in turn; medians of paired rounds.

One thread, as dgl takes it. "as users run it" is the peer in fp32 with fused AdamW; "same precision" gives it the
autocast that ours runs in. Steps are timed with batches that are ready; "with batching", each step first puts its batch
together from single molecules. torch_geometric is no requirement of the course: where it is not installed, it is left
out.
"""

import functools
import importlib
import os
import statistics

import pytest
import torch
from measure import in_turn, ratio, seconds, trainer
from torch import nn
from torch.nn import functional as F

from pfmcourse import convert
from pfmcourse.data import molecules
from pfmcourse.models.gin import GIN, GINConfig
from pfmcourse.models.graph_pretraining import Described, PropertyPrediction
from pfmcourse.nn.graphs import Graphs

ROWS, TARGETS = 128, 100


@functools.cache
def graphs(rows=ROWS):
    """Molecules as they come, repeated where there are too few."""
    read = molecules.load(2000)
    every = Graphs(read.atoms, read.edges, read.bonds, read.graph, len(read))
    return every.select(torch.arange(rows) * 7 % len(read))


class Peer(nn.Module):
    """Our network of the peer's layers, with one table a field as its users write it, and our weights.

    ``layer`` makes a convolution of its function, ``pool`` the sums and means of the nodes.
    """

    def __init__(self, ours, layer, pool):
        super().__init__()
        gin = ours.encoder
        config, self.pool = gin.config, pool

        def tables(weight, values):
            parts = weight.detach().clone().split(list(values))
            return nn.ModuleList(nn.Embedding.from_pretrained(part, freeze=False) for part in parts)

        self.atoms = tables(gin.fields, [count + 1 for count in config.node_values])
        self.bonds = nn.ModuleList(tables(bonds.weight, config.edge_values) for bonds in gin.bonds)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for ours_layer, norm in zip(gin.layers, gin.norms, strict=True):
            hidden = nn.Sequential(nn.Linear(config.dim, 2 * config.dim, bias=False), nn.BatchNorm1d(2 * config.dim))
            change = nn.Sequential(*hidden, nn.ReLU(), nn.Linear(2 * config.dim, config.dim))
            self.convolutions.append(layer(change))
            change.load_state_dict(ours_layer.change.state_dict())  # afterwards: torch_geometric draws new weights
            self.norms.append(nn.BatchNorm1d(config.dim))
            self.norms[-1].load_state_dict(norm.state_dict())
        self.head = nn.Sequential(nn.Linear(config.features, 256), nn.ReLU(), nn.Linear(256, TARGETS))
        self.head.load_state_dict(ours.head.state_dict())

    def forward(self, graph, atoms, bonds):
        x = sum(table(field) for table, field in zip(self.atoms, atoms.T, strict=True))
        for tables, convolution, norm in zip(self.bonds, self.convolutions, self.norms, strict=True):
            edge = sum(table(field) for table, field in zip(tables, bonds.T, strict=True))
            x = x + F.relu(norm(convolution(graph, x, edge)))
        total, mean = self.pool(graph, x)
        return self.head(torch.cat([mean, total / 15], dim=1))


def ours():
    torch.manual_seed(0)
    return PropertyPrediction(GIN(), TARGETS)


def compare(report, name, layer, pool, join, singles, graph_of):
    """Steps of ours and of a peer; ``join`` makes the peer's batch of ``singles``, ``graph_of`` its forward's input."""
    model, batch = ours(), graphs()
    described = Described(batch, torch.randn(ROWS, TARGETS))
    ready = graph_of(join(singles))
    peers = [Peer(model, layer, pool) for _ in range(3)]
    found, expected = model.head(model.encode(batch)), peers[0](*ready)
    assert torch.allclose(found, expected, atol=1e-4), "the same function"
    model = ours()  # as it was before the norms saw a batch

    def loss(made):
        return lambda peer: F.smooth_l1_loss(peer(*made()).float(), described.targets)

    def selected(model):
        return model(Described(batch.select(torch.arange(ROWS)), described.targets))["loss"]

    times = in_turn(
        {
            "ours": trainer(model, lambda model: model(described)["loss"], precise=False),
            "users": trainer(peers[0], loss(lambda: ready), precise=True),
            "same": trainer(peers[1], loss(lambda: ready), precise=False),
            "ours in fp32": trainer(ours(), lambda model: model(described)["loss"], precise=True),
            "ours with batching": trainer(ours(), selected, precise=False),
            "theirs with batching": trainer(peers[2], loss(lambda: graph_of(join(singles))), precise=True),
        }
    )
    report(
        f"gin_training_graphs_per_second_to_{name}",
        ratio_as_users_run_it=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "ours"),
        ratio_both_in_fp32=ratio(times, "users", "ours in fp32"),
        ratio_with_batching=ratio(times, "theirs with batching", "ours with batching"),
        graphs_per_second=ROWS / statistics.median(times["ours"]),
        graphs_per_second_with_batching=ROWS / statistics.median(times["ours with batching"]),
    )
    return ratio(times, "users", "ours")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_gin_training_against_dgl(report):
    os.environ.setdefault("DGLBACKEND", "pytorch")
    dgl = pytest.importorskip("dgl")
    torch.set_num_threads(1)
    singles = [convert.to_dgl(graphs().select([number])) for number in range(ROWS)]

    def fields(graph):
        return graph, graph.ndata["fields"].long(), graph.edata["fields"].long()

    def pool(graph, x):
        with graph.local_scope():
            graph.ndata["x"] = x
            return dgl.sum_nodes(graph, "x"), dgl.mean_nodes(graph, "x")

    faster = compare(report, "dgl", dgl.nn.pytorch.GINEConv, pool, dgl.batch, singles, fields)
    assert faster > 1


def test_gin_training_against_torch_geometric(report):
    try:
        layers = importlib.import_module("torch_geometric.nn")
        data = importlib.import_module("torch_geometric.data")
    except ImportError:
        pytest.skip("torch_geometric is not installed")
    torch.set_num_threads(1)

    class Convolution(layers.GINEConv):
        def forward(self, graph, x, edge):
            return super().forward(x, graph.edge_index, edge)

    singles = [
        data.Data(x=one.nodes.long(), edge_index=one.edges, edge_attr=one.edge_fields.long())
        for one in (graphs().select([number]) for number in range(ROWS))
    ]

    def pool(graph, x):
        size = graph.num_graphs
        return layers.global_add_pool(x, graph.batch, size), layers.global_mean_pool(x, graph.batch, size)

    def fields(graph):
        return graph, graph.x, graph.edge_attr

    faster = compare(report, "torch_geometric", Convolution, pool, data.Batch.from_data_list, singles, fields)
    assert faster > 1


def test_cost_as_batch_width_and_depth_grow(report):
    """Seconds a step, relative to the first row."""
    torch.set_num_threads(1)
    rows = {"128 graphs, dim 96, 5 layers": (ROWS, {})}
    rows |= {f"{count} graphs": (count, {}) for count in (32, 512)}
    rows |= {f"dim {dim}": (ROWS, {"dim": dim}) for dim in (192, 384)}
    rows |= {f"{layers} layers": (ROWS, {"layers": layers}) for layers in (2, 10)}
    steps = {}
    for name, (count, changes) in rows.items():
        batch = Described(graphs(count), torch.randn(count, TARGETS))
        model = PropertyPrediction(GIN(GINConfig(**changes)), TARGETS)
        steps[name] = trainer(model, lambda model, batch=batch: model(batch)["loss"], precise=False)
    times = in_turn(steps, rounds=3)
    first = next(iter(rows))
    report(
        "gin_cost",
        seconds=statistics.median(times[first]),
        nodes=len(graphs().nodes),
        edges=graphs().edges.shape[1],
        **{name: ratio(times, name, first) for name in rows},
    )
    assert ratio(times, "512 graphs", first) > 1.5 and ratio(times, "10 layers", first) > 1.3


def test_molecules_read_per_second(report, monkeypatch, tmp_path):
    """From SMILES to graphs, descriptors and fingerprints; from the cache; and what RDKit's parser alone would take."""
    chem = pytest.importorskip("rdkit.Chem")
    count = 1000
    smiles = molecules.load(2000).smiles[:count]
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path))
    uncached = seconds(lambda: molecules.load.__wrapped__(count))
    cached = seconds(lambda: molecules.load.__wrapped__(count), 3)
    featurised = seconds(lambda: molecules.featurise(smiles))
    parsed = seconds(lambda: [chem.MolFromSmiles(one) for one in smiles])
    report(
        "molecules_per_second",
        from_smiles=count / featurised,
        parsed_only=count / parsed,
        loaded_without_cache=count / uncached,
        loaded_from_cache=count / cached,
    )
    assert cached < featurised
