"""One pretraining recipe from the command line: run it, and keep what it made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmcourse.base import resolve_preset, write_atomically

if TYPE_CHECKING:
    from pfmcourse.recipes import Pretrained


def pretrain(recipe: str, preset: str | None, seed: int, values: Mapping[str, Any]) -> "Pretrained":
    """Pretrain ``recipe``. Unknown recipes, presets and parameters raise CourseError before any training."""
    from pfmcourse import recipes  # brings torch with it

    recipes.get(recipe)
    return recipes.pretrain(recipe, resolve_preset(preset), seed, **values)


def keep(pretrained: "Pretrained", folder: Path | None, command: str) -> list[Path]:
    """Write what a finished run made, and return the paths.

    The long preset's weights and card go to data/checkpoints. Into ``folder``, if one is given, go the weights
    (safetensors) and the history with the metrics (JSON).
    """
    import safetensors.torch

    from pfmcourse import recipes

    written: list[Path] = []
    if pretrained.preset == "long" and not pretrained.history.interrupted:
        written += recipes.save(pretrained, command)
    if folder is not None:
        weights, report = folder / "weights.safetensors", folder / "history.json"
        with write_atomically(weights) as temporary:
            safetensors.torch.save_model(pretrained.model, str(temporary))
        content = {
            "recipe": pretrained.recipe.name,
            "preset": pretrained.preset,
            "seed": pretrained.seed,
            "command": command,
            "metrics": pretrained.metrics,
            "history": json.loads(pretrained.history.to_json()),
        }
        with write_atomically(report) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        written += [weights, report]
    return written
