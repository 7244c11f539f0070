"""Scoring whole texts with a BERT: each token in turn is hidden and guessed."""

import dataclasses
import math

import pytest
import torch

from pfmcourse.models.bert import BERT, BERTConfig

VOCAB, MASK = 20, 19
CONFIG = BERTConfig(vocab=VOCAB, context=10, dim=16, layers=2, heads=2, segments=2, next_sentence=False)


@pytest.fixture
def model() -> BERT:
    torch.manual_seed(0)
    found = BERT(CONFIG)
    for weight in found.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return found.eval()


def texts(lengths: list[int], time: int):
    """Random texts with their first and last token left out of the score, padded with token 0."""
    tokens = torch.randint(1, MASK, (len(lengths), time), generator=torch.Generator().manual_seed(1))
    place, length = torch.arange(time), torch.tensor(lengths)[:, None]
    mask = place < length
    return tokens.masked_fill(~mask, 0), (place > 0) & (place < length - 1), mask


def slowly(model, tokens, scored, segments=None, mask=None) -> list[float]:
    """One text and one place after the other."""
    found = []
    for row in range(len(tokens)):
        total = 0.0
        for place in range(tokens.shape[1]):
            if scored[row, place]:
                holed = tokens[row : row + 1].clone()
                holed[0, place] = MASK
                parts = [None if one is None else one[row : row + 1] for one in (segments, mask)]
                total += model.logits(holed, *parts)[0, place].log_softmax(-1)[tokens[row, place]].item()
        found.append(total)
    return found


def test_it_is_the_sum_of_a_slow_loop(model):
    tokens, scored, mask = texts([9, 5, 7], 9)
    kept = tokens.clone()
    segments = (torch.arange(9) > 4).long().expand(3, -1)
    for parts in ({}, {"segments": segments}, {"mask": mask}, {"segments": segments, "mask": mask}):
        found = model.pseudo_log_likelihood(tokens, scored, MASK, **parts)
        assert found.tolist() == pytest.approx(slowly(model, tokens, scored, **parts), abs=1e-4)
    assert torch.equal(tokens, kept)
    assert not found.requires_grad


def test_padding_changes_nothing(model):
    tokens, scored, mask = texts([9, 5, 7], 9)
    found = model.pseudo_log_likelihood(tokens, scored, MASK, mask=mask)
    for row, length in enumerate([9, 5, 7]):
        alone = model.pseudo_log_likelihood(tokens[row : row + 1, :length], scored[row : row + 1, :length], MASK)
        assert float(alone) == pytest.approx(float(found[row]), abs=1e-4)


def test_a_text_of_which_nothing_is_scored_has_zero(model):
    tokens, scored, mask = texts([9, 2, 7], 9)
    found = model.pseudo_log_likelihood(tokens, scored, MASK, mask=mask)
    assert found[1] == 0 and found[0] < 0 and found[2] < 0
    assert model.pseudo_log_likelihood(tokens, torch.zeros_like(scored), MASK).tolist() == [0.0, 0.0, 0.0]


def test_who_knows_nothing_finds_every_token_one_among_all(model):
    for weight in (model.transform_norm.weight, model.transform_norm.bias, model.token_bias):
        torch.nn.init.zeros_(weight)
    tokens, scored, _ = texts([9, 9], 9)
    found = model.pseudo_log_likelihood(tokens, scored, MASK)
    assert found.tolist() == pytest.approx([-7 * math.log(VOCAB)] * 2, rel=1e-5)


def test_the_hidden_token_is_not_seen_but_all_others_are(model):
    tokens, scored, _ = texts([9], 9)
    only = torch.zeros_like(scored)
    only[0, 4] = True
    log_p = []
    for token in range(VOCAB):  # whatever stands at the hidden place: the guesses at it are those of one distribution
        tokens[0, 4] = token
        log_p.append(model.pseudo_log_likelihood(tokens, only, MASK))
    assert float(torch.stack(log_p).exp().sum()) == pytest.approx(1, abs=1e-4)
    before = model.pseudo_log_likelihood(tokens, only, MASK)
    for place in (2, 6):  # on both sides
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % MASK
        assert not torch.allclose(model.pseudo_log_likelihood(other, only, MASK), before)


def test_after_training_it_prefers_the_order_that_it_has_seen():
    torch.manual_seed(0)
    model = BERT(dataclasses.replace(CONFIG, segments=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):  # texts that count: each token is the one before it plus one
        text = torch.randint(1, 11, (32, 1), generator=generator) + torch.arange(8)
        place = torch.randint(8, (32, 1), generator=generator)
        logits = model.logits(text.scatter(1, place, MASK), places=place)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, text.gather(1, place)[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    right = torch.arange(3, 11)[None]
    wrong = right[:, [0, 1, 5, 3, 4, 2, 6, 7]]
    scored = torch.ones_like(right, dtype=torch.bool)
    one, other = (model.pseudo_log_likelihood(text, scored, MASK) for text in (right, wrong))
    assert float(one) > float(other) + 1
