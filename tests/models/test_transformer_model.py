"""The encoder-decoder Transformer: a naive version with loops, masks, the cache, the start and an overfitted batch."""

import math

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.seq2seq import Pairs
from pfmcourse.models.transformer import EncoderDecoder, Transformer, TransformerConfig
from pfmcourse.nn.attention import KeyValueCache
from pfmcourse.nn.transformer import sinusoids

PADDING, END, START = 0, 1, 2
BOTH = pytest.mark.parametrize("norm_first", [False, True])


def model(vocab=11, **changes):
    torch.manual_seed(3)
    sizes = {"vocab": vocab, "context": 12, "dim": 8, "heads": 2, "hidden": 16} | changes
    return Transformer(TransformerConfig(**sizes)).eval()


def phrases(vocab=11, rows=4, longest=6):
    generator = torch.Generator().manual_seed(1)

    def some():
        tokens = torch.randint(3, vocab, (rows, longest), generator=generator)
        length = torch.randint(1, longest, (rows,), generator=generator)
        tokens = torch.where(torch.arange(longest) < length[:, None], tokens, PADDING)
        tokens[torch.arange(rows), length] = END
        return tokens

    return Pairs(some(), torch.cat([torch.full((rows, 1), START), some()], dim=1))


def attend(part, x, context, looks):
    """Multi-head attention of one phrase with loops; ``looks(i)`` lists the places that place i may look at."""
    dim, heads = x.shape[1], part.heads
    width = dim // heads
    weight, bias = part.project.weight, part.project.bias
    mixed = torch.zeros(len(x), dim)
    for i in range(len(x)):
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            query = weight[:dim][rows] @ x[i] + bias[:dim][rows]
            scores, values = [], []
            for j in looks(i):
                key = weight[dim : 2 * dim][rows] @ context[j] + bias[dim : 2 * dim][rows]
                scores.append((query @ key / math.sqrt(width)).exp())
                values.append(weight[2 * dim :][rows] @ context[j] + bias[2 * dim :][rows])
            total = sum(scores)
            mixed[i, rows] = sum(score / total * value for score, value in zip(scores, values, strict=True))
    return mixed @ part.output.weight.T + part.output.bias


def layer(block, x, context=None, *, causal):
    """One block of one phrase; the parts as the paper names them."""

    def norm(which, y):
        centred = y - y.mean(1, keepdim=True)
        spread = (centred**2).mean(1, keepdim=True)
        return centred / (spread + which.eps).sqrt() * which.weight + which.bias

    def add(y, which, part):
        return y + part(norm(which, y)) if block.norm_first else norm(which, y + part(y))

    def feed(y):
        up = (y @ block.feed_forward.up.weight.T + block.feed_forward.up.bias).clamp(min=0)
        return up @ block.feed_forward.down.weight.T + block.feed_forward.down.bias

    def before(i):
        return range(i + 1) if causal else range(len(x))

    x = add(x, block.attention_norm, lambda y: attend(block.attention, y, y, before))
    if context is not None:
        x = add(x, block.cross_norm, lambda y: attend(block.cross, y, context, lambda i: range(len(context))))
    return add(x, block.feed_forward_norm, feed)


def naive_logits(transformer, source, target):
    """Logits of one phrase without padding."""
    stacks, table = transformer.stacks, transformer.tokens.weight
    dim = table.shape[1]
    x, y = (math.sqrt(dim) * table[row] + sinusoids(len(row), dim) for row in (source, target))
    for block in stacks.encoder:
        x = layer(block, x, causal=False)
    x = stacks.encoder_norm(x)
    for block in stacks.decoder:
        y = layer(block, y, x, causal=True)
    return stacks.decoder_norm(y) @ table.T


@BOTH
def test_loops_give_the_same_logits(norm_first):
    transformer, pairs = model(norm_first=norm_first), phrases()
    with torch.no_grad():
        for parameter in transformer.stacks.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    logits = transformer.logits(pairs.source, pairs.target)
    for row in range(len(pairs.source)):
        source, target = (tokens[row][tokens[row] != PADDING] for tokens in (pairs.source, pairs.target))
        naive = naive_logits(transformer, source, target)
        torch.testing.assert_close(logits[row, : len(target)], naive, rtol=1e-4, atol=1e-5)


@BOTH
def test_padding_changes_neither_loss_nor_translation(norm_first):
    transformer, pairs = model(norm_first=norm_first), phrases()
    padded = Pairs(F.pad(pairs.source, (0, 3)), F.pad(pairs.target, (0, 3)))
    assert transformer(padded)["loss"].item() == pytest.approx(transformer(pairs)["loss"].item(), abs=1e-6)
    start = pairs.target[:, 0]
    assert torch.equal(transformer.translate(padded.source, start, 5), transformer.translate(pairs.source, start, 5))


@BOTH
def test_later_target_tokens_change_nothing_before_them(norm_first):
    transformer, pairs = model(norm_first=norm_first), phrases()
    before = transformer.logits(pairs.source, pairs.target)
    changed = pairs.target.clone()
    changed[:, 4:] = 5
    after = transformer.logits(pairs.source, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_every_source_token_matters_to_every_place():
    transformer, pairs = model(), phrases(rows=1, longest=5)
    before = transformer.logits(pairs.source, pairs.target)
    for place in range(int((pairs.source != PADDING).sum())):
        changed = pairs.source.clone()
        changed[0, place] = 3 + (changed[0, place] - 2) % 8
        assert ((transformer.logits(changed, pairs.target) - before).abs().amax(2) > 1e-6).all()


def test_word_order_matters():
    transformer = model()
    one, other = torch.tensor([[3, 4, 5, END]]), torch.tensor([[5, 4, 3, END]])
    target = torch.tensor([[START]])
    assert not torch.allclose(transformer.logits(one, target), transformer.logits(other, target), atol=1e-4)


@BOTH
def test_the_loss_starts_near_ln_v(norm_first):
    transformer = model(vocab=500, dim=64, heads=4, hidden=128, norm_first=norm_first)
    assert transformer(phrases(vocab=500, rows=64))["loss"].item() == pytest.approx(math.log(500), abs=0.25)


@BOTH
def test_one_batch_can_be_overfitted(norm_first):
    transformer, pairs = model(dim=16, norm_first=norm_first), phrases()
    optimizer = torch.optim.Adam(transformer.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss = transformer(pairs)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    written = transformer.translate(pairs.source, pairs.target[:, 0], longest=10)
    length = pairs.target.shape[1] - 1
    assert torch.equal(F.pad(written, (0, length - written.shape[1])), pairs.target[:, 1:])


@BOTH
def test_steps_with_a_cache_give_the_same_logits(norm_first):
    transformer, pairs = model(norm_first=norm_first), phrases()
    state = transformer.begin(pairs.source, longest=7)
    steps = torch.stack([transformer.step(tokens, state) for tokens in pairs.target.T], dim=1)
    torch.testing.assert_close(steps, transformer.logits(pairs.source, pairs.target))


def test_a_selected_state_goes_on_with_other_rows():
    transformer, pairs = model(), phrases()
    rows = torch.tensor([2, 0, 2])
    state = transformer.begin(pairs.source, longest=7)
    transformer.step(pairs.target[:, 0], state)
    state.select(rows)
    found = transformer.step(pairs.target[rows, 1], state)
    torch.testing.assert_close(found, transformer.logits(pairs.source, pairs.target)[rows, 1])


def test_alignment_shows_who_looks_where():
    transformer, pairs = model(), phrases()
    weights = transformer.alignment(pairs.source, pairs.target)
    assert weights.shape == (2, 4, 2, 7, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 2, 7))
    assert (weights[:, (pairs.source == PADDING)[:, None, None, :].expand(4, 2, 7, 6)] < 1e-6).all()
    assert not any(block.cross._forward_pre_hooks for block in transformer.stacks.decoder)
    # the first layer's weights, from what its cross-attention reads
    block = transformer.stacks.decoder[0]
    x = transformer._embed(pairs.target)
    x = x + block.attention(block.attention_norm(x), mask=torch.ones(7, 7, dtype=torch.bool).tril())
    mask = (pairs.source != PADDING)[:, None, None, :]
    expected = block.cross.weights(block.cross_norm(x), transformer.encode(pairs.source), mask)
    torch.testing.assert_close(weights[0], expected)


def test_the_two_stacks_may_differ_in_depth():
    stacks = EncoderDecoder(8, 2, 16, 1, 3)
    assert (len(stacks.encoder), len(stacks.decoder)) == (1, 3)
    x, y = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    caches = [KeyValueCache(4) for _ in range(3)]
    memory = stacks.encode(x)
    parts = [stacks.decode(y[:, :1], memory, None, caches), stacks.decode(y[:, 1:], memory, None, caches)]
    torch.testing.assert_close(torch.cat(parts, 1), stacks(x, y))


def test_a_phrase_that_is_too_long_is_an_error():
    with pytest.raises(CourseError, match="context=12"):
        model().logits(torch.full((1, 13), 3), torch.tensor([[START]]))
