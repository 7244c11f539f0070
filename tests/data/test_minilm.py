import pytest
import torch

from pfmcourse.data import minilm, source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("PFMCOURSE_OFFLINE", "1")
    return tmp_path


TEXTS = ["The king is dead.", "Our monarch has passed away.", "I would like some bread and cheese, please."]


def test_the_weights_are_all_there():
    model, tokenizer = minilm.load()
    assert not model.training
    assert sum(weight.numel() for weight in model.parameters()) == 22_713_216
    assert len(tokenizer) == model.config.vocab_size == 30_522
    assert tokenizer.tokenize("A King's light") == ["a", "king", "'", "s", "light"]
    assert minilm.folder().parent == source.verified("minilm")


def test_what_means_the_same_is_near():
    vectors = minilm.sentence_vectors(TEXTS)
    assert vectors.shape == (3, minilm.DIM)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.6 > 0.3 > cosine[0, 2]


def test_a_vector_is_the_mean_over_the_texts_own_tokens_whatever_stands_beside_it():
    model, tokenizer = minilm.load()
    alone = torch.cat([minilm.sentence_vectors([text]) for text in TEXTS])
    torch.testing.assert_close(minilm.sentence_vectors(TEXTS), alone, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        states = model(**tokenizer(TEXTS[2], return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(states.mean(0) / states.mean(0).norm(), alone[2], atol=1e-5, rtol=1e-5)


def test_it_reads_no_more_than_longest():
    first, second = minilm.sentence_vectors(["to be or not to be", "to be or what"], longest=5)  # [CLS] to be or [SEP]
    torch.testing.assert_close(first, second)


def test_the_cache_knows_the_texts(cache, monkeypatch):
    first = minilm.sentence_vectors(TEXTS)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(minilm, "_vectors", None)  # from now on only the cache can answer
    assert torch.equal(minilm.sentence_vectors(TEXTS), first)
    with pytest.raises(TypeError):
        minilm.sentence_vectors(TEXTS[:2])
