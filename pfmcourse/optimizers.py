"""What changes the weights: AdamW, Muon on the hidden matrices, and the learning rate's way up and down."""

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from pfmcourse.base import CourseError

if TYPE_CHECKING:
    from pfmcourse.train import TrainConfig

NOT_HIDDEN = re.compile(r"embed|position|^head$|_head$|^head_|^classifier$|^logits$", re.IGNORECASE)


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that Muon trains, by name: the weight matrices between a network's first and last layers.

    Muon makes each update orthogonal, which fits matrices that map activations to activations. A row of an embedding
    or of an output head stands for one word or class, and such rows want steps of their own: they stay with AdamW
    (Keller Jordan, 2024, "Muon: an optimizer for hidden layers in neural networks").

    The rule: trainable, two axes longer than 1, not the weight of an ``nn.Embedding`` (nor tied to one), and no part of
    the dotted name says embedding, position, head, classifier or logits (``lm_head.weight``, ``patch_embed.weight``).
    A model for which this is wrong defines ``hidden_matrices()``, which returns the parameters themselves.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if hasattr(model, "hidden_matrices"):
        chosen = {id(parameter) for parameter in model.hidden_matrices()}
        found = {name: parameter for name, parameter in named.items() if id(parameter) in chosen}
        if len(found) != len(chosen) or any(parameter.ndim != 2 for parameter in found.values()):
            raise CourseError(
                f"{type(model).__name__}.hidden_matrices() must return trainable parameters of this model with two "
                f"axes each; of the {len(chosen)} returned, these are: {', '.join(found) or 'none'}."
            )
        return found
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in named.items()
        if parameter.ndim == 2
        and min(parameter.shape) > 1
        and id(parameter) not in tables
        and not any(NOT_HIDDEN.search(part) for part in name.split("."))
    }


def make_optimizers(model: nn.Module, config: "TrainConfig") -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on ``hidden_matrices(model)`` and AdamW on the rest. Each group keeps its "peak"."""
    rest = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        hidden = hidden_matrices(model)
        if not hidden:
            raise CourseError(f"Muon found no hidden matrix in {type(model).__name__}. Use optimizer='adamw'.")
        rest = {name: parameter for name, parameter in rest.items() if name not in hidden}
        group = {"params": list(hidden.values()), "peak": config.muon_learning_rate}
        optimizers.append(torch.optim.Muon([group], lr=config.muon_learning_rate, weight_decay=config.weight_decay))
    decayed = [parameter for parameter in rest.values() if config.weight_decay and parameter.ndim > 1]
    plain = [parameter for parameter in rest.values() if not (config.weight_decay and parameter.ndim > 1)]
    groups = [
        {"params": parameters, "weight_decay": decay, "peak": config.learning_rate}
        for parameters, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if parameters
    ]
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True))
    return optimizers


def schedule(config: "TrainConfig", step: int) -> float:
    """The learning rate of ``step`` (from 0) as a share of the peak.

    It rises linearly to 1 at the last step of the warm-up, then falls to ``final``, which it would reach one step after
    the last: a step with learning rate 0 would be wasted.
    """
    rising = round(config.warmup * config.steps)
    if step < rising:
        return (step + 1) / rising
    if config.decay == "constant":
        return 1.0
    progress = (step - rising) / (config.steps - rising)
    left = 1 - progress if config.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final + (1 - config.final) * left
