"""BERT fine-tuned: to name a text's class, and to choose among texts."""

import pytest
import torch

from pfmcourse.models.bert import BERT, BERTChooser, BERTClassifier, BERTConfig, Choices
from pfmcourse.models.gpt import LabelledText


def bert():
    torch.manual_seed(0)
    return BERT(BERTConfig(vocab=40, context=16, dim=32, layers=2, heads=4)).double()


def texts(*shape):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(40, shape, generator=generator)
    lengths = torch.randint(3, shape[-1] + 1, shape[:-1], generator=generator)
    return tokens, torch.arange(shape[-1]) < lengths[..., None]


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_changes_nothing(pooling):
    model = BERTClassifier(bert(), 3, pooling)
    torch.nn.init.normal_(model.classes_head.weight)
    tokens, mask = texts(5, 9)
    other = tokens.masked_fill(~mask, 7)
    torch.testing.assert_close(model.logits(tokens, mask), model.logits(other, mask))
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = model.logits(tokens[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], model.logits(tokens, mask)[row])


def test_all_classes_are_alike_at_first_and_the_bert_is_a_copy():
    start = bert()
    model = BERTClassifier(start, 3)
    tokens, mask = texts(4, 8)
    batch = LabelledText(tokens, mask, torch.tensor([0, 1, 2, 0]))
    assert model(batch)["loss"].item() == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-6)
    before = start.tokens.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    assert model(batch)["loss"] < 0.05
    assert torch.equal(start.tokens.weight, before)


def test_a_chooser_scores_each_text_by_itself():
    model = BERTChooser(bert())
    torch.nn.init.normal_(model.scorer.classes_head.weight)
    tokens, mask = texts(3, 2, 7)
    scores = model.logits(tokens, mask)
    assert scores.shape == (3, 2)
    torch.testing.assert_close(model.logits(tokens.flip(1), mask.flip(1)), scores.flip(1))
    loss = model(Choices(tokens, mask, torch.tensor([0, 1, 1])))["loss"]
    by_hand = -(scores[0].log_softmax(0)[0] + scores[1].log_softmax(0)[1] + scores[2].log_softmax(0)[1]) / 3
    torch.testing.assert_close(loss, by_hand)
