"""torch.nn.Transformer and our stacks are the same function: outputs, loss, every gradient, and back again."""

import pytest
import torch
from torch import nn

from pfmcourse.base import CourseError
from pfmcourse.convert.torch_transformer import from_torch, names, to_torch
from pfmcourse.models.transformer import EncoderDecoder

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")
SIZES = {"d_model": 16, "nhead": 4, "num_encoder_layers": 2, "num_decoder_layers": 3, "dim_feedforward": 24}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def reference(**changes):
    torch.manual_seed(1)
    model = nn.Transformer(**(SIZES | {"dropout": 0.0, "batch_first": True} | changes))
    with torch.no_grad():  # norms and biases start as ones and zeros, where a mistake in their names would not show
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def largest(first, second):
    return float((first - second).detach().abs().max())


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_loss_and_every_gradient_agree(dtype, norm_first, activation):
    theirs = reference(norm_first=norm_first, activation=activation, dtype=dtype)
    ours = from_torch(theirs)
    x, y = torch.randn(3, 7, 16, dtype=dtype), torch.randn(3, 5, 16, dtype=dtype)
    wanted = torch.randn(3, 5, 16, dtype=dtype)
    stands = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    future = ~torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, y, tgt_mask=future, src_key_padding_mask=~stands, memory_key_padding_mask=~stands)
    found = ours(x, y, stands[:, None, None, :])
    losses = [((one - wanted) ** 2).mean() for one in (expected, found)]
    for loss in losses:
        loss.backward()
    assert largest(expected, found) < TOLERANCE[dtype]
    assert largest(*losses) < TOLERANCE[dtype]
    their, our = dict(theirs.named_parameters()), dict(ours.named_parameters())
    pairs = list(names(ours))
    assert {a for a, _ in pairs} == set(our) and {b for _, b in pairs} == set(their)
    for name, other in pairs:
        assert our[name].grad.abs().max() > 0, name
        assert largest(our[name].grad, their[other].grad) < TOLERANCE[dtype], name


def test_there_and_back_is_the_same_model(tmp_path):
    theirs = reference(norm_first=True, activation="gelu", layer_norm_eps=1e-3, dropout=0.2).eval()
    ours = from_torch(theirs)
    assert not ours.training and ours.encoder[0].dropout.p == 0.2
    back = to_torch(ours)
    torch.save(back.state_dict(), tmp_path / "weights.pt")
    loaded = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert loaded.keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in loaded.items())
    x, y = torch.randn(2, 6, 16), torch.randn(2, 4, 16)
    assert torch.equal(back(x, y), theirs(x, y))
    assert not back.training


def test_the_answer_of_the_converted_model_changes_with_each_weight():
    ours = from_torch(reference())
    x, y = torch.randn(1, 3, 16), torch.randn(1, 2, 16)
    before = ours(x, y)
    for name, parameter in ours.named_parameters():
        with torch.no_grad():
            parameter.add_(0.5 * torch.randn_like(parameter))
        after = ours(x, y)
        if not name.endswith("project.bias"):  # a constant added to all keys changes no softmax; queries and values do
            assert largest(before, after) > 0, name
        before = after


def test_a_model_without_biases_is_an_error():
    with pytest.raises(CourseError, match=r"missing: .*bias"):
        from_torch(reference(bias=False))


def test_an_unexpected_weight_is_an_error():
    model = reference()
    model.extra = nn.Linear(2, 2)
    with pytest.raises(CourseError, match=r"unexpected: extra"):
        from_torch(model)


def test_layers_that_differ_are_an_error():
    model = reference()
    model.decoder.layers[1].norm_first = True
    with pytest.raises(CourseError, match="norm_first"):
        from_torch(model)


def test_an_activation_that_the_other_side_lacks_is_an_error():
    with pytest.raises(CourseError, match="relu or gelu"):
        from_torch(reference(activation=torch.tanh))
    with pytest.raises(CourseError, match="another activation"):
        to_torch(EncoderDecoder(8, 2, 16, 1, activation="gelu_tanh"))
