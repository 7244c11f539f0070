"""Slide decks from the lessons: the same cells, shown by reveal.js, from disk and without a network.

A cell's slide type says where it goes. Beyond that the author has three words:

- A comment ``<!-- slide ... -->`` in a text cell is what the slide says; the cell's prose becomes the speaker's note.
- A comment ``<!-- notes ... -->`` is a speaker's note and nothing else.
- The tag ``slide-code`` shows a code cell's source. Without it a slide shows what the cell printed or drew.
"""

import base64
import html
import importlib.util
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from pfmcourse.base import CourseError, MissingPackage, repository, write_atomically
from pfmcourse.catalogue import Card
from pfmcourse.course import formulas
from pfmcourse.course.parameters import tags
from pfmcourse.course.run import read_notebook

TEMPLATE = "course"  # the folder slides/course
FILES = "files"  # the folder beside the decks that holds what they share
REVEAL_PACKAGE, REVEAL_FOLDER = "sphinx_revealjs", "_static/revealjs"
WIDTH, HEIGHT = 1280, 720  # of a slide, in its own pixels; reveal.js scales them to the screen
SHOW_CODE = "slide-code"
SHORT = re.compile(r"<!--\s*slide\b(.*?)-->", re.DOTALL)
NOTES = re.compile(r"<!--\s*notes\b(.*?)-->", re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Decks:
    """Where the decks and the page that lists them are."""

    index: Path
    decks: tuple[Path, ...]


@dataclass(frozen=True)
class Slide:
    """One slide: the cells that it shows, the speaker's notes, and whether a section of the lesson begins here."""

    cells: list[NotebookNode]
    notes: list[str]
    begins: bool


def _reveal() -> Path | None:
    """The folder of reveal.js inside the installed package, or None."""
    spec = importlib.util.find_spec(REVEAL_PACKAGE)
    places = (Path(folder) / REVEAL_FOLDER for folder in (spec.submodule_search_locations or [])) if spec else ()
    return next((place for place in places if place.is_dir()), None)


def _copy_files(folder: Path) -> None:
    """Put reveal.js, MathJax, fonts and the course's style into ``folder``."""
    from matplotlib import get_data_path

    reveal, mathjax = _reveal(), formulas.script()
    if reveal is None or mathjax is None:
        raise MissingPackage(
            "the slides need reveal.js and MathJax from the packages for lecturers. Install them with: "
            "python -m pip install -r requirements-teaching.txt"
        )
    for part in ("dist", "plugin/notes"):
        shutil.copytree(reveal / part, folder / "reveal.js" / part, dirs_exist_ok=True)
    (folder / "mathjax").mkdir(exist_ok=True)
    shutil.copy(mathjax, folder / "mathjax")
    shutil.copy(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf", folder)
    for file in ("course.css", "fit.js"):
        shutil.copy(repository() / "slides" / TEMPLATE / "static" / file, folder)


def _slide_type(cell: NotebookNode) -> str:
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def split(notebook: NotebookNode) -> list[Slide]:
    """The slides of a notebook, in order. Cells are copies, with ``fragment`` and ``code`` in ``metadata.deck``."""
    slides: list[Slide] = []
    heading = ("#", "")
    for original in notebook.cells:
        kind = _slide_type(original)
        headings = HEADING.findall(original.source) if original.cell_type == "markdown" else []
        if kind == "skip":
            heading = headings[-1] if headings else heading
            continue
        cell = nbformat.from_dict(original)
        if kind in ("slide", "subslide") or not slides:
            slides.append(Slide([], [], begins=kind == "slide" or not slides))
            if kind != "notes" and not headings and heading[1]:  # no slide is without a title
                title = nbformat.v4.new_markdown_cell(f"{'###' if len(heading[0]) > 2 else '##'} {heading[1]}")
                title.metadata["deck"] = {"fragment": False, "code": False}
                slides[-1].cells.append(title)
        slide = slides[-1]
        if kind == "notes":
            slide.notes.append(cell.source)
            continue
        cell.metadata["deck"] = {"fragment": kind == "fragment", "code": SHOW_CODE in tags(cell)}
        if cell.cell_type == "markdown":
            short = "\n".join(SHORT.findall(cell.source)).strip()
            said = [note.strip() for note in NOTES.findall(cell.source)]
            prose = NOTES.sub("", SHORT.sub("", cell.source)).strip()
            if short:
                slide.notes.append(HEADING.sub("", prose).strip())
                if headings and not HEADING.search(short):
                    short = "\n\n".join(" ".join(one) for one in headings) + "\n\n" + short
            slide.notes.extend(said)
            cell.source = short or prose
            heading = headings[-1] if headings else heading
        for output in _pictures(cell):
            output.metadata.setdefault("image/png", {})["height"] = round(_size(output)[1])
        slide.cells.append(cell)
    return slides


def _pictures(cell: NotebookNode) -> list[NotebookNode]:
    """What a cell drew, as its outputs."""
    return [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def _size(output: NotebookNode) -> tuple[float, float]:
    """(width, height) at which a notebook shows a picture, in pixels."""
    head = base64.b64decode(output.data["image/png"][:48])
    width, height = struct.unpack(">II", head[16:24])  # PNG: the first chunk begins with both
    shown = output.metadata.get("image/png", {}).get("width", width)
    return shown, height * shown / width


def _rows(cells: list[NotebookNode]) -> list[tuple[int, int]]:
    """(first, last) of each run of neighbouring cells that show two pictures or more: they stand side by side."""
    runs: list[tuple[int, int, int]] = []
    for number, cell in enumerate(cells):
        count = 0 if cell.metadata.deck.code else len(_pictures(cell))
        if count != len(cell.get("outputs", [])):  # words as well
            continue
        if count and runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number, runs[-1][2] + count)
        elif count:
            runs.append((number, number, count))
    return [(first, last) for first, last, count in runs if count > 1]


def _kinds(cells: list[NotebookNode], first_slide: bool) -> str:
    """The classes of a slide: ``beside`` puts its one picture, a tall one, to the right of the words."""
    sizes = [_size(output) for cell in cells for output in _pictures(cell)]
    words = any(HEADING.sub("", cell.source).strip() for cell in cells if cell.cell_type == "markdown")
    beside = len(sizes) == 1 and words and sizes[0][1] > 0.75 * sizes[0][0]
    return "page" + (" title" if first_slide else "") + (" beside" if beside else "")


def deck(notebook: NotebookNode, card: Card) -> NotebookNode:
    """The notebook of a deck: the cells in the order of the slides, each with the HTML before and after it."""
    slides = split(notebook)
    cells = []
    for number, slide in enumerate(slides):
        opening = ("<section>" if slide.begins else "") + f'<section><div class="{_kinds(slide.cells, number == 0)}">'
        if number == 0:
            kicker = f"Pretrained foundation models · {card.part} · {card.number:02d}"
            opening += f'<p class="kicker">{html.escape(kicker)}</p>'
        rows = _rows(slide.cells)
        starts, ends = {first for first, _ in rows}, {last for _, last in rows}
        for place, cell in enumerate(slide.cells):
            fragment = cell.metadata.deck.fragment
            cell.metadata.deck.before = (
                opening
                + ('<div class="row">' if place in starts else "")
                + ('<div class="fragment">' if fragment else "")
            )
            cell.metadata.deck.after = ("</div>" if fragment else "") + ("</div>" if place in ends else "")
            opening = ""
        notes = nbformat.v4.new_markdown_cell("\n\n".join(filter(None, slide.notes)))
        last = number + 1 == len(slides) or slides[number + 1].begins
        notes.metadata["deck"] = {
            "before": opening + '</div><aside class="notes">',
            "after": "</aside></section>" + ("</section>" if last else ""),
            "code": False,
        }
        cells += [*slide.cells, notes]
    made = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    for number, cell in enumerate(made.cells):
        cell.id = f"slide-cell-{number}"
    return made


def build(cards: list[Card], folder: Path | None = None, *, pdf: bool = False) -> Decks:
    """Write one deck per lesson, and the page that lists them, into ``folder`` (default ``slides/built``).

    With ``pdf`` each deck is also printed, one page a slide, by the machine's Chromium. Raises CourseError when a
    package for lecturers, a notebook or, for ``pdf``, a browser is missing.
    """
    from nbconvert import HTMLExporter

    slides = repository() / "slides"
    folder = Path(folder) if folder else slides / "built"
    notebooks = [read_notebook(card.notebook) for card in cards]
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    _copy_files(folder / FILES)
    exporter = HTMLExporter(template_name=TEMPLATE, extra_template_basedirs=[str(slides)], exclude_anchor_links=True)
    decks, items = [], []
    for card, notebook in zip(cards, notebooks, strict=True):
        about = {
            "title": card.title,
            "files": FILES,
            "footer": f"{card.number:02d} {card.title}",
            "width": WIDTH,
            "height": HEIGHT,
        }
        body, _ = exporter.from_notebook_node(deck(notebook, card), resources={"deck": about})
        made = folder / f"{card.name}.html"
        with write_atomically(made) as temporary:
            temporary.write_text(body, encoding="utf-8")
        decks.append(made)
        items.append(
            f'    <li value="{card.number}"><a href="{made.name}">{html.escape(card.title)}</a> '
            f"({len(split(notebook))} slides). {html.escape(card.summary)}</li>"
        )
    index = folder / "index.html"
    page = (slides / TEMPLATE / "index_page.html").read_text(encoding="utf-8")
    with write_atomically(index) as temporary:
        temporary.write_text(page.replace("<!-- decks -->", "\n".join(items)), encoding="utf-8")
    if pdf:
        print_decks(decks)
    return Decks(index, tuple(decks))


def print_decks(decks: list[Path]) -> list[Path]:
    """Print each deck as a PDF beside it, one page a slide. Raises CourseError when something on it went wrong."""
    from pfmcourse.course import browser

    printed = []
    with browser.chromium() as started:
        for made in decks:
            with browser.window(started, WIDTH, HEIGHT) as (page, wrong):
                page.goto(f"{made.resolve().as_uri()}?print-pdf")
                ready(page)
                page.wait_for_selector(".pdf-page")
                page.pdf(path=made.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)
                if wrong:
                    raise CourseError(f"{made.name} cannot be printed: {wrong[0]}")
            printed.append(made.with_suffix(".pdf"))
    return printed


def ready(page) -> None:
    """Wait until a deck's formulas are set, its fonts are there, and reveal.js and fit.js have laid it out."""
    page.wait_for_function("window.Reveal && Reveal.isReady() && window.fitted")
    page.evaluate("() => window.fitted")
