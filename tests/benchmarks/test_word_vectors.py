"""Skip-gram against gensim: same text, sizes and epochs, two threads each, one after the other, three times."""

import itertools
import statistics
import time

import torch
from gensim.models import Word2Vec

from pfmcourse import recipes
from pfmcourse.convert.gensim import from_gensim
from pfmcourse.recipes import word_vectors
from pfmcourse.train import fit

ROUNDS = 3


def _gensim(config, sentences, seed):
    began = time.perf_counter()
    model = Word2Vec(
        sentences,
        sg=1,
        min_count=1,
        vector_size=config.dim,
        window=config.window,
        negative=config.negatives,
        sample=config.subsample,
        epochs=config.epochs,
        workers=2,
        seed=seed,
    )
    return model, time.perf_counter() - began


def _ours(recipe, config, data, seed):
    began = time.perf_counter()
    torch.manual_seed(seed)
    model = recipe.model(config, data)
    fit(model, recipe.batches(config, data, seed), recipe.training(config, data))
    return model, time.perf_counter() - began


def test_skip_gram_against_gensim(report):
    torch.set_num_threads(2)
    recipe, config = recipes.get("skip_gram"), recipes.config("skip_gram", "laptop")
    data = word_vectors.corpus(config.min_count)
    stream = data.known(data.train)
    spoken = zip(stream.words.tolist(), stream.speech.tolist(), strict=True)
    sentences = [
        [data.vocabulary[word] for word, _ in speech]
        for _, speech in itertools.groupby(spoken, key=lambda pair: pair[1])
    ]
    words = config.epochs * len(stream)
    figures = {"ours": [], "gensim": []}
    for seed in range(ROUNDS):
        reference, theirs = _gensim(config, sentences, seed)
        model, mine = _ours(recipe, config, data, seed)
        for name, one, seconds in (("ours", model, mine), ("gensim", from_gensim(reference, data.vocabulary), theirs)):
            tables = one.inputs.weight.detach(), one.outputs.weight.detach()
            loss = word_vectors.heldout_loss(config, data, *tables, data.test)
            figures[name].append((words / seconds, loss, *word_vectors.similarity(data, one.vectors()).values()))
    ratio = statistics.median(a[0] / b[0] for a, b in zip(figures["ours"], figures["gensim"], strict=True))
    means = {name: [statistics.fmean(column) for column in zip(*rows, strict=True)] for name, rows in figures.items()}
    report(
        "skip_gram_words_per_second_to_gensim",
        ratio=ratio,
        **{
            f"{name}_{what}": value
            for name, values in means.items()
            for what, value in zip(("words_per_second", "heldout_loss", "wordsim353", "simlex999"), values, strict=True)
        },
    )
    assert means["ours"][1] < means["gensim"][1] + 0.01, "faster, but it predicts worse"
