"""A student of many languages: a bag of pieces, padding that says nothing, a loss that asks for the right vector."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from pfmcourse.base import CourseError
from pfmcourse.models.student import Student, StudentConfig, TaughtTexts

SIZES = StudentConfig(vocab=30, dim=8, teacher=6, context=5, dropout=0.0)


def texts(count=7):
    """Texts of one to four tokens, padded to five."""
    mask = torch.arange(5) < 1 + torch.arange(count)[:, None] % 4
    return torch.randint(30, (count, 5)).where(mask, 0), mask


def batch(count=7):
    return TaughtTexts(*texts(count), torch.randn(count, 6))


def test_vectors_have_length_one_in_the_teachers_space():
    vectors = Student(SIZES).encode(*texts())
    assert vectors.shape == (7, 6)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(7), atol=1e-6)


def test_it_is_the_mean_of_the_pieces_projected():
    student, (tokens, mask) = Student(SIZES), texts()
    for row, (text, there) in enumerate(zip(tokens, mask, strict=True)):
        mean = student.tokens.weight[text[there]].mean(0)
        expected = F.normalize(student.project.weight @ mean, dim=0)
        assert torch.allclose(student.encode(tokens, mask)[row], expected, atol=1e-5)


def test_padding_says_nothing():
    student, (tokens, mask) = Student(SIZES), texts()
    other = tokens.where(mask, 29)
    assert not torch.equal(tokens, other)
    assert torch.equal(student.encode(tokens, mask), student.encode(other, mask))
    short = mask[0].sum()
    assert torch.allclose(student.encode(tokens, mask)[:1], student.encode(tokens[:1, :short], mask[:1, :short]))


def test_the_loss_is_the_squared_distance_between_vectors_of_length_1():
    student, given = Student(SIZES), batch()
    found = student(given)
    vectors, wanted = student.encode(given.tokens, given.mask), F.normalize(given.vectors, dim=1)
    distances, nearest = [], []
    for row, vector in enumerate(vectors):
        distances.append((vector - wanted[row]).square().sum())
        nearest.append(int(torch.stack([vector @ one for one in wanted]).argmax()) == row)
    assert torch.allclose(found["loss"], torch.stack(distances).mean(), atol=1e-5)
    assert found["found"].item() == pytest.approx(sum(nearest) / 7)


def test_the_teachers_vectors_count_by_their_direction():
    student, given = Student(SIZES), batch()
    longer = dataclasses.replace(given, vectors=given.vectors * torch.arange(1.0, 8)[:, None])
    assert torch.allclose(student(given)["loss"], student(longer)["loss"], atol=1e-5)


def test_it_learns_a_batch_by_heart():
    student, given = Student(SIZES), batch()
    optimizer = torch.optim.Adam(student.parameters(), 0.02)
    first = student(given)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = student(given)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first and student(given)["found"] == 1


def test_dropout_is_for_training_alone():
    student, given = Student(dataclasses.replace(SIZES, dropout=0.5)), batch()
    assert not torch.equal(student.encode(given.tokens, given.mask), student.encode(given.tokens, given.mask))
    student.eval()
    assert torch.equal(student.encode(given.tokens, given.mask), student.encode(given.tokens, given.mask))


def test_a_text_without_a_token_has_no_direction_but_is_finite():
    vectors = Student(SIZES).encode(torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 5, dtype=torch.bool))
    assert torch.equal(vectors, torch.zeros(1, 6))


def test_what_is_too_long_is_named():
    with pytest.raises(CourseError, match=r"6 tokens are more .* context=5"):
        Student(SIZES).encode(torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.bool))
