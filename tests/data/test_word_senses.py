import collections
import re

import pytest

from pfmcourse import base
from pfmcourse.data import shakespeare, word_senses


@pytest.fixture(scope="module")
def plays():
    return shakespeare.load()


@pytest.mark.parametrize("word", word_senses.WORDS)
def test_each_occurrence_is_found_once_and_only_in_plays_that_are_held_out(plays, word):
    held_out = {play.name for part in ("validation", "test") for play in plays.split(part)}
    places = set()
    for one in word_senses.load(word):
        assert one.word == word and one.play in held_out
        speeches = [speech.text for speech in plays.play(one.play).speeches]
        ((number, around),) = [(n, found) for n, text in enumerate(speeches) if (found := one.around(text))]
        before, after = around
        assert before + word + after == speeches[number]
        assert before.endswith(" ") and not re.match(r"[\w'-]", after)  # the token of the word is always the same
        places.add((one.play, number, len(before)))
    assert len(places) == len(word_senses.load(word))


@pytest.mark.parametrize("word", word_senses.WORDS)
def test_each_word_has_two_senses_with_several_occurrences(word):
    counts = collections.Counter(one.sense for one in word_senses.load(word))
    assert len(counts) == 2 and min(counts.values()) >= 8 and 25 <= sum(counts.values()) <= 40


def test_a_speech_without_the_phrase_has_no_occurrence():
    one = word_senses.Occurrence("lie", "rest", "macbeth", "ye lie\nthere")
    assert one.around("Why, ye lie\nthere, lie on.") == ("Why, ye ", "\nthere, lie on.")
    assert one.around("ye lie there") is None


def test_unknown_word_suggests_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'light'"):
        word_senses.load("ligt")
