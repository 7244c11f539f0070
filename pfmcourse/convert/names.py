"""Tables of names: what a reference model calls each of our weights, and how it keeps it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from pfmcourse.base import CourseError, unknown_name

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
ACTIVATIONS |= {"quick_gelu": "gelu_quick"}


def activation_of(theirs: str) -> str:
    """Our name of one of transformers' activations. Raises CourseError for one that our blocks do not have."""
    if theirs not in ACTIVATIONS:
        raise unknown_name("activation", theirs, ACTIVATIONS)
    return ACTIVATIONS[theirs]


def activation_for(ours: str) -> str:
    """What transformers calls one of our activations."""
    return next(theirs for theirs, name in ACTIVATIONS.items() if name == ours)


def special_tokens(tokens: Mapping[str, int], vocab: int) -> dict[str, int | None]:
    """The reference's settings for special tokens, None where not given. One beyond ``vocab`` raises CourseError."""
    for name, number in tokens.items():
        if not 0 <= number < vocab:
            raise CourseError(f"{name}={number} is not in the vocabulary, whose tokens are 0 to {vocab - 1}.")
    return {name: tokens.get(name) for name in SPECIAL}


def square(theirs: object, name: str) -> int:
    """The one side of a setting that the reference takes as a number or as a pair; unequal sides raise CourseError."""
    sides = tuple(theirs) if isinstance(theirs, Sequence) else (theirs, theirs)
    if len(set(sides)) != 1:
        raise CourseError(f"{name}={theirs!r} has no counterpart here: only squares have.")
    return sides[0]


def no_special_tokens(tokens: Mapping[str, int]) -> None:
    """Raise CourseError where special tokens are given for a model that reads pictures."""
    if tokens:
        raise CourseError(f"{', '.join(tokens)}: a model that reads pictures has no special tokens. Leave them out.")


@dataclass(frozen=True)
class Weight:
    """One of our weights, and the reference's that hold the same numbers. ``{}`` stands for the number of a layer."""

    ours: str
    theirs: tuple[str, ...]  # several stand one below the other in ours, in this order
    transposed: bool = False
    extra: int = 0  # rows at the beginning that only the reference has and never uses; going back they are zeros
    order: str = ""  # how its axes become ours, as einops writes it: "1 tokens dim -> tokens dim"
    axes: Mapping[str, int] = field(default_factory=dict)  # sizes that ``order`` needs

    def read(self, theirs: Mapping[str, Tensor]) -> Tensor:
        """Our weight, made of the reference's."""
        parts = [theirs[name] for name in self.theirs]
        found = torch.cat(parts) if len(parts) > 1 else parts[0]  # which may be a single number
        found = found[self.extra :] if self.extra else found
        found = found.T if self.transposed else found
        return rearrange(found, self.order, **self.axes) if self.order else found

    def write(self, ours: Tensor) -> dict[str, Tensor]:
        """The reference's weights, made of ours."""
        if self.order:
            ours = rearrange(ours, " -> ".join(reversed(self.order.split(" -> "))), **self.axes).contiguous()
        whole = ours.T if self.transposed else ours
        whole = torch.cat([whole.new_zeros(self.extra, *whole.shape[1:]), whole]) if self.extra else whole
        parts = whole.chunk(len(self.theirs)) if len(self.theirs) > 1 else (whole,)
        return dict(zip(self.theirs, parts, strict=True))


def weight(ours: str, theirs: str, *, extra: int = 0, order: str = "", **axes: int) -> Weight:
    """A row of a table: one weight that is one weight over there; ``order`` says how its axes become ours."""
    return Weight(ours, (theirs,), extra=extra, order=order, axes=axes)


def layer(ours: str, *theirs: str, transposed: bool = False) -> list[Weight]:
    """The two rows of a linear layer or a norm. ``transposed``: the matrix is (inputs, outputs) over there."""
    matrix, bias = (tuple(f"{name}.{kind}" for name in theirs) for kind in ("weight", "bias"))
    return [Weight(f"{ours}.weight", matrix, transposed), Weight(f"{ours}.bias", bias)]


def inside(module: str, rows: Sequence[Weight]) -> list[Weight]:
    """The rows where the reference has all of it in a module of this name."""
    return [dataclasses.replace(row, theirs=tuple(f"{module}.{name}" for name in row.theirs)) for row in rows]


def within(module: str, rows: Sequence[Weight]) -> list[Weight]:
    """The rows where ours has all of it in a module of this name."""
    return [dataclasses.replace(row, ours=f"{module}.{row.ours}") for row in rows]


def for_each_layer(rows: Sequence[Weight], layers: int) -> list[Weight]:
    """The rows, those with ``{}`` once for each layer."""
    return [
        dataclasses.replace(row, ours=row.ours.format(i), theirs=tuple(name.format(i) for name in row.theirs))
        for row in rows
        for i in range(layers if "{}" in row.ours else 1)
    ]


def read(theirs: Mapping[str, Tensor], rows: Sequence[Weight], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """Our weights, made of the reference's. ``tied`` names its second copies, and what each is a copy of.

    Raises CourseError for a weight that is missing or that no row names, and for a copy that is none.
    """
    compare(theirs, [*(name for row in rows for name in row.theirs), *tied], "the reference model")
    for copy, original in tied.items():
        if not torch.equal(theirs[copy], theirs[original]):
            raise CourseError(
                f"in our model {original} serves for {copy} too, but in the reference model the two differ. "
                "Only a model with tied weights can be converted."
            )
    return {row.ours: row.read(theirs) for row in rows}


def write(ours: Mapping[str, Tensor], rows: Sequence[Weight], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The reference's weights, made of ours. Raises CourseError for one that is missing or that no row names."""
    compare(ours, [row.ours for row in rows], "our model")
    theirs = {name: part for row in rows for name, part in row.write(ours[row.ours]).items()}
    return theirs | {copy: theirs[original] for copy, original in tied.items()}


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the weights into ``model``. Raises CourseError unless names and shapes are the same."""
    wanted = model.state_dict()
    compare(state, list(wanted), "the table of names")
    wrong = [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if state[name].shape != wanted[name].shape
    ]
    if wrong:
        raise CourseError(f"the weights do not fit {type(model).__name__}: {'; '.join(wrong)}.")
    model.load_state_dict(state)


def compare(found: Mapping[str, Tensor], expected: Sequence[str], where: str) -> None:
    """Raise CourseError unless the names found are those expected."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    faults = [f"{verb} {', '.join(those)}" for verb, those in (("lacks", missing), ("also has", unexpected)) if those]
    if faults:
        raise CourseError(f"{where} {' and '.join(faults)}. A conversion must account for every weight.")
