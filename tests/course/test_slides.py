"""Slide decks: the lesson's cells, the course's theme, and honesty about the network."""

import re
import sys

import pytest

from pfmcourse.course import slides


@pytest.fixture
def no_reveal(monkeypatch):
    monkeypatch.setattr(slides, "REVEAL_PACKAGE", "no_package_of_this_name")


def test_a_deck(built, tmp_path, no_reveal):
    card, _, _ = built
    decks = slides.build([card], tmp_path / "decks")
    (deck,) = decks.decks
    page = deck.read_text(encoding="utf-8")
    assert len(re.findall(r"<section>\s*<section", page)) == 11  # the title and ten sections
    assert 'alt="A black point"' in page
    assert "--course-accent" in page
    assert f"{slides.REVEAL_NETWORK}/dist/reveal.js" in page
    assert "scale = " not in re.sub("<[^>]+>", "", page)  # the parameters are skipped
    index = decks.index.read_text(encoding="utf-8")
    assert 'href="01_tiny.html">A tiny lesson</a>' in index and "--course-accent" in index
    assert "reveal.js" in decks.network[0] and "MathJax" in decks.network[0]


def test_an_installed_reveal_is_used(built, tmp_path, monkeypatch):
    package = tmp_path / "site" / "some_reveal" / "_static" / "revealjs"
    (package / "dist").mkdir(parents=True)
    (package / "plugin" / "notes").mkdir(parents=True)
    (package / "dist" / "reveal.js").write_text("// the one", encoding="utf-8")
    (package / "plugin" / "notes" / "notes.js").write_text("// notes", encoding="utf-8")
    (tmp_path / "site" / "some_reveal" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    monkeypatch.setattr(slides, "REVEAL_PACKAGE", "some_reveal")
    card, _, _ = built
    decks = slides.build([card], tmp_path / "decks")
    page = decks.decks[0].read_text(encoding="utf-8")
    assert '"reveal.js/dist/reveal.js"' in page and "unpkg.com/reveal" not in page
    assert (tmp_path / "decks" / "reveal.js" / "dist" / "reveal.js").read_text(encoding="utf-8") == "// the one"
    assert "reveal.js" not in decks.network[0]
