"""The BERT recipes: what their batches hold, what static and dynamic masking mean, and how models are compared."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from pfmcourse import recipes
from pfmcourse.data import subwords
from pfmcourse.models.bert import BERT, BERTConfig, MaskedText
from pfmcourse.nn.masking import IGNORED
from pfmcourse.recipes import bert
from pfmcourse.recipes.bert import SPECIAL, BERTRun, Tokens
from pfmcourse.recipes.gpt import Text
from pfmcourse.train import generator_of

VOCAB = 400
SPECIALS = Tokens.after(VOCAB)
TALK = "What light through yonder window breaks? It is the east, and Juliet is the sun. Arise, fair sun, and kill. " * 9


@pytest.fixture(scope="module")
def data() -> Text:
    """A stream in which every token is the one before it plus one, so that each place tells where it is from."""
    tokenizer = subwords.learn(TALK, 270, SPECIAL)
    stream = torch.arange(VOCAB)
    return Text(tokenizer, stream, stream.flip(0), stream)


def run(**changes) -> BERTRun:
    return BERTRun(**({"context": 24, "batch": 4, "vocab": VOCAB, "dim": 16, "layers": 1, "heads": 2} | changes))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(batch: MaskedText) -> torch.Tensor:
    """The tokens without holes."""
    asked = batch.targets != IGNORED
    there = batch.tokens.gather(1, batch.places)
    return batch.tokens.scatter(1, batch.places, torch.where(asked, batch.targets, there))


def same(first: MaskedText, second: MaskedText) -> bool:
    return all(
        torch.equal(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first)
    )


# One example ---------------------------------------------------------------------------------------------------------


def test_a_text_is_running_text_between_its_two_special_tokens(data):
    config = run(next_sentence=False)
    begins = torch.tensor([0, 7, 300])
    batch = bert.examples(config, data.train, begins, generator())
    tokens = whole(batch)
    assert tokens.shape == (3, 24) and batch.mask.all()
    assert (tokens[:, 0] == SPECIALS.cls).all() and (tokens[:, -1] == SPECIALS.sep).all()
    for row, begin in enumerate(begins.tolist()):
        assert tokens[row, 1:-1].tolist() == list(range(begin, begin + 22))
    assert not batch.segments.any() and not batch.follows.any()


def test_a_pair_is_two_segments_of_which_the_second_follows_or_is_from_elsewhere(data):
    config = run(next_sentence=True)
    begins = torch.arange(600) % 350
    batch = bert.examples(config, data.train, begins, generator())
    lengths, near = set(), 0
    for row, tokens in enumerate(whole(batch)):
        assert tokens[0] == SPECIALS.cls
        middle, end = (tokens == SPECIALS.sep).nonzero().ravel().tolist()
        assert end == 23
        first, second = tokens[1:middle].tolist(), tokens[middle + 1 : end].tolist()
        assert batch.segments[row].tolist() == [0] * (middle + 1) + [1] * (end - middle)
        assert first == list(range(int(begins[row]), int(begins[row]) + len(first)))
        assert second == list(range(second[0], second[0] + len(second)))
        assert (tokens < VOCAB).sum() == 21 and min(len(first), len(second)) >= 21 // 3
        lengths.add(len(first))
        if batch.follows[row] == 0:
            assert second[0] == first[-1] + 1
        else:
            near += second[0] == first[-1] + 1  # by chance
    assert lengths == set(range(7, 15))
    assert near < 10
    assert 250 < batch.follows.sum() < 350
    assert batch.mask.all()


@pytest.mark.parametrize("next_sentence", [False, True])
def test_holes_are_within_the_text_and_never_at_special_tokens(data, next_sentence):
    config = run(next_sentence=next_sentence, share=0.3)
    batch = bert.examples(config, data.train, torch.arange(300), generator())
    tokens, asked = whole(batch), batch.targets != IGNORED
    assert batch.places.min() >= 1 and batch.places.max() < 23
    assert (tokens.gather(1, batch.places)[asked] < VOCAB).all()
    assert asked.sum(1).unique().tolist() == [round(0.3 * (21 if next_sentence else 22))]
    for row in range(300):
        assert len(set(batch.places[row][asked[row]].tolist())) == asked[row].sum()  # each place once
    changed = batch.tokens != tokens
    assert changed.sum(1).max() <= asked[0].sum()
    assert not changed.scatter(1, batch.places, False).any()  # only where a model is asked
    special = batch.tokens >= VOCAB
    assert (batch.tokens[special & changed] == SPECIALS.mask).all()
    shares = [(batch.tokens == SPECIALS.mask).sum() / asked.sum(), changed.sum() / asked.sum()]
    assert shares == pytest.approx([0.8, 0.9], abs=0.03)


# Batches -------------------------------------------------------------------------------------------------------------


def epoch(config: BERTRun, data: Text, number: int, seed: int = 0) -> list[MaskedText]:
    draw = bert._batches(config, data, seed)
    steps = (len(bert._begins(config, data.train)) - 1) // config.batch
    assert steps > 2
    return [draw(number * steps + step, generator(number * 100 + step)) for step in range(steps)]


def rows(batches: list[MaskedText]) -> list[tuple]:
    """Every example, as what it shows and what it asks."""
    return [
        (tuple(tokens), tuple(places), tuple(targets))
        for batch in batches
        for tokens, places, targets in zip(
            batch.tokens.tolist(), batch.places.tolist(), batch.targets.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("next_sentence", [False, True])
def test_static_masking_shows_the_same_examples_in_every_epoch(data, next_sentence):
    config = run(next_sentence=next_sentence, dynamic=False)
    first, second = (epoch(config, data, number) for number in (0, 1))
    assert len(set(rows(first))) == len(rows(first))
    assert rows(first) != rows(second)  # another order
    # An epoch leaves out the few examples that fill no batch, so two epochs differ by them at most.
    everything = set(rows(first)) | set(rows(second))
    assert len(everything) <= len(bert._begins(config, data.train))
    by_text = {}
    for batch in itertools.chain(first, second):
        for text, example in zip(whole(batch).tolist(), rows([batch]), strict=True):
            assert by_text.setdefault(tuple(text), example) == example


@pytest.mark.parametrize("next_sentence", [False, True])
def test_dynamic_masking_shows_other_examples_in_every_epoch(data, next_sentence):
    config = run(next_sentence=next_sentence, dynamic=True)
    epochs = [rows(epoch(config, data, number)) for number in range(3)]
    for one, other in itertools.combinations(epochs, 2):
        assert not set(one) & set(other)


def test_even_the_same_text_is_hidden_elsewhere_when_it_comes_again(data):
    config = run(next_sentence=False, dynamic=True)
    draw = bert._batches(config, data, 0)
    first, second = draw(1, generator(1)), draw(1, generator(2))
    assert torch.equal(whole(first), whole(second))
    assert not torch.equal(first.places, second.places)
    still = bert._batches(dataclasses.replace(config, dynamic=False), data, 0)
    assert same(still(1, generator(1)), still(1, generator(2)))


@pytest.mark.parametrize("dynamic", [False, True])
def test_equal_seeds_give_equal_batches(data, dynamic):
    config = run(dynamic=dynamic)
    first, again, other = (epoch(config, data, 1, seed) for seed in (5, 5, 6))
    assert all(map(same, first, again))
    assert not any(map(same, first, other))


def test_an_epoch_reads_the_text_once(data):
    config = run(next_sentence=False, dynamic=True)
    for number in range(4):
        texts = torch.cat([whole(batch)[:, 1:-1] for batch in epoch(config, data, number)])
        assert len(texts.flatten().unique()) == texts.numel() > VOCAB - 6 * 22


# Measures ------------------------------------------------------------------------------------------------------------


class Watched(BERT):
    """A BERT that remembers what it was shown, and answers what it is told to."""

    def __init__(self, answer: torch.Tensor | None = None, **changes) -> None:
        super().__init__(BERTConfig(VOCAB + 4, context=24, dim=16, layers=1, heads=2, **changes))
        self.answer, self.shown = answer, []

    def logits(self, tokens, segments=None, mask=None, places=None):
        self.shown.append((tokens, places))
        if self.answer is None:
            return super().logits(tokens, segments, mask, places)
        return self.answer.expand(*places.shape, -1)


def test_every_model_is_asked_for_the_same_tokens(data):
    models = [Watched(next_sentence=True), Watched(next_sentence=False, segments=1)]
    configs = [run(share=0.4), run(share=0.1, next_sentence=False, dynamic=True, dim=32, dropout=0.1)]
    for config, model in zip(configs, models, strict=True):
        bert.masked_loss(config, data, model, "validation", rows=5)
    one, other = (model.shown for model in models)
    assert len(one) == len(other) > 2
    for (tokens, places), (their_tokens, their_places) in zip(one, other, strict=True):
        assert torch.equal(tokens, their_tokens) and torch.equal(places, their_places)
    assert any((tokens == SPECIALS.mask).any() for tokens, _ in one)


def test_who_knows_nothing_loses_ln_v_and_who_knows_the_frequencies_loses_that(data):
    flat = Watched(torch.zeros(VOCAB + 4))
    assert bert.masked_loss(run(), data, flat, "test") == pytest.approx(math.log(VOCAB + 4), rel=1e-5)
    text = torch.zeros(VOCAB + 4)
    text[VOCAB:] = -1e9
    knows_what_is_text = Watched(text)
    assert bert.masked_loss(run(), data, knows_what_is_text, "test") == pytest.approx(math.log(VOCAB), rel=1e-5)


def test_the_masked_loss_is_the_mean_of_a_slow_loop(data):
    torch.manual_seed(0)
    model = Watched(next_sentence=False)
    found = bert.masked_loss(run(), data, model, "test", rows=4)
    alike = run(share=bert.ASKED, next_sentence=False)
    begins = bert._begins(alike, data.test)
    batch = bert.examples(alike, data.test, begins, generator_of(0))
    losses = []
    for tokens, places, targets in zip(batch.tokens, batch.places, batch.targets, strict=True):
        guesses = BERT.logits(model, tokens[None])[0].log_softmax(-1)
        losses += [-guesses[p, t].item() for p, t in zip(places, targets, strict=True) if t != IGNORED]
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


class Continues(BERT):
    """Says that the second segment follows where its first token is the first one's last plus one."""

    def encode(self, tokens, segments=None, mask=None):
        middle = (segments == 0).sum(1, keepdim=True)
        pair = torch.stack([tokens.gather(1, middle - 2), tokens.gather(1, middle)], dim=2)
        return pair.float().expand(-1, tokens.shape[1], -1)

    def follows_logits(self, states):
        goes_on = (states[:, 0, 1] - states[:, 0, 0] == 1).float()
        return torch.stack([goes_on, 1 - goes_on], dim=1)


def test_who_sees_whether_it_goes_on_is_right_and_who_does_not_is_right_half_the_time(data):
    config = BERTConfig(VOCAB + 4, context=24, dim=2, layers=1, heads=1)
    measured = Text(data.tokenizer, *(torch.arange(8000) % VOCAB,) * 3)
    assert bert.next_sentence_accuracy(run(), measured, Continues(config), "test", rows=16) > 0.98
    stubborn = BERT(config)
    nn.init.zeros_(stubborn.follows_head.weight)
    stubborn.follows_head.bias.data.copy_(torch.tensor([1.0, 0.0]))
    assert bert.next_sentence_accuracy(run(), measured, stubborn, "test") == pytest.approx(0.5, abs=0.08)


# Recipes -------------------------------------------------------------------------------------------------------------

NAMES = [recipe.name for recipe in bert.RECIPES]


def test_each_step_from_bert_to_roberta_changes_one_thing():
    assert NAMES[:3] == ["bert", "bert_dynamic", "roberta"]
    for preset in ("smoke", "laptop", "long", "gpu"):
        first, second, third = (dataclasses.asdict(recipes.config(name, preset)) for name in NAMES[:3])
        assert {name for name in first if first[name] != second[name]} == {"dynamic"}
        assert {name for name in first if second[name] != third[name]} == {"next_sentence"}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_run_measures_what_its_card_says(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_checkpoint_files", lambda name: (tmp_path / f"{name}.st", tmp_path / f"{name}.json"))
    recipe = dataclasses.replace(recipes.get(name), data=lambda config: data)
    monkeypatch.setattr(recipes, "get", lambda name: recipe)
    sizes = {"vocab": VOCAB, "context": 24, "dim": 16, "heads": 2, "measured": 0}
    ran = recipes.pretrain(name, "smoke", resume=False, **sizes)
    recipes.save(ran, f"pfmcourse pretrain {name} --preset smoke")
    found = recipes.load(name)
    assert found.config == ran.config
    assert found.recipe.metrics(found.config, found.data, found.model) == found.metrics == found.card["metrics"]
    assert found.metrics == pytest.approx(ran.metrics, rel=0.05, abs=0.05)
    assert ("test_next_sentence_accuracy" in found.metrics) == found.config.next_sentence


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def test_padded_texts_have_their_special_tokens_and_a_mask():
    tokenizer = subwords.learn(TALK, 270, SPECIAL)
    data = Text(tokenizer, *(torch.arange(9),) * 3)
    special = Tokens.after(270)
    texts = ["It is the east", "Arise", "What light through yonder window breaks?"]
    tokens, mask = bert.padded(data, texts, 270, longest=12)
    assert tokens.shape == mask.shape == (3, 12)
    for row, text in enumerate(texts):
        kept = tokens[row][mask[row]]
        assert kept[0] == special.cls and kept[-1] == special.sep
        assert tokenizer.decode(kept[1:-1].tolist()) == text[: len(tokenizer.decode(kept[1:-1].tolist()))]
        assert kept[1:-1].tolist() == subwords.encode_each(tokenizer, [text])[0][:10]
        assert (tokens[row][~mask[row]] == special.pad).all()
        assert mask[row].tolist() == sorted(mask[row].tolist(), reverse=True)  # padding at the end
    assert mask[1].sum() == 2 + len(tokenizer.encode("Arise").ids)
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [special.pad, special.cls, special.sep, special.mask]
