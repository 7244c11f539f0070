"""Tasks for a GIN that need no measured property: hidden atoms, surroundings, two views, descriptors.

Attribute masking and context prediction: Hu, Liu, Gomes, Zitnik, Liang, Pande, Leskovec (2020), "Strategies for
Pre-training Graph Neural Networks". GraphCL: You, Chen, Sui, Chen, Wang, Shen (2020), "Graph Contrastive Learning with
Augmentations". GraphMAE: Hou, Liu, Cen, Dong, Yang, Wang, Tang (2022), "GraphMAE: Self-Supervised Masked Graph
Autoencoders". Predicting what a program computes from the structure is the oldest of them: the multi-task networks of
Ramsundar, Kearnes, Riley, Webster, Konerding, Pande (2015), "Massively Multitask Networks for Drug Discovery", with
descriptors for assays.

Every task is a model around a GIN that is kept, ``encoder``; a function beside it makes its batch, for all graphs at
once. Random numbers are drawn on the generator's device, the work is done where the graphs lie.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from pfmcourse.base import CourseError
from pfmcourse.models.gin import GIN, MLP, BondVectors, GINConfig, GINLayer, bond_routes, one_hot
from pfmcourse.models.simclr import Projection
from pfmcourse.nn.contrastive import nt_xent
from pfmcourse.nn.graphs import Graphs, distances, random_nodes, random_order, random_share
from pfmcourse.nn.transformer import single


class Task(nn.Module):
    """A model that trains a GIN, which is kept; the rest of it is thrown away after pretraining."""

    def __init__(self, encoder: GIN) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def config(self) -> GINConfig:
        """The sizes of the GIN."""
        return self.encoder.config

    def encode(self, graphs: Graphs) -> Float[Tensor, "graphs features"]:
        """What the GIN says about graphs."""
        return self.encoder.encode(graphs)


# Hidden atoms: attribute masking and GraphMAE


@dataclass(frozen=True)
class HiddenAtoms:
    """Graphs of which some atoms cannot be seen; they still have their bonds."""

    graphs: Graphs
    places: Int64[Tensor, " hidden"]  # which nodes
    truth: Integer[Tensor, "hidden node_fields"]  # their fields

    def cut(self, count: int) -> "list[HiddenAtoms]":
        """Pieces with every ``count``-th graph."""
        pieces = []
        for rows in self.graphs.rows_of_pieces(count):
            places, inside = self.graphs.places_in(rows, self.places)
            pieces.append(HiddenAtoms(self.graphs.select(rows), places, self.truth[inside]))
        return pieces


def hide_atoms(graphs: Graphs, share: float, hidden: tuple[int, ...], generator: torch.Generator) -> HiddenAtoms:
    """Hide all fields of ``share`` of each graph's nodes, one at least, behind the values ``hidden`` (`GINConfig`)."""
    chosen = random_share(graphs, share, generator)
    return HiddenAtoms(_hide(graphs, chosen, hidden), chosen.nonzero()[:, 0], graphs.nodes[chosen])


def _hide(graphs: Graphs, chosen: Tensor, hidden: tuple[int, ...]) -> Graphs:
    if graphs.nodes.shape[1] != len(hidden):
        raise CourseError(f"these nodes have {graphs.nodes.shape[1]} fields, but {len(hidden)} values hide them.")
    nodes = torch.where(chosen[:, None], torch.tensor(hidden).to(graphs.nodes), graphs.nodes)
    return Graphs(nodes, graphs.edges, graphs.edge_fields, graphs.graph, graphs.count)


class AttributeMasking(Task):
    """Guess some fields of hidden atoms; those of molecules in columns 0 and 3 are element and hydrogens."""

    def __init__(self, encoder: GIN, guessed: tuple[int, ...] = (0, 3)) -> None:
        super().__init__(encoder)
        if not guessed or min(guessed) < 0 or max(guessed) >= len(self.config.node_values):
            raise CourseError(f"guessed={guessed} must name fields from 0 to {len(self.config.node_values) - 1}.")
        self.guessed = guessed
        self.values = [self.config.node_values[field] for field in guessed]
        self.head = nn.Linear(self.config.dim, sum(self.values))
        nn.init.zeros_(self.head.weight)  # all values alike at first
        nn.init.zeros_(self.head.bias)

    def logits(self, batch: HiddenAtoms) -> tuple[Float[Tensor, "hidden _"], ...]:
        """Unnormalised log-probabilities for each guessed field. Only hidden atoms go through the head."""
        return single(self.head(self.encoder.nodes(batch.graphs)[batch.places])).split(self.values, dim=1)

    def forward(self, batch: HiddenAtoms) -> dict[str, Tensor]:
        """The sum of the fields' cross-entropies in nats an atom, and the share of atoms whose first field is right."""
        logits, truth = self.logits(batch), batch.truth.long()
        loss = sum(F.cross_entropy(one, truth[:, field]) for one, field in zip(logits, self.guessed, strict=True))
        right = (logits[0].argmax(1) == truth[:, self.guessed[0]]).float().mean()
        return {"loss": loss, "right": right}


class GraphMAE(Task):
    """Rebuild the fields of hidden atoms from what the GIN says about the others.

    The hidden atoms' vectors are hidden once more, then one round of messages (the decoder) fills them in; so the GIN
    must write what matters into the others. The loss is the scaled cosine error (1 - cosine) ** gamma, which gives
    atoms that are nearly right little weight.
    """

    def __init__(self, encoder: GIN, gamma: float = 2.0) -> None:
        super().__init__(encoder)
        if gamma < 1:
            raise CourseError(f"gamma={gamma} must be at least 1.")
        self.gamma = gamma
        dim = self.config.dim
        self.bridge = nn.Linear(dim, dim, bias=False)
        self.token = nn.Parameter(torch.zeros(dim))  # stands where an atom is hidden
        self.bonds = BondVectors(self.config.edge_values, dim)
        self.decoder = GINLayer(MLP(dim, 2 * dim, sum(self.config.node_values)))

    def rebuilt(self, batch: HiddenAtoms) -> Float[Tensor, "hidden columns"]:
        """What the decoder puts in the hidden places, to be compared with all fields as ones among zeros."""
        graphs = batch.graphs
        x = single(self.bridge(self.encoder.nodes(graphs)))
        x = x.index_copy(0, batch.places, self.token.to(x).expand(len(batch.places), -1))
        with torch.autocast(x.device.type, enabled=False):
            bonds = self.bonds()
        x = self.decoder.gather(x, bond_routes(graphs, self.config.edge_values), bonds)
        return single(self.decoder.change(x[batch.places]))  # the other places are not asked for

    def forward(self, batch: HiddenAtoms) -> dict[str, Tensor]:
        """The scaled cosine error, and the mean cosine between what was rebuilt and the truth."""
        rebuilt = self.rebuilt(batch)
        cosine = F.cosine_similarity(rebuilt, one_hot(batch.truth, self.config.node_values).to(rebuilt), dim=1)
        return {"loss": ((1 - cosine) ** self.gamma).mean(), "cosine": cosine.detach().mean()}


# Surroundings: context prediction


@dataclass(frozen=True)
class Surroundings:
    """One atom of each molecule: what is near it, and what lies around that. The two share some atoms, the anchors."""

    near: Graphs
    centres: Int64[Tensor, " graphs"]  # in near
    around: Graphs
    anchors: Int64[Tensor, " anchors"]  # in around: the atoms that are also near

    def cut(self, count: int) -> "list[Surroundings]":
        """Pieces with every ``count``-th atom; another one's surroundings are then those of the piece."""
        return [
            Surroundings(
                self.near.select(rows),
                self.near.places_in(rows, self.centres[rows])[0],
                self.around.select(rows),
                self.around.places_in(rows, self.anchors)[0],
            )
            for rows in self.near.rows_of_pieces(count)
        ]


def surroundings(
    graphs: Graphs, generator: torch.Generator, k: int = 2, inner: int = 1, outer: int = 4
) -> Surroundings:
    """A random atom of each graph, the atoms at most ``k`` edges away, and those ``inner`` + 1 to ``outer`` away.

    Graphs so small that nothing lies around are left out. Raises CourseError if fewer than two are left, and unless
    0 <= inner < k <= outer: otherwise there are no anchors.
    """
    if k < 1 or not 0 <= inner < k <= outer:
        raise CourseError(f"k={k}, inner={inner}, outer={outer}: k must be at least 1, and 0 <= inner < k <= outer.")
    centres = random_nodes(graphs, generator)
    away = distances(graphs, centres, outer)
    shared = torch.bincount(graphs.graph[(away > inner) & (away <= k)], minlength=graphs.count)
    large = shared > 0
    if large.sum() < 2:
        raise CourseError(
            f"{int(large.sum())} of {graphs.count} graphs have nodes more than {inner} edges from the chosen one: two "
            "are needed, for each must be told from another. Give more or larger graphs."
        )
    if not large.all():
        wanted = large[graphs.graph]
        number = torch.where(wanted, wanted.cumsum(0) - 1, -1)
        graphs, away, centres = graphs.select(large.nonzero()[:, 0]), away[wanted], number[centres[large]]
    near, number = graphs.keep(away <= k)
    around, other = graphs.keep((away > inner) & (away <= outer))
    return Surroundings(near, number[centres], around, other[(away > inner) & (away <= k)])


class ContextPrediction(Task):
    """Which surroundings belong to this neighbourhood: its own, or those in another molecule?

    The GIN reads the neighbourhood, a second GIN with three layers the surroundings. Changed: a batch norm for each of
    the two vectors (in the paper the last layer ends with one, here with ReLU, which would make every product
    positive), and the product is divided by the root of their width, as in attention.
    """

    def __init__(self, encoder: GIN, layers: int = 3) -> None:
        super().__init__(encoder)
        config = self.config
        self.context = GIN(GINConfig(config.node_values, config.edge_values, config.dim, layers))
        self.near_norm, self.around_norm = nn.BatchNorm1d(config.dim), nn.BatchNorm1d(config.dim)

    def forward(self, batch: Surroundings) -> dict[str, Tensor]:
        """Binary cross-entropy in nats over own and foreign surroundings, and the share told right."""
        neighbourhood = self.near_norm(single(self.encoder.nodes(batch.near)[batch.centres]))
        nodes, graph = single(self.context.nodes(batch.around))[batch.anchors], batch.around.graph[batch.anchors]
        anchors = nodes.new_zeros(batch.around.count, nodes.shape[1]).index_add(0, graph, nodes)
        context = self.around_norm(anchors / torch.bincount(graph, minlength=batch.around.count)[:, None])
        pairs = torch.stack([context, context.roll(1, 0)])  # the second: those of the molecule before
        scores = (neighbourhood * pairs).sum(-1) / neighbourhood.shape[1] ** 0.5
        own = torch.stack([torch.ones_like(scores[0]), torch.zeros_like(scores[0])])
        right = ((scores > 0) == (own > 0)).float().mean()
        return {"loss": F.binary_cross_entropy_with_logits(scores, own), "right": right}


# Two views: GraphCL


@dataclass(frozen=True)
class TwoGraphs:
    """A batch of graphs, each seen twice; graph i of both is one molecule."""

    first: Graphs
    second: Graphs

    def cut(self, count: int) -> "list[TwoGraphs]":
        """Pieces with every ``count``-th graph, in both views."""
        return [TwoGraphs(*both) for both in zip(self.first.cut(count), self.second.cut(count), strict=True)]


def augmented(graphs: Graphs, share: float, hidden: tuple[int, ...], generator: torch.Generator) -> Graphs:
    """Each graph changed in one of four ways, chosen at random; ``share`` of its nodes or edges is touched.

    Nodes dropped; bonds removed, both directions together; nodes hidden behind the values ``hidden``; a part cut out,
    which is the nodes nearest to a random one. At least one node stays. Changed: the paper adds as many random edges as
    it removes, but a random bond makes no molecule, and it grows its part by a random walk. Raises CourseError unless
    0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise CourseError(f"share={share} must be at least 0 and below 1.")
    where = graphs.graph.device
    way = torch.randint(4, (graphs.count,), generator=generator, device=generator.device).to(where)
    centres = random_nodes(graphs, generator)
    drop, cut = (way == 0)[graphs.graph], (way == 3)[graphs.graph]
    near = torch.where(cut, distances(graphs, centres[way == 3], int(graphs.sizes.max())), 0)
    order = random_order(graphs, generator, near)
    left = (graphs.sizes - (share * graphs.sizes).round().long()).clamp(min=1)[graphs.graph]
    out = order >= left
    source, target = graphs.edges
    bond = torch.minimum(source, target) * len(out) + torch.maximum(source, target)
    pairs, number = torch.unique(bond, return_inverse=True)
    chance = torch.rand(len(pairs), generator=generator, device=generator.device).to(where)
    removed = (chance < share)[number] & (way == 1)[graphs.graph[source]]
    changed = _hide(graphs, out & (way == 2)[graphs.graph], hidden)
    return changed.keep(~(out & (drop | cut)), ~removed)[0]


def two_views(graphs: Graphs, share: float, hidden: tuple[int, ...], generator: torch.Generator) -> TwoGraphs:
    """Every graph changed twice, each time in its own way; see `augmented`."""
    both = augmented(Graphs.join([graphs, graphs]), share, hidden, generator)
    first = torch.arange(graphs.count, device=both.graph.device)
    return TwoGraphs(both.select(first), both.select(first + graphs.count))


class GraphCL(Task):
    """A GIN that learns to recognise a molecule again, among all molecules of its batch."""

    def __init__(self, encoder: GIN, projected: int = 64, temperature: float = 0.2) -> None:
        super().__init__(encoder)
        if temperature <= 0:
            raise CourseError(f"the temperature must be above 0, not {temperature}.")
        self.temperature = temperature
        self.projection = Projection(self.config.features, projected)

    def forward(self, batch: TwoGraphs) -> dict[str, Tensor]:
        """NT-Xent in nats, and the share of views whose partner is the nearest."""
        projected = self.projection(self.encode(Graphs.join([batch.first, batch.second])))
        loss, found = nt_xent(*projected.chunk(2), self.temperature)
        return {"loss": loss, "found": found}


# Properties


@dataclass(frozen=True)
class Described:
    """Graphs and what is known of them, many numbers each, every one with mean 0 and variance 1."""

    graphs: Graphs
    targets: Float[Tensor, "graphs targets"]

    def cut(self, count: int) -> "list[Described]":
        """Pieces with every ``count``-th graph."""
        return [Described(self.graphs.select(rows), self.targets[rows]) for rows in self.graphs.rows_of_pieces(count)]


class PropertyPrediction(Task):
    """Predict many properties that a program computes from the structure."""

    def __init__(self, encoder: GIN, targets: int, hidden: int = 256) -> None:
        super().__init__(encoder)
        if targets < 1:
            raise CourseError(f"targets={targets}: there must be at least one number to predict.")
        self.head = nn.Sequential(nn.Linear(self.config.features, hidden), nn.ReLU(), nn.Linear(hidden, targets))

    def forward(self, batch: Described) -> dict[str, Tensor]:
        """Smooth L1, and the share of the batch's variance that is explained, all targets taken together."""
        predicted = single(self.head(self.encode(batch.graphs)))
        targets = batch.targets.to(predicted)
        with torch.no_grad():
            left = (predicted - targets).square().mean(0)
            spread = targets.var(0, correction=0)
            explained = 1 - left.sum() / spread.sum().clamp(min=1e-12)
        return {"loss": F.smooth_l1_loss(predicted, targets), "explained": explained}


@dataclass(frozen=True)
class Measured:
    """Graphs with one measured property, in its own unit."""

    graphs: Graphs
    values: Float[Tensor, " graphs"]

    def cut(self, count: int) -> "list[Measured]":
        """Pieces with every ``count``-th graph."""
        return [Measured(self.graphs.select(rows), self.values[rows]) for rows in self.graphs.rows_of_pieces(count)]


class Regressor(Task):
    """A GIN with a linear head for one property, which it trains further; give it a copy to keep the original.

    ``mean`` and ``spread`` (the standard deviation) of the training values turn them into numbers near 0 and back. The
    head starts at zero: every molecule gets the mean. With ``frozen_norms`` the batch norms keep, in training too, the
    means that they learned in pretraining: those of some dozen molecules are worse.
    """

    def __init__(self, encoder: GIN, mean: float = 0.0, spread: float = 1.0, frozen_norms: bool = False) -> None:
        super().__init__(encoder)
        if not spread > 0:
            raise CourseError(f"spread={spread} must be above 0: with one value only there is nothing to learn.")
        self.frozen_norms = frozen_norms
        self.head = nn.Linear(self.config.features, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("spread", torch.tensor(float(spread)))

    def train(self, mode: bool = True) -> "Regressor":
        """As in torch, but frozen norms stay in evaluation."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
        return self

    def forward(self, batch: Measured) -> dict[str, Tensor]:
        """Smooth L1 of the standardised values, and the mean absolute error in the property's unit."""
        predicted = single(self.head(self.encode(batch.graphs)))[:, 0]
        wanted = (batch.values - self.mean) / self.spread
        error = (predicted.detach() - wanted).abs().mean() * self.spread
        return {"loss": F.smooth_l1_loss(predicted, wanted.to(predicted)), "error": error}

    @torch.no_grad()
    def predict(self, graphs: Graphs) -> Float[Tensor, " graphs"]:
        """The property in its unit, as in evaluation whatever the mode: a molecule's value depends on it alone."""
        training = self.training
        self.eval()
        try:
            return single(self.head(self.encode(graphs)))[:, 0] * self.spread + self.mean
        finally:
            self.train(training)
