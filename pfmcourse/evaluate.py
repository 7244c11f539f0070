"""Probes and metrics: what a pretrained model is worth, measured so that the answer can be trusted.

Three rules hold throughout. Validation chooses, test reports: hyper-parameters are picked on a part of the training
data. Chance counts: a number comes with its interval, over seeds or by the bootstrap. Methods are compared on the same
draws, so that differences are paired.

Tensors may live on any device and have any floating type; scikit-learn and scipy do the work on the CPU in float64.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import scipy.sparse
import scipy.stats
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from pfmcourse.base import CourseError, unknown_name

# Candidates for C of logistic regression; small ones regularise strongly.
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 3, 5, 10, 20)

Sparse = scipy.sparse.spmatrix | scipy.sparse.sparray  # TF-IDF comes like this
TrainFeatures = Float[Tensor, "train dim"] | Float[np.ndarray, "train dim"] | Sparse
TestFeatures = Float[Tensor, "test dim"] | Float[np.ndarray, "test dim"] | Sparse
TrainLabels = Shaped[Tensor, "train"] | Shaped[np.ndarray, "train"] | Sequence[Any]
TestLabels = Shaped[Tensor, "test"] | Shaped[np.ndarray, "test"] | Sequence[Any]
Metric = Literal["accuracy", "balanced_accuracy"]


# Numbers with their uncertainty ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and the values behind it (one a seed).

    One value alone has no interval: its bounds are nan.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...] = ()

    @property
    def half_width(self) -> float:
        """Half the length of the interval: what follows the ± sign."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        """``f"{interval:.2f}"`` gives "0.72 ± 0.08"; a spec that ends in % gives both parts in percent."""
        unit = " %" if spec.endswith("%") else ""
        factor, spec = (100, f"{spec[:-1]}f") if unit else (1, spec or ".3g")
        if math.isnan(self.half_width):
            return f"{factor * self.mean:{spec}}{unit} (1 run)"
        return f"{factor * self.mean:{spec}} ± {factor * self.half_width:{spec}}{unit}"

    def __str__(self) -> str:
        return f"{self}"


def interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval of independent runs, by Student's t.

    Raises CourseError for no values or for one that is not finite.
    """
    values = tuple(float(value) for value in values)
    if not values or not all(map(math.isfinite, values)):
        raise CourseError(f"an interval needs one finite number or more, but got {values or 'none'}.")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, values)
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half, values)


def over_seeds(function: Callable[[int], float], seeds: int | Iterable[int] = 5) -> Interval:
    """Run ``function(seed)`` for every seed (a number means that many, from 0) and return mean and 95 % interval."""
    return interval(function(seed) for seed in (range(seeds) if isinstance(seeds, int) else seeds))


def paired_difference(first: Interval, second: Interval) -> Interval:
    """``first`` minus ``second``, seed by seed.

    What the runs share (the labels drawn, say) cancels, so the interval is narrower.

    Raises CourseError unless both hold the same number of values.
    """
    if len(first.values) != len(second.values):
        raise CourseError(
            f"a paired difference needs the same seeds on both sides, but there are {len(first.values)} values "
            f"and {len(second.values)}. "
            "Run both with the same `seeds`."
        )
    return interval(a - b for a, b in zip(first.values, second.values, strict=True))


@dataclass(frozen=True)
class Table:
    """A small table of text: Markdown in a notebook, aligned columns when printed."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = (self.columns, *self.rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def _repr_markdown_(self) -> str:
        def row(cells: Iterable[str]) -> str:  # a cell like </s> is no HTML
            return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"

        def figures(column: int) -> bool:  # numbers stand to the right, words to the left
            cells = [line[column] for line in self.rows if column < len(line)]  # a row may end early
            return column > 0 and all(re.match(r"[-−+–]?\d|[-–]?$|nan", cell) for cell in cells)

        rule = ["---:" if figures(column) else "---" for column in range(len(self.columns))]
        return "\n".join([row(self.columns), row(rule), *map(row, self.rows)])


# Reading the input ----------------------------------------------------------------------------------------------------


def _array(values: Any) -> np.ndarray:
    """``values`` as a NumPy array on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values  # NumPy has no bfloat16
        return values.numpy()
    return np.asarray(values)


def _features(values: Any, name: str) -> Any:
    """A matrix in float64 (sparse ones in rows); CourseError if it is no matrix or holds nan or infinity."""
    matrix = scipy.sparse.csr_array(values) if scipy.sparse.issparse(values) else _array(values)
    matrix = matrix.astype(np.float64)
    if matrix.ndim != 2:
        raise CourseError(
            f"{name} should have the shape (examples, dim), but has {tuple(matrix.shape)}. Flatten each example first."
        )
    if not np.isfinite(matrix.data if scipy.sparse.issparse(matrix) else matrix).all():
        raise CourseError(f"{name} hold nan or infinity. Look at the encoder's output: did its training diverge?")
    return matrix


def _same_length(first: Any, second: Any, names: str) -> None:
    lengths = [x.shape[0] if hasattr(x, "shape") else len(x) for x in (first, second)]
    if lengths[0] != lengths[1]:
        raise CourseError(f"{names} should have the same length, but have {lengths[0]} and {lengths[1]}.")


def _labels(values: Any, features: Any, name: str) -> np.ndarray:
    """A vector of labels as long as ``features``."""
    labels = _array(values)
    if labels.ndim != 1:
        raise CourseError(f"{name} should be a vector with one label an example, but has the shape {labels.shape}.")
    _same_length(features, labels, f"features and {name}")
    return labels


def _several_classes(labels: np.ndarray) -> None:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise CourseError(
            f"a classifier needs two classes or more, but every training label is {classes.tolist() or 'missing'}."
        )


# Classification on frozen features ------------------------------------------------------------------------------------


def accuracy(predictions: TestLabels, labels: TestLabels) -> float:
    """Share of predictions that equal the label, from 0 to 1."""
    predictions, labels = _array(predictions), _array(labels)
    _same_length(predictions, labels, "predictions and labels")
    if not len(labels):
        raise CourseError("accuracy needs one example or more, but got none.")
    return float(np.mean(predictions == labels))


def balanced_accuracy(predictions: TestLabels, labels: TestLabels) -> float:
    """Mean over the classes of the share found of each: a guess that ignores the input scores 1 / classes."""
    predictions, labels = _array(predictions), _array(labels)
    _same_length(predictions, labels, "predictions and labels")
    if not len(labels):
        raise CourseError("balanced accuracy needs one example or more, but got none.")
    return float(np.mean([np.mean(predictions[labels == label] == label) for label in np.unique(labels)]))


_METRICS = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}


def _metric(name: str) -> Callable[..., float]:
    if name not in _METRICS:
        raise unknown_name("metric", name, _METRICS)
    return _METRICS[name]


def _splits(labels: np.ndarray, groups: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (fit, validate) of row numbers, stratified by class, no group on both sides.

    Five folds, or one of them where a thousand examples make it precise enough. A class with a single example always
    stays in the part that is fitted. Empty when nothing can be held back: one example a class.
    """
    if groups is not None:
        if len(np.unique(groups)) < 2:
            raise CourseError(
                "`groups` should name two groups or more; one group cannot be split into fitting and validation."
            )
        folder = StratifiedGroupKFold(min(5, len(np.unique(groups))), shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes with fewer members than folds are fine here
            splits = list(folder.split(labels, labels, groups))
    else:
        classes, counts = np.unique(labels, return_counts=True)
        folds = min(5, int(counts.max()))
        if folds < 2:
            return []
        rng = np.random.default_rng(seed)
        fold = np.full(len(labels), -1)
        for number, label in enumerate(classes[counts > 1]):
            rows = rng.permutation(np.flatnonzero(labels == label))
            fold[rows] = (
                np.arange(len(rows)) + number
            ) % folds  # each class starts elsewhere, so that small folds stay level
        splits = [(np.flatnonzero(fold != part), np.flatnonzero(fold == part)) for part in range(folds)]
    splits = [(fit, held) for fit, held in splits if len(held) and len(np.unique(labels[fit])) > 1]
    return splits[:1] if len(labels) >= 1000 else splits


def _choose(
    build: Callable[[Any], Any],
    candidates: Sequence[Any],
    features: Any,
    labels: np.ndarray,
    groups: np.ndarray | None,
    metric: str,
    seed: int,
) -> Any:
    """The first candidate with the best mean score on held-back training data.

    Where nothing can be held back, the middle one.
    """
    if len(candidates) == 1:
        return candidates[0]
    splits = _splits(labels, groups, seed)
    if not splits:
        return candidates[len(candidates) // 2]

    def score(candidate: Any) -> float:
        scores = [
            _METRICS[metric](build(candidate).fit(features[fit], labels[fit]).predict(features[held]), labels[held])
            for fit, held in splits
        ]
        return round(float(np.mean(scores)), 12)  # rounding noise shall not break a tie

    return max(candidates, key=score)


def fit_linear_probe(
    features: TrainFeatures,
    labels: TrainLabels,
    *,
    strengths: Sequence[float] = STRENGTHS,
    groups: TrainLabels | None = None,
    metric: Metric = "accuracy",
    seed: int = 0,
) -> Pipeline:
    """Logistic regression on standardised features.

    C is the best of ``strengths`` on held-back training data, then all are fitted.

    ``groups`` (one value an example: the play, the voice) keeps a group on one side of the validation split. With the
    metric "balanced_accuracy" the classes are weighted alike. Returns scikit-learn's pipeline; its ``predict`` takes
    NumPy arrays. Raises CourseError for lengths that differ, features that are not finite, or a single class.
    """
    _metric(metric)
    features = _features(features, "features")
    labels = _labels(labels, features, "labels")
    _several_classes(labels)
    groups = None if groups is None else _labels(groups, features, "groups")

    def build(strength: float) -> Pipeline:
        # Subtracting the mean would fill a sparse matrix.
        scale = StandardScaler(with_mean=not scipy.sparse.issparse(features))
        weight = "balanced" if metric == "balanced_accuracy" else None
        return make_pipeline(scale, LogisticRegression(C=strength, max_iter=300, class_weight=weight))

    # One thread: the products are small, and threads that wait for each other cost more than they bring.
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        # Stopped after 300 iterations, a probe is a little more regularised than asked; validation has judged it so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return build(_choose(build, sorted(strengths), features, labels, groups, metric, seed)).fit(features, labels)


def linear_probe(
    train_features: TrainFeatures,
    train_labels: TrainLabels,
    test_features: TestFeatures,
    test_labels: TestLabels,
    *,
    strengths: Sequence[float] = STRENGTHS,
    groups: TrainLabels | None = None,
    metric: Metric = "accuracy",
    seed: int = 0,
) -> float:
    """Test accuracy, from 0 to 1, of a linear classifier on frozen features: how plainly they show the classes.

    C is chosen on a part of the training data (``fit_linear_probe``); the test data are only scored.
    """
    probe = fit_linear_probe(train_features, train_labels, strengths=strengths, groups=groups, metric=metric, seed=seed)
    return _score(probe, test_features, test_labels, metric)


def fit_knn(
    features: TrainFeatures,
    labels: TrainLabels,
    *,
    k: int | None = None,
    candidates: Sequence[int] = NEIGHBOURS,
    distance: Literal["cosine", "euclidean"] = "cosine",
    groups: TrainLabels | None = None,
    metric: Metric = "accuracy",
    seed: int = 0,
) -> KNeighborsClassifier:
    """k-nearest-neighbour classifier; ``k`` as given, or the best of ``candidates`` on held-back training data.

    Raises CourseError for lengths that differ, a single class, or k larger than the number of examples.
    """
    _metric(metric)
    features = _features(features, "features")
    labels = _labels(labels, features, "labels")
    _several_classes(labels)
    groups = None if groups is None else _labels(groups, features, "groups")
    if k is not None and not 1 <= k <= len(labels):
        raise CourseError(f"k should lie between 1 and the {len(labels)} training examples, but is {k}.")

    def build(neighbours: int) -> KNeighborsClassifier:
        return KNeighborsClassifier(neighbours, metric=distance, algorithm="brute")

    if k is None:
        splits = _splits(labels, groups, seed)
        smallest = min((len(fit) for fit, _ in splits), default=1)
        usable = [one for one in sorted(candidates) if one <= smallest] or [1]
        k = _choose(build, usable, features, labels, groups, metric, seed) if splits else 1
    return build(k).fit(features, labels)


def knn(
    train_features: TrainFeatures,
    train_labels: TrainLabels,
    test_features: TestFeatures,
    test_labels: TestLabels,
    *,
    k: int | None = None,
    candidates: Sequence[int] = NEIGHBOURS,
    distance: Literal["cosine", "euclidean"] = "cosine",
    groups: TrainLabels | None = None,
    metric: Metric = "accuracy",
    seed: int = 0,
) -> float:
    """Test accuracy, from 0 to 1, of a vote among the k nearest training examples.

    Nothing is learned on top of the features.
    """
    fitted = fit_knn(
        train_features,
        train_labels,
        k=k,
        candidates=candidates,
        distance=distance,
        groups=groups,
        metric=metric,
        seed=seed,
    )
    return _score(fitted, test_features, test_labels, metric)


def _score(fitted: Any, features: Any, labels: Any, metric: str) -> float:
    features = _features(features, "test features")
    labels = _labels(labels, features, "test labels")
    if features.shape[1] != fitted.n_features_in_:
        raise CourseError(
            f"the test features have {features.shape[1]} dimensions and the training features "
            f"{fitted.n_features_in_}: use one encoder for both."
        )
    return _METRICS[metric](fitted.predict(features), labels)


# Few labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FewLabel(Mapping[int, Interval]):
    """Score over the number of labels: a mapping from the count to its Interval over seeds."""

    intervals: Mapping[int, Interval]
    metric: str = "accuracy"

    def __getitem__(self, count: int) -> Interval:
        return self.intervals[count]

    def __iter__(self) -> Iterator[int]:
        return iter(self.intervals)

    def __len__(self) -> int:
        return len(self.intervals)

    def minus(self, other: "FewLabel") -> "FewLabel":
        """The paired difference at each count, draw by draw. Raises CourseError if counts or seeds differ."""
        if list(self) != list(other):
            raise CourseError(f"both sides need the same counts, but have {list(self)} and {list(other)}.")
        return FewLabel(
            {count: paired_difference(self[count], other[count]) for count in self}, f"difference in {self.metric}"
        )

    def __str__(self) -> str:
        return str(few_label_table({self.metric: self}))


def few_label_table(results: Mapping[str, FewLabel], digits: int = 1) -> Table:
    """One row a method, one column a number of labels; mean ± half the 95 % interval, in percent."""
    counts = sorted({count for result in results.values() for count in result})
    rows = [
        (name, *(f"{result[count]:.{digits}%}" if count in result else "" for count in counts))
        for name, result in results.items()
    ]
    return Table(("", *(f"{count:,} labels" for count in counts)), tuple(rows))


def draw_labels(labels: TrainLabels, count: int, seed: int) -> Int[Tensor, " count"]:
    """Row numbers of ``count`` examples, drawn class by class in proportion, at least one of each; sorted.

    The draw depends on labels, count and seed only, so every method gets the same examples; with one seed a smaller
    draw is part of a larger one. Seats are dealt out by Sainte-Laguë's method. Raises CourseError if there are too few
    labels, or fewer than classes.
    """
    labels = _array(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= count <= len(labels):
        raise CourseError(
            f"cannot draw {count} labels: there are {len(labels)} examples in {len(classes)} classes, and every "
            "class needs one. "
            f"Ask for a count from {len(classes)} to {len(labels)}."
        )
    number = np.repeat(np.arange(len(classes)), sizes - 1)
    seat = np.concatenate([np.arange(1, size) for size in sizes])
    order = np.argsort(-(sizes[number] / (seat + 0.5)), kind="stable")
    seats = 1 + np.bincount(number[order[: count - len(classes)]], minlength=len(classes))
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:many] for label, many in zip(classes, seats, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(drawn)))


def _take(values: Any, rows: Tensor) -> Any:
    return values[rows.to(values.device)] if isinstance(values, Tensor) else values[rows.numpy()]


def few_label(
    features: Shaped[Tensor, "train ..."] | Shaped[np.ndarray, "train ..."] | Sparse,
    labels: TrainLabels,
    test_features: Shaped[Tensor, "test ..."] | Shaped[np.ndarray, "test ..."] | Sparse,
    test_labels: TestLabels,
    counts: Sequence[int] = (10, 30, 100, 300),
    seeds: int | Sequence[int] = 5,
    method: str | Callable[..., float] = "linear_probe",
    metric: Metric = "accuracy",
) -> FewLabel:
    """Score of ``method`` when only ``counts`` training labels are known (in total, not a class), over several draws.

    ``method`` is "linear_probe", "knn", or a function ``(features, labels, test_features, test_labels, *, metric, seed)
    -> float``: fine-tuning, for instance, where "features" are the raw pictures or tokens. The draws are those of
    ``draw_labels``, the same for every method. Raises CourseError for lengths that differ or too few labels.
    """
    methods = {"linear_probe": linear_probe, "knn": knn}
    if isinstance(method, str) and method not in methods:
        raise unknown_name("method", method, methods)
    _metric(metric)
    run = methods[method] if isinstance(method, str) else method
    _labels(labels, features, "labels")
    _labels(test_labels, test_features, "test labels")
    _several_classes(_array(labels))
    labels = labels if isinstance(labels, Tensor) else _array(labels)
    if scipy.sparse.issparse(features):
        features = scipy.sparse.csr_array(features)

    def at(count: int) -> Callable[[int], float]:
        def once(seed: int) -> float:
            rows = draw_labels(labels, count, seed)
            return float(
                run(_take(features, rows), _take(labels, rows), test_features, test_labels, metric=metric, seed=seed)
            )

        return once

    return FewLabel({count: over_seeds(at(count), seeds) for count in sorted(counts)}, metric)


# Language modelling and retrieval -------------------------------------------------------------------------------------


def bits_per_byte(nats: float | Float[Tensor, ""], byte_count: int) -> float:
    """Bits per byte of text from the summed negative log-likelihood in nats.

    Comparable between vocabularies, unlike perplexity.
    """
    nats = float(nats)
    if byte_count <= 0 or not math.isfinite(nats) or nats < 0:
        raise CourseError(
            "bits per byte needs a sum of nats that is not negative and a number of bytes above 0, but got "
            f"{nats} and {byte_count}."
        )
    return nats / math.log(2) / byte_count


def _unit(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1, in float64; a row of zeros stays as it is, so its cosine with anything is 0."""
    return torch.nn.functional.normalize(vectors.detach().double(), dim=-1)


@dataclass(frozen=True)
class Retrieval:
    """Recall at each k, from 0 to 1: ``forward`` finds the column of a row, ``backward`` the row of a column."""

    forward: dict[int, float]
    backward: dict[int, float]
    chance: dict[int, float]
    candidates: int

    @property
    def mean(self) -> dict[int, float]:
        """Both directions averaged, for each k."""
        return {k: (self.forward[k] + self.backward[k]) / 2 for k in self.forward}


def retrieval_recall(
    first: Float[Tensor, "items dim"], second: Float[Tensor, "items dim"] | None = None, ks: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """How often the partner is among the k most similar; row i of one side belongs to row i of the other.

    Give two sets of embeddings (compared by cosine) or one square matrix of similarities. Ties count as broken at
    random, so that a collapsed encoder scores at chance, k / items, and not at 1. Raises CourseError for sizes that
    differ or values that are not finite.
    """
    if second is not None:
        if first.shape != second.shape:
            raise CourseError(
                f"the two sets need the same shape, pair by pair, but have {tuple(first.shape)} and "
                f"{tuple(second.shape)}."
            )
        similarity = _unit(first) @ _unit(second).T
    else:
        similarity = first.detach().double()
    items = similarity.shape[0]
    if similarity.ndim != 2 or items != similarity.shape[1] or not items:
        raise CourseError(
            f"similarities should form a square matrix with pairs on the diagonal, but have {tuple(similarity.shape)}."
        )
    if not similarity.isfinite().all():
        raise CourseError("the similarities hold nan or infinity. Look at the embeddings: did training diverge?")
    if not ks or min(ks) < 1:
        raise CourseError(f"`ks` should be numbers from 1 up, but are {list(ks)}.")

    def recall(matrix: Tensor) -> dict[int, float]:
        partner = matrix.diagonal()[:, None]
        better, tied = (matrix > partner).sum(1), (matrix == partner).sum(1)
        return {k: float(((k - better) / tied).clamp(0, 1).mean()) for k in ks}

    return Retrieval(recall(similarity), recall(similarity.T), {k: min(k / items, 1.0) for k in ks}, items)


# Vectors of words -----------------------------------------------------------------------------------------------------


def nearest_neighbours(
    vectors: Float[Tensor, "words dim"], query: int | Float[Tensor, " dim"], k: int = 10, exclude: Sequence[int] = ()
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Row numbers and cosines of the k rows nearest to ``query``, best first.

    ``query`` is a row number, which is then left out of its own neighbours, or a vector (an analogy: name its words in
    ``exclude``).
    """
    words = vectors.shape[0]
    if isinstance(query, int):
        if not 0 <= query < words:
            raise CourseError(f"the query should be a row number from 0 to {words - 1}, but is {query}.")
        exclude = (*exclude, query)
        query = vectors[query]
    left_out = torch.tensor(sorted(set(exclude)), dtype=torch.long, device=vectors.device)
    if not 1 <= k <= words - len(left_out):
        raise CourseError(f"k should lie between 1 and {words - len(left_out)}, the rows that are left, but is {k}.")
    cosine = _unit(vectors) @ _unit(query)
    cosine[left_out] = -math.inf
    best = torch.sort(cosine, descending=True, stable=True).indices[:k]
    return best, cosine[best]


@dataclass(frozen=True)
class WordSimilarity:
    """Spearman's rho between cosines and human scores, with a 95 % bootstrap interval over the pairs used."""

    rho: float
    low: float
    high: float
    pairs: int
    total: int

    def __str__(self) -> str:
        return f"{self.rho:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.pairs} of {self.total} pairs"


@dataclass(frozen=True)
class SimilarityDifference:
    """Two sets of vectors on the same pairs.

    Both rhos, their difference, and its 95 % interval by the paired bootstrap.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    pairs: int


Vocabulary = Mapping[str, int] | Sequence[str]
Pairs = Iterable[tuple[str, str, float]]


def _index(vocabulary: Vocabulary) -> Mapping[str, int]:
    return vocabulary if isinstance(vocabulary, Mapping) else {word: row for row, word in enumerate(vocabulary)}


def _known(pairs: Sequence[tuple[str, str, float]], *vocabularies: Mapping[str, int]) -> list[tuple[str, str, float]]:
    """The pairs whose two words stand in every vocabulary; CourseError if they are too few to rank."""
    used = [pair for pair in pairs if all(word in index for index in vocabularies for word in pair[:2])]
    if len(used) < 3 or len({score for *_, score in used}) < 2:
        raise CourseError(
            f"only {len(used)} of the {len(pairs)} pairs have both words in the vocabulary (or all their scores "
            "are equal). "
            "A rank correlation needs three pairs with different scores: use a larger vocabulary or another set "
            "of pairs."
        )
    return used


def _cosines(vectors: Tensor, index: Mapping[str, int], pairs: Sequence[tuple[str, str, float]]) -> np.ndarray:
    if max(index.values(), default=0) >= vectors.shape[0]:
        raise CourseError(
            f"the vocabulary counts {max(index.values()) + 1} rows, but there are {vectors.shape[0]} vectors."
        )
    rows = torch.tensor([[index[first], index[second]] for first, second, _ in pairs], device=vectors.device)
    left, right = _unit(vectors[rows[:, 0]]), _unit(vectors[rows[:, 1]])
    return (left * right).sum(-1).cpu().numpy().round(12)  # equal pairs shall tie, whatever the order of summation


def _spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rho of each row: Pearson's correlation of the ranks, nan where a row is constant."""
    ranks = [scipy.stats.rankdata(side, axis=-1) for side in (first, second)]
    left, right = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((left * right).sum(-1) / np.sqrt((left**2).sum(-1) * (right**2).sum(-1)))


def _resamples(count: int, resamples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def _bounds(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


def word_similarity(
    vectors: Float[Tensor, "words dim"], vocabulary: Vocabulary, pairs: Pairs, *, resamples: int = 2000, seed: int = 0
) -> WordSimilarity:
    """Spearman's rho between the cosines of word pairs and what people said, over pairs with both words known.

    ``vocabulary`` maps a word to its row, or lists the words in order. Words are compared as they are written. Raises
    CourseError if fewer than three pairs are left, or if the vectors make all cosines equal.
    """
    index, pairs = _index(vocabulary), list(pairs)
    used = _known(pairs, index)
    cosine, human = _cosines(vectors, index, used), np.array([score for *_, score in used], dtype=float)
    rho = float(_spearman(cosine, human))
    if math.isnan(rho):
        raise CourseError("all cosines are equal, so the vectors rank nothing. Were they trained?")
    draw = _resamples(len(used), resamples, seed)
    return WordSimilarity(rho, *_bounds(_spearman(cosine[draw], human[draw])), pairs=len(used), total=len(pairs))


def word_similarity_difference(
    first: Float[Tensor, "words dim"],
    second: Float[Tensor, "others other_dim"],
    vocabulary: Vocabulary,
    pairs: Pairs,
    *,
    second_vocabulary: Vocabulary | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> SimilarityDifference:
    """``word_similarity`` of the first vectors minus that of the second, on the pairs that both know."""
    indices = _index(vocabulary), _index(vocabulary if second_vocabulary is None else second_vocabulary)
    used = _known(list(pairs), *indices)
    human = np.array([score for *_, score in used], dtype=float)
    cosines = [_cosines(vectors, index, used) for vectors, index in zip((first, second), indices, strict=True)]
    rhos = [float(_spearman(cosine, human)) for cosine in cosines]
    if any(map(math.isnan, rhos)):
        raise CourseError("all cosines of one set are equal, so its vectors rank nothing. Were they trained?")
    draw = _resamples(len(used), resamples, seed)
    draws = _spearman(cosines[0][draw], human[draw]) - _spearman(cosines[1][draw], human[draw])
    return SimilarityDifference(rhos[0], rhos[1], rhos[0] - rhos[1], *_bounds(draws), pairs=len(used))


@dataclass(frozen=True)
class Weat:
    """``effect`` in standard deviations, from -2 to 2, and the one-sided permutation p-value.

    ``exact`` if every split was counted.
    """

    effect: float
    p: float
    exact: bool
    permutations: int


def weat(
    X: Float[Tensor, "x dim"],
    Y: Float[Tensor, "y dim"],
    A: Float[Tensor, "a dim"],
    B: Float[Tensor, "b dim"],
    *,
    permutations: int = 20_000,
    seed: int = 0,
) -> Weat:
    """Word Embedding Association Test: do the target words X lie nearer to the attributes A, and Y nearer to B?

    s(w) = mean cosine to A - mean cosine to B. The effect size is the difference of the means of s over X and over Y,
    divided by the sample standard deviation over both. The p-value is the share of splits of X and Y together, sizes
    kept, whose difference is at least the one observed: all of them if they are at most ``permutations``, else a random
    sample that counts the observed one.

    Source: Caliskan, Bryson and Narayanan (2017), Semantics Derived Automatically from Language Corpora Contain
    Human-like Biases. Raises CourseError for an empty set, fewer than two words in X or Y, or words that all have the
    same association.
    """
    if min(len(X), len(Y)) < 2 or not len(A) or not len(B):
        raise CourseError(
            f"WEAT needs two words or more in X and in Y, and one in A and in B, but got {len(X)}, {len(Y)}, "
            f"{len(A)} and {len(B)}. "
            "Were most of them missing from the vocabulary?"
        )
    targets = _unit(torch.cat([X, Y]))
    association = ((targets @ _unit(A).T).mean(1) - (targets @ _unit(B).T).mean(1)).cpu().numpy()
    spread = association.std(ddof=1)
    if spread < 1e-12:
        raise CourseError("all words in X and Y have the same association with A and B: there is nothing to compare.")
    size, words = len(X), len(association)
    observed = association[
        :size
    ].sum()  # sizes and total are fixed, so the sum over X orders the splits as the difference does
    exact = math.comb(words, size) <= permutations
    if exact:
        chosen = np.array(list(combinations(range(words), size)))
    else:
        chosen = np.random.default_rng(seed).random((permutations, words)).argsort(1)[:, :size]
    at_least = int((association[chosen].sum(1) >= observed - 1e-12).sum())
    p = at_least / len(chosen) if exact else (at_least + 1) / (len(chosen) + 1)
    effect = (association[:size].mean() - association[size:].mean()) / spread
    return Weat(float(effect), p, exact, len(chosen))
