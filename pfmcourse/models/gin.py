"""GIN: a network that tells graphs apart as well as message passing can.

Xu, Hu, Leskovec, Jegelka (2019), "How Powerful are Graph Neural Networks?": a node adds up what its neighbours say. A
sum, not a mean, because a mean forgets how many there are. Bonds take part as in Hu, Liu, Gomes, Zitnik, Liang, Pande,
Leskovec (2020), "Strategies for Pre-training Graph Neural Networks": a message is relu(neighbour + bond).

Changed: each layer adds to what the node was (a residual connection), and a graph is described by the mean and the sum
of its nodes, because boiling points grow with a molecule and densities do not.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.nn.graphs import Graphs, Routes, neighbour_sum, routes, sum_nodes

TYPICAL = 15  # nodes of a molecule: sums are divided by it, so that they are about as large as means


@dataclass(frozen=True)
class GINConfig:
    """Sizes of a GIN."""

    node_values: tuple[int, ...] = (11, 6, 5, 5, 4, 2, 2)  # how many values each field of a node has
    edge_values: tuple[int, ...] = (4, 2, 2)
    dim: int = 96  # of a node's vector
    layers: int = 5

    @property
    def features(self) -> int:
        """Width of what `GIN.encode` says about a graph."""
        return 2 * self.dim

    @property
    def hidden(self) -> tuple[int, ...]:
        """Each node field's value for "hidden": one more than the largest real one."""
        return self.node_values


def one_hot(fields: Integer[Tensor, "rows fields"], values: tuple[int, ...]) -> Float[Tensor, "rows columns"]:
    """All fields' values as ones among zeros, field after field: a row has as many ones as there are fields.

    Raises CourseError for a wrong number of fields and for a value outside 0 to ``values`` - 1.
    """
    _check(fields, values)
    limits = torch.tensor(values, dtype=torch.long, device=fields.device)
    zeros = torch.zeros(len(fields), sum(values), device=fields.device)
    return zeros.scatter_(1, fields + (limits.cumsum(0) - limits), 1.0)


def _check(fields: Tensor, values: tuple[int, ...]) -> None:
    if fields.shape[1] != len(values):
        raise CourseError(f"these graphs have {fields.shape[1]} fields where the model has {len(values)}: {values}.")
    wrong = (fields < 0) | (fields >= torch.tensor(values, dtype=torch.long, device=fields.device))
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise CourseError(
            f"field {column} of row {row} is {fields[row, column]}, but must be from 0 to {values[column] - 1}."
        )


class MLP(nn.Sequential):
    """The function that a layer applies to every node by itself: linear, batch norm, ReLU, linear."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__(
            nn.Linear(dim, hidden, bias=False),  # the norm would take a bias away again
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )


class GINLayer(nn.Module):
    """One round of messages: apply((1 + epsilon) x + the sum of what the neighbours say)."""

    def __init__(self, apply: nn.Module, epsilon: float = 0.0, learn: bool = False) -> None:
        super().__init__()
        self.change = apply
        if learn:
            self.epsilon = nn.Parameter(torch.tensor([epsilon]))
        else:
            self.epsilon = epsilon

    def gather(
        self, x: Float[Tensor, "nodes dim"], routes: Routes, bonds: Float[Tensor, "kinds dim"] | None = None
    ) -> Float[Tensor, "nodes dim"]:
        """What stands at a node before the layer's function; ``bonds`` has a vector for each kind of edge."""
        plain = isinstance(self.epsilon, float) and not self.epsilon
        return neighbour_sum(x, routes, bonds).add_(x if plain else (1 + self.epsilon) * x)

    def forward(
        self, x: Float[Tensor, "nodes dim"], routes: Routes, bonds: Float[Tensor, "kinds dim"] | None = None
    ) -> Float[Tensor, "nodes out"]:
        """The nodes' new vectors."""
        return self.change(self.gather(x, routes, bonds))


def bond_routes(graphs: Graphs, values: tuple[int, ...]) -> Routes:
    """The routes of messages, where each combination of the edge fields' values is a kind of edge.

    Combinations are numbered so that the last field's value changes fastest.
    Raises CourseError for a wrong number of fields and for a value out of range.
    """
    _check(graphs.edge_fields, values)
    kinds = torch.zeros(len(graphs.edge_fields), dtype=torch.long, device=graphs.edges.device)
    for field, count in zip(graphs.edge_fields.T, values, strict=True):
        kinds = kinds * count + field
    return routes(graphs.edges, len(graphs.nodes), kinds, math.prod(values))


class BondVectors(nn.Module):
    """A vector for each kind of bond: the sum of what its fields' values contribute.

    There are few kinds (4 x 2 x 2 for molecules), so all are computed, once a layer, and edges look theirs up.
    """

    def __init__(self, values: tuple[int, ...], dim: int) -> None:
        super().__init__()
        if math.prod(values) > 4096:
            raise CourseError(f"edge fields with {values} values make {math.prod(values)} kinds; 4,096 is the most.")
        self.weight = nn.Parameter(torch.randn(sum(values), dim) * 0.3)
        grid = list(itertools.product(*map(range, values)))
        parts = one_hot(torch.tensor(grid, dtype=torch.long).reshape(len(grid), len(values)), values)
        self.register_buffer("parts", parts, persistent=False)

    def forward(self) -> Float[Tensor, "kinds dim"]:
        """All kinds, in the order of `bond_routes`."""
        return self.parts @ self.weight


class GIN(nn.Module):
    """Graphs with fields to vectors: of every node, and of the whole."""

    def __init__(self, config: GINConfig | None = None) -> None:
        super().__init__()
        config = config or GINConfig()
        if config.dim < 1 or config.layers < 1 or not config.node_values or min(config.node_values) < 1:
            raise CourseError(f"{config} needs a dim and layers of at least 1, and fields with at least one value.")
        self.config = config
        dim = config.dim
        self.fields = nn.Parameter(torch.randn(sum(config.node_values) + len(config.node_values), dim) * 0.3)
        self.layers = nn.ModuleList(GINLayer(MLP(dim, 2 * dim, dim)) for _ in range(config.layers))
        self.bonds = nn.ModuleList(BondVectors(config.edge_values, dim) for _ in range(config.layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(config.layers))

    def embed(self, graphs: Graphs) -> Float[Tensor, "nodes dim"]:
        """What the nodes are before any message: the sum of what their fields' values contribute.

        As a product with ones and zeros: on the way back that is faster than adding row by row.
        """
        values = tuple(count + 1 for count in self.config.node_values)  # one more, for hidden
        return one_hot(graphs.nodes, values).to(self.fields) @ self.fields

    def nodes(self, graphs: Graphs) -> Float[Tensor, "nodes dim"]:
        """A vector for each node, which knows of what is up to ``layers`` edges away."""
        with torch.autocast(graphs.graph.device.type, enabled=False):  # small products, and sums of them
            x, tables = self.embed(graphs), [bonds() for bonds in self.bonds]
        paths = bond_routes(graphs, self.config.edge_values)
        for layer, norm, bonds in zip(self.layers, self.norms, tables, strict=True):
            x = x + F.relu_(norm(layer(x, paths, bonds)))
        return x

    def encode(self, graphs: Graphs) -> Float[Tensor, "graphs features"]:
        """A vector for each graph: the mean and (a fifteenth of) the sum of its nodes."""
        total = sum_nodes(self.nodes(graphs), graphs)
        return torch.cat([total / graphs.sizes[:, None], total / TYPICAL], dim=1)
