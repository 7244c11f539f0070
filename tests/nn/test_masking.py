"""Hiding tokens: how many, where, and what stands there instead."""

import pytest
import torch

from pfmcourse.nn.masking import IGNORED, mask_tokens

VOCAB, MASK, EDGE = 1000, 1001, 1002  # the edge is a special token that is never hidden
TIME = 40


def texts(*lengths):
    """Texts between edges, padded; and where a token may be hidden."""
    tokens = torch.zeros(len(lengths), TIME, dtype=torch.long)
    allowed = torch.zeros(len(lengths), TIME, dtype=torch.bool)
    for row, length in enumerate(lengths):
        tokens[row, 1 : length + 1] = torch.randint(VOCAB, (length,))
        tokens[row, 0] = tokens[row, length + 1] = EDGE
        allowed[row, 1 : length + 1] = True
    return tokens, allowed


def hide(tokens, allowed, share=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return mask_tokens(tokens, allowed, share=share, mask_token=MASK, vocab=VOCAB, generator=generator)


@pytest.mark.parametrize(("share", "expected"), [(0.2, [7, 4, 2, 1, 1]), (0.5, [18, 10, 6, 2, 1]), (1.0, None)])
def test_as_many_as_wanted_and_at_least_one(share, expected):
    lengths = (36, 21, 12, 4, 1)
    hidden = hide(*texts(*lengths), share=share)
    asked = hidden.targets != IGNORED
    assert asked.sum(1).tolist() == (expected or list(lengths))


def test_every_batch_has_the_same_shape():
    for lengths in ((36, 4), (1, 1), (38, 38)):
        hidden = hide(*texts(*lengths))
        assert hidden.places.shape == hidden.targets.shape == (2, 8)  # 0.2 x 40, however full the texts are


@pytest.mark.parametrize("seed", range(5))
def test_targets_are_what_stood_there_and_all_else_is_as_before(seed):
    tokens, allowed = texts(36, 21, 12, 4, 1)
    hidden = hide(tokens, allowed, seed=seed)
    untouched = torch.ones_like(allowed)
    for row in range(len(tokens)):
        asked = [
            (p, t)
            for p, t in zip(hidden.places[row].tolist(), hidden.targets[row].tolist(), strict=True)
            if t != IGNORED
        ]
        places = [place for place, _ in asked]
        assert len(set(places)) == len(places)
        for place, target in asked:
            assert allowed[row, place], "a special token or padding was hidden"
            assert tokens[row, place] == target
            untouched[row, place] = False
    assert torch.equal(hidden.tokens[untouched], tokens[untouched])
    assert (hidden.tokens != tokens).any()


def test_shares_of_what_is_shown_instead():
    """80 % the mask, 10 % a random token, 10 % what stood there. Each within five standard deviations."""
    tokens, allowed = texts(*[38] * 2500)
    hidden = hide(tokens, allowed, share=0.5)
    shown = hidden.tokens.gather(1, hidden.places)[hidden.targets != IGNORED]
    truth = hidden.targets[hidden.targets != IGNORED]
    count = len(truth)
    assert count == 2500 * 19
    kept, masked = (shown == truth).double().mean(), (shown == MASK).double().mean()
    other = shown[(shown != truth) & (shown != MASK)]
    tolerance = 5 * (0.8 * 0.2 / count) ** 0.5
    assert abs(masked - 0.8) < tolerance
    assert abs(kept - (0.1 + 0.1 / VOCAB)) < tolerance  # a random token may happen to be the right one
    assert abs(len(other) / count - 0.1 * (1 - 1 / VOCAB)) < tolerance
    assert other.min() >= 0 and other.max() < VOCAB
    assert abs(other.double().mean() - (VOCAB - 1) / 2) < 5 * VOCAB / (12 * len(other)) ** 0.5


def test_every_allowed_place_is_chosen_equally_often():
    tokens, allowed = texts(*[20] * 4000)
    hidden = hide(tokens, allowed)
    chosen = torch.zeros(TIME).scatter_add(
        0, hidden.places[hidden.targets != IGNORED], torch.ones(int((hidden.targets != IGNORED).sum()))
    )
    assert chosen.sum() == 4000 * 4
    expected = 4000 * 4 / 20
    assert (chosen[1:21] - expected).abs().max() < 5 * (expected * (1 - 4 / 20)) ** 0.5
    assert not chosen[0] and not chosen[21:].any()


def test_the_seed_decides():
    tokens, allowed = texts(36, 21, 12)
    one, same, other = (hide(tokens, allowed, seed=seed) for seed in (3, 3, 4))
    for name in ("tokens", "places", "targets"):
        assert torch.equal(getattr(one, name), getattr(same, name))
    assert not torch.equal(one.places, other.places)


def test_the_texts_themselves_stay_whole():
    tokens, allowed = texts(36, 21)
    before = tokens.clone()
    hide(tokens, allowed)
    assert torch.equal(tokens, before)
