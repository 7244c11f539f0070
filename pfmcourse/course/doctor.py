"""Is this machine ready for the course? Every check says what it found and, where something is amiss, what to do.

This module imports only the standard library at its top: it is needed most when an installation went wrong.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pfmcourse.base import PRESETS, CourseError, repository, unknown_name

OK, ADVICE, PROBLEM = "ok", "advice", "problem"
PYTHON = (3, 11)
INSTALL = "python -m pip install -r requirements.txt"
# packages without which every lesson still runs to its end; those under "# Tests" in requirements.txt are added
OPTIONAL = {"dgl", "nbdime", "jupyterlab", "ipywidgets"}
MEMORY_NEEDED, MEMORY_WANTED = 1e9, 2.5e9  # bytes; a lesson may use 2 GB
DISK_NEEDED, DISK_WANTED = 1e8, 1e9


@dataclass(frozen=True)
class Finding:
    """What one check found. ``level`` is ok, advice (lessons run) or problem (some lesson cannot run)."""

    level: str
    what: str
    found: str
    do: str = ""


def _packaging(part: str) -> ModuleType:
    """A module of ``packaging``, from pip's own copy if the package is missing."""
    try:
        return importlib.import_module(f"packaging.{part}")
    except ImportError:
        return importlib.import_module(f"pip._vendor.packaging.{part}")


def requirements(path: Path) -> Iterator[tuple[Any, bool]]:
    """The pinned requirements of the file, as ``packaging`` objects, and whether lessons can do without each."""
    parse = _packaging("requirements").Requirement
    tests = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            tests = line.strip("# ").startswith("Tests")
        text = line.split("#")[0].strip()
        if text and not text.startswith("-"):
            requirement = parse(text)
            yield requirement, tests or requirement.name in OPTIONAL


def check_python() -> Iterator[Finding]:
    """The interpreter's version."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        yield Finding(
            PROBLEM, "Python", found, f"Install Python {wanted} or newer, then: make PYTHON=python{wanted} lesson"
        )
    else:
        yield Finding(OK, "Python", found)


def check_settings() -> Iterator[Finding]:
    """The environment variables that change how lessons run."""
    preset = os.environ.get("PFMCOURSE_PRESET")
    if preset and preset not in PRESETS:
        yield Finding(PROBLEM, "PFMCOURSE_PRESET", str(unknown_name("preset", preset, PRESETS)), "Unset it.")
    elif preset:
        yield Finding(OK, "PFMCOURSE_PRESET", f"{preset}: lessons use this preset")


def check_packages(path: Path | None = None) -> Iterator[Finding]:
    """Every requirement that applies to this machine, at its version."""
    path = path or repository() / "requirements.txt"
    good, without_wheel = 0, []
    for requirement, optional in requirements(path):
        if requirement.marker is not None and not requirement.marker.evaluate():
            without_wheel.append(requirement.name)
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            level = ADVICE if optional else PROBLEM
            yield Finding(level, requirement.name, "not installed", f"python -m pip install '{requirement}'")
            continue
        if version in requirement.specifier:
            good += 1
        else:
            # works in all likelihood, but results were measured with the pinned one
            yield Finding(ADVICE, requirement.name, f"{version}, not {requirement.specifier}", INSTALL)
    yield Finding(OK, "packages", f"{good} installed at their versions")
    for name in without_wheel:
        yield Finding(
            ADVICE,
            name,
            f"has no wheel for Python {platform.python_version()} on {sys.platform}",
            "Nothing: lessons leave out the comparison with it. For all of it use Python 3.11 on Linux or macOS.",
        )


def check_torch() -> Iterator[Finding]:
    """That torch and torchvision load together, and what they would run on."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding(PROBLEM, "torch", f"cannot be imported: {error}", INSTALL)
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        pair = [str(found) for found, _ in requirements(repository() / "requirements.txt")]
        wanted = " ".join(text for text in pair if text.startswith(("torch==", "torchvision==")))
        yield Finding(
            PROBLEM,
            "torchvision",
            f"cannot be imported: {str(error).splitlines()[0]}",
            f"The two must be a pair from the same place: python -m pip install --force-reinstall {wanted}",
        )
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found = f"CUDA {number}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
            yield Finding(OK, "device", f"{found}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}")
    elif torch.backends.mps.is_available():
        yield Finding(OK, "device", "Apple GPU (mps)")
    else:
        tests = {"AMX": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
        fast = [name for name, test in tests.items() if getattr(torch.cpu, test, bool)()]
        found = f"CPU ({torch.backends.cpu.get_cpu_capability()}), bf16 in hardware: {', '.join(fast) or 'no'}"
        yield Finding(OK, "device", f"{found}. Lessons are made for this.")


def check_machine(folder: Path | None = None) -> Iterator[Finding]:
    """Cores, memory, free disk, and whether runs can be written."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "Lessons take about twice the time that the README names." if cores < 2 else ""
    yield Finding(ADVICE if advice else OK, "cores", str(cores), advice)
    try:
        memory = importlib.import_module("psutil").virtual_memory()
    except ImportError:
        memory = None  # check_packages has said so
    if memory is not None:
        level = OK if memory.available >= MEMORY_WANTED else ADVICE if memory.available >= MEMORY_NEEDED else PROBLEM
        found = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
        yield Finding(level, "memory", found, "" if level == OK else "Close other programs; a lesson uses up to 2 GB.")
    folder = folder or repository()
    free = shutil.disk_usage(folder).free
    level = OK if free >= DISK_WANTED else ADVICE if free >= DISK_NEEDED else PROBLEM
    what_to_do = "" if level == OK else f"Make room on the disk of {folder}; runs/ and data/cache/ may be deleted."
    yield Finding(level, "disk", f"{free / 1e9:.1f} GB free", what_to_do)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding(
            PROBLEM, "folder", f"{folder} cannot be written: {error}", "Clone the course into a folder of your own."
        )


def check_data() -> Iterator[Finding]:
    """Every data set of the catalogue, compared with its SHA-256."""
    try:
        source = importlib.import_module("pfmcourse.data.source")
        catalog = source.catalog()
    except (ImportError, OSError, CourseError) as error:
        yield Finding(PROBLEM, "data", f"cannot be checked: {error}", INSTALL)
        return
    for name, entry in catalog.items():
        try:
            source.verified(name)
        except CourseError as error:
            yield Finding(PROBLEM, f"data: {name}", str(error))  # the message says what to install
        else:
            yield Finding(OK, f"data: {name}", f"verified, {entry.bytes / 1e6:.1f} MB, {entry.licence}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_settings,
    check_packages,
    check_torch,
    check_machine,
    check_data,
)


def examine() -> list[Finding]:
    """All findings. A check that itself breaks is a finding too."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found.extend(check())
        except Exception as error:
            what = check.__name__.removeprefix("check_")
            found.append(Finding(PROBLEM, what, f"the check failed: {type(error).__name__}: {error}", INSTALL))
    found.append(Finding(OK, "network", "not needed: every lesson runs from installed packages"))
    return found


def show(findings: list[Finding], say: Callable[[str], None] = print) -> None:
    """Print the findings as plain lines, and a last line with the verdict."""
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        say(f"{finding.level:<8}{finding.what:<{width}}  {finding.found}")
        if finding.do:
            say(f"{'':<8}{'':<{width}}  -> {finding.do}")
    problems = sum(finding.level == PROBLEM for finding in findings)
    say(f"{problems} problem{'s' if problems != 1 else ''} to solve." if problems else "Ready: every lesson can run.")


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing stops a lesson."""
    return all(finding.level != PROBLEM for finding in findings)
