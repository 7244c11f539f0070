import pytest

from pfmcourse import base
from pfmcourse.data import shakespeare, word_pairs


@pytest.mark.parametrize(
    ("name", "count", "first"), [("wordsim353", 353, ("love", "sex", 6.77)), ("simlex999", 999, ("old", "new", 1.58))]
)
def test_pairs(name, count, first):
    pairs = word_pairs.load(name)
    assert len(pairs) == count
    assert pairs[0] == first
    for one, other, score in pairs:
        assert one == one.lower().strip() and other == other.lower().strip()
        assert 0 <= score <= 10


def test_unknown_set_suggests_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'simlex999'"):
        word_pairs.load("simlex")


def test_share_of_pairs_that_shakespeare_knows():
    known = {word for sentence in shakespeare.load().sentences("train") for word in sentence}
    found = {
        name: sum(one in known and other in known for one, other, _ in word_pairs.load(name))
        for name in word_pairs.FILES
    }
    assert found == {"wordsim353": 151, "simlex999": 673}  # the numbers that data/README.md gives
