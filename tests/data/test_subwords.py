"""Byte-pair encoding: no text is lost, reading in pieces changes nothing, and the first merges are those by hand."""

import itertools
import random
from collections import Counter

import pytest
import torch
from tokenizers import pre_tokenizers

from pfmcourse.base import CourseError
from pfmcourse.data import source, subwords

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n\n" * 3
STRANGE = [
    "",
    " ",
    "\n\n\n",
    "plain words",
    "  two  spaces  ",
    "line\r\nfeeds\r\n\r\nof Windows\r",
    "tab\tand\x0bother\x0cspace\u00a0\u2003\u2028end",
    "Grüße, naïve café, Ελληνικά, 日本語, עברית",
    "🎭🇩🇪👩‍👩‍👧‍👦 and a\u0301 combining accent",
    "\x00\x01\x1c\x7f\x85\ufeff\ufffd",
    "don't 'twas I'll 3.14 #!?",
    "x\n\nY\n \n\nZ\n\n\nend\n",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer():
    return subwords.learn(TEXT, 300, ("[PAD]", "[MASK]"))


# Nothing is lost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_every_text_comes_back(tokenizer, text):
    tokens = subwords.encode(tokenizer, text)
    assert tokens.dtype == torch.int64 and tokens.ndim == 1
    assert tokenizer.decode(tokens.tolist()) == text
    assert all(0 <= token < 300 for token in tokens.tolist())
    assert len(tokens) <= len(text.encode())


def test_the_text_it_was_learned_from_becomes_short(tokenizer):
    assert len(subwords.encode(tokenizer, TEXT)) < 0.6 * len(TEXT)


def random_texts(count=60):
    draw = random.Random(0)
    alphabet = ["\n", "\n\n", "\r\n", " ", "\t", "\x1c", "\x85", "\u2028", "a", "To", "'s", "1", "!", "é", "🎭"]
    return ["".join(draw.choices(alphabet, k=40)) for _ in range(count)]


def test_reading_in_pieces_changes_nothing(tokenizer):
    cuts = 0
    for text in [*STRANGE, *random_texts(), TEXT]:
        pieces = subwords._pieces(text)
        assert "".join(pieces) == text
        cuts += len(pieces) - 1
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        assert subwords.encode(tokenizer, text).tolist() == whole, repr(text)
    assert cuts > 10


def test_learning_in_pieces_changes_nothing():
    rule = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in [*STRANGE, *random_texts(), TEXT]:
        together = [word for piece in subwords._pieces(text) for word, _ in rule.pre_tokenize_str(piece)]
        assert together == [word for word, _ in rule.pre_tokenize_str(text)], repr(text)


def test_several_texts_one_by_one(tokenizer):
    found = subwords.encode_each(tokenizer, STRANGE)
    assert found == [subwords.encode(tokenizer, text).tolist() for text in STRANGE]


def test_the_second_reading_comes_from_the_cache(tokenizer, cache, monkeypatch):
    first = subwords.encode(tokenizer, "To be")
    (file,) = cache.iterdir()
    assert file.suffix == ".safetensors"
    monkeypatch.setattr(subwords, "_pieces", lambda text: pytest.fail("read again"))
    assert torch.equal(subwords.encode(tokenizer, "To be"), first)
    monkeypatch.undo()
    monkeypatch.setenv("PFMCOURSE_CACHE", str(cache))
    subwords.encode(tokenizer, "To be!")
    subwords.encode(subwords.learn(TEXT, 290), "To be")
    assert len(list(source.cache_folder().iterdir())) == 3, "another text or another tokenizer is another entry"


# The tokens ----------------------------------------------------------------------------------------------------------


def test_the_first_tokens_are_the_bytes(tokenizer):
    names = [tokenizer.id_to_token(token) for token in range(256)]
    assert sorted(names) == sorted(pre_tokenizers.ByteLevel.alphabet())
    for character in "aZ, \n":
        assert max(subwords.encode(subwords.learn(TEXT, 256), character).tolist()) < 256


def test_special_tokens_come_last(tokenizer):
    assert [tokenizer.token_to_id(name) for name in ("[PAD]", "[MASK]")] == [300, 301]
    assert tokenizer.get_vocab_size() == 302
    alone = subwords.learn(TEXT, 300)
    assert alone.get_vocab_size() == 300
    assert torch.equal(subwords.encode(alone, TEXT), subwords.encode(tokenizer, TEXT))
    assert tokenizer.decode([300, *subwords.encode(tokenizer, "To be").tolist(), 301]) == "To be"


def by_hand(text, merges):
    """Sennrich et al., algorithm 1: merge the pair that stands side by side most often, again and again.

    Among equals the one whose parts have the smaller numbers goes first, as in the library.
    """
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    rule = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(tuple(names.index(c) for c in word) for word, _ in rule.pre_tokenize_str(text))
    made = []
    for _ in range(merges):
        pairs = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        made.append(names[best[0]] + names[best[1]])
        names.append(made[-1])
        merged = Counter()
        for word, count in words.items():
            parts, at = [], 0
            while at < len(word):
                both = word[at : at + 2] == best
                parts.append(len(names) - 1 if both else word[at])
                at += 2 if both else 1
            merged[tuple(parts)] += count
        words = merged
    return made


@pytest.mark.parametrize("text", [TEXT, "low low low lower newest newest widest " * 2, "aaaa aaa aa ababab"])
def test_the_first_merges_are_those_by_hand(text):
    expected = by_hand(text, 7)
    learned = subwords.learn(text, 256 + 7)
    assert [learned.id_to_token(256 + i) for i in range(7)] == expected


def test_the_same_text_gives_the_same_tokenizer():
    one = subwords.learn(TEXT, 280).to_str()
    subwords.learn.cache_clear()
    assert subwords.learn(TEXT, 280).to_str() == one


# Errors --------------------------------------------------------------------------------------------------------------


def test_fewer_tokens_than_bytes():
    with pytest.raises(CourseError, match="vocab=200 is less than the 256 bytes"):
        subwords.learn(TEXT, 200)


def test_a_text_too_short_for_so_many_tokens():
    with pytest.raises(CourseError, match=r"a text of 5 characters has only 2\d\d different pieces, but vocab=400"):
        subwords.learn("To be", 400)
