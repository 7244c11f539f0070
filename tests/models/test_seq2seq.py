"""Translators: the loss, the searches and the recurrent model, against slow and obvious versions."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.seq2seq import Pairs, Seq2Seq, Seq2SeqConfig
from pfmcourse.models.transformer import Transformer, TransformerConfig

PADDING, END, START = 0, 1, 2


def model(vocab=11, **changes):
    torch.manual_seed(3)
    return Seq2Seq(Seq2SeqConfig(**({"vocab": vocab, "dim": 8, "hidden": 12, "layers": 2} | changes))).eval()


def phrases(vocab=11, rows=4, longest=6, seed=0):
    """Random phrases of random lengths, ended and padded, and translations that begin with START."""
    generator = torch.Generator().manual_seed(seed)

    def some(first):
        tokens = torch.randint(3, vocab, (rows, longest), generator=generator)
        length = torch.randint(1, longest, (rows,), generator=generator)
        place = torch.arange(longest)
        tokens = torch.where(place < length[:, None], tokens, PADDING)
        tokens[torch.arange(rows), length] = END
        return torch.cat([torch.full((rows, 1), START), tokens], dim=1) if first else tokens

    return Pairs(some(False), some(True))


def more_padding(tokens, extra=3):
    return F.pad(tokens, (0, extra), value=PADDING)


@pytest.mark.parametrize("backwards", [False, True])
def test_padding_changes_neither_loss_nor_translation(backwards):
    translator, pairs = model(backwards=backwards), phrases()
    padded = Pairs(more_padding(pairs.source), more_padding(pairs.target))
    assert translator(padded)["loss"].item() == pytest.approx(translator(pairs)["loss"].item(), abs=1e-6)
    start = pairs.target[:, 0]
    assert torch.equal(translator.translate(padded.source, start, 5), translator.translate(pairs.source, start, 5))
    for row in range(len(start)):  # nor does it matter how long the others of the batch are
        alone = pairs.source[row][pairs.source[row] != PADDING][None]
        states, together = translator.encode(alone), translator.encode(pairs.source)
        for one, all_rows in zip(states, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[row])


def test_the_loss_is_the_mean_over_the_targets_tokens():
    translator, pairs = model(), phrases()
    total, count = 0.0, 0
    for row in range(len(pairs.source)):
        logits = translator.logits(pairs.source[row : row + 1], pairs.target[row : row + 1])[0].log_softmax(-1)
        for place, token in enumerate(pairs.target[row, 1:].tolist()):
            if token != PADDING:
                total, count = total - logits[place, token].item(), count + 1
    assert translator(pairs)["loss"].item() == pytest.approx(total / count, abs=1e-6)
    assert -translator.log_probability(pairs.source, pairs.target).sum().item() == pytest.approx(total, abs=1e-4)


def test_later_target_tokens_change_nothing_before_them():
    translator, pairs = model(), phrases()
    before = translator.logits(pairs.source, pairs.target)
    changed = pairs.target.clone()
    changed[:, 4:] = 5
    after = translator.logits(pairs.source, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_the_encoder_reads_from_the_end():
    """Backwards, the first word was read last: a GRU that reads the reversed phrase forwards ends in the same state."""
    backwards, pairs = model(), phrases()
    forwards = model(backwards=False)
    forwards.load_state_dict(backwards.state_dict())
    for row in pairs.source:
        phrase = row[row != PADDING]
        for one, other in zip(backwards.encode(phrase[None]), forwards.encode(phrase.flip(0)[None]), strict=True):
            torch.testing.assert_close(one, other)


def test_one_vector_a_layer_is_all_that_the_decoder_sees():
    translator, pairs = model(), phrases(rows=2)
    state = translator.begin(pairs.source)
    assert state.phrase.shape == (2, 12) and [layer.shape for layer in state.layers] == [(2, 12), (2, 12)]
    state.phrase, state.layers = state.phrase.flip(0), [layer.flip(0) for layer in state.layers]
    swapped = translator.step(pairs.target[:, 0], state)
    torch.testing.assert_close(swapped, translator.logits(pairs.source, pairs.target[:, :1])[:, 0].flip(0))


def test_the_loss_starts_near_ln_v():
    translator = model(vocab=500, dim=64, hidden=64, layers=1)
    assert translator(phrases(vocab=500, rows=64))["loss"].item() == pytest.approx(math.log(500), abs=0.25)


def overfit(translator, pairs, steps=150, rate=0.02):
    optimizer = torch.optim.Adam(translator.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = translator(pairs)["loss"]
        loss.backward()
        optimizer.step()
    return loss.item()


def same_tokens(written, target):
    """Whether rows of tokens agree up to the padding behind."""
    length = max(written.shape[1], target.shape[1])
    return torch.equal(F.pad(written, (0, length - written.shape[1])), F.pad(target, (0, length - target.shape[1])))


def test_one_batch_can_be_overfitted():
    translator, pairs = model(layers=1, hidden=24), phrases()
    assert overfit(translator, pairs) < 0.05
    written = translator.translate(pairs.source, pairs.target[:, 0], longest=10)
    assert same_tokens(written, pairs.target[:, 1:])


# The searches, which all translators share ----------------------------------------------------------------------------


def transformer():
    torch.manual_seed(3)
    return Transformer(TransformerConfig(vocab=11, context=8, dim=8, heads=2, hidden=16)).eval()


def exhaustive(translator, source, start, longest):
    """The likeliest text of at most ``longest`` tokens, found by scoring every single one."""
    rows = []
    for length in range(1, longest + 1):
        body = itertools.product(range(2, translator.config.vocab), repeat=length - 1)
        last = range(1, translator.config.vocab) if length == longest else (END,)
        rows += [[*tokens, one] + [PADDING] * (longest - length) for tokens in body for one in last]
    texts = torch.tensor([[start, *row] for row in rows])
    scores = translator.log_probability(source.expand(len(texts), -1), texts)
    return texts[scores.argmax(), 1:], scores.max()


@pytest.fixture(params=[model, transformer], ids=["seq2seq", "transformer"])
def sharp(request):
    """A translator that is sure of what it writes, and now and then ends."""
    translator = request.param()
    with torch.no_grad():
        translator.tokens.weight *= 3
    return translator


def test_greedy_search_takes_the_likeliest_token_each_time(sharp):
    pairs = phrases(rows=6)
    written = sharp.translate(pairs.source, pairs.target[:, 0], longest=7)
    for source, row in zip(pairs.source, written.tolist(), strict=True):
        text = [START]
        while len(text) <= 7 and text[-1] != END:
            logits = sharp.logits(source[None], torch.tensor([text]))[0, -1].clone()
            logits[PADDING] = -math.inf
            text.append(int(logits.argmax()))
        assert row == text[1:] + [PADDING] * (len(row) - len(text) + 1)


def test_with_a_cache_greedy_search_writes_the_same(sharp):
    pairs = phrases(rows=6)
    cached, slow = (sharp.translate(pairs.source, pairs.target[:, 0], 7, cached=cached) for cached in (True, False))
    assert torch.equal(cached, slow)


def test_a_beam_of_one_is_greedy_search(sharp):
    pairs = phrases(rows=6)
    written, scores = sharp.beam_search(pairs.source, pairs.target[:, 0], longest=7, beams=1)
    greedy = sharp.translate(pairs.source, pairs.target[:, 0], longest=7)
    assert same_tokens(written, greedy)
    torch.testing.assert_close(scores, sharp.log_probability(pairs.source, torch.cat([pairs.target[:, :1], greedy], 1)))


@pytest.mark.parametrize("penalty", [0.0, 0.6])
def test_a_score_is_the_log_probability_of_the_text(sharp, penalty):
    pairs = phrases(rows=6)
    start = pairs.target[:, :1]
    written, scores = sharp.beam_search(pairs.source, start[:, 0], longest=7, beams=4, length_penalty=penalty)
    lengths = (written != PADDING).sum(1)
    whole = sharp.log_probability(pairs.source, torch.cat([start, written], 1))
    torch.testing.assert_close(scores, whole / ((5 + lengths) / 6) ** penalty)
    for row in range(len(written)):  # and does not depend on the other rows
        source = pairs.source[row : row + 1]
        alone = sharp.beam_search(source, start[row], longest=7, beams=4, length_penalty=penalty)
        assert same_tokens(alone[0], written[row : row + 1])


def test_a_wide_beam_finds_the_likeliest_text_of_all(sharp):
    pairs = phrases(rows=3)
    start = pairs.target[:, :1]
    written, scores = sharp.beam_search(pairs.source, start[:, 0], longest=3, beams=1 + 9 + 9 * 9)
    greedy = torch.cat([start, sharp.translate(pairs.source, start[:, 0], longest=3)], 1)
    assert (scores >= sharp.log_probability(pairs.source, greedy) - 1e-5).all()
    for row in range(3):
        text, score = exhaustive(sharp, pairs.source[row : row + 1], START, longest=3)
        assert same_tokens(written[row : row + 1], text[None][:, : (text != PADDING).sum()])
        assert scores[row].item() == pytest.approx(score.item(), abs=1e-4)


def test_a_length_penalty_favours_longer_texts(sharp):
    pairs = phrases(rows=40)
    lengths = [
        (sharp.beam_search(pairs.source, pairs.target[:, 0], 7, beams=4, length_penalty=one)[0] != PADDING).sum().item()
        for one in (0.0, 4.0)
    ]
    assert lengths[0] < lengths[1]


def test_after_training_a_beam_scores_no_worse_than_greedy_search():
    translator, pairs = model(layers=1, hidden=24), phrases(rows=24)
    overfit(translator, pairs, steps=25)
    start = pairs.target[:, :1]
    greedy = torch.cat([start, translator.translate(pairs.source, start[:, 0], longest=8)], 1)
    _, scores = translator.beam_search(pairs.source, start[:, 0], longest=8, beams=5)
    assert (scores >= translator.log_probability(pairs.source, greedy) - 1e-4).all()
    assert (scores > translator.log_probability(pairs.source, greedy) + 0.01).any()


def test_a_beam_of_none_is_an_error():
    pairs = phrases()
    with pytest.raises(CourseError, match="beams=0"):
        model().beam_search(pairs.source, pairs.target[:, 0], beams=0)
