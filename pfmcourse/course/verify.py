"""Run the committed notebooks again, cell by cell, and compare what must not change (pytest with nbval underneath)."""

import os
import subprocess
import sys
from pathlib import Path

from pfmcourse.base import CourseError, repository
from pfmcourse.catalogue import Card

CELL_TIMEOUT = 1200  # seconds for one cell; a training cell of the laptop preset takes 90


def command(cards: list[Card], jobs: int, sanitizer: Path | None = None) -> list[str]:
    """The pytest command line. ``jobs`` lessons run at a time; each lesson stays within one process."""
    sanitizer = sanitizer or repository() / "tests" / "nbval_sanitize.cfg"
    parallel = ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 else []
    return [
        *(sys.executable, "-m", "pytest", "--nbval-lax"),
        # pytest's ids are relative to this folder; for notebooks outside it they clash, and xdist would drop some
        *("--rootdir", str(cards[0].folder.parent)),
        "--nbval-current-env",  # the kernel of this Python, whatever "python3" means elsewhere on the machine
        *("--nbval-sanitize-with", str(sanitizer)),
        *("--nbval-cell-timeout", str(CELL_TIMEOUT), "--timeout", str(CELL_TIMEOUT + 60)),
        *("-p", "no:cacheprovider", "-p", "pfmcourse.course.nbval_kernel"),
        *parallel,
        *(str(card.notebook) for card in cards),
    ]


def verify(cards: list[Card], preset: str, jobs: int = 1) -> int:
    """Run the lessons' notebooks through nbval, offline, at ``preset``; returns pytest's exit code.

    With one job a lesson may use every core; with more, each keeps to one thread.
    """
    missing = [card.notebook for card in cards if not card.notebook.is_file()]
    if missing:
        raise CourseError(f"the notebook {missing[0]} is missing; make it with: pfmcourse notebooks")
    environment = os.environ | {"PFMCOURSE_PRESET": preset, "PFMCOURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    if jobs > 1:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.run(command(cards, jobs), env=environment, cwd=cards[0].folder.parent, check=False).returncode
