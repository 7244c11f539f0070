"""The folder for a stick: what it holds, an installation from it with no index, and everything that can be wrong.

The course in it is a small one with its own build backend, and its packages are made here, so nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pfmcourse import cli
from pfmcourse.base import CourseError, repository
from pfmcourse.course import stick, wheelhouse

BACKEND = """
import zipfile
from pathlib import Path

NAME = "pfmcourse-0.0.1.dist-info"
TAGS = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "pfmcourse-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        wheel.writestr("course.pth", str(Path.cwd()))
        wheel.writestr(f"{NAME}/METADATA", "Metadata-Version: 2.1\\nName: pfmcourse\\nVersion: 0.0.1\\n")
        wheel.writestr(f"{NAME}/WHEEL", TAGS)
        wheel.writestr(f"{NAME}/RECORD", "")
    return name
"""
COURSE = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "pfmcourse"\nversion = "0.0.1"\n',
    "backend.py": BACKEND,
    "requirements.txt": "# ours\n-e .\n\nadder==1.0   # adds\nabsent==3; sys_platform == 'amiga'  # nowhere\n",
    "requirements-teaching.txt": "-r requirements.txt\nteacher==1.0\n",
    "pfmcourse/__init__.py": "",
    "pfmcourse/__main__.py": "import sys, adder\nprint('doctor says', adder.add(1), *sys.argv[1:])\n",
    "notebooks/01_tiny.ipynb": "{}",
    "data/checkpoints/tiny.safetensors": "weights",
    "data/cache/large": "not to be copied",
    "runs/01_tiny/results.json": "not to be copied",
}


def wheel(folder, name, code="", requires=(), tag="py3-none-any"):
    """A wheel of one module."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(the small course, a folder that stands for the package index)."""
    folder = tmp_path_factory.mktemp("world")
    for name, text in COURSE.items():
        (folder / "course" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "course" / name).write_text(text, encoding="utf-8")
    index = folder / "index"
    index.mkdir()
    wheel(index, "adder", "from one import ONE\n\n\ndef add(x):\n    return x + ONE\n", ["one>=1"])
    wheel(index, "one", "ONE = 1\n", ["windowed; sys_platform == 'win32'", "extra; extra == 'more'"])
    wheel(index, "windowed", tag="cp312-cp312-win_amd64")
    wheel(index, "teacher")
    return folder / "course", index


@pytest.fixture
def offline_pip(world, monkeypatch):
    """pip finds the packages of the small world, and no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(world[1]))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture(scope="module")
def _made(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sticks") / "stick"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(world[1]))
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        said = []
        facts = wheelhouse.build(folder, root=world[0], say=said.append)
    return folder, facts, said


@pytest.fixture
def made(_made, tmp_path):
    """(a copy of the finished stick, its facts, what was said)."""
    folder, facts, said = _made
    return shutil.copytree(folder, tmp_path / "stick"), facts, said


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run_installer(folder, *arguments):
    """Start install.py as its user would, without what pip is told in this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, str(folder / "install.py"), *map(str, arguments)],
        env=environment | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_the_stick_holds(made):
    folder, facts, said = made
    assert names(folder) == {
        *("README.txt", "install.sh", "install.bat", "install.py", "wheelhouse.json", "SHA256SUMS"),
        *("wheels/adder-1.0-py3-none-any.whl", "wheels/one-1.0-py3-none-any.whl"),
        *(f"course/{name}" for name in COURSE if not name.startswith(("runs/", "data/cache/"))),
    }
    assert wheelhouse.check(folder) == []
    assert facts["wheels"] == 2 and facts["bytes"] > 1000
    assert json.loads((folder / "wheelhouse.json").read_text(encoding="utf-8"))["requirements"] == "requirements.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("README.txt", "install.sh", "install.bat"):
        text = (folder / name).read_text(encoding="utf-8")
        assert version in text and "{" not in text.replace("{title}", "")
    assert any("some minutes" in line for line in said)


def test_an_installation_with_no_index(made, tmp_path):
    folder, _, _ = made
    target = tmp_path / "home" / "pfmcourse"
    (folder / "wheels" / "one-1.0-py3-none-any.whl").rename(tmp_path / "hidden.whl")
    code, said = run_installer(folder, target)
    assert code == 2 and "missing: wheels/one-1.0-py3-none-any.whl" in said and not target.exists()
    (tmp_path / "hidden.whl").rename(folder / "wheels" / "one-1.0-py3-none-any.whl")

    code, said = run_installer(folder, target)
    assert code == 0, said
    assert "doctor says 2 doctor" in said and f"The course is in {target}" in said
    assert (target / "notebooks" / "01_tiny.ipynb").is_file() and (target / ".venv" / ".installed").is_file()
    where = "import pfmcourse; print(pfmcourse.__file__)"
    done = subprocess.run([stick.venv_python(target), "-c", where], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(str(target)), done.stderr  # in place: it finds its notebooks and data

    code, said = run_installer(folder, target)
    assert code == 2 and "already" in said


@pytest.mark.skipif(os.name == "nt", reason="runs a shell script")
def test_the_shell_script_finds_a_python_or_says_which(made, tmp_path):
    folder, _, _ = made
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    environment = os.environ | {"PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"}
    command = ["sh", folder / "install.sh", tmp_path / "full"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "is not empty" in done.stderr
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dirname").symlink_to(shutil.which("dirname"))
    done = subprocess.run(
        ["/bin/sh", folder / "install.sh"], env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "no Python" in done.stderr and "python.org" in done.stderr


def test_damage_is_noticed(made, monkeypatch, capsys, tmp_path):
    folder, _, _ = made
    with (folder / "wheels" / "adder-1.0-py3-none-any.whl").open("r+b") as file:
        file.seek(40)
        file.write(b"?")
    (folder / "course" / "notebooks" / "01_tiny.ipynb").unlink()
    found = ["missing: course/notebooks/01_tiny.ipynb", "damaged: wheels/adder-1.0-py3-none-any.whl"]
    assert wheelhouse.check(folder) == found
    with pytest.raises(SystemExit) as stopped:
        cli.main(["wheelhouse", str(folder), "--check"])
    assert stopped.value.code == 1 and found[1] in capsys.readouterr().out
    with pytest.raises(stick.Problem, match="2 file"):
        stick.install(folder, tmp_path / "target", say=str)
    (folder / "SHA256SUMS").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(CourseError, match="SHA256SUMS is damaged"):
        wheelhouse.check(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CourseError, match="cannot be read"):
        wheelhouse.check(folder)
    with pytest.raises(CourseError, match="is no wheelhouse"):
        wheelhouse.check(tmp_path)


def test_the_installer_refuses_another_python_system_and_a_full_disk(made, tmp_path, monkeypatch):
    folder, _, _ = made
    facts = json.loads((folder / "wheelhouse.json").read_text(encoding="utf-8"))
    with pytest.raises(stick.Problem, match=r"wheels here are for Python 3\.99.*python\.org"):
        stick.check_python(facts | {"python": "3.99"})
    with pytest.raises(stick.Problem, match="for Amiga on m68k"):
        stick.check_python(facts | {"system": "Amiga", "machine": "m68k"})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1_000_000))
    with pytest.raises(stick.Problem, match=r"0\.0 GB free, but 0\.5 GB are needed"):
        stick.install(folder, tmp_path / "a" / "b", say=str)
    with pytest.raises(CourseError, match=r"0\.0 GB free, but about 2\.0 GB"):
        wheelhouse.check_room([tmp_path / "a" / "b"], 2_000_000_000)


# Making it ------------------------------------------------------------------------------------------------------------


def test_another_system_gets_its_own_packages(world, offline_pip, tmp_path):
    said = []
    facts = wheelhouse.build(
        tmp_path / "stick", platform_name="win_amd64", python="3.12", teaching=True, root=world[0], say=said.append
    )
    found = {path.name.partition("-")[0] for path in (tmp_path / "stick" / "wheels").iterdir()}
    assert found == {"adder", "one", "windowed", "teacher"}
    assert (facts["system"], facts["machine"], facts["python"]) == ("Windows", "amd64", "3.12")
    assert facts["requirements"] == "requirements-teaching.txt"
    assert "-3.12" in (tmp_path / "stick" / "install.bat").read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="no wheel found for windowed"):
        wheelhouse.build(tmp_path / "other", platform_name="win_amd64", python="3.13", root=world[0], say=said.append)


def test_a_package_that_is_nowhere_is_named(world, offline_pip, tmp_path):
    course = shutil.copytree(world[0], tmp_path / "course")
    with (course / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("nowhere==7\n")
    with pytest.raises(CourseError, match="no wheel found for nowhere==7"):
        wheelhouse.build(tmp_path / "stick", root=course, say=str)
    with pytest.raises(CourseError, match="'what is this' is no requirement"):
        (course / "requirements.txt").write_text("what is this\n", encoding="utf-8")
        wheelhouse.build(tmp_path / "stick", root=course, say=str)


def test_pips_failures_say_what_to_do(monkeypatch):
    pip = wheelhouse.Pip(str)
    lost = "WARNING: Retrying after NewConnectionError: Failed to establish a new connection\nERROR: No matching "
    for text, message in (
        (f"{lost}distribution found for torch==2.14.1", "no network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for torch==2.14.1 (from x)", "no wheel found for torch==2.14.1"),
        ("something\nelse", "pip failed:\nsomething\nelse"),
    ):
        assert message in str(pip.error(text.splitlines()))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1))
    with pytest.raises(CourseError, match="ensurepip"):
        wheelhouse.Pip(str)


def test_folders_that_hold_something_else(world, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="is not empty"):
        wheelhouse.build(tmp_path, root=world[0], say=str)
    with pytest.raises(CourseError, match="inside the repository"):
        wheelhouse.build(world[0] / "stick", root=world[0], say=str)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("amiga", None, "unknown platform 'amiga'"),
        ("win_m68k", None, "unknown platform"),
        (None, "3", "two numbers"),
        (None, "3.99", "name the platform as well"),
    ],
)
def test_bad_targets(name, version, message):
    with pytest.raises(CourseError, match=message):
        wheelhouse.target(name, version)


def test_targets():
    assert wheelhouse.target("macosx_14_0_arm64", "3.12") == {
        "python": "3.12",
        "system": "Darwin",
        "machine": "arm64",
        "platforms": ["macosx_14_0_arm64"],
    }
    linux = wheelhouse.target("manylinux_2_28_aarch64", "3.11")
    assert linux["platforms"][0] == "manylinux_2_28_aarch64" and "manylinux_2_17_aarch64" in linux["platforms"]
    assert wheelhouse.marker_environment(linux)["platform_machine"] == "aarch64"
    assert wheelhouse.target(None, None)["platforms"] == []


def test_the_real_requirements():
    root = repository()
    ours = {one.name for one in wheelhouse.requirement_lines(root / "requirements-teaching.txt")}
    assert {"torch", "nbgrader"} <= ours and "pfmcourse" not in ours
    assert {one.name for one in wheelhouse.build_requirements(root)} == {"hatchling", "editables"}
    copied = {path.as_posix() for path in wheelhouse.files(root)}
    assert {"requirements.txt", "notebooks/lessons.yaml", "data/catalog.toml", "Makefile"} <= copied
    assert any(name.startswith("data/checkpoints/") for name in copied)
    assert not any(name.startswith(("data/cache/", ".venv/", ".git/", "runs/")) for name in copied)
    assert {"torch", "jinja2"} <= set(wheelhouse.closure([Requirement("torch")]))
