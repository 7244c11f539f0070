"""Batches of graphs in dgl and back: nothing lost, nothing in another order."""

import importlib

import pytest
import torch

from pfmcourse import convert
from pfmcourse.base import CourseError, MissingPackage
from pfmcourse.nn.graphs import Graphs

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


@pytest.fixture
def graphs():
    """Three: a triangle, one node by itself, a pair."""
    edges = torch.tensor([[0, 1, 1, 2, 2, 0, 5, 4], [1, 0, 2, 1, 0, 2, 4, 5]])
    nodes = torch.arange(18, dtype=torch.uint8).reshape(6, 3)
    fields = torch.arange(16, dtype=torch.uint8).reshape(8, 2)
    return Graphs(nodes, edges, fields, torch.tensor([0, 0, 0, 1, 2, 2]), 3)


@pytest.fixture
def dgl(monkeypatch):
    monkeypatch.setenv("DGLBACKEND", "pytorch")
    return pytest.importorskip("dgl")


def equal(one, other):
    parts = ("nodes", "edges", "edge_fields", "graph")
    return one.count == other.count and all(
        torch.equal(getattr(one, part), getattr(other, part)) and getattr(one, part).dtype == getattr(other, part).dtype
        for part in parts
    )


def test_there_and_back_is_the_same(dgl, graphs):
    graph = convert.to_dgl(graphs)
    assert graph.batch_size == 3
    assert graph.batch_num_nodes().tolist() == [3, 1, 2] and graph.batch_num_edges().tolist() == [6, 0, 2]
    assert torch.equal(graph.ndata["fields"], graphs.nodes) and torch.equal(graph.edata["fields"], graphs.edge_fields)
    assert equal(convert.from_dgl(graph), graphs)


def test_dgl_takes_the_batch_apart_as_we_do(dgl, graphs):
    parts = dgl.unbatch(convert.to_dgl(graphs))
    for number, part in enumerate(parts):
        assert equal(convert.from_dgl(part), graphs.select([number]))
    assert equal(convert.from_dgl(dgl.batch(parts[::-1])), graphs.select([2, 1, 0]))


def test_graphs_without_edges(dgl):
    alone = Graphs(torch.ones(2, 1).long(), torch.zeros(2, 0).long(), torch.zeros(0, 2).long(), torch.arange(2), 2)
    assert equal(convert.from_dgl(convert.to_dgl(alone)), alone)


def test_edges_of_32_bits_become_ours(dgl, graphs):
    assert equal(convert.from_dgl(convert.to_dgl(graphs).int()), graphs)


@pytest.mark.parametrize("missing", ["ndata", "edata"])
def test_missing_fields_are_an_error(dgl, graphs, missing):
    graph = convert.to_dgl(graphs)
    del getattr(graph, missing)["fields"]
    with pytest.raises(CourseError, match=f'no {missing}\\["fields"\\]'):
        convert.from_dgl(graph)


def test_without_dgl_the_error_says_what_to_install(monkeypatch, graphs):
    real = importlib.import_module

    def refuse(name, *rest):
        if name == "dgl":
            raise ImportError("No module named 'dgl'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingPackage, match=r"pip install 'dgl==1\.1\.3'"):
        convert.to_dgl(graphs)
