"""One folder for a stick, from which a room of laptops installs the course without a network.

It holds a copy of the repository, a wheel of every package, an installer (``pfmcourse.course.stick``) and the SHA-256
of every file. pip does the fetching. For another system or Python than this one pip cannot say which packages are
wanted, because it looks at the machine that it runs on; there the dependencies are followed here, from the wheels.
"""

import email.parser
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

from pfmcourse.base import CourseError, repository
from pfmcourse.course import stick

COMPRESSED = 0.6  # a wheel's share of what it unpacks to, rounded up
NEVER = {".git", ".venv", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".benchmarks"}
NEVER_BELOW = {"data/cache", "slides/built", "docs/built"}
NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|getaddrinfo failed"
    r"|Network is unreachable|No route to host|Failed to establish a new connection|ConnectTimeoutError|ProxyError"
)
FULL_DISK = re.compile(r"No space left on device|not enough space on the disk", re.IGNORECASE)
NOT_FOUND = re.compile(r"No matching distribution found for ([^\s(]+)")
MACHINES = {"amd64": "AMD64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "aarch64"}
GLIBC = (*(f"manylinux_2_{minor}" for minor in range(34, 4, -1)), "manylinux2014", "manylinux2010", "manylinux1")

README = """\
{title}
{rule}

This folder installs the course on a computer without a network.

It is for {system} on {machine}, with Python {python}. If Python {python} is not on the
computer, install it first, from https://www.python.org/downloads/

Linux, macOS:   open a terminal in this folder and type    sh install.sh
Windows:        double-click install.bat, or type          install.bat

The course goes to the folder "pfmcourse" in your home folder; another folder may follow
the command. The installer checks all files first. It needs {room:.1f} GB on the computer's disk
and some minutes. At the end it says how to open the lessons.

course            the lessons and their code, as in the repository
wheels            every package that they need
SHA256SUMS        the check sum of every file, by which the installer notices damage
wheelhouse.json   what this folder was made for
"""
INSTALL_SH = """\
#!/bin/sh
# Finds Python {python} and starts the installer beside this file: sh install.sh [FOLDER]
here=$(cd "$(dirname "$0")" && pwd)
for candidate in python{python} python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != ({major}, {minor}))' 2>/dev/null; then
        exec "$candidate" "$here/install.py" "$@"
    fi
done
echo "error: no Python {python} found. Install it from https://www.python.org/downloads/ and start this again." >&2
exit 2
"""
INSTALL_BAT = """\
@echo off
rem Finds Python {python} and starts the installer beside this file: install.bat [FOLDER]
py -{python} "%~dp0install.py" %*
if %errorlevel% equ 0 goto done
if %errorlevel% equ 2 goto done
if %errorlevel% equ 1 goto done
python "%~dp0install.py" %*
:done
pause
"""


def requirement_lines(path: Path) -> list[Requirement]:
    """The requirements of a file and of those that it includes; ``-e .``, the course itself, is left out."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CourseError(f"the requirements {path} cannot be read: {error}") from None
    for line in lines:
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        option, _, rest = text.partition(" ")
        if option in ("-r", "--requirement"):
            found += requirement_lines(path.parent / rest.strip())
        elif text and option not in ("-e", "--editable"):
            try:
                found.append(Requirement(text))
            except InvalidRequirement as error:
                raise CourseError(f"{path}: {text!r} is no requirement: {error}") from None
    return found


def build_requirements(root: Path) -> list[Requirement]:
    """What pip needs to install the course itself: its build backend, and what that needs to install it in place."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("build-system", {})
    found = [Requirement(text) for text in table.get("requires", ["setuptools"])]
    if any(one.name == "hatchling" for one in found):
        found.append(Requirement("editables"))
    return found


def files(root: Path) -> list[Path]:
    """The files of the repository, relative to it, as git knows them; without git, all but what is made locally."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
        if done.returncode == 0:
            names = sorted(set(done.stdout.decode().split("\0")) - {""})
            return [Path(name) for name in names if (root / name).is_file()]
    found = []
    for folder, inner, names in os.walk(root):
        here = Path(folder).relative_to(root)
        inner[:] = sorted(name for name in inner if name not in NEVER and (here / name).as_posix() not in NEVER_BELOW)
        found += [here / name for name in sorted(names) if not name.endswith(".lock")]
    return found


def closure(requirements: Iterable[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that the requirements lead to, by canonical name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(one.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[key[0]] = distribution
        waiting += _wanted(distribution.requires or [], one.extras, {})
    return found


def _wanted(texts: Iterable[str], extras: Iterable[str], environment: Mapping[str, str]) -> list[Requirement]:
    """Those of a distribution's requirements that apply; each without its marker."""
    found = []
    for one in map(Requirement, texts):
        if one.marker is None or any(one.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
            one.marker = None
            found.append(one)
    return found


def room_needed(requirements: Iterable[Requirement], root: Path) -> int:
    """About how many bytes the folder will take, from what is installed here."""
    installed = sum(
        file.size or 0 for distribution in closure(requirements).values() for file in distribution.files or []
    )
    return round(COMPRESSED * installed) + sum((root / path).stat().st_size for path in files(root))


def check_room(places: Iterable[Path], needed: int) -> None:
    """Raise CourseError unless the disks of all places have room."""
    for place in places:
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < needed:
            raise CourseError(
                f"the disk of {place} has {free / 1e9:.1f} GB free, but about {needed / 1e9:.1f} GB are needed. Make "
                "room, or choose another disk. (pip unpacks in the folder for temporary files; TMPDIR names it.)"
            )


class Pip:
    """Runs pip and turns its failures into errors that say what to do. ``say`` gets a line for each large download."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        found = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
        if found.returncode:
            raise CourseError(
                "this Python has no pip, which fetches the packages. Install it with: python -m ensurepip --upgrade"
            )

    def __call__(self, *arguments: str) -> None:
        """Run ``pip`` with these arguments; raises CourseError when it fails."""
        command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar", "off"]
        said = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        ) as process:
            for line in process.stdout:
                said.append(line.rstrip())
                size = re.match(r"\s*Downloading (?:\S*/)?([^\s/]+) \((.+)\)", line)
                if size and size[2].endswith("MB"):
                    self.say(f"  {size[1]}, {size[2]}")
        if process.returncode:
            raise self.error(said)

    def error(self, said: list[str]) -> CourseError:
        """What went wrong, from what pip printed."""
        text = "\n".join(said)
        if FULL_DISK.search(text):
            return CourseError("the disk is full. Make room, or choose another disk, and start again.")
        if NO_NETWORK.search(text):
            return CourseError(
                "the package index cannot be reached: no network, or a proxy stands between. This command needs the "
                "network, so that the laptops do not. What pip has fetched is in its cache; start again later."
            )
        missing = NOT_FOUND.search(text)
        if missing:
            return Missing(missing[1])
        last = [line for line in said if line.strip()][-8:]
        return CourseError("pip failed:\n" + "\n".join(last))


class Missing(CourseError):
    """No wheel of a package; ``requirement`` is what pip looked for."""

    def __init__(self, requirement: str) -> None:
        self.requirement = requirement
        super().__init__(
            f"no wheel found for {requirement}. Either the index lacks it for this system and Python, or pip was told "
            "not to look there (PIP_NO_INDEX, or a configuration file)."
        )


def target(name: str | None, version: str | None) -> dict[str, Any]:
    """What the folder is for: system, machine, Python, and pip's names for the platform (none for this machine's).

    ``name`` is a platform as pip calls it, win_amd64, say; ``version`` a Python such as 3.12.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = version or here
    if not re.fullmatch(r"3\.\d+", version):
        raise CourseError(f"--python-version wants two numbers, as 3.11, but got {version!r}.")
    if name is None:
        facts = {"python": version, "system": platform.system(), "machine": platform.machine().lower()}
        if version != here:
            raise CourseError(f"for Python {version} name the platform as well: --platform win_amd64, for example.")
        return facts | {"platforms": []}
    kinds = {"win": "Windows", "macosx": "Darwin", "manylinux": "Linux", "linux": "Linux"}
    kind = next((kind for kind in kinds if name.startswith(kind)), None)
    machine = next((machine for machine in MACHINES if name.endswith(f"_{machine}")), None)
    if kind is None or machine is None:
        raise CourseError(
            f"unknown platform {name!r}. Known are win_amd64, macosx_14_0_arm64, macosx_14_0_x86_64, "
            "manylinux_2_28_x86_64, manylinux_2_28_aarch64 and their like."
        )
    platforms = [name]
    if kinds[kind] == "Linux":  # pip takes only the platforms that are named, not the older ones that work as well
        newest = re.match(r"manylinux_2_(\d+)_", name)
        known = [
            old
            for old in GLIBC
            if not (newest and (m := re.match(r"manylinux_2_(\d+)$", old)) and int(m[1]) > int(newest[1]))
        ]
        platforms = [f"{old}_{machine}" for old in (*known, "linux")]
    return {"python": version, "system": kinds[kind], "machine": machine, "platforms": platforms}


def marker_environment(facts: Mapping[str, Any]) -> dict[str, str]:
    """The values that markers of requirements are compared with on the target machine."""
    system = facts["system"]
    return {
        "python_version": facts["python"],
        "python_full_version": f"{facts['python']}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{facts['python']}.0",
        "platform_python_implementation": "CPython",
        "platform_system": system,
        "sys_platform": {"Windows": "win32", "Darwin": "darwin", "Linux": "linux"}[system],
        "os_name": "nt" if system == "Windows" else "posix",
        "platform_machine": MACHINES.get(facts["machine"], facts["machine"]),
        "platform_release": "",
        "platform_version": "",
    }


def read_metadata(wheel: Path) -> list[str]:
    """The requirements that a wheel names."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        return email.parser.Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def fetch_here(pip: Pip, requirements: list[Requirement], wheels: Path) -> None:
    """Wheels of everything that the requirements lead to, for this machine, at the versions that are installed here."""
    pinned = {canonicalize_name(one.name) for one in requirements}
    with tempfile.TemporaryDirectory() as folder:
        wanted, limits = Path(folder) / "wanted.txt", Path(folder) / "limits.txt"
        wanted.write_text("".join(f"{one}\n" for one in requirements), encoding="utf-8")
        tried = {
            name: one.version
            for name, one in closure(requirements).items()
            if name not in pinned and "+" not in one.version  # a version with a + is on no public index
        }
        limits.write_text("".join(f"{name}=={version}\n" for name, version in tried.items()), encoding="utf-8")
        pip("wheel", "--requirement", str(wanted), "--constraint", str(limits), "--wheel-dir", str(wheels))


def fetch_elsewhere(pip: Pip, requirements: list[Requirement], wheels: Path, facts: Mapping[str, Any]) -> None:
    """Wheels of everything that the requirements lead to, for another machine.

    Follows the dependencies level by level. A version that is installed here is preferred; there is no going back on
    a choice, which the exact pins of the course make unnecessary.
    """
    environment = marker_environment(facts)
    options = [part for name in facts["platforms"] for part in ("--platform", name)]
    options += ["--python-version", facts["python"], "--implementation", "cp", "--only-binary", ":all:", "--no-deps"]
    limits: dict[str, SpecifierSet] = {}
    extras: dict[str, set[str]] = {}
    have: dict[str, Path] = {}
    avoid: set[str] = set()  # packages whose installed version has no wheel for the target
    level = _wanted(map(str, requirements), (), environment)
    while level:
        changed = {}
        for one in level:
            name = canonicalize_name(one.name)
            limits[name] = limits.get(name, SpecifierSet()) & one.specifier
            if name not in extras or not one.extras <= extras[name]:
                extras[name] = extras.get(name, set()) | one.extras
                changed[name] = True
        new = [name for name in changed if name not in have]
        while new:
            texts = {name: _preferred(name, limits[name], avoid) for name in new}
            try:
                pip("download", *options, "--dest", str(wheels), *texts.values())
            except Missing as error:
                name = canonicalize_name(Requirement(error.requirement).name)
                if name in texts and name not in avoid and texts[name] != f"{name}{limits[name]}":
                    avoid.add(name)
                elif name in texts:
                    _build_pure(pip, texts[name], wheels, facts, error)
                    new.remove(name)
                else:
                    raise
                continue
            break
        have |= {canonicalize_name(parse_wheel_filename(path.name)[0]): path for path in wheels.glob("*.whl")}
        level = [one for name in changed for one in _wanted(read_metadata(have[name]), extras[name], environment)]


def _preferred(name: str, limit: SpecifierSet, avoid: set[str]) -> str:
    """The requirement to ask pip for: the version that is installed here if it will do."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name}{limit}"
    if name in avoid or "+" in version or not limit.contains(version, prereleases=True):
        return f"{name}{limit}"
    return f"{name}=={version}"


def _build_pure(pip: Pip, requirement: str, wheels: Path, facts: Mapping[str, Any], error: Missing) -> None:
    """Make a wheel from the source of a package that publishes none; only good when it has no compiled parts."""
    with tempfile.TemporaryDirectory() as folder:
        pip("wheel", "--no-deps", "--wheel-dir", folder, requirement)
        for path in Path(folder).glob("*.whl"):
            if not path.name.endswith("-none-any.whl"):
                raise CourseError(
                    f"{requirement} has no wheel for Python {facts['python']} on {facts['system']} "
                    f"({facts['machine']}), and cannot be built for it here. Make the folder on such a machine."
                ) from error
            shutil.move(path, wheels / path.name)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of the folder, as ``sha256sum -c`` reads it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != stick.SUMS)
    lines = [f"{stick.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / stick.SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def build(
    folder: Path,
    *,
    teaching: bool = False,
    platform_name: str | None = None,
    python: str | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Make the folder; returns its facts, ``bytes`` and ``unpacked_bytes`` among them.

    Args:
        folder: is made; one that holds an earlier attempt is made anew.
        teaching: whether the packages of requirements-teaching.txt come as well.
        platform_name, python: another machine than this one, in pip's words: win_amd64, 3.12.
        root: the repository; default: the one that this package lies in.
        say: is told what happens, a line at a time.

    Raises CourseError, with what to do, for a folder that holds something else, a disk without room, no network, no
    pip, and packages that have no wheel for the machine.
    """
    root = root or repository()
    facts = target(platform_name, python)
    platforms = facts.pop("platforms")
    facts["requirements"] = "requirements-teaching.txt" if teaching else "requirements.txt"
    if folder.exists() and any(folder.iterdir()) and not (folder / stick.FACTS).exists():
        raise CourseError(f"{folder} is not empty. Give the wheelhouse a folder of its own.")
    if root.resolve() in folder.resolve().parents:
        raise CourseError(f"{folder} lies inside the repository. Give the wheelhouse a folder somewhere else.")
    requirements = [*requirement_lines(root / facts["requirements"]), *build_requirements(root)]
    pip = Pip(say)
    needed = room_needed(requirements, root)
    check_room([folder, Path(tempfile.gettempdir())], needed)
    say(f"Fetching wheels with pip: about {needed / 1e9:.1f} GB, some minutes.")
    wheels, course = folder / stick.WHEELS, folder / stick.COURSE
    for old in (wheels, course):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir(parents=True)
    _write_facts(folder, facts)  # says from now on that the folder is ours
    if platforms:
        fetch_elsewhere(pip, requirements, wheels, facts | {"platforms": platforms})
    else:
        fetch_here(pip, requirements, wheels)
    say("Copying the course.")
    for path in files(root):
        (course / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, course / path)
    facts["unpacked_bytes"] = _unpacked(wheels) + sum(p.stat().st_size for p in course.rglob("*") if p.is_file())
    _write_facts(folder, facts)
    _write_texts(folder, facts)
    say("Writing check sums.")
    write_sums(folder)
    return facts | {
        "wheels": len(list(wheels.iterdir())),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


def _unpacked(wheels: Path) -> int:
    """The bytes that the wheels unpack to."""
    total = 0
    for path in wheels.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            total += sum(entry.file_size for entry in archive.infolist())
    return total


def _write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    (folder / stick.FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8", newline="\n")


def _write_texts(folder: Path, facts: Mapping[str, Any]) -> None:
    """The instructions and the installers."""
    title = "Pretrained foundation models: the course on a stick"
    major, minor = facts["python"].split(".")
    room = (facts["unpacked_bytes"] + stick.SPARE) / 1e9
    values = facts | {"title": title, "rule": "=" * len(title), "major": major, "minor": minor, "room": room}
    for name, text, newline in (
        ("README.txt", README, "\r\n"),  # the old Windows editor needs these
        ("install.sh", INSTALL_SH, "\n"),
        ("install.bat", INSTALL_BAT, "\r\n"),
    ):
        (folder / name).write_text(text.format_map(values), encoding="utf-8", newline=newline)
    (folder / "install.sh").chmod(0o755)
    shutil.copy(stick.__file__, folder / "install.py")


def check(folder: Path) -> list[str]:
    """What is damaged or missing in a folder that ``build`` made; raises CourseError where there is no such folder."""
    if not (folder / stick.FACTS).is_file():
        raise CourseError(f"{folder} is no wheelhouse: it has no {stick.FACTS}. Make one: pfmcourse wheelhouse OUT")
    try:
        return stick.damaged(folder)
    except stick.Problem as error:
        raise CourseError(str(error)) from None
