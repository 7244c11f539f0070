"""The translation recipes: what is held out, how phrases become tokens and back, what the numbers measure."""

import dataclasses
import math
import re
from collections import Counter

import pytest
import torch

from pfmcourse import recipes
from pfmcourse.data import emoji
from pfmcourse.models.seq2seq import Translator
from pfmcourse.recipes import transformer
from pfmcourse.recipes.transformer import KINDS, LONGEST, without_tone, words

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data() -> transformer.Corpus:
    return transformer.corpus()


# What is held out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("woman pilot medium-light skin tone", "woman pilot"),
        ("woman dark skin tone red hair", "woman red hair"),
        ("kiss woman man light skin tone medium-dark skin tone", "kiss woman man"),
        ("light bulb", "light bulb"),
        ("medium skin tone", ""),
    ],
)
def test_tones_are_taken_off_a_name(name, plain):
    assert without_tone(name) == plain


def test_every_name_stands_in_one_part_once_for_each_language(data):
    names = emoji.load(languages=("en", "zh", "es"), skin_tones=True)
    rows = [(phrase.english, phrase.language) for part in PARTS for phrase in getattr(data, part)]
    assert sorted(rows) == sorted((name, language) for name in names.names["en"] for language in ("zh", "es"))
    texts = {(name, "zh"): text for name, text in zip(names.names["en"], names.names["zh"], strict=True)}
    assert all(
        texts[phrase.english, "zh"] == phrase.text
        for part in PARTS
        for phrase in getattr(data, part)
        if phrase.language == "zh"
    )


def test_no_held_out_phrase_was_trained_in_another_tone(data):
    plain = [{phrase.plain for phrase in getattr(data, part)} for part in PARTS]
    assert not plain[0] & plain[1] and not plain[0] & plain[2] and not plain[1] & plain[2]
    assert all(without_tone(phrase.english) == phrase.plain for phrase in data.test)


def test_each_kind_is_what_it_says(data):
    counts = Counter(word for name in {phrase.plain for phrase in data.train} for word in words(name))
    known = set().union(*map(words, (phrase.english for phrase in data.train)))
    concepts = {phrase.concept for phrase in data.train}
    assert {phrase.kind for phrase in data.train} == {"train"}
    for phrase in (*data.validation, *data.test):
        unseen = words(phrase.english) - known
        assert bool(unseen) == (phrase.kind == "new words")
        if phrase.kind == "new combinations":
            assert phrase.concept in concepts and len(words(phrase.plain)) > 1
            # each word in two trained phrases at least, tones not counted
            assert all(counts[word] >= 2 for word in words(phrase.plain)), phrase.plain
        else:
            assert phrase.concept not in concepts
    for part in (data.validation, data.test):
        assert {phrase.kind for phrase in part} == set(KINDS)


def test_the_same_phrases_are_held_out_in_every_language(data):
    other = transformer.phrases(("it",))
    for part in PARTS:
        ours = [(p.english, p.kind) for p in getattr(data, part) if p.language == "es"]
        assert [(p.english, p.kind) for p in other[part]] == ours


def test_at_most_a_third_of_a_concept_is_held_out():
    names = emoji.load(languages=("en",), skin_tones=True).split("train")
    found = transformer.held_out_combinations(names)
    assert set(found.values()) == {"validation", "test"}
    concepts = {}
    for name, concept in zip(names.names["en"], names.concepts.tolist(), strict=True):
        concepts.setdefault(concept, set()).add(without_tone(name))
    for members in concepts.values():
        assert len(members & set(found)) <= max(1, len(members) // 3) * (len(members) > 1)
    assert transformer.held_out_combinations(names, seed=1) != found
    assert transformer.held_out_combinations(names) == found


# Tokens --------------------------------------------------------------------------------------------------------------


def test_training_phrases_come_back_from_their_tokens(data):
    for phrase in data.train:
        assert data.text(data.encode(phrase.text)) == phrase.text
        assert data.text(data.encode(phrase.english)) == phrase.english


def test_chinese_characters_and_signs_stand_alone(data):
    vocabulary = data.tokenizer.get_vocab()
    for token in vocabulary:
        assert len(token) == 1 or not re.search(r"[\u4e00-\u9fff]", token)
        assert token.startswith("<") or len(token) == 1 or not re.search(r"[-’()&.]", token), token
    assert data.pieces(data.encode("medium-light")) == ["▁medium", "-", "light"]


def test_the_tokenizer_is_the_same_each_time(data):
    texts = sorted({text for phrase in data.train for text in (phrase.english, phrase.text)})
    again = transformer._tokenizer(texts, 3000)
    assert again.get_vocab() == data.tokenizer.get_vocab()


def test_every_language_has_a_start_token_and_no_letter_is_unknown(data):
    starts = {data.start(language) for language in emoji.LANGUAGES if language != "en"}
    assert len(starts) == 13 and None not in starts and min(starts) > 2
    unknown = data.tokenizer.token_to_id("<unk>")
    assert all(unknown not in data.encode(phrase.text) for phrase in transformer.phrases(("it",))["train"][:300])


def test_a_batch_holds_what_the_model_wants(data):
    some = [data.train[0], max(data.train, key=lambda phrase: len(phrase.english))]
    pairs = data.pairs(some)
    for row, phrase in enumerate(some):
        source = [token for token in pairs.source[row].tolist() if token]
        target = [token for token in pairs.target[row].tolist() if token]
        assert source[-1] == target[-1] == 1 and target[0] == data.start(phrase.language)
        assert data.text(source) == phrase.english and data.text(target[1:]) == phrase.text
        assert pairs.source[row].tolist() == source + [0] * (pairs.source.shape[1] - len(source))
    assert pairs.source.shape[1] % 4 == pairs.target.shape[1] % 4 == 0
    assert max(pairs.target.shape[1], pairs.source.shape[1]) <= LONGEST


def test_an_epoch_sees_each_phrase_once_and_each_epoch_mixes_anew(data):
    few = dataclasses.replace(data, train=data.train[:96])
    config = recipes.config("transformer", "smoke", batch=32)
    draw = transformer._batches(config, few, seed=0)
    epochs = [[draw(3 * epoch + step, torch.Generator()) for step in range(3)] for epoch in range(2)]
    rows = [sorted(data.text(row[1:]) for pairs in epoch for row in pairs.target.tolist()) for epoch in epochs]
    assert rows[0] == rows[1] == sorted(phrase.text for phrase in few.train)
    assert [e.target.tolist() for e in epochs[0]] != [e.target.tolist() for e in epochs[1]]
    again = transformer._batches(config, few, seed=0)
    assert torch.equal(again(4, torch.Generator()).source, epochs[1][1].source)


# Measuring -----------------------------------------------------------------------------------------------------------


class Oracle(Translator):
    """A translator that knows the answers: it ignores what was written and looks the source up."""

    def __init__(self, data, phrases):
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.answers = {}
        for phrase in phrases:
            self.answers[tuple(data.source(phrase)), data.start(phrase.language)] = data.target(phrase)[1:]

    def translate(self, source, start, longest=32, *, cached=True):
        rows = [
            self.answers[tuple(token for token in row if token), first]
            for row, first in zip(source.tolist(), start.tolist(), strict=True)
        ]
        return transformer._padded(rows)


def test_translations_come_back_in_their_order(data):
    phrases = [*data.train[:40], *data.train[-30:]]
    written = transformer.translations(data, Oracle(data, phrases), phrases, batch=16)
    assert written == [phrase.text for phrase in phrases]


def test_exact_and_chrf_of_known_cases():
    assert transformer.exact(["a b", "c"], ["a b", "d"]) == 50
    assert transformer.chrf(["女飞行员"], ["女飞行员"]) == pytest.approx(100)
    assert transformer.chrf(["xyz"], ["女飞行员"]) == 0
    assert 0 < transformer.chrf(["男飞行员"], ["女飞行员"]) < 100
    # one character of two agrees, no bigram does: F is 50 at order 1 and 0 at order 2
    assert transformer.chrf(["ab"], ["ac"]) == pytest.approx(25)


def test_each_phrase_has_its_own_chrf():
    found = transformer.phrase_chrf(["ab", "xyz"], ["ac", "xyz"])
    assert found == pytest.approx([25, 100])


def test_the_interval_counts_concepts_and_not_phrases():
    phrase = transformer.Phrase("a", "a", 0, "zh", "b", "train")
    phrases = [dataclasses.replace(phrase, concept=concept) for concept in range(40) for _ in range(10)]
    values = [float(one.concept % 2) for one in phrases]
    found = transformer.by_concept(values, phrases)
    assert found.mean == 0.5 and found.half_width == pytest.approx(1.96 * 0.5 / 40**0.5, rel=0.15)
    alone = transformer.by_concept(values, [dataclasses.replace(phrase, concept=row) for row in range(400)])
    assert alone.half_width == pytest.approx(1.96 * 0.5 / 400**0.5, rel=0.15)
    assert transformer.by_concept([3.0, 3.0], phrases[:2]).half_width == 0


@pytest.mark.parametrize("name", ["transformer", "seq2seq"])
def test_a_saved_run_measures_what_its_card_says(name, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_checkpoint_files", lambda name: (tmp_path / f"{name}.st", tmp_path / f"{name}.json"))
    run = recipes.pretrain(name, "smoke", resume=False, measured=8)
    rows = run.history.rows
    assert rows[0]["loss"] == pytest.approx(math.log(3000), abs=0.3) and rows[-1]["loss"] < rows[0]["loss"]
    recipes.save(run, f"pfmcourse pretrain {name} --preset smoke")
    found = recipes.load(name)
    assert found.config == run.config
    metrics = found.recipe.metrics(found.config, found.data, found.model)
    assert metrics == found.metrics == found.card["metrics"]
    assert set(metrics) == set(run.metrics) and len(metrics) == 8


def test_the_two_models_are_of_one_size():
    counts = []
    for name in ("transformer", "seq2seq"):
        config = recipes.config(name, "laptop")
        model = recipes.get(name).model(config, transformer.corpus(config.languages, config.vocab))
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
    assert counts[1] == pytest.approx(counts[0], rel=0.1)
