"""gensim's weights in our model and back: same scores, same neighbours, nothing lost in silence."""

import numpy as np
import pytest
import torch
from gensim.models import Word2Vec

from pfmcourse.base import CourseError
from pfmcourse.convert.gensim import from_gensim, to_gensim
from pfmcourse.models.word2vec import CBOW, SkipGram

SENTENCES = [["to", "be", "or", "not", "to", "be"], ["be", "not", "afraid"]] * 30
VOCABULARY = ["afraid", "be", "not", "or", "to", "<unk>"]


def trained(**options):
    return Word2Vec(SENTENCES, vector_size=6, window=2, negative=3, min_count=1, workers=1, epochs=2, **options)


@pytest.mark.parametrize(("sg", "kind"), [(1, SkipGram), (0, CBOW)])
def test_every_word_keeps_its_two_vectors(sg, kind):
    reference = trained(sg=sg)
    ours = from_gensim(reference, VOCABULARY)
    assert type(ours) is kind
    assert (ours.config.dim, ours.config.window, ours.config.negatives) == (6, 2, 3)
    for row, word in enumerate(VOCABULARY[:-1]):
        theirs = reference.wv.key_to_index[word]
        assert np.array_equal(ours.inputs.weight[row].detach().numpy(), reference.wv.vectors[theirs])
        assert np.array_equal(ours.outputs.weight[row].detach().numpy(), reference.syn1neg[theirs])
    assert not ours.inputs.weight[-1].any()


def test_there_and_back_gives_the_same_neighbours():
    reference = trained(sg=1)
    back = to_gensim(from_gensim(reference, VOCABULARY[:-1]), VOCABULARY[:-1])
    assert [word for word, _ in back.most_similar("be")] == [word for word, _ in reference.wv.most_similar("be")]
    assert np.array_equal(back["or"], reference.wv["or"])


def test_a_word_that_would_be_lost_is_an_error():
    with pytest.raises(CourseError, match="'to'"):
        from_gensim(trained(sg=1), ["be", "or", "not", "afraid"])


def test_a_model_without_negative_sampling_is_an_error():
    with pytest.raises(CourseError, match="negative sampling"):
        from_gensim(Word2Vec(SENTENCES, vector_size=4, min_count=1, hs=1, negative=0, workers=1), VOCABULARY)


def test_our_vectors_arrive_unchanged():
    torch.manual_seed(0)
    ours = from_gensim(trained(sg=1), VOCABULARY)
    handed = to_gensim(ours, VOCABULARY)
    assert np.array_equal(handed["not"], ours.vectors()[VOCABULARY.index("not")].numpy())
