"""The house: who may import whom, what stands where, and that set-up problems say what to do."""

import ast
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pfmcourse.base import repository

ROOT = repository()
PACKAGE = ROOT / "pfmcourse"

# part of the package -> parts it may import; base and offline are the ground floor, open to all
MAY_IMPORT = {
    "base": set(),
    "offline": set(),
    "catalogue": set(),
    "timeline": set(),
    "data": {"data"},
    "nn": {"nn"},
    "machine": set(),
    "optimizers": {"train"},  # train's own parts name its types
    "checkpoint": {"train"},
    "train": {"machine", "optimizers", "checkpoint"},
    "evaluate": set(),
    "plots": {"timeline"},
    "models": {"models", "nn"},
    "convert": {"convert", "models", "nn"},
    "recipes": {"recipes", "data", "models", "nn", "train", "evaluate"},
    "checks": {"checks", "models", "nn", "evaluate", "data"},
    "lesson": {"catalogue", "recipes", "train", "evaluate", "plots"},
    "course": {"course", "catalogue", "lesson", "checks", "recipes", "data", "timeline", "plots"},
    "cli": {"course", "catalogue", "data"},
    "__main__": {"cli", "course"},
    "__init__": set(),
}
GROUND = {"base", "offline"}
TOP_LEVEL = {
    *("README.md", "requirements.txt", "notebooks", "pfmcourse", "data", "tests", "slides"),
    *("docs", "requirements-teaching.txt", "pyproject.toml", "Makefile", "LICENSE", "CONTRIBUTING.md"),
    *(".gitignore", ".gitattributes", ".ci"),
}


def part(path):
    """The part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(line, dotted name) of everything a file imports, wherever in the file. ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def tracked():
    """The repository's files as git sees them, new ones included; without git, all of them."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout.split(
        "\n"
    )


def wrong_imports(path):
    """The imports of one of our files that the house does not allow."""
    ours = part(path)
    for line, name in imports(path):
        pieces = name.split(".")
        if pieces[0] != "pfmcourse" or len(pieces) < 2:
            continue
        if pieces[1] not in MAY_IMPORT[ours] | GROUND and pieces[1] != "__version__":
            yield f"{path.relative_to(ROOT)}:{line}: {ours} may not import pfmcourse.{pieces[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_imports_upwards(path):
    assert part(path) in MAY_IMPORT, f"a new part of the house, {part(path)}: say in MAY_IMPORT what it may import"
    assert list(wrong_imports(path)) == []


def test_the_import_rule_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "gpt.py"
    path.write_text("from pfmcourse import base, nn\nfrom pfmcourse.models import bert\n", encoding="utf-8")
    assert list(wrong_imports(path)) == []
    path.write_text("def f():\n    from pfmcourse.data import digits\n", encoding="utf-8")
    assert list(wrong_imports(path)) == ["models/gpt.py:2: models may not import pfmcourse.data".replace("/", os.sep)]


def test_the_data_modules_share_only_their_source():
    for path in (PACKAGE / "data").glob("*.py"):
        for line, name in imports(path):
            if name.startswith("pfmcourse.data."):
                assert name.split(".")[2] == "source", f"{path.name}:{line} imports {name}"


def test_the_top_level_is_as_planned():
    found = {name.split("/")[0] for name in tracked() if name}
    assert found <= TOP_LEVEL, f"not planned: {found - TOP_LEVEL}"
    assert found >= TOP_LEVEL, f"missing: {TOP_LEVEL - found}"


def test_no_python_file_holds_a_shared_folder_or_a_home():
    for name in tracked():
        if name.endswith((".py", ".ipynb", ".md", ".yaml", ".toml", ".json")) and (ROOT / name).is_file():
            text = (ROOT / name).read_text(encoding="utf-8")
            found = re.search(r"(?<![\w.])(?:/home/\w+|/root/|/Users/\w+|C:\\\\Users)", text)
            assert name == "tests/test_house.py" or not found, f"{name} names {found and found.group(0)}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_within_the_repository_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_the_licence_covers_code_and_prose():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in text


def lines_of(*names):
    return [line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]


def requirement_lines():
    for line in lines_of("requirements.txt", "requirements-teaching.txt"):
        if line.strip() and not line.startswith("#") and not line.startswith("-"):
            text, _, comment = line.partition("#")
            yield Requirement(text.strip()), comment.strip(), line


def test_requirements_are_exact_and_say_who_uses_them():
    names = []
    for requirement, comment, line in requirement_lines():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and "*" not in pin.version, line
        assert comment, f"what uses it? {line}"
        names.append(requirement.name)
    assert len(names) == len(set(names))
    assert {
        "jupyterlab",
        "torch",
        "torchvision",
        "transformers",
        "dgl",
        "librosa",
        "matplotlib",
        "nbval",
        "papermill",
    } <= set(names)
    assert "\n-e .\n" in (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_the_package_asks_for_nothing_that_requirements_do_not_pin():
    pinned = {requirement.name: requirement for requirement, _, _ in requirement_lines()}
    for text in importlib.metadata.requires("pfmcourse"):
        wanted = Requirement(text)
        (pin,) = pinned[wanted.name].specifier
        assert pin.version in wanted.specifier, f"pyproject.toml wants {wanted}, requirements.txt pins {pin}"


def test_every_import_is_a_direct_requirement():
    pinned = {requirement.name.lower().replace("_", "-") for requirement, _, _ in requirement_lines()}
    homes = importlib.metadata.packages_distributions()
    files = [*modules(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "notebooks" / "text").glob("*.py")]
    for path in files:
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in {
                "pfmcourse",
                "__future__",
                "standin",
                "measure",
                "compare",
                "pip",
            }:
                continue
            where = {home.lower().replace("_", "-") for home in homes.get(top, [top])}
            assert where & pinned, (
                f"{path.relative_to(ROOT)}:{line} imports {top}, which requirements.txt does not name"
            )


def test_import_of_the_package_is_cheap():
    program = "import sys, pfmcourse; print(*(set(sys.modules) & {'torch', 'numpy', 'yaml', 'rich', 'transformers'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_starts_without_torch():
    program = "import sys, pfmcourse.cli; print(*(set(sys.modules) & {'torch', 'numpy', 'papermill', 'nbconvert'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# Setting up ---------------------------------------------------------------------------------------------------------

needs_make = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="no make here")
NEW_ENOUGH = 'if [ "$1" = -c ]; then echo 3.12; exit; fi\n'


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "requirements.txt", "requirements-teaching.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_python(folder, body):
    path = folder / "fakepython"
    path.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make(folder, *arguments):
    # MAKEFLAGS of an outer `make test` would change what this one does
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    }
    done = subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@needs_make
@pytest.mark.parametrize("target", ["lesson", "test", "verify", "lab", "lint"])
def test_an_old_python_says_what_to_do(clone, target):
    python = fake_python(clone, "echo 3.9\n")
    code, _, err = make(clone, target, f"PYTHON={python}")
    assert code != 0
    assert "is Python 3.9" in err and "needs 3.11 or newer" in err and "make PYTHON=python3.12" in err
    assert not (clone / ".venv").exists()


@needs_make
@pytest.mark.parametrize("version", ["3.11", "3.13", "3.20", "4.0"])
def test_a_new_python_is_accepted(clone, version):
    assert make(clone, "python", f"PYTHON={fake_python(clone, f'echo {version}')}")[0] == 0


@needs_make
@pytest.mark.parametrize("version", ["2.7", "3.1", "3.10"])
def test_older_pythons_are_not(clone, version):
    assert make(clone, "python", f"PYTHON={fake_python(clone, f'echo {version}')}")[0] != 0


@needs_make
def test_no_python_at_all(clone):
    code, _, err = make(clone, "lesson", "PYTHON=no-such-python")
    assert code != 0 and "no-such-python does not run" in err and "make PYTHON=" in err


@needs_make
def test_a_failed_venv_says_what_to_do(clone):
    code, _, err = make(clone, "lesson", f"PYTHON={fake_python(clone, NEW_ENOUGH + 'exit 1')}")
    assert code != 0 and "python3-venv" in err


@needs_make
def test_a_failed_install_says_what_to_do_and_is_tried_again(clone):
    body = (
        NEW_ENOUGH + 'mkdir -p "$3/bin"; printf "#!/bin/sh\\nexit 1\\n" > "$3/bin/python"; chmod +x "$3/bin/python"\n'
    )
    for _ in range(2):
        code, _, err = make(clone, "lesson", f"PYTHON={fake_python(clone, body)}")
        assert code != 0 and "installation failed" in err and "delete .venv" in err


@needs_make
def test_an_empty_lesson_says_what_to_do(clone):
    code, _, err = make(clone, "lesson", "LESSON=")
    assert code != 0 and "make lesson LESSON=word_vectors" in err


@needs_make
def test_make_alone_lists_the_targets(clone):
    code, out, _ = make(clone)
    assert code == 0
    for target in ("lesson", "test", "verify", "course", "lab", "notebooks", "slides", "site", "bench", "lint"):
        assert f"make {target} " in out


def test_the_readme_lists_every_target_for_windows():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(targets) >= 10
    for target in set(targets) - {"help", "install", "teaching"}:
        assert f"| `make {target}` |" in readme


def test_ci_runs_tests_then_lint_then_verify():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert re.findall(r"^make (\w+)$", text, re.MULTILINE) == ["test", "lint", "verify"]
    assert Path(ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR or os.name == "nt"
