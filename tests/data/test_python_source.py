"""Python's own source: whole packages in one part only, nothing that is no code, and an error where there is none."""

import json
import statistics
import urllib.parse
from pathlib import Path

import pytest

from pfmcourse.base import CourseError, UnknownName
from pfmcourse.data import python_source

PARTS = ("train", "validation", "test")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small standard library of our own."""
    files = {
        "abc.py": "train = 1\n",
        "zebra/__init__.py": "import argparse\n",
        "argparse.py": "validation = 1\n",
        "urllib/parse.py": "validation = 2\n",
        "json/decoder.py": "test = 1\n",
        "statistics.py": "test = 2\n",
        "empty.py": "",
        "long.py": "x = 1\n" * 20_000,
        "test/test_abc.py": "left out\n",
        "unittest/tests/deep.py": "left out\n",
        "site-packages/torch/nn.py": "left out\n",
        "encodings/cp1252.py": "left out\n",
        "_sysconfigdata__linux.py": "left out\n",
        "notes.txt": "no code\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "latin.py").write_bytes("# café\n".encode("latin-1"))
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    python_source.load.cache_clear()
    yield tmp_path
    python_source.load.cache_clear()


def test_what_is_read_and_in_which_order(library):
    modules = python_source.load().modules
    assert list(modules) == [
        "abc.py",
        "argparse.py",
        "json/decoder.py",
        "statistics.py",
        "urllib/parse.py",
        "zebra/__init__.py",
    ]
    assert modules["json/decoder.py"] == "test = 1\n"


def test_packages_are_not_torn_apart(library):
    found = python_source.load()
    assert {part: list(found.split(part)) for part in PARTS} == {
        "train": ["abc.py", "zebra/__init__.py"],
        "validation": ["argparse.py", "urllib/parse.py"],
        "test": ["json/decoder.py", "statistics.py"],
    }
    assert found.text("validation") == "validation = 1\n\n\nvalidation = 2\n"


def test_a_library_without_source_is_an_error(library):
    for path in [*library.rglob("*.py")]:
        path.unlink()
    with pytest.raises(CourseError, match=r"no source in .*python\.org"):
        python_source.load()


def test_an_unknown_part_names_the_known_ones(library):
    with pytest.raises(UnknownName, match="Did you mean 'train'"):
        python_source.load().split("trian")


def test_the_real_one():
    found = python_source.load()
    parts = {part: found.split(part) for part in PARTS}
    assert sum(map(len, parts.values())) == len(found.modules) > 300
    packages = [{path.split("/")[0] for path in part} for part in parts.values()]
    for i, one in enumerate(packages):
        assert all(one.isdisjoint(other) for other in packages[i + 1 :])
    assert packages[1] <= set(python_source.VALIDATION) and "urllib" in packages[1]
    assert packages[2] <= set(python_source.TEST) and {"json", "statistics.py"} <= packages[2]
    for module, name in ((json, "json/__init__.py"), (statistics, "statistics.py"), (urllib.parse, "urllib/parse.py")):
        assert found.modules[name] == Path(module.__file__).read_text(encoding="utf-8")
    assert len(found.text("train")) > 10 * len(found.text("test")) > 100_000
    for path, text in found.modules.items():
        assert "site-packages" not in path and 0 < len(text) <= python_source.LONGEST
