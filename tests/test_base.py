"""The ground floor: names that do not exist, presets, overrides, and files that are never half-written."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from typing import Literal

import pytest

from pfmcourse import base
from pfmcourse.base import CourseError, MissingPackage, UnknownName


@pytest.mark.parametrize(
    ("name", "known", "suggestion"),
    [
        ("skip_gramm", ["glove", "skip_gram", "nnlm"], "skip_gram"),
        ("SKIP_GRAM", ["glove", "skip_gram"], "skip_gram"),
        ("roberta", ["BERT", "RoBERTa", "ELMo"], "RoBERTa"),
        ("GLOVE", ["GloVe", "glove2"], "GloVe"),
    ],
)
def test_the_nearest_name_is_suggested_in_its_own_spelling(name, known, suggestion):
    message = str(base.unknown_name("recipe", name, iter(known)))
    assert message.startswith(f"unknown recipe '{name}'. Did you mean '{suggestion}'? Known: ")
    assert message.endswith(f"Known: {', '.join(sorted(known))}.")


def test_no_suggestion_where_nothing_is_near():
    assert str(base.unknown_name("lesson", "zzz", ["alpha"])) == "unknown lesson 'zzz'. Known: alpha."
    assert str(base.unknown_name("lesson", 7, [])) == "unknown lesson '7'. Known: none."


def test_an_unknown_name_is_caught_as_either_kind():
    error = base.unknown_name("lesson", "zzz", ["alpha"])
    assert isinstance(error, CourseError) and isinstance(error, KeyError)
    assert str(error)[0] != '"'  # KeyError puts its message in quotation marks


def test_the_preset_is_the_argument_then_the_environment_then_laptop(monkeypatch):
    monkeypatch.delenv("PFMCOURSE_PRESET", raising=False)
    assert base.resolve_preset() == "laptop"
    monkeypatch.setenv("PFMCOURSE_PRESET", "smoke")
    assert base.resolve_preset() == "smoke"
    assert base.resolve_preset("long") == "long"
    with pytest.raises(UnknownName, match=r"unknown preset 'lapptop'\. Did you mean 'laptop'"):
        base.resolve_preset("lapptop")
    monkeypatch.setenv("PFMCOURSE_PRESET", "somke")
    with pytest.raises(UnknownName, match="Did you mean 'smoke'"):
        base.resolve_preset()


@dataclasses.dataclass(frozen=True)
class Sizes:
    steps: int = 10
    rate: float = 0.1
    kind: Literal["muon", "adamw"] = "adamw"
    seed: int | None = None
    name: str = "tiny"
    betas: tuple[float, float] = (0.9, 0.95)
    shuffle: bool = True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 3),
        ("rate", 0.2),
        ("rate", 1),
        ("kind", "muon"),
        ("seed", 4),
        ("seed", None),
        ("name", "x"),
        ("betas", (0.0, 0.0)),
        ("shuffle", False),
    ],
)
def test_a_field_is_replaced(field, value):
    changed = base.replace_fields(Sizes(), {field: value})
    assert getattr(changed, field) == value
    assert dataclasses.replace(changed, **{field: getattr(Sizes(), field)}) == Sizes()


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("steps", 3.0, "10"),
        ("steps", "3", "10"),
        ("steps", True, "10"),
        ("rate", "0.2", "0.1"),
        ("rate", False, "0.1"),
        ("kind", "sgd", "'adamw'"),
        ("seed", 1.5, "None"),
        ("name", 3, "'tiny'"),
        ("betas", [0.9, 0.95], "(0.9, 0.95)"),
        ("shuffle", 1, "True"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value, default):
    with pytest.raises(CourseError) as caught:
        base.replace_fields(Sizes(), {field: value})
    message = str(caught.value)
    assert message.startswith(f"parameter '{field}' wants ")
    assert f"got {value!r} ({type(value).__name__})" in message
    assert message.endswith(f"Its default is {default}.")


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown parameter 'step'\. Did you mean 'steps'"):
        base.replace_fields(Sizes(), {"step": 3})


def test_a_missing_package_names_the_command():
    assert base.require("json", "json", "reading") is sys.modules["json"]
    with pytest.raises(MissingPackage) as caught:
        base.require("no_such_package", "no-such-package==1.0", "the graphs of lesson 12")
    assert "needed for the graphs of lesson 12" in str(caught.value)
    assert "python -m pip install 'no-such-package==1.0'" in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_the_repository_is_the_clone(tmp_path, monkeypatch):
    assert (base.repository() / "pfmcourse" / "base.py").is_file()
    monkeypatch.setattr(base, "__file__", str(tmp_path / "site-packages" / "pfmcourse" / "base.py"))
    with pytest.raises(CourseError, match=r"no notebooks/ folder in .*site-packages.*pip install -e \."):
        base.repository()


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    with base.write_atomically(path) as part:
        assert part.parent == path.parent
        part.write_text("old", encoding="utf-8")
        assert not path.exists()
    with base.write_atomically(path) as part:
        part.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="full"), base.write_atomically(path) as part:
        part.write_text("half of the n", encoding="utf-8")
        raise OSError("the disk is full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old", encoding="utf-8")
    program = """
        import os, pathlib, signal, sys
        from pfmcourse.base import write_atomically
        with write_atomically(pathlib.Path(sys.argv[1])) as part:
            part.write_text("half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), path])
    assert done.returncode == -9
    assert path.read_text(encoding="utf-8") == "old"
