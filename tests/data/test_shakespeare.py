import collections
import re

import pytest
import torch

from pfmcourse import base
from pfmcourse.data import shakespeare


@pytest.fixture(scope="module")
def plays():
    return shakespeare.load()


def spoken(play, start):
    return next(speech for speech in play.speeches if speech.text.startswith(start))


def test_all_plays_are_there(plays):
    assert len(plays.plays) == len({play.name for play in plays.plays}) == 38
    genres = collections.Counter(play.genre for play in plays.plays)
    assert genres == {"comedies": 8, "histories": 11, "problems": 5, "roman": 4, "romances": 4, "tragedies": 6}
    assert plays.play("measure-for-measure").title == "Measure for Measure"
    assert min(len(play.speeches) for play in plays.plays) > 400


def test_a_known_speech_of_hamlet(plays):
    speech = spoken(plays.play("Hamlet"), "To be, or not to be")
    assert speech.speaker == "HAMLET"
    assert speech.lines[:2] == (
        "To be, or not to be: that is the question:",
        "Whether 'tis nobler in the mind to suffer",
    )
    assert speech.lines[-1] == "Be all my sins remember'd."
    assert len(speech.lines) == 35
    assert speech.verse is True


def test_nothing_but_speech_is_left(plays):
    for play in plays.plays:
        for speech in play.speeches:
            assert speech.lines and speech.speaker
            assert re.fullmatch(r"[A-Za-z,:.'& -]+", speech.speaker), speech.speaker
            for line in speech.lines:
                assert re.fullmatch(r"[A-Za-z0-9 ,.;:?!'\"()&-]+", line), line
                assert line == line.strip()
                assert not re.match(r"(Exeunt|Exit|Re-enter|Enter [A-Z]{2})", line), line


@pytest.mark.parametrize(
    ("play", "start", "speaker"),
    [
        ("timon-of-athens", "O blessed breeding sun", "TIMON"),
        ("measure-for-measure", "Take, O, take those lips away", "Boy"),
        ("henry-vi-part-1", "Sirrah, thou know'st how Orleans", "Master-Gunner"),
        ("henry-vi-part-1", "And he is welcome. What! is this the man?", "COUNTESS OF AUVERGNE"),
        ("richard-iii", "When I was mortal, my anointed body", "Ghost of King Henry VI"),
        ("henry-viii", "I come no more to make you laugh", "Prologue"),
        ("henry-viii", "'Tis ten to one this play can never please", "Epilogue"),
        ("the-tempest", "Now my charms are all o'erthrown", "PROSPERO"),
        ("king-lear", "Blow, winds, and crack your cheeks", "KING LEAR"),
    ],
)
def test_speakers(plays, play, start, speaker):
    assert spoken(plays.play(play), start).speaker == speaker


def test_lines_that_the_package_took_for_speakers(plays):
    lines = [line for speech in plays.play("julius-caesar").speeches for line in speech.lines]
    assert "This way will I: disrobe the images," in lines
    # An editor's guess at lost words is kept without its brackets.
    lines = [line for speech in plays.play("coriolanus").speeches for line in speech.lines]
    assert "And Censorinus," in lines


def test_parse_tells_the_parts_of_a_page_apart(tmp_path):
    page = tmp_path / "comedies" / "a-test.md"
    page.parent.mkdir()
    page.write_text(
        "# A Test, Part I\n\n## ACT I\n\n### SCENE I. A hall in\n\nthe castle.\n\n_Enter ANNE and\nBOB_\n\n"
        "**ANNE**  \n_\\[Aside]_  \nOne;  \ntwo\n\n_Exit BOB_\n\nthree\\--four.\n\n"
        "**BOB**  \n_Exit_\n\nLADY\n\n**CAROL**  \n“It’s” — so, & c.\n\n*Exeunt.*\n",
        encoding="utf-8",
    )
    play = shakespeare.parse(page)
    assert (play.name, play.title, play.genre) == ("a-test", "A Test, Part 1", "comedies")
    assert [(speech.speaker, speech.lines) for speech in play.speeches] == [
        ("ANNE", ("One;", "two", "three--four.")),
        ("LADY CAROL", ('"It\'s" -- so, &c.',)),
    ]
    assert play.speeches[0].verse is False
    assert play.speeches[1].verse is None
    assert play.text.startswith("ANNE:\nOne;\ntwo\nthree--four.\n\nLADY CAROL:\n")


def test_verse_and_prose(plays):
    share = {}
    for name in ("richard-ii", "the-merry-wives-of-windsor"):
        known = [speech.verse for speech in plays.play(name).speeches if speech.verse is not None]
        share[name] = sum(known) / len(known)
    assert share["richard-ii"] > 0.95  # the one play all in verse among the well-known ones
    assert share["the-merry-wives-of-windsor"] < 0.3  # the one nearly all in prose


def test_split_is_by_play_and_covers_all(plays):
    parts = {part: {play.name for play in plays.split(part)} for part in ("train", "validation", "test")}
    assert set.union(*parts.values()) == {play.name for play in plays.plays}
    assert sum(map(len, parts.values())) == 38
    for part in ("validation", "test"):
        assert 280_000 < len(plays.text(part).encode()) < 330_000
        assert sorted(play.genre for play in plays.split(part)) == ["comedies", "histories", "tragedies"]
    with pytest.raises(base.UnknownName, match="Did you mean 'validation'"):
        plays.split("valid")


def test_no_held_out_speech_is_in_train(plays):
    train = {speech.text for play in plays.split("train") for speech in play.speeches if len(speech.lines) > 1}
    for part in ("validation", "test"):
        held_out = {speech.text for play in plays.split(part) for speech in play.speeches if len(speech.lines) > 1}
        assert len(held_out) > 900
        assert not held_out & train


def test_unknown_play_suggests_the_nearest(plays):
    with pytest.raises(base.UnknownName, match="Did you mean 'hamlet'"):
        plays.play("hamlett")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("O'er the King's lov'd 'tis", "o'er the king's lov'd 'tis"),
        ("’Tis ‘soft’ upon't", "'tis soft upon't"),
        ("'But soft!' quoth he, 'what light?'", "but soft quoth he what light"),
        ("i' the top o' the hill, th' other a' ha'", "i' the top o' the hill th' other a' ha'"),
        ("the soldiers' years'", "the soldiers years"),
        ("To-night, to-day; well-beloved--to-morrow", "tonight today well beloved tomorrow"),
        ("In spring time, &c.", "in spring time"),
        ("give 'em--by heaven, 'scape", "give 'em by heaven 'scape"),
        ("2s. 6d.", "2s 6d"),
        ("--!", ""),
    ],
)
def test_words(text, expected):
    assert shakespeare.words(text) == expected.split()


def test_sentences_are_the_words_of_each_speech(plays):
    hamlet = plays.play("hamlet")
    sentences = plays.sentences([hamlet])
    assert sentences[0] == ["who's", "there"]
    assert len(sentences) == len(hamlet.speeches)
    assert sum(map(len, plays.sentences("train"))) > 700_000
    assert len(plays.sentences()) == sum(len(plays.sentences(part)) for part in ("train", "validation", "test"))
    vocabulary = {word for sentence in plays.sentences() for word in sentence}
    assert all(re.fullmatch(r"'?[a-z0-9]+('[a-z0-9]+)*'?", word) for word in vocabulary)


def test_text_holds_every_line(plays):
    text = plays.text("test")
    assert text.isascii()
    assert "PUCK:\nIf we shadows have offended,\n" in text
    assert all(speech.text in text for play in plays.split("test") for speech in play.speeches)


def test_genre_task_keeps_long_speeches_of_the_parts_own_plays_and_has_every_genre():
    plays = shakespeare.load()
    for part in ("train", "validation", "test"):
        task = plays.genre_task(part, least=20)
        assert len(task) == len(task.labels) == len(task.plays)
        assert set(task.plays) <= {play.name for play in plays.split(part)}
        assert task.labels.bincount(minlength=3).min() > 100
        assert min(len(shakespeare.words(text)) for text in task.texts) >= 20
        for text, label, name in list(zip(task.texts, task.labels.tolist(), task.plays, strict=True))[::97]:
            assert plays.play(name).genre == shakespeare.GENRES[label]
            assert any(speech.text == text for speech in plays.play(name).speeches)


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_versions_of_a_line_differ_by_two_swapped_words_and_nothing_else(plays, part):
    task = plays.order_task(part, seed=3, count=2000)
    assert len(task) == len(task.pairs) == len(task.labels) == len(task.plays) == 2000
    spoken = {play.name: {line for s in play.speeches for line in s.lines} for play in plays.split(part)}
    everything = set().union(*spoken.values())
    distances = collections.Counter()
    for pair, label, name in zip(task.pairs, task.labels.tolist(), task.plays, strict=True):
        real, other = pair[label], pair[1 - label]
        assert real in spoken[name] and other not in everything
        assert 6 <= len(shakespeare.words(real)) <= 12
        assert collections.Counter(shakespeare.words(real)) == collections.Counter(shakespeare.words(other))
        assert re.sub(r"[A-Za-z']+", "w", real) == re.sub(r"[A-Za-z']+", "w", other)  # what is no word stays
        capitals = [[word[0].isupper() for word in line.split()] for line in pair]
        assert capitals[0] == capitals[1]
        moved = [place for place, (a, b) in enumerate(zip(real.split(), other.split(), strict=True)) if a != b]
        assert len(moved) == 2 and moved[0] > 0
        distances[moved[1] - moved[0]] += 1
    assert min(distances[1], distances[2], distances[3]) > 200  # neighbours and others
    assert 900 < task.labels.sum() < 1100


def test_order_task_depends_on_seed_part_and_count_alone(plays):
    first, again, other = (plays.order_task("test", seed=seed, count=50) for seed in (1, 1, 2))
    assert first.pairs == again.pairs and torch.equal(first.labels, again.labels) and first.plays == again.plays
    assert first.pairs != other.pairs
    assert set(first.plays) <= {play.name for play in plays.split("test")}
    whole = plays.order_task("test")
    assert len(whole) > 5000
    real = [pair[label] for pair, label in zip(whole.pairs, whole.labels.tolist(), strict=True)]
    assert len(set(real)) == len(real)
    train = {line for play in plays.split("train") for speech in play.speeches for line in speech.lines}
    assert not train & set(real)
    with pytest.raises(base.CourseError, match=f"{len(whole)}"):
        plays.order_task("test", count=len(whole) + 1)


def test_words_that_may_move_leave_no_trace():
    found = shakespeare._MOVABLE.findall("Fly, well-beloved 'tis o'er the king's-man, the wise' and Anon speak.")
    assert found == ["o'er", "the", "the", "and", "speak"]
