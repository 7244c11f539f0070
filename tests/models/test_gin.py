"""GIN: the layer is dgl's, the network that of a plain loop; order, company and names of the nodes do not matter."""

import pytest
import torch
from torch import nn

from pfmcourse.base import CourseError
from pfmcourse.models.gin import GIN, BondVectors, GINConfig, GINLayer, bond_routes, one_hot
from pfmcourse.nn.graphs import Graphs, routes

CONFIG = GINConfig(node_values=(4, 3), edge_values=(3, 2), dim=8, layers=3)


def molecules(sizes=(5, 1, 7, 3), seed=0, config=CONFIG):
    """Random trees with random fields."""
    generator = torch.Generator().manual_seed(seed)

    def integer(limit):
        return int(torch.randint(limit, (), generator=generator))

    graphs = []
    for size in sizes:
        pairs = [(integer(node), node) for node in range(1, size)]
        fields = [[integer(limit) for limit in config.edge_values] for _ in pairs]
        nodes = torch.tensor([[integer(limit) for limit in config.node_values] for _ in range(size)])
        edges = torch.tensor([*pairs, *((b, a) for a, b in pairs)], dtype=torch.long).reshape(-1, 2).T
        rows = torch.tensor(fields * 2, dtype=torch.long).reshape(-1, len(config.edge_values))
        graphs.append(Graphs(nodes, edges, rows, torch.zeros(size, dtype=torch.long), 1))
    return Graphs.join(graphs)


def settled(config=CONFIG):
    """In float64, with norms that have seen something, in evaluation."""
    model = GIN(config).double()
    for seed in range(5):
        model.encode(molecules(seed=seed))
    return model.eval()


def apply_func(dim=6, out=4):
    return nn.Sequential(nn.Linear(dim, 10), nn.Tanh(), nn.Linear(10, out)).double()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("bonds", [False, True])
def test_the_layer_is_dgls(monkeypatch, learn, bonds):
    monkeypatch.setenv("DGLBACKEND", "pytorch")
    dgl = pytest.importorskip("dgl")
    graphs, change = molecules((5, 2, 7)), apply_func()
    graph = dgl.graph(tuple(graphs.edges), num_nodes=len(graphs.nodes))
    ours = GINLayer(change, 0.3, learn).double()
    x = torch.randn(len(graphs.nodes), 6, dtype=torch.float64, requires_grad=True)
    table = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    kinds = graphs.edge_fields[:, 0] * 2 + graphs.edge_fields[:, 1]
    paths = bond_routes(graphs, CONFIG.edge_values)
    if bonds:
        theirs = dgl.nn.pytorch.GINEConv(change, 0.3, learn).double()
        expected, found = theirs(graph, x, table[kinds]), ours(x, paths, table)
    else:
        theirs = dgl.nn.pytorch.GINConv(change, "sum", 0.3, learn).double()
        expected, found = theirs(graph, x), ours(x, routes(graphs.edges, len(x)))
    theirs.eps.data.fill_(0.3)  # dgl keeps it in single precision
    assert torch.allclose(found, expected, atol=1e-7)
    weights, leaves = torch.randn_like(found), [x, *change.parameters(), *([table] if bonds else [])]
    wanted = torch.autograd.grad((expected * weights).sum(), [*leaves, *([theirs.eps] if learn else [])])
    gradients = torch.autograd.grad((found * weights).sum(), [*leaves, *([ours.epsilon] if learn else [])])
    for one, other in zip(gradients, wanted, strict=True):
        assert one.abs().max() > 1e-3 and torch.allclose(one, other, atol=1e-6)


def test_an_own_vector_for_every_edge():
    graphs, layer = molecules(), GINLayer(nn.Identity())
    count = graphs.edges.shape[1]
    x, own = torch.randn(len(graphs.nodes), 6), torch.randn(count, 6)
    found = layer(x, routes(graphs.edges, len(x), torch.arange(count), count), own)
    expected = x.clone()
    for edge, (source, target) in enumerate(graphs.edges.T.tolist()):
        expected[target] += torch.relu(x[source] + own[edge])
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_network_is_that_of_a_loop():
    model, graphs = settled(), molecules()
    offsets, bond_offsets = (0, 5), (0, 3)  # each node field has one value more: hidden
    x = torch.stack(
        [sum(model.fields[o + v] for o, v in zip(offsets, row, strict=True)) for row in graphs.nodes.tolist()]
    )
    for layer, bonds, norm in zip(model.layers, model.bonds, model.norms, strict=True):
        heard = x.clone()
        for (source, target), row in zip(graphs.edges.T.tolist(), graphs.edge_fields.tolist(), strict=True):
            bond = sum(bonds.weight[o + v] for o, v in zip(bond_offsets, row, strict=True))
            heard[target] = heard[target] + torch.relu(x[source] + bond)
        x = x + torch.relu(norm(layer.change(heard)))
    assert torch.allclose(model.nodes(graphs), x, atol=1e-10)
    for number, found in enumerate(model.encode(graphs)):
        inside = x[graphs.graph == number]
        assert torch.allclose(found, torch.cat([inside.mean(0), inside.sum(0) / 15]), atol=1e-10)
    assert model.encode(graphs).shape == (4, CONFIG.features)


def test_the_order_of_nodes_and_edges_does_not_matter():
    model, graphs = settled(), molecules((7,))
    order, edges = torch.randperm(7), torch.randperm(12)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(7))
    other = Graphs(graphs.nodes[order], place[graphs.edges][:, edges], graphs.edge_fields[edges], graphs.graph, 1)
    assert torch.allclose(model.nodes(other), model.nodes(graphs)[order], atol=1e-10)
    assert torch.allclose(model.encode(other), model.encode(graphs), atol=1e-10)


def test_the_company_does_not_matter():
    model, graphs = settled(), molecules()
    together = model.encode(graphs)
    for number in range(4):
        assert torch.allclose(model.encode(graphs.select([number]))[0], together[number], atol=1e-10)


def test_every_field_and_every_bond_matters():
    model, graphs = settled(), molecules((5,))
    before = model.encode(graphs)
    for part, values in ((graphs.nodes, CONFIG.node_values), (graphs.edge_fields, CONFIG.edge_values)):
        for column, count in enumerate(values):
            kept = part.clone()
            part[0, column] = (part[0, column] + 1) % count
            assert (model.encode(graphs) - before).abs().max() > 1e-4
            part.copy_(kept)


def test_a_node_knows_what_is_as_far_away_as_there_are_layers():
    step = torch.arange(5)
    edges = torch.cat([torch.stack([step, step + 1]), torch.stack([step + 1, step])], dim=1)
    graph = Graphs(torch.zeros(6, 2).long(), edges, torch.zeros(10, 2).long(), torch.zeros(6).long(), 1)
    model = settled(GINConfig((4, 3), (3, 2), dim=64, layers=3))
    before = model.nodes(graph)
    graph.nodes[0, 0] = 1
    changed = (model.nodes(graph) - before).abs().amax(1) > 0
    assert changed.tolist() == [True] * 4 + [False] * 2


def test_graphs_without_edges_and_without_bond_fields():
    alone = Graphs(
        torch.tensor([[0, 1], [3, 2]]), torch.zeros(2, 0).long(), torch.zeros(0, 2).long(), torch.arange(2), 2
    )
    model = GIN(CONFIG)
    model.encode(alone).square().sum().backward()
    assert model.fields.grad.abs().max() > 0
    plain = GIN(GINConfig((4, 3), (), dim=8, layers=2))
    graphs = molecules()
    assert plain.encode(Graphs(graphs.nodes, graphs.edges, graphs.edge_fields[:, :0], graphs.graph, 4)).shape == (4, 16)


def test_small_whole_numbers_may_be_bytes():
    model, graphs = settled(), molecules()
    bytes_ = Graphs(graphs.nodes.byte(), graphs.edges, graphs.edge_fields.byte(), graphs.graph, 4)
    assert torch.equal(model.encode(bytes_), model.encode(graphs))


def test_hidden_is_a_value_of_its_own():
    model, graphs = settled(), molecules((4,))
    graphs.nodes[:] = torch.tensor(CONFIG.hidden)
    assert torch.allclose(model.embed(graphs), (model.fields[4] + model.fields[8]).expand(4, -1))
    assert one_hot(torch.tensor([[1, 2]]), (2, 3)).tolist() == [[0, 1, 0, 0, 1]]


def test_kinds_of_bonds_are_all_combinations():
    bonds = BondVectors((3, 2), 8)
    for kind, (first, second) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]):
        assert torch.allclose(bonds()[kind], bonds.weight[first] + bonds.weight[3 + second], atol=1e-6)


def test_every_weight_learns():
    model = GIN(CONFIG)
    (model.encode(molecules((9, 8, 7))) * torch.randn(3, 16)).sum().backward()
    for name, parameter in model.named_parameters():
        if name not in ("layers.0.change.3.bias", "layers.1.change.3.bias", "layers.2.change.3.bias"):
            assert parameter.grad.abs().max() > 1e-6, name


def test_under_bf16_the_vectors_stay_near():
    model, graphs = settled().float(), molecules()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.encode(graphs)
    assert found.dtype == torch.float32
    assert (found - model.encode(graphs)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: Graphs(g.nodes[:, :1], g.edges, g.edge_fields, g.graph, 4), "1 fields where the model has 2"),
        (lambda g: Graphs(g.nodes, g.edges, g.edge_fields[:, :1], g.graph, 4), "1 fields where the model has 2"),
        (lambda g: Graphs(g.nodes + 4, g.edges, g.edge_fields, g.graph, 4), "must be from 0 to [34]"),
        (lambda g: Graphs(g.nodes - 5, g.edges, g.edge_fields, g.graph, 4), "is -[1-5], but must be from 0 to [34]"),
        (lambda g: Graphs(g.nodes, g.edges, g.edge_fields + 3, g.graph, 4), "must be from 0 to 2"),
    ],
)
def test_fields_that_do_not_fit_are_an_error(change, message):
    with pytest.raises(CourseError, match=message):
        GIN(CONFIG).encode(change(molecules()))


def test_sizes_that_make_no_network_are_an_error():
    for wrong in (GINConfig(dim=0), GINConfig(layers=0), GINConfig(node_values=()), GINConfig(edge_values=(100, 100))):
        with pytest.raises(CourseError):
            GIN(wrong)
