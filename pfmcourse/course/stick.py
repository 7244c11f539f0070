"""Install the course from this folder, without a network: python install.py [FOLDER]

`pfmcourse wheelhouse` copies this file to a stick, as install.py; install.sh and install.bat find a Python for it. It
checks every file against SHA256SUMS, copies the course to FOLDER (default: pfmcourse in your home folder), makes a
virtual environment in it, and installs everything from the folder with wheels. It needs Python and nothing else.
"""

from __future__ import annotations  # an older Python then gets as far as check_python, which says which one is wanted

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SUMS = "SHA256SUMS"
FACTS = "wheelhouse.json"
COURSE, WHEELS = "course", "wheels"
SPARE = 500_000_000  # bytes left free on the disk for runs and caches


class Problem(Exception):
    """Something that the reader can mend; the message says how."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of the folder, as they were written."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{folder / SUMS} cannot be read ({error}). Copy the folder again, or make it again.") from None
    found = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise Problem(f"{folder / SUMS} is damaged: {line[:60]!r}. Copy the folder again, or make it again.")
        found[name] = digest
    return found


def damaged(folder: Path) -> list[str]:
    """What is wrong with the files of the folder, one line each; an empty list when all is as it was written."""
    problems = []
    for name, digest in read_sums(folder).items():
        path = folder / name
        try:
            if sha256(path) != digest:
                problems.append(f"damaged: {name}")
        except FileNotFoundError:
            problems.append(f"missing: {name}")
        except OSError as error:
            problems.append(f"cannot be read: {name} ({error.strerror})")
    return problems


def check_python(facts: dict) -> None:
    """Raise Problem unless the wheels were made for this Python and this system."""
    found = f"{sys.version_info.major}.{sys.version_info.minor}"
    if found != facts["python"]:
        raise Problem(
            f"this is Python {found}, but the wheels here are for Python {facts['python']}. Install that one from "
            f"https://www.python.org/downloads/, then start this again with it, for example: "
            f"python{facts['python']} install.py"
        )
    if (platform.system(), platform.machine().lower()) != (facts["system"], facts["machine"]):
        raise Problem(
            f"this is {platform.system()} on {platform.machine()}, but the wheels here are for {facts['system']} on "
            f"{facts['machine']}. Ask for a folder made for your system: pfmcourse wheelhouse OUT --platform ..."
        )


def check_room(target: Path, needed: int) -> None:
    """Raise Problem unless the disk of ``target`` has room."""
    place = target
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + SPARE:
        raise Problem(
            f"the disk of {place} has {free / 1e9:.1f} GB free, but {(needed + SPARE) / 1e9:.1f} GB are needed. Make "
            "room, or name a folder on another disk: install.py FOLDER"
        )


def venv_python(target: Path) -> Path:
    """The interpreter of the environment in ``target``."""
    return target / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(stick: Path, target: Path, say=print) -> None:
    """Install the course from ``stick`` into ``target``; raises Problem with what to do."""
    facts = json.loads((stick / FACTS).read_text(encoding="utf-8"))
    check_python(facts)
    done = target / ".venv" / ".installed"
    if done.exists():
        raise Problem(f"the course is in {target} already. To install it afresh, delete that folder first.")
    begun = target / FACTS  # left by an attempt that did not come to its end
    if target.exists() and any(target.iterdir()) and not begun.exists():
        raise Problem(f"{target} is not empty. Name another folder: install.py FOLDER")
    say(f"Checking the files in {stick} ...")
    problems = damaged(stick)
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise Problem(f"{len(problems)} file(s) are not as they were written:\n  {shown}{more}\nCopy the folder again.")
    check_room(target, facts["unpacked_bytes"])
    say(f"Copying the course to {target} ...")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(stick / FACTS, begun)
    shutil.copytree(stick / COURSE, target, dirs_exist_ok=True)
    say("Making a virtual environment ...")
    made = subprocess.run([sys.executable, "-m", "venv", str(target / ".venv")], check=False)
    if made.returncode:
        raise Problem("no virtual environment could be made. On Debian and Ubuntu: sudo apt install python3-venv")
    say("Installing, without a network ...")
    command = [str(venv_python(target)), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-index"]
    command += ["--find-links", str((stick / WHEELS).resolve()), "-r", facts["requirements"]]
    if subprocess.run(command, cwd=target, check=False).returncode:
        raise Problem(f"the installation failed; the lines above say why. Start this again to go on in {target}.")
    done.touch()  # the Makefile looks at it, too
    with contextlib.suppress(OSError):
        begun.unlink()


def main(arguments: list[str] | None = None) -> int:
    """The command line of the installer; returns the exit code."""
    parser = argparse.ArgumentParser(prog="install.py", description="Install the course from this folder, offline.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path.home() / "pfmcourse", help="where to install it")
    target = parser.parse_args(arguments).folder.expanduser().resolve()
    stick = Path(__file__).resolve().parent
    try:
        install(stick, target)
    except (Problem, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; start it again to go on", file=sys.stderr)
        return 130
    code = subprocess.run([str(venv_python(target)), "-m", "pfmcourse", "doctor"], cwd=target, check=False).returncode
    activate = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
    print(f"\nThe course is in {target}. Next:\n  cd {target}\n  {activate}\n  jupyter lab notebooks")
    return code


if __name__ == "__main__":
    sys.exit(main())
