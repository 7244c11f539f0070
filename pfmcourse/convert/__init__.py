"""Weights to and from other libraries' models: one file per system, every weight named.

`from_transformers` and `to_transformers` know what the files in this folder list in ``CONVERSIONS``.
`from_dgl` and `to_dgl` hand over graphs.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pfmcourse.base import CourseError, require, unknown_name
from pfmcourse.convert import names
from pfmcourse.convert.dgl_graphs import from_dgl as from_dgl
from pfmcourse.convert.dgl_graphs import to_dgl as to_dgl
from pfmcourse.convert.names import Weight


@dataclass(frozen=True)
class Conversion:
    """One class of transformers, the model of ours that is the same, and how to get from each to the other."""

    reference: str  # the name of the class in transformers
    ours: type[nn.Module]
    sizes: Callable[[Any], Any]  # the reference's configuration -> ours; CourseError where ours cannot express it
    settings: Callable[[Any, Mapping[str, int]], dict[str, Any]]  # our configuration, special tokens -> the reference's
    table: Callable[[Any], list[Weight]]  # the reference's configuration -> all weights
    tied: Mapping[str, str]  # the reference's second names -> the names of the same weights in the table
    needs: Mapping[str, object] = field(default_factory=dict)  # settings of the reference that have no counterpart here
    suits: Callable[[Any], bool] = lambda config: True  # whether a model of ours has all that the reference needs
    build: Callable[[Any], nn.Module] | None = None  # our configuration -> our model; None: ours(configuration)


@functools.cache
def _registry() -> Mapping[str, Conversion]:
    """Every conversion that a module in this folder lists in ``CONVERSIONS``."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {found.reference: found for module in modules for found in getattr(module, "CONVERSIONS", ())}


def from_transformers(reference: Any) -> nn.Module:
    """Our model with the weights of a model of the library transformers; type, device and mode are the reference's.

    Dropout in ours has one rate, that of the reference's residual stream; other rates are given up. They matter in
    training only. Raises CourseError for a class or a configuration that ours cannot express, and for weights that are
    missing or left over.
    """
    kind = type(reference).__name__
    if kind not in _registry():
        raise unknown_name("model of transformers", kind, _registry())
    conversion = _registry()[kind]
    for name, wanted in conversion.needs.items():
        if (found := getattr(reference.config, name, wanted)) != wanted:
            raise CourseError(f"a {kind} with {name}={found!r} has no counterpart here: only {name}={wanted!r} has.")
    weights = names.read(reference.state_dict(), conversion.table(reference.config), conversion.tied)
    with torch.random.fork_rng(devices=[]):  # an initialisation that is overwritten should not use up random numbers
        build = conversion.build or conversion.ours
        ours = build(conversion.sizes(reference.config)).to(reference.device, reference.dtype)
    names.load(ours, weights)
    return ours.train(reference.training)


def to_transformers(ours: nn.Module, kind: str | None = None, **tokens: int) -> Any:
    """A model of the library transformers with the weights of ours; type, device and mode are those of ours.

    ``kind`` is the class that is wanted, such as ``"RobertaForMaskedLM"``; without it, the first in the list that fits.
    ``tokens`` are the numbers of special tokens: ``bos_token_id``, ``eos_token_id``, ``pad_token_id``. Those not given
    are None. Dropout on the attention weights is 0, as in ours. Raises CourseError for a model without counterpart and
    for a token that is not in the vocabulary.
    """
    known = {name: found for name, found in _registry().items() if found.ours is type(ours)}
    if not known:
        raise unknown_name("model", type(ours).__name__, {found.ours.__name__ for found in _registry().values()})
    fitting = {name: found for name, found in known.items() if found.suits(ours.config)}
    if kind is None and fitting:
        kind = next(iter(fitting))
    if kind not in known:
        raise unknown_name(f"counterpart of {type(ours).__name__}", kind, known)
    if kind not in fitting:
        raise CourseError(
            f"a {kind} cannot hold this {type(ours).__name__} with {ours.config}. "
            f"What can: {', '.join(fitting) or 'none'}."
        )
    settings = known[kind].settings(ours.config, tokens)
    for name in set(tokens) - set(settings):
        raise unknown_name("special token", name, names.SPECIAL)
    transformers = require("transformers", "transformers==5.23.0", "handing weights to transformers")
    library = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        reference = library(library.config_class(**settings))
    weight = next(ours.parameters())
    reference = reference.to(weight.device, weight.dtype)
    rows = known[kind].table(reference.config)
    names.load(reference, names.write(ours.state_dict(), rows, known[kind].tied))
    return reference.train(ours.training)
