"""The word-vector recipes: what they read from the plays, and how they measure, against naive loops and gensim."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from pfmcourse import recipes
from pfmcourse.data import shakespeare
from pfmcourse.models.nnlm import NNLM, NNLMConfig
from pfmcourse.models.word2vec import CBOW, SkipGram, Word2VecConfig
from pfmcourse.nn.negative_sampling import keep_probability, noise_distribution
from pfmcourse.recipes import word_vectors
from pfmcourse.recipes.word_vectors import START, UNKNOWN, Corpus, Stream, Word2VecRun

MIN_COUNT = 100  # a vocabulary of some hundred words, so that everything here is quick


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plays() -> Corpus:
    return word_vectors.corpus(MIN_COUNT)


@pytest.fixture
def tiny() -> Corpus:
    """Eight words, <unk> and <s>; 60 words in speeches of one to five."""
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(9, (60,), generator=generator)  # 8 is <unk>
    speech = torch.repeat_interleave(torch.arange(60), torch.randint(1, 6, (60,), generator=generator))[:60]
    stream = Stream(words, speech)
    counts = torch.bincount(words, minlength=10)
    return Corpus((*"abcdefgh", UNKNOWN, START), counts, stream, stream, stream)


def pairs_within(stream, window):
    """(centre, other, distance) for each ordered pair of words of one speech, as places in the stream."""
    for centre, other in itertools.permutations(range(len(stream)), 2):
        if abs(centre - other) <= window and stream.speech[centre] == stream.speech[other]:
            yield centre, other, abs(centre - other)


# The corpus ----------------------------------------------------------------------------------------------------------


def test_the_vocabulary_holds_the_frequent_words_of_the_training_plays(plays):
    sentences = shakespeare.load().sentences("train")
    counted = {}
    for word in itertools.chain.from_iterable(sentences):
        counted[word] = counted.get(word, 0) + 1
    *words, unknown, start = plays.vocabulary
    assert (unknown, start) == (UNKNOWN, START)
    assert set(words) == {word for word, count in counted.items() if count >= MIN_COUNT}
    assert plays.counts[:-2].tolist() == [counted[word] for word in words]
    assert plays.counts[:-2].tolist() == sorted(plays.counts[:-2].tolist(), reverse=True)
    rare = sum(count for count in counted.values() if count < MIN_COUNT)
    assert plays.counts[-2:].tolist() == [rare, 0]
    assert all(plays.vocabulary[row] == word for word, row in plays.index.items())


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_stream_is_the_text(plays, part):
    stream, sentences = getattr(plays, part), shakespeare.load().sentences(part)
    assert len(stream) == sum(map(len, sentences)) == len(stream.speech)
    lengths = torch.bincount(stream.speech, minlength=len(sentences))
    assert lengths.tolist() == [len(sentence) for sentence in sentences]
    assert (stream.speech.diff() >= 0).all()
    text = [plays.vocabulary[row] for row in stream.words[:500]]
    spoken = itertools.islice(itertools.chain.from_iterable(sentences), 500)
    assert all(found in (word, UNKNOWN) for found, word in zip(text, spoken, strict=True))
    assert not (stream.words == plays.index[START]).any()
    known = plays.known(stream)
    assert len(known) == int((stream.words != plays.index[UNKNOWN]).sum()) == len(known.speech) < len(stream)


def test_noise_never_draws_unknown_words(plays):
    assert plays.noise[plays.index[UNKNOWN]] == plays.noise[plays.index[START]] == 0
    torch.testing.assert_close(plays.noise[:-2], noise_distribution(plays.counts[:-2]))
    assert plays.counts[plays.index[UNKNOWN]] > 0  # the corpus itself is unchanged
    assert plays.known_counts[plays.index[UNKNOWN]] == 0  # gensim, too, counts only the words that it keeps
    assert torch.equal(plays.known_counts[:-2], plays.counts[:-2])


# Blocks of text ------------------------------------------------------------------------------------------------------

RUN = Word2VecRun(min_count=MIN_COUNT, blocks=64, time=32, window=4, draws=8)


def test_subsampling_drops_words_as_often_as_it_should(plays):
    stream, keep = plays.known(plays.train), keep_probability(plays.known_counts, RUN.subsample)
    kept = [word_vectors.epoch_stream(RUN, plays, seed=1, epoch=epoch) for epoch in range(2)]
    assert not torch.equal(kept[0].words[:1000], kept[1].words[:1000])
    assert torch.equal(kept[0].words, word_vectors.epoch_stream(RUN, plays, seed=1, epoch=0).words)
    found = sum(torch.bincount(part.words, minlength=len(keep)) for part in kept)[:-2]
    there = 2 * torch.bincount(stream.words, minlength=len(keep))[:-2]
    rare = keep[:-2] == 1
    assert torch.equal(found[rare], there[rare])
    assert (~rare).sum() > 20
    wanted, variance = there * keep[:-2], there * keep[:-2] * (1 - keep[:-2])
    scores = ((found - wanted) / variance.sqrt())[~rare]
    assert scores.abs().max() < 4.5
    assert scipy.stats.chi2.sf((scores**2).sum().item(), len(scores)) > 0.001


def test_the_blocks_of_an_epoch_are_its_text_from_end_to_end(plays):
    draw, margin = word_vectors._text_blocks(RUN, plays, seed=1), RUN.window
    steps = word_vectors._steps_per_epoch(RUN, plays)
    stream = word_vectors.epoch_stream(RUN, plays, seed=1, epoch=0)
    batches = [draw(step, torch.Generator().manual_seed(step)) for step in range(steps)]
    centres = torch.cat([batch.tokens[:, margin:-margin].flatten() for batch in batches])
    assert len(centres) == steps * RUN.blocks * RUN.time
    assert abs(len(centres) - len(stream)) < RUN.blocks * RUN.time + 5 * len(stream) ** 0.5
    ring = stream.words.repeat(3)
    places = (stream.words == centres[0]).nonzero()[:, 0].tolist()
    (start,) = (place for place in places if torch.equal(ring[place : place + 200], centres[:200]))
    assert torch.equal(centres, ring[start : start + len(centres)])
    for batch, size in ((batches[0], 0), (batches[-1], (steps - 1) * RUN.blocks * RUN.time)):
        first = start + size
        for block in (0, 1, RUN.blocks - 1):
            places = (torch.arange(-margin, RUN.time + margin) + first + block * RUN.time) % len(stream)
            assert torch.equal(batch.tokens[block], stream.words[places])
            assert torch.equal(batch.speech[block], stream.speech[places])
    # The next epoch starts elsewhere, so that other words stand at the edges of blocks.
    later = word_vectors.epoch_stream(RUN, plays, seed=1, epoch=1)
    centres = draw(steps, torch.Generator()).tokens[:, margin:-margin].flatten()
    places = (later.words == centres[0]).nonzero()[:, 0].tolist()
    (other,) = (place for place in places if torch.equal(later.words[place : place + 200], centres[:200]))
    assert abs(other / len(later) - start / len(stream)) > 0.01


def test_a_batch_depends_on_its_step_and_generator_alone(plays):
    draw, again = (word_vectors._text_blocks(RUN, plays, seed=1) for _ in range(2))
    steps = word_vectors._steps_per_epoch(RUN, plays)
    draw(steps + 3, torch.Generator())  # another epoch in between
    first, second = (d(2, torch.Generator().manual_seed(5)) for d in (draw, again))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    other = draw(2, torch.Generator().manual_seed(6))
    assert torch.equal(first.tokens, other.tokens)
    assert not torch.equal(first.noise, other.noise)
    assert not torch.equal(first.radius, other.radius)
    assert not torch.equal(first.tokens, draw(steps + 2, torch.Generator()).tokens)
    radii = torch.bincount(first.radius.flatten(), minlength=6)
    assert radii[[0, 5]].sum() == 0
    assert scipy.stats.chisquare(radii[1:5]).pvalue > 0.001
    assert first.noise.shape == (64, 8) and first.noise.max() < len(plays.vocabulary) - 2


# Held-out loss -------------------------------------------------------------------------------------------------------


def test_heldout_pairs_are_those_of_a_naive_loop(tiny):
    config = Word2VecRun(window=3, subsample=0.02)
    stream, keep = tiny.known(tiny.validation), keep_probability(tiny.known_counts, 0.02)
    assert keep[:8].min() < 0.8
    expected = []
    for centre, other, distance in pairs_within(stream, 3):
        a, b = int(stream.words[centre]), int(stream.words[other])
        chance = sum(radius >= distance for radius in (1, 2, 3)) / 3
        expected.append((a, b, round(float(keep[a] * keep[b]) * chance, 5)))
    pairs, weights = word_vectors.heldout_pairs(config, tiny, tiny.validation)
    found = [(*pair, round(weight, 5)) for pair, weight in zip(pairs.tolist(), weights.tolist(), strict=True)]
    assert sorted(found) == sorted(expected)
    assert len(found) > 50


def test_heldout_loss_is_the_sum_written_out(tiny):
    config = Word2VecRun(window=3, subsample=0.05, negatives=3)
    inputs, outputs = torch.randn(10, 4), torch.randn(10, 4)
    scores = (inputs @ outputs.T).double()
    pairs, weights = word_vectors.heldout_pairs(config, tiny, tiny.test)
    total = 0.0
    for (a, b), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        negative = sum(tiny.noise[word].item() * math.log1p(math.exp(scores[a, word])) for word in range(10))
        total += weight * (math.log1p(math.exp(-scores[a, b])) + 3 * negative)
    found = word_vectors.heldout_loss(config, tiny, inputs, outputs, tiny.test)
    assert found == pytest.approx(total / weights.sum().item(), rel=1e-5)


def test_no_scores_by_frequency_alone_are_better_than_the_frequency_tables(plays):
    config = Word2VecRun(min_count=MIN_COUNT)
    ones, score = word_vectors.frequency_tables(config, plays)

    def loss(scores):
        return word_vectors.heldout_loss(config, plays, ones, scores, plays.train)

    best = loss(score)
    assert best < 6 * math.log(2) - 1
    generator = torch.Generator().manual_seed(0)
    for change in (torch.ones_like(score), torch.randn(score.shape, generator=generator)):
        for step in (-0.3, 0.3):
            assert loss(score + step * change) > best + 0.005


def test_cbow_at_first_loses_a_coin_flip_a_word(plays):
    config = dataclasses.replace(RUN, negatives=3)
    model = CBOW(Word2VecConfig(len(plays.vocabulary), 8, config.window, config.negatives))
    loss = word_vectors._cbow_loss(config, plays, model, plays.validation)
    assert loss == pytest.approx(4 * math.log(2), rel=1e-6)
    nn.init.normal_(model.outputs.weight)
    other = word_vectors._cbow_loss(config, plays, model, plays.validation)
    assert other == word_vectors._cbow_loss(config, plays, model, plays.validation) != loss


def test_the_tables_of_gensim_are_measured_alike(plays):
    from gensim.models import Word2Vec

    sentences = shakespeare.load().sentences("train")
    model = Word2Vec(
        [list(sentence) for sentence in sentences], vector_size=16, window=5, negative=5, sg=1, sample=1e-3,
        min_count=MIN_COUNT, epochs=1, workers=1, seed=1,
    )  # fmt: skip
    assert set(model.wv.key_to_index) == set(plays.vocabulary) - {UNKNOWN, START}
    inputs, outputs = torch.zeros(len(plays.vocabulary), 16), torch.zeros(len(plays.vocabulary), 16)
    rows = torch.tensor([plays.index[word] for word in model.wv.index_to_key])
    inputs[rows], outputs[rows] = torch.from_numpy(model.wv.vectors), torch.from_numpy(model.syn1neg)
    noise = np.diff(model.cum_table, prepend=0) / (2**31 - 1)
    np.testing.assert_allclose(plays.noise[rows], noise, rtol=1e-6, atol=1e-9)
    loss = word_vectors.heldout_loss(Word2VecRun(min_count=MIN_COUNT), plays, inputs, outputs, plays.validation)
    assert 1.0 < loss < 6 * math.log(2) - 0.5


def test_skip_gram_beats_frequency_alone(plays):
    run = recipes.pretrain("skip_gram", "smoke", resume=False, min_count=MIN_COUNT, blocks=64, epochs=2)
    tables = word_vectors.frequency_tables(run.config, plays)
    baseline = word_vectors.heldout_loss(run.config, plays, *tables, plays.validation)
    assert run.metrics["validation_loss"] < baseline
    assert isinstance(run.model, SkipGram)


# NNLM ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [1, 4])
def test_windows_never_cross_a_speech_and_end_with_the_next_word(tiny, context):
    stream, start = tiny.train, tiny.index[START]
    expected = []
    for place, word in enumerate(stream.words.tolist()):
        before = [
            stream.words[other].item()
            for other in range(max(0, place - context), place)
            if stream.speech[other] == stream.speech[place]
        ]
        expected.append([start] * (context - len(before)) + before + [word])
    windows = word_vectors.ngram_windows(tiny, stream, context)
    assert windows.tolist() == expected
    assert (windows[:, :-1] == start).any() and not (windows[:, -1] == start).any()


def test_an_epoch_of_nnlm_sees_each_window_once(tiny):
    config = word_vectors.NNLMRun(context=2, batch=20)
    draw = word_vectors._nnlm_batches(config, tiny, seed=0)
    epochs = [torch.cat([draw(3 * epoch + step, torch.Generator()) for step in range(3)]) for epoch in range(2)]
    everything = sorted(word_vectors.ngram_windows(tiny, tiny.train, 2).tolist())
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist()) == everything
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_model_that_knows_nothing_hesitates_among_all_words(tiny):
    model = NNLM(NNLMConfig(vocab=10, dim=4, context=2, hidden=5))
    nn.init.zeros_(model.head.weight)
    assert word_vectors.perplexity(tiny, model, tiny.test) == pytest.approx(10, rel=1e-5)
    with torch.no_grad():  # and one that knows the frequencies is as good as their entropy
        shares = (tiny.counts / tiny.counts.sum()).clamp(min=1e-9)
        model.head.bias.copy_(shares.log())
    entropy = -(shares * shares.log())[tiny.counts > 0].sum().item()
    assert word_vectors.perplexity(tiny, model, tiny.test) == pytest.approx(math.exp(entropy), rel=1e-5)


# GloVe ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("window", [1, 4])
def test_cooccurrence_is_what_a_naive_loop_counts(tiny, window, flat):
    expected = np.zeros((10, 10))
    stream = tiny.known(tiny.train)
    for centre, other, distance in pairs_within(stream, window):
        expected[stream.words[centre], stream.words[other]] += 1 if flat else 1 / distance
    table = word_vectors.cooccurrence(tiny, tiny.train, window, flat=flat)
    np.testing.assert_allclose(table.toarray(), expected, rtol=1e-12)
    assert (expected == expected.T).all() and np.diag(expected).any()
    assert len(table.data) == np.count_nonzero(expected)  # each entry once, and no zeros


def test_an_epoch_of_glove_sees_each_entry_once(plays):
    config = word_vectors.GloVeRun(min_count=MIN_COUNT, window=2)
    table = word_vectors.cooccurrence(plays, plays.train, 2)
    config = dataclasses.replace(config, batch=len(table.data) // 3)
    draw = word_vectors._glove_batches(config, plays, seed=0)
    parts = [draw(step, torch.Generator()) for step in range(3)]
    seen = {tuple(pair): count for part in parts for pair, count in zip(part.words.tolist(), part.count, strict=True)}
    assert len(seen) == sum(len(part.count) for part in parts) == 3 * config.batch >= len(table.data) - 2
    dense = table.toarray()
    assert all(dense[pair] == pytest.approx(float(count), rel=1e-5) for pair, count in list(seen.items())[:2000])
    assert not torch.equal(parts[0].words, draw(3, torch.Generator()).words)


# Saved and loaded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nnlm", "cbow", "skip_gram", "glove"])
def test_a_saved_run_measures_what_its_card_says(name, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_checkpoint_files", lambda name: (tmp_path / f"{name}.st", tmp_path / f"{name}.json"))
    run = recipes.pretrain(name, "smoke", resume=False, min_count=MIN_COUNT, dim=8)
    recipes.save(run, f"pfmcourse pretrain {name} --preset smoke")
    found = recipes.load(name)
    assert found.config == run.config
    metrics = found.recipe.metrics(found.config, found.data, found.model)
    assert metrics == found.metrics == found.card["metrics"]
    assert metrics == pytest.approx(run.metrics, rel=0.05, abs=0.02)
    assert all(math.isfinite(value) for value in metrics.values())
