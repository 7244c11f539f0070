"""Metrics against slow, obvious versions and against scikit-learn and scipy.

Invariants; errors that a learner can act on.
"""

import importlib.util
import math
import sys
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import sklearn.metrics
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pfmcourse import evaluate
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.evaluate import FewLabel, Interval


@pytest.fixture(scope="module")
def plain():
    """The module as a learner has it: without the run-time shape check, which would speak before our own errors do."""
    spec = importlib.util.spec_from_file_location("plain_evaluate", evaluate.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def blobs(count=240, classes=3, dim=8, spread=1.5, seed=0):
    """Gaussian clusters around fixed centres; another seed gives other points of the same classes."""
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * 1.5
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = centres[labels] + spread * rng.normal(size=(count, dim))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


# Intervals


def test_interval_is_scipys_t_interval():
    values = [0.61, 0.70, 0.66, 0.59, 0.73]
    got = evaluate.interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert (got.mean, got.low, got.high) == pytest.approx((np.mean(values), low, high))
    assert got.values == tuple(values)


def test_interval_covers_the_truth_in_95_of_100_experiments():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    covered = np.mean([one.low <= 3.0 <= one.high for one in map(evaluate.interval, draws)])
    assert 0.935 <= covered <= 0.965


def test_one_run_has_no_interval():
    one = evaluate.interval([0.5])
    assert one.mean == 0.5
    assert math.isnan(one.low)
    assert f"{one:.1%}" == "50.0 % (1 run)"


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_interval_wants_finite_numbers(values):
    with pytest.raises(CourseError, match="finite"):
        evaluate.interval(values)


def test_interval_is_written_with_its_half_width():
    one = Interval(0.721, 0.638, 0.804)
    assert f"{one:.1%}" == "72.1 ± 8.3 %"
    assert f"{one:.2f}" == "0.72 ± 0.08"
    assert str(one) == "0.721 ± 0.083"


def test_over_seeds_calls_each_seed_once():
    seen = []
    got = evaluate.over_seeds(lambda seed: seen.append(seed) or seed**2, seeds=4)
    assert seen == [0, 1, 2, 3]
    assert got.values == (0, 1, 4, 9)
    assert evaluate.over_seeds(float, seeds=(7, 9)).mean == 8


def test_paired_difference_removes_what_the_seeds_share():
    shared = np.random.default_rng(0).normal(0, 10, 8)
    first, second = evaluate.interval(shared + 1.0), evaluate.interval(shared)
    difference = evaluate.paired_difference(first, second)
    assert difference.mean == pytest.approx(1.0)
    assert difference.half_width < 1e-6 < first.half_width
    with pytest.raises(CourseError, match="same seeds"):
        evaluate.paired_difference(first, evaluate.interval([1.0, 2.0]))


# Accuracy and probes


def test_balanced_accuracy_equals_scikit_learns():
    rng = np.random.default_rng(0)
    labels = torch.tensor(rng.choice(4, 200, p=[0.7, 0.1, 0.1, 0.1]))
    predictions = torch.tensor(rng.integers(0, 4, 200))
    assert evaluate.balanced_accuracy(predictions, labels) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predictions)
    )
    assert evaluate.accuracy(predictions, labels) == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert evaluate.balanced_accuracy(torch.zeros(200), labels) == 0.25


def test_linear_probe_with_one_strength_is_plain_logistic_regression():
    (x, y), (test_x, test_y) = blobs(), blobs(seed=1)
    scale = StandardScaler().fit(x.numpy())
    expected = LogisticRegression(C=1.0, max_iter=300).fit(scale.transform(x.numpy()), y)
    assert evaluate.linear_probe(x, y, test_x, test_y, strengths=[1.0]) == expected.score(
        scale.transform(test_x), test_y
    )


def test_linear_probe_does_not_look_at_the_test_labels():
    (x, y), (test_x, test_y) = blobs(), blobs(seed=1)
    chosen = evaluate.fit_linear_probe(x, y)[-1].C
    assert chosen in evaluate.STRENGTHS
    score = evaluate.linear_probe(x, y, test_x, test_y)
    wrong = evaluate.linear_probe(x, y, test_x, (test_y + 1) % 3)
    assert score > 0.7 > 0.3 > wrong
    assert chosen == evaluate.fit_linear_probe(x, y)[-1].C


def test_the_strength_is_the_best_on_held_back_training_data():
    """60 noisy points in 200 dimensions: the strengths differ, and only the training data may tell which to take."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 200)), np.arange(60) % 2
    x[:, :5] += y[:, None]
    scores = {}
    for strength in evaluate.STRENGTHS:
        parts = []
        for fit, held in evaluate._splits(y, None, seed=0):
            scale = StandardScaler().fit(x[fit])
            model = LogisticRegression(C=strength, max_iter=300).fit(scale.transform(x[fit]), y[fit])
            parts.append(model.score(scale.transform(x[held]), y[held]))
        scores[strength] = round(float(np.mean(parts)), 12)
    assert len(set(scores.values())) > 1
    assert max(scores, key=scores.get) == evaluate.fit_linear_probe(x, y)[-1].C


def test_a_probe_learns_nothing_from_noise():
    rng = np.random.default_rng(0)
    x, test_x = torch.tensor(rng.normal(size=(100, 20))), torch.tensor(rng.normal(size=(1000, 20)))
    y, test_y = torch.tensor(rng.integers(0, 2, 100)), torch.tensor(rng.integers(0, 2, 1000))
    assert 0.45 < evaluate.linear_probe(x, y, test_x, test_y) < 0.55


def test_balanced_metric_helps_the_rare_class():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [190, 10])
    x = torch.tensor(rng.normal(size=(200, 4)) + 1.2 * y[:, None])
    test_y = np.repeat([0, 1], [500, 500])
    test_x = torch.tensor(rng.normal(size=(1000, 4)) + 1.2 * test_y[:, None])
    y, test_y = torch.tensor(y), torch.tensor(test_y)
    plain_score = evaluate.linear_probe(x, y, test_x, test_y)
    assert evaluate.linear_probe(x, y, test_x, test_y, metric="balanced_accuracy") > plain_score + 0.1


def test_probe_accepts_sparse_text_half_precision_and_names_as_labels():
    (x, y), (test_x, test_y) = blobs(), blobs(seed=1)
    dense = evaluate.linear_probe(x, y, test_x, test_y)
    assert evaluate.linear_probe(x.bfloat16(), y, test_x.bfloat16(), test_y) == pytest.approx(dense, abs=0.05)
    names, test_names = [[f"class {label}" for label in labels.tolist()] for labels in (y, test_y)]
    assert evaluate.linear_probe(x, names, test_x, test_names) == dense
    sparse = evaluate.linear_probe(scipy.sparse.csr_matrix(x), y, scipy.sparse.csr_array(test_x), test_y)
    assert sparse == pytest.approx(dense, abs=0.1)


@pytest.mark.parametrize("grouped", [False, True])
def test_validation_parts_are_disjoint_and_keep_groups_whole(grouped):
    labels = np.repeat([0, 1, 2, 3], [40, 30, 7, 1])
    groups = np.arange(len(labels)) % 9 if grouped else None
    splits = evaluate._splits(labels, groups, seed=0)
    assert len(splits) == 5
    assert sorted(np.concatenate([held for _, held in splits])) == [
        row for row in range(len(labels)) if grouped or labels[row] != 3
    ]  # the only example of class 3 is never held back, unless its group is
    for fit, held in splits:
        assert not set(fit) & set(held)
        if grouped:
            assert not set(groups[fit]) & set(groups[held])
        else:
            assert {0, 1} <= set(labels[held])


def test_validation_is_one_part_of_many_examples_and_none_of_single_ones():
    assert len(evaluate._splits(np.arange(1200) % 3, None, 0)) == 1
    assert evaluate._splits(np.arange(5), None, 0) == []
    x = torch.eye(5)
    assert evaluate.linear_probe(x, torch.arange(5), x, torch.arange(5)) == 1.0
    assert evaluate.knn(x, torch.arange(5), x, torch.arange(5)) == 1.0


def test_knn_equals_a_loop():
    (x, y), (test_x, test_y) = blobs(80), blobs(50, seed=1)
    for k in (1, 5):
        right = 0
        for one, label in zip(test_x, test_y, strict=True):
            cosine = torch.nn.functional.cosine_similarity(one[None], x)
            votes = torch.bincount(y[cosine.topk(k).indices], minlength=3)
            right += int(votes.argmax() == label)
        assert evaluate.knn(x, y, test_x, test_y, k=k) == right / 50
    assert evaluate.fit_knn(x, y).n_neighbors in evaluate.NEIGHBOURS


# Few labels


def test_draws_are_stratified_nested_and_repeatable():
    labels = torch.tensor(np.repeat([0, 1, 2], [600, 300, 12]))
    previous = set()
    for count in (3, 10, 31, 100, 500, 912):
        drawn = evaluate.draw_labels(labels, count, seed=3)
        assert len(set(drawn.tolist())) == count
        assert previous <= set(drawn.tolist())
        previous = set(drawn.tolist())
        shares = torch.bincount(labels[drawn], minlength=3)
        assert shares.min() >= 1
        assert abs(shares[0] - count * 600 / 912) <= 2
        assert torch.equal(drawn, evaluate.draw_labels(labels, count, seed=3))
    assert not torch.equal(evaluate.draw_labels(labels, 50, 0), evaluate.draw_labels(labels, 50, 1))


def test_few_label_gives_every_method_the_same_draws():
    (x, y), (test_x, test_y) = blobs(), blobs(60, seed=1)
    seen = {}

    def spy(name):
        def method(features, labels, test_features, test_labels, *, metric, seed):
            seen.setdefault(name, []).append((seed, features.sum().item()))
            return evaluate.accuracy(torch.zeros_like(test_labels), test_labels)

        return method

    first = evaluate.few_label(x, y, test_x, test_y, counts=(6, 12), seeds=3, method=spy("a"))
    second = evaluate.few_label(x, y, test_x, test_y, counts=(12, 6), seeds=3, method=spy("b"))
    assert seen["a"] == seen["b"]
    assert [seed for seed, _ in seen["a"]] == [0, 1, 2, 0, 1, 2]
    assert list(first) == [6, 12]
    assert all(one.mean == 0 and one.half_width == 0 for one in first.minus(second).values())


def test_few_label_improves_with_labels_and_prints_a_table():
    (x, y), (test_x, test_y) = blobs(600), blobs(400, seed=1)
    probe = evaluate.few_label(x, y, test_x, test_y, counts=(6, 200), seeds=4)
    near = evaluate.few_label(x, y, test_x, test_y, counts=(6, 200), seeds=4, method="knn")
    assert probe[200].low > probe[6].mean
    rows = torch.cat([evaluate.draw_labels(y, 200, seed) for seed in (0,)])
    assert probe[200].values[0] == evaluate.linear_probe(x[rows], y[rows], test_x, test_y, seed=0)
    table = evaluate.few_label_table({"probe": probe, "k-NN": near})
    assert table.columns == ("", "6 labels", "200 labels")
    assert f"{probe[6]:.1%}" in str(table)
    assert table._repr_markdown_().splitlines()[1] == "| --- | ---: | ---: |"  # numbers to the right
    assert probe.minus(near)[200].mean == pytest.approx(probe[200].mean - near[200].mean)


def test_a_cell_of_a_table_is_text_not_html():
    table = evaluate.Table(("token", "share"), (("</s> | end", "3"),))
    assert "| &lt;/s> \\| end | 3 |" in table._repr_markdown_()
    assert "</s> | end" in str(table)


def test_few_label_takes_any_kind_of_features():
    (x, y), (test_x, test_y) = blobs(90), blobs(30, seed=1)
    sparse = evaluate.few_label(
        scipy.sparse.coo_matrix(x), y, scipy.sparse.coo_matrix(test_x), test_y, counts=[30], seeds=2
    )
    pictures = evaluate.few_label(
        x.view(90, 2, 2, 2), y, test_x.view(30, 2, 2, 2), test_y, counts=[30], seeds=2,
        method=lambda a, b, c, d, **kw: evaluate.knn(a.flatten(1), b, c.flatten(1), d, **kw),
    )  # fmt: skip
    assert isinstance(sparse, FewLabel)
    assert sparse[30].mean > 0.4 < pictures[30].mean


# Errors


def test_errors_say_what_to_do(plain):
    x, y = blobs(30)
    with pytest.raises(CourseError, match=r"same length.* 30 and 29"):
        plain.linear_probe(x, y[:-1], x, y)
    with pytest.raises(CourseError, match="same length"):
        plain.knn(x, y, x, y[:-1])
    with pytest.raises(CourseError, match="two classes"):
        plain.linear_probe(x, torch.zeros(30), x, y)
    with pytest.raises(CourseError, match="two classes"):
        plain.few_label(x, torch.zeros(30), x, y, counts=[5])
    with pytest.raises(CourseError, match=r"\(examples, dim\)"):
        plain.linear_probe(x[None], y, x, y)
    with pytest.raises(CourseError, match="nan or infinity"):
        plain.linear_probe(x.log(), y, x, y)
    with pytest.raises(CourseError, match="one encoder"):
        plain.linear_probe(x, y, x[:, :3], y)
    with pytest.raises(CourseError, match="k should lie"):
        plain.knn(x, y, x, y, k=31)
    with pytest.raises(CourseError, match="from 3 to 30"):
        plain.draw_labels(y, 31, 0)
    with pytest.raises(CourseError, match="every class needs one"):
        plain.few_label(x, y, x, y, counts=[2])
    with pytest.raises(CourseError, match="two groups"):
        plain.linear_probe(x, y, x, y, groups=torch.zeros(30))
    with pytest.raises(UnknownName, match="Did you mean 'knn'"):
        plain.few_label(x, y, x, y, counts=[5], method="kn")
    with pytest.raises(UnknownName, match="accuracy"):
        plain.linear_probe(x, y, x, y, metric="acuracy")
    with pytest.raises(CourseError, match="same length"):
        plain.balanced_accuracy(y, y[:-1])


# Language modelling and retrieval


def test_bits_per_byte_of_a_uniform_guess_is_eight():
    assert evaluate.bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)
    assert evaluate.bits_per_byte(torch.tensor(math.log(2) * 30), 10) == pytest.approx(3)
    for nats, count in ((1.0, 0), (-1.0, 5), (math.nan, 5)):
        with pytest.raises(CourseError, match="bits per byte"):
            evaluate.bits_per_byte(nats, count)


def test_retrieval_recall_equals_a_loop():
    similarity = torch.randn(30, 30)
    got = evaluate.retrieval_recall(similarity, ks=(1, 3, 10))
    for k in (1, 3, 10):
        forward = np.mean([i in similarity[i].topk(k).indices for i in range(30)])
        backward = np.mean([i in similarity[:, i].topk(k).indices for i in range(30)])
        assert (got.forward[k], got.backward[k]) == pytest.approx((forward, backward))
        assert got.mean[k] == pytest.approx((forward + backward) / 2)
    assert got.chance == {1: 1 / 30, 3: 0.1, 10: 1 / 3}


def test_retrieval_from_embeddings_is_cosine_both_ways():
    first, second = torch.randn(20, 6), torch.randn(20, 6)
    cosine = torch.nn.functional.cosine_similarity(first[:, None].double(), second[None].double(), dim=-1)
    assert evaluate.retrieval_recall(first, 7 * second).forward == evaluate.retrieval_recall(cosine).forward
    swapped = evaluate.retrieval_recall(second, first)
    assert swapped.forward == evaluate.retrieval_recall(first, second).backward
    assert evaluate.retrieval_recall(first, first).forward[1] == 1.0


def test_retrieval_of_random_and_of_collapsed_embeddings_is_chance(plain):
    got = np.mean([list(evaluate.retrieval_recall(torch.randn(50, 50)).mean.values()) for _ in range(200)], axis=0)
    assert got == pytest.approx([0.02, 0.1, 0.2], abs=0.01)
    collapsed = evaluate.retrieval_recall(torch.ones(50, 50))
    assert collapsed.forward == pytest.approx(collapsed.chance)
    with pytest.raises(CourseError, match="square"):
        plain.retrieval_recall(torch.ones(3, 4))
    with pytest.raises(CourseError, match="same shape"):
        plain.retrieval_recall(torch.ones(3, 4), torch.ones(2, 4))
    with pytest.raises(CourseError, match="nan"):
        plain.retrieval_recall(torch.full((3, 3), math.nan))


# Vectors of words


def test_nearest_neighbours_leave_out_the_query():
    vectors = torch.randn(40, 5)
    rows, cosines = evaluate.nearest_neighbours(vectors, 7, k=4)
    every = torch.nn.functional.cosine_similarity(vectors[7][None].double(), vectors.double())
    expected = [row for row in every.argsort(descending=True).tolist() if row != 7][:4]
    assert rows.tolist() == expected
    assert cosines.tolist() == pytest.approx(every[expected].tolist())
    again, _ = evaluate.nearest_neighbours(vectors, vectors[7], k=4, exclude=[7])
    assert torch.equal(rows, again)
    assert evaluate.nearest_neighbours(vectors, vectors[7], k=1)[0].tolist() == [7]


@pytest.mark.parametrize(("query", "k", "match"), [(40, 3, "row number"), (-1, 3, "row number"), (0, 40, "k should")])
def test_nearest_neighbours_check_their_input(query, k, match):
    with pytest.raises(CourseError, match=match):
        evaluate.nearest_neighbours(torch.randn(40, 5), query, k)


@pytest.fixture
def judged():
    """60 words, 80 pairs whose scores follow the first vectors with noise, and second vectors that are noise."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    vectors = torch.tensor(rng.normal(size=(60, 8)))
    chosen = [rng.choice(60, 2, replace=False) for _ in range(80)]
    cosine = torch.nn.functional.cosine_similarity(vectors[[a for a, _ in chosen]], vectors[[b for _, b in chosen]])
    pairs = [(words[a], words[b], float(c) + rng.normal(0, 0.2)) for (a, b), c in zip(chosen, cosine, strict=True)]
    return words, vectors, torch.tensor(rng.normal(size=(60, 8))), pairs, cosine


def test_word_similarity_is_scipys_spearman_over_known_pairs(judged):
    words, vectors, _, pairs, cosine = judged
    got = evaluate.word_similarity(vectors, words, [*pairs, ("w1", "nowhere", 5.0)])
    expected = scipy.stats.spearmanr(cosine, [score for *_, score in pairs])[0]
    assert got.rho == pytest.approx(expected)
    assert (got.pairs, got.total) == (80, 81)
    assert got.low < got.rho < got.high
    assert "80 of 81 pairs" in str(got)
    index = {word: row for row, word in enumerate(words)}
    assert evaluate.word_similarity(vectors.float(), index, pairs).rho == pytest.approx(expected)


def test_word_similarity_bootstrap_equals_a_loop_with_ties(judged):
    words, vectors, _, pairs, cosine = judged
    coarse = [(a, b, round(score, 1)) for a, b, score in pairs]
    got = evaluate.word_similarity(vectors, words, coarse, resamples=200, seed=4)
    human = np.array([score for *_, score in coarse])
    draws = np.random.default_rng(4).integers(80, size=(200, 80))
    rhos = [scipy.stats.spearmanr(cosine.numpy()[draw], human[draw])[0] for draw in draws]
    assert (got.low, got.high) == pytest.approx(tuple(np.percentile(rhos, [2.5, 97.5])))


def test_paired_bootstrap_is_sharper_than_two_intervals(judged):
    words, vectors, noise, pairs, _ = judged
    near = vectors + 0.05 * noise
    same = evaluate.word_similarity_difference(vectors, near, words, pairs)
    one = evaluate.word_similarity(vectors, words, pairs)
    assert same.low < same.difference < same.high
    assert same.high - same.low < 0.5 * (one.high - one.low)
    far = evaluate.word_similarity_difference(vectors, noise, words, pairs)
    assert far.low > 0
    assert far.difference == pytest.approx(far.first - far.second)
    assert evaluate.word_similarity_difference(noise, vectors, words, pairs).difference == pytest.approx(
        -far.difference
    )


def test_word_similarity_difference_uses_pairs_that_both_know(judged):
    words, vectors, _, pairs, _ = judged
    backwards = {word: row for row, word in enumerate(reversed(words[:50]))}
    second = vectors[:50].flip(0)
    both = [pair for pair in pairs if pair[0] in backwards and pair[1] in backwards]
    got = evaluate.word_similarity_difference(vectors, second, words, pairs, second_vocabulary=backwards)
    assert got.pairs == len(both) < len(pairs)
    assert got.difference == pytest.approx(0)


def test_word_similarity_errors(judged):
    words, vectors, _, pairs, _ = judged
    with pytest.raises(CourseError, match="only 0 of the 1 pairs"):
        evaluate.word_similarity(vectors, words, [("no", "where", 1.0)])
    with pytest.raises(CourseError, match="all cosines are equal"):
        evaluate.word_similarity(torch.ones(60, 3), words, pairs)
    with pytest.raises(CourseError, match="60 rows, but there are 10 vectors"):
        evaluate.word_similarity(vectors[:10], words, pairs)


# Bias


def weat_slowly(X, Y, A, B):
    """Caliskan et al. (2017), as written: one word, one split at a time."""
    cos = torch.nn.functional.cosine_similarity
    s = [float(cos(w[None], A).mean() - cos(w[None], B).mean()) for w in torch.cat([X, Y])]
    n = len(X)
    effect = (np.mean(s[:n]) - np.mean(s[n:])) / np.std(s, ddof=1)
    statistic = sum(s[:n]) - sum(s[n:])
    at_least = total = 0
    for chosen in combinations(range(len(s)), n):
        total += 1
        at_least += sum(s[i] if i in chosen else -s[i] for i in range(len(s))) >= statistic - 1e-12
    return effect, at_least / total


@pytest.fixture
def targets():
    generator = torch.Generator().manual_seed(1)
    A, B = torch.randn(2, 6, 10, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 5, 10, generator=generator, dtype=torch.float64)
    return A.mean(0) + 0.6 * noise[0], B.mean(0) + 0.6 * noise[1], A, B


def test_weat_equals_the_slow_version(targets):
    got = evaluate.weat(*targets)
    assert got.exact
    assert got.permutations == math.comb(10, 5)
    assert (got.effect, got.p) == pytest.approx(weat_slowly(*targets))
    uneven = (targets[0][:3], *targets[1:])
    assert evaluate.weat(*uneven).effect == pytest.approx(weat_slowly(*uneven)[0])


def test_weat_turns_its_sign_with_the_targets_and_with_the_attributes(targets):
    X, Y, A, B = targets
    straight = evaluate.weat(X, Y, A, B)
    assert straight.effect > 0.5
    assert evaluate.weat(Y, X, A, B).effect == pytest.approx(-straight.effect)
    assert evaluate.weat(X, Y, B, A).effect == pytest.approx(-straight.effect)
    assert evaluate.weat(Y, X, A, B).p > 0.9 > 0.1 > straight.p
    assert abs(straight.effect) <= 2


def test_weat_samples_permutations_when_there_are_many(targets):
    exact = evaluate.weat(*targets)
    sampled = evaluate.weat(*targets, permutations=200)
    assert not sampled.exact
    assert sampled.p == pytest.approx(exact.p, abs=0.06)
    assert sampled.p >= 1 / 201


def test_weat_p_is_uniform_without_an_association():
    p = [evaluate.weat(*torch.randn(4, 4, 6, dtype=torch.float64)).p for _ in range(300)]
    assert 0.43 < np.mean(p) < 0.58
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.1


def test_weat_wants_words(targets):
    X, Y, A, B = targets
    with pytest.raises(CourseError, match="missing from the vocabulary"):
        evaluate.weat(X[:1], Y, A, B)
    with pytest.raises(CourseError, match="same association"):
        evaluate.weat(X, Y, A, A)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_may_live_on_the_gpu(judged, targets):
    (x, y), (test_x, test_y) = blobs(), blobs(60, seed=1)
    words, vectors, _, pairs, _ = judged
    gpu = [one.cuda() for one in (x, y, test_x, test_y)]
    assert evaluate.linear_probe(*gpu) == evaluate.linear_probe(x, y, test_x, test_y)
    assert evaluate.few_label(*gpu, counts=[12], seeds=2)[12] == evaluate.few_label(x, y, test_x, test_y, [12], 2)[12]
    assert evaluate.word_similarity(vectors.cuda(), words, pairs).rho == pytest.approx(
        evaluate.word_similarity(vectors, words, pairs).rho
    )
    assert (
        evaluate.nearest_neighbours(vectors.cuda(), 3)[0].tolist()
        == evaluate.nearest_neighbours(vectors, 3)[0].tolist()
    )
    assert evaluate.retrieval_recall(x.cuda(), x.cuda()).forward[1] == 1.0
    assert evaluate.weat(*(one.cuda() for one in targets)).p == evaluate.weat(*targets).p
