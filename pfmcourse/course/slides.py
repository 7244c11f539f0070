"""Slide decks from the lessons: the same cells, with nbconvert's reveal.js exporter and the course's template.

The decks load reveal.js from an installed package if there is one, else from the network, as MathJax always is.
"""

import html
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from pfmcourse.base import repository, write_atomically
from pfmcourse.catalogue import Card
from pfmcourse.course.run import read_notebook

TEMPLATE = "course"  # the folder slides/course
REVEAL_PACKAGE, REVEAL_FOLDER = "sphinx_revealjs", "_static/revealjs"
REVEAL_NETWORK = "https://unpkg.com/reveal.js@4.6.1"


@dataclass(frozen=True)
class Decks:
    """Where the decks are, and what they need from the network."""

    index: Path
    decks: tuple[Path, ...]
    network: tuple[str, ...]


def local_reveal() -> Path | None:
    """The folder of reveal.js inside an installed package, or None."""
    spec = importlib.util.find_spec(REVEAL_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / REVEAL_FOLDER
        if (folder / "dist" / "reveal.js").is_file():
            return folder
    return None


def build(cards: list[Card], folder: Path | None = None) -> Decks:
    """Write one deck per lesson, and an index page, into ``folder`` (default ``slides/built``)."""
    from nbconvert import SlidesExporter

    slides = repository() / "slides"
    folder = Path(folder) if folder else slides / "built"
    folder.mkdir(parents=True, exist_ok=True)
    reveal = local_reveal()
    if reveal is not None:
        for part in ("dist", "plugin"):
            shutil.copytree(reveal / part, folder / "reveal.js" / part, dirs_exist_ok=True)
    exporter = SlidesExporter(
        template_name=TEMPLATE,
        extra_template_basedirs=[str(slides)],
        reveal_url_prefix="reveal.js" if reveal is not None else REVEAL_NETWORK,
        reveal_number="c/t",
    )
    decks = []
    for card in cards:
        notebook = read_notebook(card.notebook)
        body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": card.title}})
        deck = folder / f"{card.name}.html"
        with write_atomically(deck) as temporary:
            temporary.write_text(body, encoding="utf-8")
        decks.append(deck)
    index = folder / "index.html"
    items = "\n".join(
        f'    <li value="{card.number}"><a href="{deck.name}">{html.escape(card.title)}</a>: '
        f"{html.escape(card.summary)}</li>"
        for card, deck in zip(cards, decks, strict=True)
    )
    style = (slides / TEMPLATE / "static" / "course.css").read_text(encoding="utf-8")
    page = (slides / TEMPLATE / "index_page.html").read_text(encoding="utf-8")
    with write_atomically(index) as temporary:
        temporary.write_text(page.replace("/* style */", style).replace("<!-- decks -->", items), encoding="utf-8")
    network = (
        ("MathJax, jQuery and RequireJS",) if reveal is not None else ("reveal.js, MathJax, jQuery and RequireJS",)
    )
    return Decks(index, tuple(decks), network)
