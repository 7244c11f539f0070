"""Pretraining runs. A recipe joins data, model and schedule; nothing else in the package knows all three.

``recipes.pretrain("skip_gram")`` trains one here and now, in any preset; ``recipes.load("skip_gram")`` gives the
checkpoint that ships with the repository, trained with the ``long`` preset, after verifying it.
"""

import dataclasses
import functools
import hashlib
import importlib
import json
import pkgutil
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pfmcourse import base
from pfmcourse.data.source import cache_folder
from pfmcourse.train import Batches, History, TrainConfig, device, fit, seed_everything


@dataclass(frozen=True)
class Recipe:
    """One pretraining run in its presets. Each function gets the configuration, and what the one before it made."""

    name: str
    purpose: str
    lesson: str
    presets: Mapping[str, Any]  # preset -> a frozen dataclass of sizes and schedule
    data: Callable[[Any], Any]  # config -> data
    model: Callable[[Any, Any], nn.Module]  # config, data -> model, freshly initialised
    batches: Callable[[Any, Any, int], Batches]  # config, data, seed -> the batch of each step
    training: Callable[[Any, Any], TrainConfig]  # config, data -> schedule
    metrics: Callable[[Any, Any, nn.Module], dict[str, float]]  # config, data, model -> what the card reports


@dataclass
class Pretrained:
    """A model with the story of how it was trained. ``history`` is None where it came from a checkpoint."""

    recipe: Recipe
    preset: str
    seed: int
    config: Any
    data: Any
    model: nn.Module
    metrics: dict[str, float]
    history: History | None = None
    card: dict[str, Any] = field(default_factory=dict)


class AlteredCheckpoint(base.CourseError):
    """A checkpoint is not the file that its card describes."""


@functools.cache
def _registry() -> Mapping[str, Recipe]:
    """Every recipe of every module in this folder: each module lists its own in ``RECIPES``."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {recipe.name: recipe for module in modules for recipe in module.RECIPES}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(_registry())


def get(name: str) -> Recipe:
    """The recipe of this name. An unknown one raises UnknownName with the nearest."""
    if name not in _registry():
        raise base.unknown_name("recipe", name, names())
    return _registry()[name]


def config(name: str, preset: str | None = None, **overrides: object) -> Any:
    """The recipe's configuration at a preset, with single fields changed by name."""
    return base.replace_fields(get(name).presets[base.resolve_preset(preset)], overrides)


def _interrupted_run(name: str, preset: str, seed: int, sizes: Any) -> Path:
    """Where a run that has not finished keeps its state: one file for each set of choices."""
    choices = json.dumps([name, preset, seed, dataclasses.asdict(sizes)], sort_keys=True)
    digest = hashlib.sha256(choices.encode()).hexdigest()[:12]
    return cache_folder() / "training" / f"{name}-{preset}-{digest}.safetensors"


def pretrain(
    name: str,
    preset: str | None = None,
    seed: int = 0,
    *,
    watch: Callable[[History], None] | None = None,
    resume: bool = True,
    **overrides: object,
) -> Pretrained:
    """Train a recipe's model from its initialisation, or go on where an interrupted run of the same choices stopped."""
    preset = base.resolve_preset(preset)
    recipe, sizes = get(name), config(name, preset, **overrides)
    data = recipe.data(sizes)
    seed_everything(seed)
    model = recipe.model(sizes, data)
    schedule = dataclasses.replace(recipe.training(sizes, data), seed=seed)
    checkpoint = _interrupted_run(name, preset, seed, sizes) if resume else None
    history = fit(model, recipe.batches(sizes, data, seed), schedule, checkpoint=checkpoint, watch=watch)
    model.eval()
    return Pretrained(recipe, preset, seed, sizes, data, model, recipe.metrics(sizes, data, model), history)


def _checkpoint_files(name: str) -> tuple[Path, Path]:
    folder = base.repository() / "data" / "checkpoints"
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def _halved(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state in half precision; what is not floating point stays as it is."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def save(run: Pretrained, command: str) -> tuple[Path, Path]:
    """Write the run's checkpoint, in half precision, and its card. The metrics are measured after the rounding.

    Returns the paths data/checkpoints/NAME.safetensors and NAME.json.
    """
    if run.history is None:
        raise base.CourseError("this model came from a checkpoint; only a run that was just trained can be saved")
    weights, card = _checkpoint_files(run.recipe.name)
    state = _halved(run.model)
    content = save_tensors(state)
    run.model.load_state_dict(state)
    run.model.float()
    history = run.history
    description = {
        "recipe": run.recipe.name,
        "purpose": run.recipe.purpose,
        "command": command,
        "preset": run.preset,
        "seed": run.seed,
        "config": dataclasses.asdict(run.config),
        "steps": history.steps,
        "seconds": round(history.seconds, 1),
        "hardware": f"{history.device}, {history.processes} process(es), {platform.machine()}, {history.precision}",
        "torch": torch.__version__,
        "when": datetime.now(UTC).date().isoformat(),
        "metrics": run.recipe.metrics(run.config, run.data, run.model),
        "loss": [{"step": row["step"], "loss": row["loss"]} for row in history.rows],
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with base.write_atomically(weights) as part:
        part.write_bytes(content)
    with base.write_atomically(card) as part:
        part.write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return weights, card


def card(name: str) -> dict[str, Any]:
    """The card of a shipped checkpoint: command, seed, steps, seconds, hardware, metrics, SHA-256."""
    _, path = _checkpoint_files(get(name).name)
    if not path.is_file():
        raise base.CourseError(
            f"no checkpoint of {name!r} in {path.parent}. Make it with: pfmcourse pretrain {name} --preset long"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def load(name: str) -> Pretrained:
    """The shipped checkpoint of a recipe, verified against its card, on this machine's device, ready to use."""
    recipe, description = get(name), card(name)
    weights, _ = _checkpoint_files(name)
    content = weights.read_bytes() if weights.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != description["sha256"]:
        raise AlteredCheckpoint(
            f"{weights} is not what its card says: expected SHA-256 {description['sha256']} "
            f"({description['bytes']} bytes), found {found} ({len(content)} bytes). "
            f"Restore it with: git checkout -- data/checkpoints"
        )
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in description["config"].items()}
    sizes = base.replace_fields(recipe.presets["long"], fields)
    data = recipe.data(sizes)
    model = recipe.model(sizes, data)
    try:
        model.load_state_dict(load_tensors(content))
    except (RuntimeError, SafetensorError) as error:
        raise AlteredCheckpoint(f"{weights} does not fit the model of recipe {name!r}: {error}") from error
    model = model.float().to(device()).eval()
    preset, seed, metrics = (description[name] for name in ("preset", "seed", "metrics"))
    return Pretrained(recipe, preset, seed, sizes, data, model, metrics, None, description)
