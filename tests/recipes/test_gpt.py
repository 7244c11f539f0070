"""The GPT recipes: what a batch and an epoch are, and bits per byte against a naive loop."""

import dataclasses
import math

import pytest
import torch

from pfmcourse import recipes
from pfmcourse.data import python_source, shakespeare, subwords
from pfmcourse.models.gpt import GPT, GPTConfig
from pfmcourse.recipes import gpt
from pfmcourse.recipes.gpt import Text

VOCAB = 320


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def short() -> Text:
    """The first characters of each part, so that everything here is quick."""
    whole = gpt.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt, "text", lambda corpus, part: whole(corpus, part)[:20_000])
        return gpt.corpus.__wrapped__("shakespeare", VOCAB)


@pytest.fixture
def model() -> GPT:
    made = GPT(GPTConfig(VOCAB, context=8, dim=16, layers=2, heads=2))
    torch.nn.init.normal_(made.tokens.weight)  # confident and wrong: every difference shows
    return made.eval()


# The corpus ----------------------------------------------------------------------------------------------------------


def test_the_pieces_are_learned_from_the_training_part_alone(short):
    train = gpt.text("shakespeare", "train")[:20_000]
    assert short.tokenizer.to_str() == subwords.learn(train, VOCAB).to_str()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_tokens_are_the_text(short, part):
    text = gpt.text("shakespeare", part)[:20_000]
    tokens = getattr(short, part)
    assert short.tokenizer.decode(tokens.tolist()) == text
    assert short.bytes_of(tokens) == len(text.encode())
    assert int(tokens.max()) < VOCAB


def test_bytes_are_not_characters(short):
    text = "naïve – 莎"
    tokens = torch.tensor(short.tokenizer.encode(text).ids)
    assert short.bytes_of(tokens) == len(text.encode()) == 14


def test_no_play_and_no_package_is_in_two_parts():
    parts = ("train", "validation", "test")
    plays = [{play.name for play in shakespeare.load().split(part)} for part in parts]
    packages = [{path.split("/")[0] for path in python_source.load().split(part)} for part in parts]
    for names in (plays, packages):
        assert all(names) and sum(map(len, names)) == len(set.union(*names))
    for part, names in zip(parts, plays, strict=True):
        text = gpt.text("shakespeare", part)
        assert all(shakespeare.load().play(name).text in text for name in names)
        assert gpt.text("python", part) == python_source.load().text(part)


# Windows -------------------------------------------------------------------------------------------------------------

TEXT, LENGTH, BATCH = torch.arange(1000), 9, 4
PER_EPOCH = 30  # (1000 - 9) // 8 // 4


def epoch(number, seed=1):
    steps = range(number * PER_EPOCH, (number + 1) * PER_EPOCH)
    return torch.cat([gpt.windows(TEXT, LENGTH, BATCH, seed, step) for step in steps])


@pytest.mark.parametrize("number", [0, 1, 5])
def test_an_epoch_predicts_no_token_twice_and_hardly_any_never(number):
    rows = epoch(number)
    assert rows.shape == (PER_EPOCH * BATCH, LENGTH)
    assert torch.equal(rows, rows[:, :1] + torch.arange(LENGTH))  # running text
    predicted = rows[:, 1:].flatten()
    assert len(predicted.unique()) == len(predicted)
    assert len(TEXT) - len(predicted) < BATCH * LENGTH + 2 * LENGTH  # what fills no batch, and both ends
    order = rows[:, 0].sort().values
    assert (order.diff() % (LENGTH - 1) == 0).all()  # a window begins with the last token of another


def test_epochs_differ_in_order_and_in_where_windows_begin():
    first, second = epoch(0), epoch(1)
    assert len({int(rows[0, 0]) % (LENGTH - 1) for rows in map(epoch, range(8))}) > 2
    assert not torch.equal(first[:, 0].argsort(), second[:, 0].argsort())
    assert not torch.equal(first[:, 0], first[:, 0].sort().values)


def test_batches_depend_on_seed_and_step_alone():
    assert torch.equal(epoch(0, seed=3), epoch(0, seed=3))
    assert not torch.equal(epoch(0, seed=3), epoch(0, seed=4))
    steps = [gpt.windows(TEXT, LENGTH, BATCH, 1, step) for step in range(PER_EPOCH)]
    assert len({tuple(rows.flatten().tolist()) for rows in steps}) == PER_EPOCH


def test_a_text_that_is_hardly_longer_than_a_window_still_gives_batches():
    for step in range(6):
        rows = gpt.windows(torch.arange(20), LENGTH, BATCH, 0, step)
        assert rows.shape[1] == LENGTH and 1 <= len(rows) <= BATCH
        assert int(rows.max()) < 20


def test_the_recipe_draws_its_context_and_one_token_more(short):
    config = recipes.config("gpt", "smoke", context=16, vocab=VOCAB)
    draw = recipes.get("gpt").batches(config, short, 5)
    batch = draw(2, torch.Generator())
    assert batch.shape == (config.batch, 17)
    assert torch.equal(batch, gpt.windows(short.train, 17, config.batch, 5, 2))


# Measuring -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def naive(model, tokens):
    """One token after the other, each given the text from where the model looks back to."""
    context, half = model.config.context, model.config.context // 2
    total = math.log(model.config.vocab)
    for place in range(1, len(tokens)):
        begin = max(0, (place - half - 1) // half * half)
        begin = min(begin, max(0, len(tokens) - 1 - context))
        assert place - begin >= min(place, half) and place - begin <= context
        scores = model.logits(tokens[None, begin:place])[0, -1]
        total -= float(scores.log_softmax(0)[tokens[place]])
    return total


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 30, 41])
def test_negative_log_likelihood_agrees_with_a_naive_loop(model, length):
    tokens = torch.randint(VOCAB, (length,))
    assert gpt.negative_log_likelihood(model, tokens) == pytest.approx(naive(model, tokens), rel=1e-5)


def test_the_first_token_is_one_among_all(model):
    assert gpt.negative_log_likelihood(model, torch.tensor([7])) == pytest.approx(math.log(VOCAB))


def test_how_many_rows_at_a_time_changes_nothing(model):
    tokens = torch.randint(VOCAB, (100,))
    wanted = gpt.negative_log_likelihood(model, tokens)
    for rows in (1, 3, 1000):
        assert gpt.negative_log_likelihood(model, tokens, rows) == pytest.approx(wanted, rel=1e-6)


def test_a_uniform_model_needs_log_v_for_every_token(model):
    torch.nn.init.zeros_(model.tokens.weight)
    assert gpt.negative_log_likelihood(model, torch.randint(VOCAB, (37,))) == pytest.approx(37 * math.log(VOCAB))


def test_bits_per_byte(model, short):
    tokens = short.test[:50]
    size = len(short.tokenizer.decode(tokens.tolist()).encode())
    wanted = gpt.negative_log_likelihood(model, tokens) / math.log(2) / size
    assert gpt.bits_per_byte(short, model, "test", measured=50) == pytest.approx(wanted)
    short_test = dataclasses.replace(short, test=tokens)
    assert gpt.bits_per_byte(short_test, model, "test") == pytest.approx(wanted)
    config = recipes.config("gpt", "smoke", measured=50)
    found = recipes.get("gpt").metrics(config, short, model)
    assert found["test_bits_per_byte"] == pytest.approx(wanted)
    assert found["validation_bits_per_byte"] == pytest.approx(
        gpt.bits_per_byte(short, model, "validation", measured=50)
    )


# Presets and fine-tuning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt", "gpt_python"])
def test_laptop_and_long_train_the_same_network(name):
    laptop, long = (recipes.config(name, preset) for preset in ("laptop", "long"))
    for field in ("vocab", "dim", "layers", "heads", "corpus"):
        assert getattr(laptop, field) == getattr(long, field), field
    assert long.steps * long.batch > laptop.steps * laptop.batch
    for preset in ("smoke", "laptop", "long", "gpu"):
        assert recipes.config(name, preset).corpus == ("python" if name == "gpt_python" else "shakespeare")


def test_the_network_has_the_sizes_of_the_run(short):
    config = recipes.config("gpt", "smoke", vocab=VOCAB, context=24, dim=32, layers=3, heads=4, dropout=0.25)
    sizes = recipes.get("gpt").model(config, short).config
    assert (sizes.vocab, sizes.context, sizes.dim, sizes.layers, sizes.heads, sizes.dropout) == (
        VOCAB,
        24,
        32,
        3,
        4,
        0.25,
    )
    assert recipes.get("gpt").training(config, short).units_per_step == config.batch * 24


def test_labelled_texts_are_cut_and_padded(short):
    texts = ["To be", "O, that this too too solid flesh would melt, thaw and resolve itself into a dew!", "Who?"]
    labels = torch.tensor([2, 0, 1])
    batch = gpt.labelled(short, texts, labels, longest=6)
    assert batch.tokens.shape == batch.mask.shape == (3, 6)
    assert torch.equal(batch.labels, labels)
    for row, text in enumerate(texts):
        ids = short.tokenizer.encode(text).ids[:6]
        assert batch.tokens[row][batch.mask[row]].tolist() == ids
        assert batch.mask[row].tolist() == [True] * len(ids) + [False] * (6 - len(ids))
    assert batch.mask[1].all() and not batch.mask[0].all()
