"""How far our tensors and gradients are from those of a model of transformers."""

import torch

from pfmcourse import convert


def difference(one, other):
    assert one.shape == other.shape
    return (one - other).abs().max().item()


def gradients(ours, reference):
    """The largest difference between any two gradients of the same weight; the loss is already backpropagated."""
    fixed = {name for name, parameter in ours.named_parameters() if not parameter.requires_grad}
    assert len(fixed) == sum(not parameter.requires_grad for parameter in reference.parameters())
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    theirs = convert.from_transformers(reference).state_dict()  # the gradients, under our names
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if name not in fixed}
    assert found.keys() == theirs.keys() - fixed
    for name, gradient in found.items():
        assert gradient.abs().max() > 1e-4, f"{name} has no gradient, so the comparison shows nothing"
    return max(difference(found[name], theirs[name]) for name in found)
