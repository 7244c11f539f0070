"""Benchmarks: ours and the peer's side by side in one run, as ratios. `make bench` prints them and keeps them as JSON.

The suite's own conftest.py sets one thread for the tests; here every run chooses its threads itself.
"""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the benchmarks share measure.py

RESULTS = Path(__file__).with_name("results.json")


@pytest.fixture
def report() -> Callable[..., None]:
    """Print one benchmark's figures and add them to results.json."""

    def write(name: str, **figures: float | str) -> None:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        results[name] = figures | {"machine": platform.machine(), "torch": torch.__version__}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        shown = ", ".join(
            f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        )
        print(f"\n{name}: {shown}")

    return write
