"""Tasks for a GIN: a batch hides and cuts what it should, losses are those of a loop, one batch can be learned."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.gin import GIN, GINConfig
from pfmcourse.models.graph_pretraining import (
    AttributeMasking,
    ContextPrediction,
    Described,
    GraphCL,
    GraphMAE,
    Measured,
    PropertyPrediction,
    Regressor,
    augmented,
    hide_atoms,
    surroundings,
    two_views,
)
from pfmcourse.nn.graphs import Graphs, hops
from pfmcourse.train import TrainConfig, fit

CONFIG = GINConfig(node_values=(4, 3, 5), edge_values=(3, 2), dim=16, layers=2)
HIDDEN = CONFIG.hidden


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def molecules(sizes=(9, 4, 12, 7, 10, 8), seed=0):
    """Random trees with random fields."""
    generator, graphs = draw(seed), []
    for size in sizes:
        older = [max(0, node - 1 - int(torch.randint(2, (), generator=generator))) for node in range(1, size)]
        one_way = torch.tensor([older, list(range(1, size))], dtype=torch.long)
        fields = torch.stack([torch.randint(limit, (size - 1,), generator=generator) for limit in (3, 2)], dim=1)
        nodes = torch.stack([torch.randint(limit, (size,), generator=generator) for limit in (4, 3, 5)], dim=1)
        edges, zeros = torch.cat([one_way, one_way.flip(0)], dim=1), torch.zeros(size, dtype=torch.long)
        graphs.append(Graphs(nodes, edges, torch.cat([fields, fields]), zeros, 1))
    return Graphs.join(graphs)


def gin():
    return GIN(CONFIG)


TASKS = {
    "masking": (lambda: AttributeMasking(gin(), (0, 2)), lambda g: hide_atoms(g, 0.3, HIDDEN, draw()), "right"),
    "mae": (lambda: GraphMAE(gin()), lambda g: hide_atoms(g, 0.3, HIDDEN, draw()), "cosine"),
    "context": (lambda: ContextPrediction(gin()), lambda g: surroundings(g, draw()), "right"),
    "graphcl": (lambda: GraphCL(gin(), 8), lambda g: two_views(g, 0.2, HIDDEN, draw()), "found"),
    "properties": (
        lambda: PropertyPrediction(gin(), 3, 32),
        lambda g: Described(g, torch.randn(g.count, 3, generator=draw())),
        "explained",
    ),
    "regressor": (
        lambda: Regressor(gin(), 300.0, 50.0),
        lambda g: Measured(g, 300 + 50 * torch.randn(g.count, generator=draw())),
        "error",
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns_one_batch(name):
    make, batch_of, metric = TASKS[name]
    model, batch = make(), batch_of(molecules())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    start = model(batch)
    assert start.keys() == {"loss", metric} and start["loss"].shape == start[metric].shape == ()
    for _ in range(60):
        optimizer.zero_grad()
        out = model(batch)
        out["loss"].backward()
        optimizer.step()
    assert out["loss"] < start["loss"] / 4
    if metric == "error":
        assert out[metric] < start[metric] / 4
    else:
        assert out[metric] > 0.9


@pytest.mark.parametrize("name", TASKS)
def test_what_is_kept_is_the_encoder(name):
    make, batch_of, _ = TASKS[name]
    model, graphs = make().eval(), molecules()
    assert model.config == CONFIG and torch.equal(model.encode(graphs), model.encoder.encode(graphs))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(batch_of(graphs))["loss"].dtype == torch.float32


@pytest.mark.parametrize("name", TASKS)
def test_the_encoder_gets_a_gradient(name):
    make, batch_of, _ = TASKS[name]
    model = make()
    if isinstance(getattr(model, "head", None), torch.nn.Linear):
        torch.nn.init.normal_(model.head.weight)  # from zero, it passes nothing on in the first step
    model(batch_of(molecules()))["loss"].backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert model.encoder.fields.grad.abs().max() > 1e-6
    assert model.encoder.bonds[0].weight.grad.abs().max() > 1e-6


# Hidden atoms


@pytest.mark.parametrize(("share", "counts"), [(0.15, [1, 1, 2, 1, 2, 1]), (0.5, [4, 2, 6, 4, 5, 4])])
def test_as_many_atoms_are_hidden_as_wanted(share, counts):
    graphs = molecules()
    batch = hide_atoms(graphs, share, HIDDEN, draw())
    hidden = torch.zeros(len(graphs.nodes), dtype=torch.bool).index_fill(0, batch.places, True)
    assert torch.bincount(graphs.graph[batch.places]).tolist() == counts
    assert torch.equal(batch.truth, graphs.nodes[batch.places])
    assert (batch.graphs.nodes[hidden] == torch.tensor(HIDDEN)).all()
    assert torch.equal(batch.graphs.nodes[~hidden], graphs.nodes[~hidden])
    assert torch.equal(batch.graphs.edges, graphs.edges) and torch.equal(batch.graphs.edge_fields, graphs.edge_fields)


def test_hidden_fields_are_not_seen():
    graphs, model = molecules(), AttributeMasking(gin(), (0, 2)).eval()
    batch = hide_atoms(graphs, 0.3, HIDDEN, draw())
    other = graphs.nodes.clone()
    other[batch.places] = (other[batch.places] + 1) % torch.tensor(CONFIG.node_values)
    again = hide_atoms(dataclasses.replace(graphs, nodes=other), 0.3, HIDDEN, draw())
    assert torch.equal(again.places, batch.places) and not torch.equal(again.truth, batch.truth)
    assert torch.equal(again.graphs.nodes, batch.graphs.nodes)
    assert torch.equal(torch.cat(model.logits(again), 1), torch.cat(model.logits(batch), 1))


def test_attribute_masking_is_the_sum_of_the_cross_entropies():
    model, batch = AttributeMasking(gin(), (0, 2)).double().eval(), hide_atoms(molecules(), 0.3, HIDDEN, draw())
    assert model(batch)["loss"].item() == pytest.approx(torch.tensor([4.0, 5.0]).log().sum().item()), (
        "guessing at first"
    )
    torch.nn.init.normal_(model.head.weight)
    nodes, total, right = model.encoder.nodes(batch.graphs), 0.0, 0
    for place, truth in zip(batch.places.tolist(), batch.truth.tolist(), strict=True):
        logits = model.head(nodes[place])
        total = total - logits[:4].log_softmax(0)[truth[0]] - logits[4:].log_softmax(0)[truth[2]]
        right += int(logits[:4].argmax() == truth[0])
    out = model(batch)
    assert torch.allclose(out["loss"], total / len(batch.places), atol=1e-9)
    assert out["right"].item() == pytest.approx(right / len(batch.places))


def test_graphmae_is_that_of_a_loop():
    model, batch = GraphMAE(gin(), gamma=3.0).double(), hide_atoms(molecules(), 0.3, HIDDEN, draw())
    torch.nn.init.normal_(model.token)
    model(batch)
    graphs, model = batch.graphs, model.eval()
    x = model.bridge(model.encoder.nodes(graphs))
    x = torch.stack([model.token if place in batch.places else row for place, row in enumerate(x)])
    heard = x.clone()
    for (source, target), (order, ring) in zip(graphs.edges.T.tolist(), graphs.edge_fields.tolist(), strict=True):
        bond = model.bonds.weight[order] + model.bonds.weight[3 + ring]
        heard[target] = heard[target] + torch.relu(x[source] + bond)
    errors = []
    for place, truth in zip(batch.places.tolist(), batch.truth, strict=True):
        wanted = torch.cat([F.one_hot(value, count) for value, count in zip(truth, CONFIG.node_values, strict=True)])
        errors.append(1 - F.cosine_similarity(model.decoder.change(heard[place][None])[0], wanted.double(), dim=0))
    errors, out = torch.stack(errors), model(batch)
    assert torch.allclose(out["loss"], (errors**3).mean(), atol=1e-9)
    assert torch.allclose(out["cosine"], 1 - errors.mean(), atol=1e-9)


def test_hidden_atoms_with_other_fields_are_an_error():
    with pytest.raises(CourseError, match="3 fields, but 2 values"):
        hide_atoms(molecules(), 0.3, (4, 3), draw())
    with pytest.raises(CourseError, match="from 0 to 2"):
        AttributeMasking(gin(), (0, 3))
    with pytest.raises(CourseError, match=r"gamma=0\.5"):
        GraphMAE(gin(), 0.5)


# Surroundings


def test_surroundings_are_a_ball_and_a_ring():
    graphs = molecules()
    graphs.nodes[:, 2] = torch.arange(len(graphs.nodes)) % 5
    names = graphs.nodes.clone()
    for seed in range(10):
        batch = surroundings(graphs, draw(seed))
        assert batch.near.count == batch.around.count == len(batch.centres) >= 2
        ball = hops(batch.near, batch.centres, 2)
        assert ball.all(), "all that is near is near the centre, and connected with it"
        assert torch.equal(batch.near.graph[batch.centres], torch.arange(batch.near.count))
        one = hops(batch.near, batch.centres, 1)
        assert torch.equal(batch.around.nodes[batch.anchors], batch.near.nodes[~one]), "the anchors are those in both"
        assert set(batch.around.graph[batch.anchors].tolist()) == set(range(batch.near.count))
    assert torch.equal(graphs.nodes, names)


def test_a_chain_is_cut_where_it_should_be():
    step = torch.arange(8)
    edges = torch.cat([torch.stack([step, step + 1]), torch.stack([step + 1, step])], dim=1)
    nodes = torch.stack([torch.arange(9) % 4, torch.arange(9) % 3, torch.arange(9) % 5], dim=1)
    chain = Graphs(nodes, edges, torch.zeros(16, 2).long(), torch.zeros(9).long(), 1)
    batch = surroundings(Graphs.join([chain, chain]), draw())
    for number in range(2):
        near, around = batch.near.select([number]), batch.around.select([number])
        row = batch.near.nodes[batch.centres[number]]
        centre = (nodes == row).all(1).nonzero().item()
        expected = [place for place in range(9) if abs(place - centre) <= 2]
        assert torch.equal(near.nodes, nodes[expected])
        expected = [place for place in range(9) if 2 <= abs(place - centre) <= 4]
        assert torch.equal(around.nodes, nodes[expected])
        assert around.edges.shape[1] == 2 * sum(b - a == 1 for a, b in itertools.pairwise(expected))


def test_graphs_too_small_for_surroundings_are_left_out():
    graphs = molecules((1, 9, 2, 12))
    batch = surroundings(graphs, draw())
    assert batch.near.count == 2
    assert set(map(tuple, batch.near.nodes.tolist())) <= set(map(tuple, graphs.select([1, 3]).nodes.tolist()))
    with pytest.raises(CourseError, match="0 of 3 graphs"):
        surroundings(molecules((1, 2, 2)), draw())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"inner": 2}, {"outer": 1}, {"inner": -1}])
def test_surroundings_without_anchors_are_an_error(wrong):
    with pytest.raises(CourseError, match="0 <= inner < k <= outer"):
        surroundings(molecules(), draw(), **wrong)


def test_context_prediction_compares_own_and_shifted_surroundings():
    model, batch = ContextPrediction(gin()).double(), surroundings(molecules(), draw())
    model(batch)
    near, around = model.eval().near_norm(model.encoder.nodes(batch.near)), model.context.nodes(batch.around)
    contexts = []
    for number in range(batch.around.count):
        rows = [anchor for anchor in batch.anchors.tolist() if batch.around.graph[anchor] == number]
        contexts.append(model.around_norm(around[rows].mean(0, keepdim=True))[0])
    total, right = 0.0, 0
    for number, centre in enumerate(batch.centres.tolist()):
        own = near[centre] @ contexts[number] / 4
        other = near[centre] @ contexts[number - 1] / 4
        total = total - F.logsigmoid(own) - F.logsigmoid(-other)
        right += int(own > 0) + int(other <= 0)
    count = 2 * len(contexts)
    out = model(batch)
    assert torch.allclose(out["loss"], total / count, atol=1e-9)
    assert out["right"].item() == pytest.approx(right / count)


# Two views


def ways(graphs, found):
    """For each graph how many nodes are gone, how many are hidden, and how many edges are gone."""
    hidden = torch.bincount(found.graph[(found.nodes == torch.tensor(HIDDEN)).all(1)], minlength=graphs.count)
    return graphs.sizes - found.sizes, hidden, graphs.edge_counts - found.edge_counts


def test_each_graph_is_changed_in_one_of_four_ways():
    graphs = molecules((10,) * 200)
    lost, hidden, edges = ways(graphs, augmented(graphs, 0.3, HIDDEN, draw()))
    smaller, masked = lost > 0, hidden > 0
    assert set(lost.tolist()) == {0, 3} and set(hidden.tolist()) == {0, 3}
    assert not (smaller & masked).any() and not edges[masked].any()
    unbound = (edges > 0) & ~smaller
    assert not (edges % 2).any(), "a bond goes in both directions"
    assert 70 < smaller.sum() < 130 and 30 < masked.sum() < 70 and 30 < unbound.sum() < 60
    share = edges[~smaller & ~masked].sum() / graphs.edge_counts[~smaller & ~masked].sum()
    assert 0.2 < share < 0.4
    whole = (edges == 2 * lost)[smaller].float().mean()
    assert 0.3 < whole < 0.95, "a part that is cut out of a tree stays connected, but not what is left of it"


def test_cut_out_parts_are_connected():
    graphs = molecules((10,) * 100)
    found = augmented(graphs, 0.5, HIDDEN, draw())
    connected = torch.bincount(found.graph[hops(found, found.starts, 10)])
    lost, _, _ = ways(graphs, found)
    assert ((connected == found.sizes) & (lost == 5)).sum() > 15


def test_without_a_share_nothing_changes_and_one_node_stays():
    graphs = molecules((1, 2, 6))
    same = augmented(graphs, 0.0, HIDDEN, draw())
    assert torch.equal(same.nodes, graphs.nodes) and torch.equal(same.edges, graphs.edges)
    for seed in range(20):
        assert augmented(graphs, 0.99, HIDDEN, draw(seed)).sizes.min() >= 1
    with pytest.raises(CourseError, match="below 1"):
        augmented(graphs, 1.0, HIDDEN, draw())


def test_two_views_are_two_draws_of_the_same_molecules():
    graphs = molecules((10,) * 50)
    views = two_views(graphs, 0.2, HIDDEN, draw())
    assert views.first.count == views.second.count == 50
    for view in (views.first, views.second):
        for number in range(50):
            allowed = {*map(tuple, graphs.select([number]).nodes.tolist()), HIDDEN}
            assert set(map(tuple, view.select([number]).nodes.tolist())) <= allowed
    assert (views.first.sizes != views.second.sizes).any()
    again = two_views(graphs, 0.2, HIDDEN, draw())
    assert torch.equal(again.first.nodes, views.first.nodes) and torch.equal(again.second.edges, views.second.edges)


def test_graphcl_wants_a_temperature():
    with pytest.raises(CourseError, match="above 0, not 0"):
        GraphCL(gin(), temperature=0.0)


# Properties


def test_explained_is_one_minus_what_is_left():
    model, graphs = PropertyPrediction(gin(), 2).eval(), molecules()
    targets = torch.randn(6, 2)
    predicted = model.head(model.encode(graphs)).detach()
    out = model(Described(graphs, targets))
    left, spread = (predicted - targets).square().sum(), (targets - targets.mean(0)).square().sum()
    assert out["explained"].item() == pytest.approx(1 - (left / spread).item(), abs=1e-5)
    assert out["loss"].item() == pytest.approx(F.smooth_l1_loss(predicted, targets).item(), abs=1e-6)
    with pytest.raises(CourseError, match="targets=0"):
        PropertyPrediction(gin(), 0)


def test_a_regressor_starts_at_the_mean_and_speaks_in_the_unit():
    model, graphs = Regressor(gin(), 350.0, 40.0), molecules()
    assert (model.predict(graphs) == 350).all()
    out = model(Measured(graphs, torch.full((6,), 310.0)))
    assert out["error"].item() == pytest.approx(40) and out["loss"].item() == pytest.approx(0.5)
    assert model.training, "predict leaves the mode as it was"
    torch.nn.init.normal_(model.head.weight)
    assert model.predict(graphs)[2].item() == pytest.approx(model.predict(graphs.select([2])).item(), rel=1e-4)
    assert not model.predict(graphs).requires_grad and model.predict(graphs).std() > 1
    other = Regressor(gin())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.predict(graphs), model.predict(graphs)), "mean and spread travel with the weights"
    with pytest.raises(CourseError, match=r"spread=0\.0"):
        Regressor(gin(), 1.0, 0.0)


def batches_of_every_kind():
    graphs = molecules()
    values = torch.arange(6.0)
    return {
        "described": Described(graphs, values[:, None]),
        "measured": Measured(graphs, values),
        "hidden": hide_atoms(graphs, 0.3, HIDDEN, draw()),
        "surroundings": surroundings(graphs, draw()),
        "views": two_views(graphs, 0.2, HIDDEN, draw()),
    }


def test_a_piece_of_a_batch_holds_every_second_graph_with_all_that_belongs_to_it():
    batches = batches_of_every_kind()
    whole, parts = batches["hidden"], batches["hidden"].cut(2)
    fields = torch.cat([part.graphs.nodes[part.places] for part in parts])
    assert (fields == torch.tensor(HIDDEN)).all() and len(fields) == len(whole.places)
    rows = whole.graphs.graph[whole.places]
    assert torch.equal(parts[1].truth, whole.truth[rows % 2 == 1])
    whole, parts = batches["surroundings"], batches["surroundings"].cut(2)
    for first, part in enumerate(parts):
        assert torch.equal(part.near.nodes[part.centres], whole.near.nodes[whole.centres[first::2]])
        mine = whole.around.graph[whole.anchors] % 2 == first
        assert torch.equal(part.around.nodes[part.anchors], whole.around.nodes[whole.anchors[mine]])
    assert batches["measured"].cut(3)[2].values.tolist() == [2.0, 5.0]
    assert batches["described"].cut(2)[1].targets[:, 0].tolist() == [1.0, 3.0, 5.0]
    first, second = batches["views"].cut(2)[1].first, batches["views"].first.select([1, 3, 5])
    assert torch.equal(first.nodes, second.nodes) and torch.equal(first.edges, second.edges)


def test_a_batch_is_not_cut_into_more_pieces_than_graphs():
    with pytest.raises(CourseError, match="6 graphs cannot be cut into 7 pieces"):
        batches_of_every_kind()["hidden"].cut(7)


def test_pieces_of_a_batch_of_graphs_train_as_the_whole_does():
    """Without batch norms that see other graphs: one step in two pieces gives the weights of one in one piece."""

    def trained(accumulate):
        torch.manual_seed(0)
        model = Regressor(gin(), 2.5, 1.7, frozen_norms=True)
        batch = batches_of_every_kind()["measured"]
        fit(
            model,
            lambda step, generator: batch,
            TrainConfig(3, accumulate=accumulate, precision="fp32", units_per_step=6),
        )
        return model.head.weight.detach()

    assert trained(1).abs().sum() > 0
    torch.testing.assert_close(trained(2), trained(1), rtol=1e-4, atol=1e-6)
