"""What a notebook opens first: its preset, seed and device, its claims and results, and its row in the ledger."""

import dataclasses
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from pfmcourse import base, catalogue, offline, plots, recipes, train

Value = TypeVar("Value")

VERSIONS = ("pfmcourse", "torch", "transformers", "numpy", "scikit-learn", "gensim")  # what a result may depend on


class ClaimFailed(base.CourseError):
    """A claim of the lesson did not hold in this run."""


def hardware() -> dict[str, object]:
    """The machine, as the ledger keeps it: processor, cores, threads, memory in GB, accelerator."""
    facts: dict[str, object] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "device": str(train.device()),
    }
    if train.device().type == "cuda":
        facts["device"] = torch.cuda.get_device_name()
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Lesson:
    """One run of one lesson.

    ``preset`` None means ``$PFMCOURSE_PRESET``, else ``laptop``. Each override changes the field of that name in every
    recipe of the lesson that has it; one that is None leaves the preset as it is. Raises UnknownName for a lesson,
    preset or override that does not exist.
    """

    def __init__(self, id: str, preset: str | None = None, seed: int = 0, **overrides: object) -> None:
        self.card = catalogue.card(id)
        self.preset = base.resolve_preset(preset)
        self.seed = seed
        self.overrides = {name: value for name, value in overrides.items() if value is not None}
        self._check_overrides()
        offline.guard()
        train.seed_everything(seed)
        self._began = time.perf_counter()
        self._training_seconds = 0.0
        self._metrics: dict[str, dict[str, object]] = {}
        self._claims: list[dict[str, object]] = []
        self._open()

    @property
    def smoke(self) -> bool:
        """Whether this run only proves that every line works: too short for quality."""
        return self.preset == "smoke"

    def at(self, value: Value, **by_preset: Value) -> Value:
        """``value``, or another one where this run's preset is named: ``lesson.at(5, smoke=1)`` seeds."""
        unknown = set(by_preset) - set(base.PRESETS)
        if unknown:
            raise base.unknown_name("preset", min(unknown), base.PRESETS)
        return by_preset.get(self.preset, value)

    def config(self, recipe: str) -> Any:
        """The recipe's sizes and schedule in this run."""
        return recipes.config(recipe, self.preset, **self._for(recipe))

    def pretrain(self, recipe: str, **overrides: object) -> recipes.Pretrained:
        """Train one of the lesson's recipes, with a live curve. ``overrides`` go before the lesson's own."""
        watch = plots.LiveCurve(f"Pretraining {recipe}") if plots.in_notebook() else None
        changes = self._for(recipe) | overrides
        run = recipes.pretrain(recipe, self.preset, self.seed, watch=watch, **changes)
        self._training_seconds += run.history.seconds
        return run

    def load(self, recipe: str) -> recipes.Pretrained:
        """The shipped checkpoint of a recipe: what the same model becomes when it is trained for longer."""
        return recipes.load(recipe)

    def record(self, metric: str, value: float, unit: str = "", note: str = "") -> None:
        """Keep a result for the ledger, under a name that stays the same from run to run.

        Raises CourseError for anything but a finite number: the ledger could not hold it.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise base.CourseError(f"result {metric!r} wants a number, but got {value!r}.") from None
        if not math.isfinite(number):
            raise base.CourseError(
                f"result {metric!r} is {number}, no result. Look at what was divided, or averaged over nothing, in "
                "the cell that made it."
            )
        self._metrics[metric] = {"value": number, "unit": unit, "note": note}

    def claim(self, text: str, holds: bool, detail: str = "") -> None:
        """Check a claim of the lesson's prose: prints PASS or FAIL, and SKIPPED at smoke, where quality means nothing.

        A claim that failed makes ``finish`` raise, so that all claims are seen first.
        """
        verdict = None if self.smoke else bool(holds)
        self._claims.append({"text": text, "holds": verdict, "detail": detail})
        word = {None: "SKIPPED", True: "PASS", False: "FAIL"}[verdict]
        print(f"{word:<8} {text}" + (f"  [{detail}]" if detail else ""))

    def finish(self) -> None:
        """Write the ledger row and say where; raises ClaimFailed if a claim did not hold.

        The row goes to ``$PFMCOURSE_LEDGER``, else to runs/ledger.json in the clone.
        """
        seconds = time.perf_counter() - self._began
        peak = train.peak_memory_mb(train.device())
        path = Path(os.environ.get("PFMCOURSE_LEDGER") or base.repository() / "runs" / "ledger.json")
        row = {
            "lesson": self.card.id,
            "preset": self.preset,
            "seed": self.seed,
            "overrides": self.overrides,
            "metrics": self._metrics,
            "claims": self._claims,
            "seconds": round(seconds, 1),
            "training_seconds": round(self._training_seconds, 1),
            "peak_memory_mb": round(peak),
            "hardware": hardware(),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        catalogue.write_row(row, path)
        failed = [claim["text"] for claim in self._claims if claim["holds"] is False]
        results = f"{len(self._metrics)} results in {path.name}"
        print(f"{self.card.title}: {seconds:.0f} s, {peak:.0f} MB at most, {results}.")
        if failed:
            raise ClaimFailed(
                f"{len(failed)} of {len(self._claims)} claims did not hold in this run: {'; '.join(failed)}. "
                + ("You changed " + ", ".join(self.overrides) + ": can you say why?" if self.overrides else "")
            )

    # The opening ------------------------------------------------------------------------------------------------------

    def _check_overrides(self) -> None:
        known = {
            field.name for name in self.card.recipes for field in dataclasses.fields(recipes.config(name, self.preset))
        }
        for name in self.overrides:
            if name not in known:
                raise base.unknown_name(f"parameter of lesson {self.card.id}:", name, known)
        for name in self.card.recipes:
            self.config(name)  # values of the wrong type raise here, before any work

    def _for(self, recipe: str) -> Mapping[str, object]:
        fields = {field.name for field in dataclasses.fields(recipes.config(recipe, self.preset))}
        return {name: value for name, value in self.overrides.items() if name in fields}

    def _open(self) -> None:
        machine = hardware()
        print(f"{self.card.title} · preset {self.preset} · seed {self.seed}")
        print(
            f"Machine: {machine['device']}, {machine['cores']} cores ({machine['threads']} threads), "
            f"{machine['memory_gb']} GB of memory."
        )
        for name in self.card.recipes:
            config = self.config(name)
            sizes = ", ".join(f"{field.name} {getattr(config, field.name)}" for field in dataclasses.fields(config))
            print(f"{name}: {sizes}")
        measured = catalogue.row(self.card.id, self.preset)
        if measured:
            there = measured["hardware"]
            print(f"Expect about {measured['seconds']:.0f} s (measured: {there['device']}, {there['cores']} cores).")
        else:
            print("Expected time: not measured yet at this preset.")
