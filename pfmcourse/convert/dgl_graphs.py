"""Batches of graphs to and from dgl. Fields stand in ``ndata["fields"]`` and ``edata["fields"]``."""

import os
from typing import Any

import torch

from pfmcourse.base import CourseError, require
from pfmcourse.nn.graphs import Graphs

FIELDS = "fields"


def to_dgl(graphs: Graphs) -> Any:
    """A batched ``DGLGraph`` with the same nodes and edges in the same order, on the same device."""
    os.environ.setdefault("DGLBACKEND", "pytorch")  # else dgl's first import writes a file into the home folder
    dgl = require("dgl", "dgl==1.1.3", "handing graphs to dgl")
    graph = dgl.graph(tuple(graphs.edges), num_nodes=len(graphs.nodes))
    graph.ndata[FIELDS], graph.edata[FIELDS] = graphs.nodes, graphs.edge_fields
    graph.set_batch_num_nodes(graphs.sizes)
    graph.set_batch_num_edges(graphs.edge_counts)
    return graph


def from_dgl(graph: Any) -> Graphs:
    """Our graphs from a batched ``DGLGraph`` with one kind of nodes and edges.

    Raises CourseError where the fields of nodes or edges are missing; without any, store a tensor of n x 0.
    """
    for name, rows in (("ndata", graph.ndata), ("edata", graph.edata)):
        if FIELDS not in rows:
            raise CourseError(f'this graph has no {name}["{FIELDS}"], a row of whole numbers each. Store it first.')
    sizes = graph.batch_num_nodes()
    number = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    edges = torch.stack(graph.edges(order="eid")).long()
    return Graphs(graph.ndata[FIELDS], edges, graph.edata[FIELDS], number, len(sizes))
