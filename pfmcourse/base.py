"""The ground floor of the house: errors a learner can act on, presets, overrides, and writing files safely.

Every other module may import this one; it imports none of ours.
"""

import contextlib
import dataclasses
import difflib
import importlib
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

PRESETS = ("smoke", "laptop", "long", "gpu")

Config = TypeVar("Config")


class CourseError(Exception):
    """Something went wrong that the reader can mend; the message says how."""


class UnknownName(CourseError, KeyError):
    """A lesson, preset, override, recipe or data set that does not exist."""

    __str__ = Exception.__str__  # KeyError would show the message in quotation marks


class MissingPackage(CourseError, ImportError):
    """A package that one data set or one extra needs is not installed."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """An error for ``name``, with the nearest known name first and all of them after it."""
    known = sorted(map(str, known))
    spelling = {one.lower(): one for one in reversed(known)}
    nearest = difflib.get_close_matches(str(name).lower(), spelling, n=1, cutoff=0.5)
    hint = f" Did you mean {spelling[nearest[0]]!r}?" if nearest else ""
    return UnknownName(f"unknown {kind} {str(name)!r}.{hint} Known: {', '.join(known) or 'none'}.")


def repository() -> Path:
    """The clone's folder, which holds notebooks/ and data/. The package is used from a clone (``pip install -e``)."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "notebooks").is_dir():
        raise CourseError(
            f"no notebooks/ folder in {root}: lessons and data catalogue live in the clone, not in the package. "
            "Clone the repository and install it with: python -m pip install -e ."
        )
    return root


def resolve_preset(argument: str | None = None) -> str:
    """The preset to use: the argument, else ``PFMCOURSE_PRESET``, else ``laptop``. Unknown names raise."""
    preset = argument or os.environ.get("PFMCOURSE_PRESET") or "laptop"
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    return preset


def _accepts(annotation: Any, value: object) -> bool:
    """Whether ``value`` may stand in a field annotated so; unions and literals are looked into."""
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(part, value) for part in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    kind = origin or annotation
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def replace_fields(config: Config, changes: Mapping[str, object]) -> Config:
    """A copy of the dataclass ``config`` with single fields changed by name.

    Raises UnknownName for a field that does not exist and CourseError for a value of another type.
    """
    hints = typing.get_type_hints(type(config))
    fields = {field.name: hints[field.name] for field in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in fields:
            raise unknown_name("parameter", name, fields)
        if not _accepts(fields[name], value):
            wanted = getattr(fields[name], "__name__", str(fields[name]))
            raise CourseError(
                f"parameter {name!r} wants {wanted}, but got {value!r} ({type(value).__name__}). "
                f"Its default is {getattr(config, name)!r}."
            )
    return dataclasses.replace(config, **changes)


def require(module: str, requirement: str, why: str) -> types.ModuleType:
    """Import ``module``, or say which pip command installs it. ``why`` completes "... is needed for"."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"the package {module!r} is needed for {why} and could not be imported ({error}). "
            f"Install it with: python -m pip install '{requirement}'"
        ) from error


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well it takes the place of ``path``, else it goes.

    A reader sees the old file or the new one, never half of one, even after SIGKILL or on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
