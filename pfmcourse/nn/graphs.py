"""Many small graphs as one, and how their nodes send messages, in plain torch.

A batch of graphs is one large graph whose parts are not connected: no padding, and a node sends along the edges that
it has. Gilmer, Schoenholz, Riley, Vinyals, Dahl (2017), "Neural Message Passing for Quantum Chemistry"; the batching is
that of Wang and others (2019), "Deep Graph Library".
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from pfmcourse.base import CourseError


@dataclass(frozen=True)
class Graphs:
    """Graphs whose nodes and edges have fields: small whole numbers, such as the number of an element.

    Graph after graph: the nodes of one stand together, and so do its edges. A bond that has no direction is two edges.
    Raises CourseError for a graph without nodes, for an edge between graphs, and for parts in disorder. Graphs without
    edges are allowed.
    """

    nodes: Integer[Tensor, "nodes node_fields"]
    edges: Int64[Tensor, "2 edges"]  # row 0: from which node, row 1: to which; numbered through all graphs
    edge_fields: Integer[Tensor, "edges edge_fields"]
    graph: Int64[Tensor, " nodes"]  # which graph the node belongs to, in ascending order
    count: int  # of the graphs

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.graph) or self.edges.shape != (2, len(self.edge_fields)):
            raise CourseError(
                f"{len(self.nodes)} nodes need as many numbers of graphs, not {len(self.graph)}, and the edges, of "
                f"shape {tuple(self.edges.shape)}, must be 2 x {len(self.edge_fields)}, one for each row of fields."
            )
        if self.count < 1 or not len(self.graph):
            raise CourseError(f"a batch needs at least one graph with nodes, not {self.count} with {len(self.graph)}.")
        steps = self.graph.diff()
        ends = self.graph[-1] - self.count + 1, self.graph[0]
        if any(ends) or ((steps < 0) | (steps > 1)).any():
            raise CourseError(
                f"the {self.count} graphs must come one after the other, numbered from 0, and each needs a node."
            )
        if not len(self.edge_fields):
            return
        if self.edges.min() < 0 or self.edges.max() >= len(self.nodes):
            raise CourseError(f"an edge names a node that does not exist: there are {len(self.nodes)}, from 0.")
        source, target = self.graph[self.edges]
        if not torch.equal(source, target) or (source.diff() < 0).any():
            raise CourseError("an edge joins two graphs, or the edges are not sorted by graph.")

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def sizes(self) -> Int64[Tensor, " graphs"]:
        """How many nodes each graph has."""
        return torch.bincount(self.graph, minlength=self.count)

    @functools.cached_property
    def edge_counts(self) -> Int64[Tensor, " graphs"]:
        """How many edges each graph has; a bond is two."""
        return torch.bincount(self.graph[self.edges[0]], minlength=self.count)

    @functools.cached_property
    def starts(self) -> Int64[Tensor, " graphs"]:
        """The first node of each graph."""
        return _before(self.sizes)

    @functools.cached_property
    def _edge_starts(self) -> Int64[Tensor, " graphs"]:
        return _before(self.edge_counts)

    def to(self, device: torch.device | str) -> "Graphs":
        """The same on another device."""
        parts = (part.to(device) for part in (self.nodes, self.edges, self.edge_fields, self.graph))
        return Graphs(*parts, self.count)

    def select(self, indices: Integer[Tensor, " some"] | Sequence[int]) -> "Graphs":
        """These graphs, in this order; one may come several times. Raises CourseError for one that does not exist."""
        indices = torch.as_tensor(indices, device=self.graph.device).long()
        if not len(indices) or indices.min() < 0 or indices.max() >= self.count:
            raise CourseError(f"choose at least one graph, and only from 0 to {self.count - 1}: there are no others.")
        sizes, counts = self.sizes[indices], self.edge_counts[indices]
        nodes, edges = self.nodes_of(indices), _ranges(self._edge_starts[indices], counts)
        moved = torch.repeat_interleave(_before(sizes) - self.starts[indices], counts)
        graph = torch.repeat_interleave(torch.arange(len(indices), device=indices.device), sizes)
        fields = self.edge_fields[edges]
        return Graphs(self.nodes[nodes], self.edges.index_select(1, edges) + moved, fields, graph, len(indices))

    def nodes_of(self, indices: Int64[Tensor, " some"]) -> Int64[Tensor, " chosen"]:
        """The nodes of these graphs, in the order in which `select` puts them."""
        return _ranges(self.starts[indices], self.sizes[indices])

    def places_in(
        self, indices: Int64[Tensor, " some"], places: Int64[Tensor, " places"]
    ) -> tuple[Int64[Tensor, " left"], Bool[Tensor, " places"]]:
        """Where nodes at ``places`` stand in ``select(indices)``, and which of them do; no graph chosen twice."""
        nodes = self.nodes_of(indices)
        number = torch.full_like(self.graph, -1)
        number[nodes] = torch.arange(len(nodes), device=nodes.device)
        found = number[places]
        return found[found >= 0], found >= 0

    def cut(self, count: int) -> "list[Graphs]":
        """``count`` pieces; piece i holds the graphs i, i + count, ... (`train.fit` gives each process one)."""
        return [self.select(rows) for rows in self.rows_of_pieces(count)]

    def rows_of_pieces(self, count: int) -> "list[Int64[Tensor, ' some']]":
        """Which graphs are in each piece of `cut`. Raises CourseError for fewer graphs than pieces."""
        if not 1 <= count <= self.count:
            raise CourseError(f"{self.count} graphs cannot be cut into {count} pieces. Take a larger batch.")
        everyone = torch.arange(self.count, device=self.graph.device)
        return [everyone[first::count] for first in range(count)]

    def keep(
        self, nodes: Bool[Tensor, " nodes"], edges: Bool[Tensor, " edges"] | None = None
    ) -> tuple["Graphs", Int64[Tensor, " nodes"]]:
        """Only these nodes and the edges among them; and each old node's new number, -1 for one that went.

        ``edges`` may take more away. Raises CourseError if a graph loses all its nodes.
        """
        number = torch.where(nodes, nodes.cumsum(0) - 1, -1)
        ends = number[self.edges]
        stays = (ends >= 0).all(0) if edges is None else (ends >= 0).all(0) & edges
        parts = self.nodes[nodes], ends[:, stays], self.edge_fields[stays], self.graph[nodes]
        return Graphs(*parts, self.count), number

    @staticmethod
    def join(parts: "Sequence[Graphs]") -> "Graphs":
        """All graphs of several batches in one, in order."""
        if not parts:
            raise CourseError("there is nothing to join: give at least one batch of graphs.")
        nodes = _before(torch.tensor([len(part.nodes) for part in parts])).tolist()
        counts = _before(torch.tensor([part.count for part in parts])).tolist()
        return Graphs(
            torch.cat([part.nodes for part in parts]),
            torch.cat([part.edges + first for part, first in zip(parts, nodes, strict=True)], dim=1),
            torch.cat([part.edge_fields for part in parts]),
            torch.cat([part.graph + first for part, first in zip(parts, counts, strict=True)]),
            sum(part.count for part in parts),
        )


def _before(counts: Tensor) -> Tensor:
    """How many come before each one."""
    return counts.cumsum(0) - counts


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """``starts[0], starts[0] + 1, ...`` (``counts[0]`` numbers), then the same from ``starts[1]``, and so on."""
    shift = torch.repeat_interleave(starts - _before(counts), counts)
    return shift + torch.arange(len(shift), device=shift.device)


# Messages


@dataclass(frozen=True)
class Routes:
    """Who hears what. A node says the same along all its edges of one kind, so a message is made once, heard by many.

    Sorted in advance, because all layers use it: on the way there a node adds up its messages, on the way back a
    message adds up its hearers, and a node the messages that it sent. Each is one sum over neighbouring rows.
    """

    source: Int64[Tensor, " messages"]  # who says it, ascending
    kind: Int64[Tensor, " messages"]  # along edges of which kind
    of_source: Int64[Tensor, " ends"]  # nodes + 1: where each node's messages begin
    message: Int64[Tensor, " edges"]  # what is heard, by target
    of_target: Int64[Tensor, " ends"]
    target: Int64[Tensor, " edges"]  # who hears it, by message
    of_message: Int64[Tensor, " others"]  # messages + 1


def routes(
    edges: Int64[Tensor, "2 edges"], nodes: int, kinds: Int64[Tensor, " edges"] | None = None, count: int = 1
) -> Routes:
    """The routes of messages between ``nodes`` nodes; ``kinds`` says which of ``count`` kinds an edge is of."""

    def begins(which: Tensor, groups: int) -> Tensor:
        return F.pad(torch.bincount(which, minlength=groups).cumsum(0), (1, 0))

    source, target = edges
    said, message = torch.unique(source if kinds is None else source * count + kinds, return_inverse=True)
    source = said if kinds is None else said // count
    kind = torch.zeros_like(said) if kinds is None else said % count
    heard = message[target.argsort()], begins(target, nodes)
    hearers = target[message.argsort()], begins(message, len(said))
    return Routes(source, kind, begins(source, nodes), *heard, *hearers)


def _sums(rows: Tensor, chosen: Tensor, begins: Tensor) -> Tensor:
    """For each group the sum of its chosen rows, without making a tensor of them first."""
    return F.embedding_bag(chosen, rows, begins, mode="sum", include_last_offset=True)


class _NeighbourSum(torch.autograd.Function):
    """By hand, because it moves the most memory in a step: torch's own way back adds row by row."""

    @staticmethod
    def forward(ctx, x: Tensor, bonds: Tensor | None, routes: Routes) -> Tensor:
        said = x.index_select(0, routes.source)
        if bonds is not None:
            said = said.add_(bonds.index_select(0, routes.kind)).relu_()
        ctx.routes, ctx.kinds = routes, None if bonds is None else len(bonds)
        ctx.save_for_backward(said)
        return _sums(said, routes.message, routes.of_target)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (said,), routes = ctx.saved_tensors, ctx.routes
        back = _sums(gradient.contiguous(), routes.target, routes.of_message)
        to_bonds = None
        if ctx.kinds is not None:
            back = torch.ops.aten.threshold_backward(back, said, 0)
            to_bonds = back.new_zeros(ctx.kinds, back.shape[1]).index_add_(0, routes.kind, back)
        everyone = torch.arange(len(back), device=back.device)
        return _sums(back, everyone, routes.of_source), to_bonds, None


def neighbour_sum(
    x: Float[Tensor, "nodes dim"], routes: Routes, bonds: Float[Tensor, "kinds dim"] | None = None
) -> Float[Tensor, "nodes dim"]:
    """What every node hears: the sum over its edges of the source's vector, or of relu(source + bond).

    ``bonds`` holds a vector for each kind of edge. A node without edges hears zero.
    """
    return _NeighbourSum.apply(x, None if bonds is None else bonds.to(x), routes)


def sum_nodes(x: Float[Tensor, "nodes dim"], graphs: Graphs) -> Float[Tensor, "graphs dim"]:
    """The sum of each graph's node vectors."""
    return x.new_zeros(graphs.count, x.shape[1]).index_add(0, graphs.graph, x)


def mean_nodes(x: Float[Tensor, "nodes dim"], graphs: Graphs) -> Float[Tensor, "graphs dim"]:
    """The mean of each graph's node vectors."""
    return sum_nodes(x, graphs) / graphs.sizes[:, None]


# Places in a graph


def distances(graphs: Graphs, centres: Int64[Tensor, " some"], most: int) -> Int64[Tensor, " nodes"]:
    """Edges on the shortest way to a node from the nearest of the ``centres``; ``most + 1`` for all that is further."""
    found = torch.full_like(graphs.graph, most + 1)
    found[centres] = 0
    source, target = graphs.edges
    for step in range(1, most + 1):
        reached = target[found[source] == step - 1]
        found[reached] = found[reached].clamp(max=step)
        if not len(reached):
            break
    return found


def hops(graphs: Graphs, centres: Int64[Tensor, " some"], k: int) -> Bool[Tensor, " nodes"]:
    """Which nodes are at most ``k`` edges away from one of the ``centres``; give one a graph. k = 0: only themselves.

    Raises CourseError for k below 0.
    """
    if k < 0:
        raise CourseError(f"no node is {k} edges away; k must be at least 0.")
    return distances(graphs, centres, k) <= k


def random_nodes(graphs: Graphs, generator: torch.Generator) -> Int64[Tensor, " graphs"]:
    """One node of each graph, any as likely as another. Drawn on the generator's device."""
    chance = torch.rand(graphs.count, generator=generator, device=generator.device, dtype=torch.float64)
    return graphs.starts + (chance.to(graphs.graph.device) * graphs.sizes).long()


def random_order(
    graphs: Graphs, generator: torch.Generator, near: Integer[Tensor, " nodes"] | None = None
) -> Int64[Tensor, " nodes"]:
    """Every node's place, from 0, in a random order of its graph's nodes; with ``near``, small values come first."""
    key = torch.rand(len(graphs.graph), generator=generator, device=generator.device, dtype=torch.float64)
    order = key.to(graphs.graph.device).argsort()
    if near is not None:
        order = order[near[order].argsort(stable=True)]
    order = order[graphs.graph[order].argsort(stable=True)]
    place = torch.arange(len(order), device=order.device) - graphs.starts[graphs.graph]
    return torch.empty_like(order).scatter_(0, order, place)


def random_share(graphs: Graphs, share: float, generator: torch.Generator) -> Bool[Tensor, " nodes"]:
    """``share`` of each graph's nodes, rounded, chosen at random; one at least. Raises CourseError outside (0, 1]."""
    if not 0 < share <= 1:
        raise CourseError(f"share={share} must be above 0 and at most 1.")
    wanted = (share * graphs.sizes).round().clamp(min=1)
    return random_order(graphs, generator) < wanted[graphs.graph]
