"""Graphs against loops and pictures of them in the mind: selecting, joining, messages, distances, random choices."""

import pytest
import torch

from pfmcourse.base import CourseError
from pfmcourse.nn.graphs import (
    Graphs,
    distances,
    hops,
    mean_nodes,
    neighbour_sum,
    random_nodes,
    random_order,
    random_share,
    routes,
    sum_nodes,
)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def chain(length, seed=0):
    """length nodes in a row, with random fields."""
    step = torch.arange(length - 1)
    edges = torch.cat([torch.stack([step, step + 1]), torch.stack([step + 1, step])], dim=1)
    nodes = torch.randint(4, (length, 2), generator=draw(seed))
    bonds = torch.randint(3, (length - 1, 1), generator=draw(seed))
    return Graphs(nodes, edges, torch.cat([bonds, bonds]), torch.zeros(length, dtype=torch.long), 1)


@pytest.fixture
def graphs():
    return Graphs.join([chain(length, length) for length in (3, 1, 5, 2)])


def pieces(graphs):
    """Every graph by itself, as plain lists, by a loop."""
    found = []
    for number in range(graphs.count):
        inside = [node for node in range(len(graphs.nodes)) if graphs.graph[node] == number]
        edges = [
            (inside.index(source), inside.index(target), fields)
            for (source, target), fields in zip(graphs.edges.T.tolist(), graphs.edge_fields.tolist(), strict=True)
            if source in inside
        ]
        found.append((graphs.nodes[inside].tolist(), edges))
    return found


def test_sizes_and_starts(graphs):
    assert len(graphs) == graphs.count == 4
    assert graphs.sizes.tolist() == [3, 1, 5, 2] and graphs.starts.tolist() == [0, 3, 4, 9]
    assert graphs.edge_counts.tolist() == [4, 0, 8, 2]


def test_joined_graphs_are_the_graphs(graphs):
    assert pieces(graphs) == [pieces(chain(length, length))[0] for length in (3, 1, 5, 2)]
    again = Graphs.join([graphs, graphs])
    assert pieces(again) == pieces(graphs) * 2


@pytest.mark.parametrize("chosen", [[0], [1], [3, 0], [2, 2, 1, 2], [0, 1, 2, 3], [3, 2, 1, 0]])
def test_selected_graphs_are_the_graphs(graphs, chosen):
    found = graphs.select(chosen)
    assert pieces(found) == [pieces(graphs)[number] for number in chosen]
    again = graphs.select(torch.tensor(chosen, dtype=torch.int32))
    assert torch.equal(again.edges, found.edges) and again.nodes.dtype == graphs.nodes.dtype


@pytest.mark.parametrize("chosen", [[], [4], [-1, 0]])
def test_a_graph_that_does_not_exist_is_an_error(graphs, chosen):
    with pytest.raises(CourseError, match="from 0 to 3"):
        graphs.select(chosen)


def test_kept_nodes_keep_their_edges(graphs):
    nodes = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1]).bool()
    found, number = graphs.keep(nodes)
    assert found.sizes.tolist() == [2, 1, 3, 1]
    assert torch.equal(found.nodes, graphs.nodes[nodes])
    assert number.tolist() == [0, 1, -1, 2, -1, 3, 4, -1, 5, -1, 6]
    expected = [
        (int(number[a]), int(number[b]), fields)
        for (a, b), fields in zip(graphs.edges.T.tolist(), graphs.edge_fields.tolist(), strict=True)
        if nodes[a] and nodes[b]
    ]
    assert [(a, b, f) for (a, b), f in zip(found.edges.T.tolist(), found.edge_fields.tolist(), strict=True)] == expected
    assert len(expected) == 4
    everything, _ = graphs.keep(torch.ones(11, dtype=torch.bool), torch.zeros(14, dtype=torch.bool))
    assert everything.edges.shape == (2, 0) and everything.count == 4


def test_a_graph_that_loses_all_its_nodes_is_an_error(graphs):
    with pytest.raises(CourseError, match="each needs a node"):
        graphs.keep(graphs.graph != 1)
    with pytest.raises(CourseError, match="each needs a node"):
        graphs.keep(graphs.graph != 0)
    with pytest.raises(CourseError, match="at least one graph"):
        graphs.keep(graphs.graph > 9)


@pytest.mark.parametrize(
    ("graph", "edges", "count", "message"),
    [
        ([0, 0, 1], [[0], [3]], 2, "names a node"),
        ([0, 0, 1], [[-1], [0]], 2, "names a node"),
        ([0, 0, 1], [[0], [2]], 2, "joins two graphs"),
        ([0, 1, 1], [[1, 0], [2, 0]], 2, "not sorted"),
        ([0, 1, 0], [[0], [0]], 2, "one after the other"),
        ([0, 2, 2], [[0], [0]], 3, "one after the other"),
        ([1, 1, 1], [[0], [0]], 2, "one after the other"),
        ([0, 0, 0], [[0], [0]], 2, "one after the other"),
        ([0, 0, 0], [[0], [0]], 0, "at least one graph"),
    ],
)
def test_disorder_is_an_error(graph, edges, count, message):
    edges = torch.tensor(edges)
    fields = torch.zeros(edges.shape[1], 1, dtype=torch.long)
    with pytest.raises(CourseError, match=message):
        Graphs(torch.zeros(3, 2, dtype=torch.uint8), edges, fields, torch.tensor(graph), count)


def test_nothing_to_join_is_an_error():
    with pytest.raises(CourseError, match="nothing to join"):
        Graphs.join([])


def test_moving_changes_nothing(graphs):
    assert pieces(graphs.to("cpu")) == pieces(graphs)


# Messages


def case(kinds=3, dim=5, nodes=9, edges=40):
    x = torch.randn(nodes, dim, dtype=torch.float64, requires_grad=True)
    bonds = torch.randn(kinds, dim, dtype=torch.float64, requires_grad=True)
    return x, bonds, torch.randint(nodes - 1, (2, edges)), torch.randint(kinds, (edges,))  # the last node hears nobody


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_messages_and_their_gradients_are_those_of_a_loop(kinds):
    x, bonds, edges, kind = case(kinds)
    expected = [torch.zeros(5, dtype=torch.float64) for _ in range(9)]
    for (source, target), number in zip(edges.T.tolist(), kind.tolist(), strict=True):
        expected[target] = expected[target] + torch.relu(x[source] + bonds[number])
    expected, found = torch.stack(expected), neighbour_sum(x, routes(edges, 9, kind, kinds), bonds)
    assert torch.allclose(found, expected, atol=1e-12) and not found[-1].any()
    weights = torch.randn(9, 5, dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((y * weights).sum(), (x, bonds)) for y in (found, expected)), strict=True
    ):
        assert one.abs().max() > 0.1 and torch.allclose(one, other, atol=1e-12)


def test_without_bonds_the_neighbours_are_added_up():
    x, _, edges, _ = case()
    among = torch.zeros(9, 9, dtype=torch.float64).index_put((edges[1], edges[0]), torch.ones(40).double(), True)
    assert torch.allclose(neighbour_sum(x, routes(edges, 9)), among @ x, atol=1e-12)
    (gradient,) = torch.autograd.grad(neighbour_sum(x, routes(edges, 9)).square().sum(), x)
    assert torch.allclose(gradient, 2 * among.T @ among @ x, atol=1e-12)


def test_the_same_message_is_made_once():
    edges, kind = torch.tensor([[0, 0, 0, 1], [1, 2, 3, 0]]), torch.tensor([1, 1, 0, 1])
    found = routes(edges, 4, kind, 2)
    assert list(zip(found.source.tolist(), found.kind.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]


def test_without_edges_nobody_hears_anything():
    x = torch.randn(4, 3, requires_grad=True)
    none = torch.zeros(2, 0, dtype=torch.long)
    heard = neighbour_sum(x, routes(none, 4, none[0], 2), torch.randn(2, 3))
    assert heard.shape == (4, 3) and not heard.any()
    assert not torch.autograd.grad(heard.sum(), x)[0].any()


def test_sums_and_means_are_those_of_each_graph(graphs):
    x = torch.randn(11, 3)
    for number in range(4):
        inside = x[graphs.graph == number]
        assert torch.allclose(sum_nodes(x, graphs)[number], inside.sum(0), atol=1e-6)
        assert torch.allclose(mean_nodes(x, graphs)[number], inside.mean(0), atol=1e-6)


# Places


def ring_with_tail():
    """A ring of six (0 to 5), a tail 5 - 6 - 7, and by itself 8."""
    pairs = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (5, 6), (6, 7)]
    edges = torch.tensor([*pairs, *((b, a) for a, b in pairs)]).T
    zeros = torch.zeros(9, dtype=torch.long)
    return Graphs(zeros[:, None], edges, torch.zeros(16, 1, dtype=torch.long), zeros, 1)


def test_distances_are_those_counted_by_hand():
    graph = ring_with_tail()
    assert distances(graph, torch.tensor([0]), 9).tolist() == [0, 1, 2, 3, 2, 1, 2, 3, 10]
    assert distances(graph, torch.tensor([0]), 2).tolist() == [0, 1, 2, 3, 2, 1, 2, 3, 3]
    assert distances(graph, torch.tensor([0, 7]), 9).tolist() == [0, 1, 2, 3, 2, 1, 1, 0, 10]


def test_hops_are_balls_in_every_graph_at_once(graphs):
    centres = graphs.starts + torch.tensor([1, 0, 0, 1])
    assert torch.equal(hops(graphs, centres, 0).nonzero()[:, 0], centres)
    found = hops(graphs, centres, 2)
    assert found.tolist() == [True] * 3 + [True] + [True, True, True, False, False] + [True] * 2
    with pytest.raises(CourseError, match="at least 0"):
        hops(graphs, centres, -1)


def test_random_nodes_are_any_of_their_graph(graphs):
    found = torch.stack([random_nodes(graphs, draw(seed)) for seed in range(200)])
    for number in range(4):
        counts = torch.bincount(found[:, number], minlength=11)
        inside = graphs.graph == number
        assert not counts[~inside].any() and counts[inside].min() > 100 / graphs.sizes[number]


def test_a_random_order_is_an_order_of_each_graph(graphs):
    seen = set()
    for seed in range(60):
        found = random_order(graphs, draw(seed))
        for number in range(4):
            assert sorted(found[graphs.graph == number].tolist()) == list(range(graphs.sizes[number]))
        seen.add(tuple(found[:3].tolist()))
    assert len(seen) == 6, "every order of three"
    near = torch.tensor([1, 0, 0, 0, 2, 2, 1, 0, 0, 5, 4])
    orders = torch.stack([random_order(graphs, draw(seed), near) for seed in range(30)])
    assert (orders[:, 0] == 2).all() and (orders[:, [4, 5]] > 2).all() and (orders[:, 6] == 2).all()
    assert orders[:, 7].float().mean().item() == pytest.approx(0.5, abs=0.4) and (orders[:, 9] == 1).all()
    assert orders[:, 1].unique().tolist() == [0, 1], "ties by chance"


@pytest.mark.parametrize(("share", "counts"), [(0.15, [1, 1, 1, 1]), (0.5, [2, 1, 2, 1]), (1.0, [3, 1, 5, 2])])
def test_a_random_share_is_as_large_as_wanted(graphs, share, counts):
    found = torch.stack([random_share(graphs, share, draw(seed)) for seed in range(60)])
    for number in range(4):
        inside = found[:, graphs.graph == number]
        assert (inside.sum(1) == counts[number]).all() and inside.any(0).all(), "every node some time"
    assert torch.equal(random_share(graphs, share, draw(7)), found[7])
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(CourseError, match=f"share={wrong}"):
            random_share(graphs, wrong, draw())
