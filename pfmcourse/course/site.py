"""The site: every lesson as a page, the history, the results, the package's reference, a glossary; all works from disk.

`build` gathers pages in a temporary folder, for Sphinx wants them together: what stands in ``docs/``, with the parts
that code makes put in; the committed notebooks with their outputs, which are not executed again; one page for each
module. Sphinx's warnings are errors, so that a broken reference shows.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat
from nbformat import NotebookNode

from pfmcourse import catalogue, timeline
from pfmcourse.base import CourseError, MissingPackage, repository, unknown_name
from pfmcourse.catalogue import Card
from pfmcourse.course import formulas, reference, report, student
from pfmcourse.course.readme import table
from pfmcourse.course.run import read_notebook

PACKAGES = ("sphinx", "myst_nb", "sphinx_book_theme", formulas.PACKAGE)
INSTALL = "python -m pip install -r requirements-teaching.txt"
MARK = ".pfmcourse_site"  # a file that says: this folder was built, and may be replaced
MADE = (
    "index",
    "results",
    "glossary",
    "reference",
)  # pages of docs/ with parts that are put in; others are as they are
WARNINGS = 20  # of Sphinx's, in an error
HAN = re.compile(r"[\u4e00-\u9fff]")
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^(```|~~~).*?^\2[ \t]*$|`[^`\n]+`|\$\$.*?\$\$)", re.MULTILINE | re.DOTALL)
LESSON_NUMBER = re.compile(r"(?<=esson\s)(\d\d)\b|(?<=essons\s)(\d\d)\b(?:(\s(?:and|or|to)\s)(\d\d)\b)?")
PLACE = re.compile(r"\{\{ (\w+) \}\}")


@dataclass(frozen=True)
class Term:
    """One entry of the glossary."""

    term: str  # in English
    zh: str  # in simplified Chinese
    lesson: str  # id of the lesson that introduces it: the first whose prose has the term
    definition: str  # one or two sentences
    aliases: tuple[str, ...] = ()  # other forms under which prose has it
    also_in: tuple[str, ...] = ()  # earlier lessons that have the word in passing, or in another sense


def glossary(path: Path | None = None, lessons: Iterable[str] | None = None) -> list[Term]:
    """The glossary (``docs/glossary.yaml``), sorted by term.

    Raises CourseError for an entry that lacks a field, for a term that is there twice, for a ``zh`` without Chinese
    characters and for a lesson that is not in ``lessons`` (default: those of the course).
    """
    path = path or repository() / "docs" / "glossary.yaml"
    known = list(catalogue.lessons() if lessons is None else lessons)
    rows = catalogue.yaml_list(path, "terms of the glossary", "- term: ...")
    found: dict[str, Term] = {}
    for row in rows:
        where = f"{path.name}, term {row.get('term', '?')!r}" if isinstance(row, Mapping) else f"{path.name}, {row!r}"
        texts, lists = ("term", "zh", "lesson", "definition"), ("aliases", "also_in")
        if not isinstance(row, Mapping) or not all(isinstance(row.get(field), str) for field in texts):
            raise CourseError(f"{where}: an entry has the fields {', '.join(texts)}, all texts.")
        for field in row:
            if field not in texts + lists:
                raise CourseError(f"{where}: {unknown_name('field', field, texts + lists)}")
        term = Term(**{name: tuple(value) if name in lists else value.strip() for name, value in row.items()})
        for lesson in (term.lesson, *term.also_in):
            if lesson not in known:
                raise CourseError(f"{where}: {unknown_name('lesson', lesson, known)}")
        if not HAN.search(term.zh):
            raise CourseError(f"{where}: 'zh' should be the Chinese term, but is {term.zh!r}.")
        if term.term.lower() in found:
            raise CourseError(f"{where} is there twice; put both meanings into one definition.")
        found[term.term.lower()] = term
    return [found[name] for name in sorted(found)]


def _plain(text: str) -> str:
    """``text`` as markdown that shows just that; of ``|`` the tables take care."""
    return re.sub(r"([\\`*_{}\[\]<>$#~])", r"\\\1", str(text).replace("\n", " "))


def _link(card: Card, to: str = "lessons/") -> str:
    return f"[{_plain(card.title)}]({to}{card.notebook.name})"


def _parts(cards: Mapping[str, Card]) -> dict[str, list[Card]]:
    """The lessons by part, in the order of the course."""
    parts: dict[str, list[Card]] = {}
    for card in cards.values():
        parts.setdefault(card.part, []).append(card)
    return parts


def _machine(row: Mapping | None) -> str:
    return "{device}, {cores} cores".format_map(row["hardware"]) if row and row.get("hardware") else ""


def _lessons(cards: Mapping[str, Card], rows: Mapping[str, Mapping]) -> str:
    """The lessons by part: what each teaches, how long it takes, what it measured."""
    lines: list[str] = []
    for part, members in _parts(cards).items():
        lines += [f"### {_plain(part)}", ""]
        for card in members:
            row = rows.get(card.id)
            seconds = f", running {row['seconds']:.0f} s" if row else ""
            lines += [
                ":::{container} lesson",
                f"**{card.number:02d} {_link(card)}**: {_plain(card.summary)}",
                "",
                f"Reading {card.minutes} min{seconds}. {_plain(catalogue.headline(card, row))}.",
                ":::",
                "",
            ]
    machines = sorted({_machine(row) for row in rows.values()} - {""})
    note = f"Seconds are those of the `laptop` preset, measured on: {'; '.join(machines)}." if machines else ""
    return "\n".join([*lines, note])


def _history(cards: Mapping[str, Card]) -> str:
    """Every system of the timeline, in a table for each modality, with the lesson that builds it."""
    lines: list[str] = []
    for modality in timeline.MODALITIES:
        members = [one for one in timeline.entries() if one.modality == modality]
        if not members:
            continue
        rows = [
            (
                str(one.year),
                f"**{_plain(one.name)}**",
                f"{_plain(one.idea[:1].upper() + one.idea[1:])}. *{_plain(one.paper.title)}* "
                f"({_plain(one.paper.authors)})",
                one.kind,
                _link(cards[one.lesson]) if one.lesson in cards else "–",
            )
            for one in members
        ]
        listed = table(("Year", "System", "Idea, and the paper", "Answers", "Built in"), rows)
        lines += [f"### {modality.capitalize()}", "", ":::{container} history", listed, ":::", ""]
    return "\n".join(lines)


def _toctree(name: str, pages: Iterable[str], caption: str = "") -> str:
    option = f":caption: {caption}\n" if caption else ""
    return f"```{{toctree}}\n:hidden:\n:name: {name}\n{option}\n" + "\n".join(pages) + "\n```\n"


def _results(cards: Mapping[str, Card], rows: Mapping[str, Mapping]) -> str:
    """The ledger: first a line for each lesson, then all its numbers and claims."""
    measured = [card for card in cards.values() if card.id in rows]
    overview = [
        (
            f"{card.number:02d}",
            _link(card),
            _plain(catalogue.headline(card, rows[card.id])),
            f"{rows[card.id]['seconds']:.0f}",
            f"{sum(claim['holds'] is True for claim in rows[card.id]['claims'])} of {len(rows[card.id]['claims'])}",
        )
        for card in measured
    ]
    lines = [table(("", "Lesson", "Measured", "Seconds", "Claims held"), overview, right=(3, 4)), ""]
    words = {True: "held", False: "failed", None: "skipped"}
    for card in measured:
        row = rows[card.id]
        metrics = [
            (f"`{name}`", report.number(one["value"]), _plain(one.get("unit", "")), _plain(one.get("note", "")))
            for name, one in row["metrics"].items()
        ]
        claims = [(words[one["holds"]], _plain(one["text"]), _plain(one.get("detail", ""))) for one in row["claims"]]
        peak = f", {row['peak_memory_mb'] / 1000:.2f} GB of memory at the peak" if row.get("peak_memory_mb") else ""
        lines += [
            *(f"## {_plain(card.title)}", ""),
            f"{_link(card)}, preset `{row['preset']}`, seed {row['seed']}: {row['seconds']:.0f} seconds on "
            f"{_machine(row) or 'an unknown machine'}{peak}.",
            *("", "### Numbers", "") * bool(metrics),
            table(("Name", "Value", "Unit", "Note"), metrics, right=(1,)) if metrics else "",
            *("", "### Claims", "") * bool(claims),
            table(("", "Claim", "Detail"), claims) if claims else "",
            "",
        ]
    return "\n".join(lines)


def _glossary(terms: list[Term], cards: Mapping[str, Card]) -> dict[str, str]:
    """The glossary's parts: terms by lesson, the terms, Chinese to English."""
    of_lesson = [
        (f"{card.number:02d} {_link(card)}", ", ".join(f"{{term}}`{one.term}`" for one in terms if one.lesson == name))
        for name, card in cards.items()
        if any(one.lesson == name for one in terms)
    ]
    entries = "\n".join(
        f"{one.term}\n"
        f"  {_chinese(one)}\n\n"
        f"  {one.definition} In lesson {cards[one.lesson].number:02d}, {_link(cards[one.lesson])}.\n"
        for one in terms
    )
    # GBK has the common characters in the order of their sound, as a Chinese dictionary has
    chinese = [
        (_chinese(one), f"{{term}}`{one.term}`")
        for one in sorted(terms, key=lambda one: one.zh.encode("gbk", errors="replace"))
    ]
    return {
        "by_lesson": "## By lesson\n\n" + table(("Lesson", "Terms"), of_lesson),
        "terms": f"## Terms\n\n```{{glossary}}\n{entries}```",
        "chinese": "## Chinese to English\n\n:::{container} narrow\n" + table(("中文", "English"), chinese) + "\n:::",
    }


def _chinese(term: Term) -> str:
    return f'<span lang="zh-Hans">{term.zh}</span>'


def _reference(stage: Path) -> str:
    """Write one page for each module; returns what stands on the first page of the reference."""
    modules = reference.modules()
    folder = stage / "reference"
    folder.mkdir()

    def inside(package: str) -> list[str]:
        return [name for name in modules if name.rpartition(".")[0] == package]

    for name, path in modules.items():
        text = reference.page(name, path)
        parts = inside(name) if name != "pfmcourse" else []
        if parts:
            listed = "\n".join(f"* :py:mod:`{part}`: {reference.sentence(modules[part])}" for part in parts)
            pages = "\n".join(f"   {part.removeprefix(name + '.')} <{part}>" for part in parts)
            text += f"\nModules\n-------\n\n{listed}\n\n.. toctree::\n   :hidden:\n\n{pages}\n"
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    first = ["pfmcourse", *inside("pfmcourse")]
    listed = table(
        ("Module", "What it is"),
        [(f"[{name}](reference/{name}.rst)", reference.sentence(modules[name])) for name in first],
    )
    pages = [f"{name.removeprefix('pfmcourse.')} <reference/{name}>" for name in first]
    return f"## Modules\n\n{listed}\n\n{_toctree('of-the-package', pages)}"


class _Stage:
    """The temporary folder of pages, and where each file of the repository has its place in it."""

    def __init__(self, folder: Path, cards: Mapping[str, Card]) -> None:
        self.folder, self.cards, self.root = folder, cards, repository()
        self.alts: dict[str, str] = {}
        self.pages = {card.notebook.resolve(): f"lessons/{card.notebook.name}" for card in cards.values()}
        self.pages |= {
            self.root / path: page
            for path, page in {
                "README.md": "index.md",
                "data/README.md": "data.md",
                "notebooks/results.json": "results.md",
                **{f"docs/{path.name}": path.name for path in (self.root / "docs").glob("*.md")},
            }.items()
        }

    def relink(self, text: str, source: Path, page: str) -> str:
        """``text`` of the file ``source``, with its links to files of the repository made to work on ``page``.

        A link to a file that is no page of the site becomes a download. Raises CourseError for one that is not there.
        """

        def place(found: re.Match) -> str:
            target = (source.parent / found[2]).resolve()
            if target not in self.pages:
                if not target.is_file() or not target.is_relative_to(self.root):
                    raise CourseError(f"{source}: the link to {found[2]!r} leads to no file of the repository.")
                self.pages[target] = f"files/{target.relative_to(self.root).as_posix()}"
                copy = self.folder / self.pages[target]
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(target, copy)
            up = "../" * (len(PurePosixPath(page).parts) - 1)
            return f"{found[1]}{up}{self.pages[target]}{found[3] or ''}{found[4]}"

        pieces = FENCE.split(text)  # every third piece from the second on is code or a formula, then its fence
        return "".join(
            LINK.sub(place, piece) if number % 3 == 0 else piece if number % 3 == 1 else ""
            for number, piece in enumerate(pieces)
        )

    def write(self, page: str, text: str, source: Path, made: Mapping[str, str] | None = None) -> None:
        """Write ``page`` from ``text``; each ``{{ name }}`` becomes ``made[name]``."""
        made = made or {}
        text = self.relink(text, source, page)
        missing = sorted(set(PLACE.findall(text)) - set(made))
        if missing:
            raise CourseError(f"{source}: {unknown_name('part', missing[0], made)}")
        text = PLACE.sub(lambda found: made[found[1]], text)
        (self.folder / page).write_text(text, encoding="utf-8")


def _facts(card: Card, cards: Mapping[str, Card], row: Mapping | None) -> str:
    """What stands under a lesson's title: how long it takes, what to read before, what it builds on."""
    from pfmcourse.data import source

    needs = ", ".join(_link(cards[name], "") for name in card.needs)
    titles = [f"[{_plain(source.source(name).title)}](../data.md#card-{name})" for name in card.data]
    builds = ", ".join(_plain(one.name) for one in timeline.of_lesson(card.id))
    facts = [
        f"Lesson {card.number:02d}, part *{_plain(card.part)}*",
        f"reading: {card.minutes} minutes",
        f"running: {row['seconds']:.0f} seconds ({_machine(row)})" if row else "",
        f"read before: {needs}" if needs else "",
        f"builds: {builds}" if builds else "",
        f"data: {', '.join(titles)}" if titles else "",
        f"{{download}}`the notebook <../files/notebooks/{card.notebook.name}>`",
    ]
    return ":::{container} facts\n" + " · ".join(filter(None, facts)) + "\n:::\n"


def _linked_numbers(text: str, numbers: Mapping[int, Card], own: Card) -> str:
    """``text`` with every mention of a lesson by number, "lesson 05", made a link where that lesson exists."""

    def link(number: str | None) -> str:
        card = numbers.get(int(number)) if number else None
        return f"[{number}]({card.notebook.name})" if card and card is not own else number or ""

    def mention(found: re.Match) -> str:
        return link(found[1]) if found[1] else link(found[2]) + (found[3] or "") + link(found[4])

    pieces = FENCE.split(text)
    return "".join(
        LESSON_NUMBER.sub(mention, piece) if number % 3 == 0 else piece if number % 3 == 1 else ""
        for number, piece in enumerate(pieces)
    )


def _lesson(stage: _Stage, card: Card, row: Mapping | None, terms: list[Term]) -> None:
    """Put a lesson's notebook in its place: links made to work, solutions folded away, alt texts collected."""
    notebook = read_notebook(card.notebook)
    page = f"lessons/{card.notebook.name}"
    numbers = {other.number: other for other in stage.cards.values()}
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _linked_numbers(stage.relink(cell.source, card.notebook, page), numbers, card)
        elif cell.cell_type == "code":
            for output in cell.outputs:
                for kind, ending in (("image/png", ".png"), ("image/jpeg", ".jpeg")):
                    if kind in output.get("data", {}):
                        digest = hashlib.sha256(a2b_base64(output.data[kind])).hexdigest()
                        stage.alts[digest + ending] = output.metadata.get(kind, {}).get("alt", "")
            if student.BEGIN in cell.source:
                stub = student.without_solutions(cell.source, card.notebook.name)
                cells.append(nbformat.v4.new_markdown_cell(f"```python\n{stub}\n```"))
                cell.metadata.setdefault("tags", []).append("hide-input")
                cell.metadata["mystnb"] = {
                    "code_prompt_show": "Show the solution",
                    "code_prompt_hide": "Hide the solution",
                }
                lines = cell.source.splitlines()
                cell.source = "\n".join(line for line in lines if line.strip() not in (student.BEGIN, student.END))
        cells.append(cell)
    title, _, rest = cells[0].source.partition("\n")
    cells[0].source = f"{title}\n\n{_facts(card, stage.cards, row)}\n{rest}"
    words = ", ".join(f"{{term}}`{one.term}` {_chinese(one)}" for one in terms if one.lesson == card.id)
    if words:
        cells.append(nbformat.v4.new_markdown_cell(f"**New words of this lesson**: {words}."))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    notebook.cells = cells
    target = stage.folder / page
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)
    copy = stage.folder / "files" / "notebooks" / card.notebook.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(card.notebook, copy)


def _data(stage: _Stage) -> None:
    """The page about the data, with a name for each card that lessons link to."""
    source = stage.root / "data" / "README.md"
    text = re.sub(r"^### (\w+): ", r"(card-\1)=\n### \1: ", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^\| \| \|$", "| What | Here |", text, flags=re.MULTILINE)
    used = [
        (f"`{name}`", ", ".join(_link(card) for card in stage.cards.values() if name in card.data))
        for name in dict.fromkeys(name for card in stage.cards.values() for name in card.data)
    ]
    lessons = "## Which lesson uses what\n\n" + table(("Data", "Lessons"), used) + "\n\n## Licences"
    stage.write("data.md", text, source)
    page = stage.folder / "data.md"
    page.write_text(page.read_text(encoding="utf-8").replace("## Licences", lessons, 1), encoding="utf-8")


def gather(folder: Path, cards: Mapping[str, Card] | None = None) -> None:
    """Put everything that Sphinx reads into ``folder``."""
    cards = cards or catalogue.lessons()
    where = next(iter(cards.values())).folder
    rows = {row["lesson"]: row for row in catalogue.ledger(where / "results.json") if row["preset"] == "laptop"}
    docs = repository() / "docs"
    stage = _Stage(folder, cards)
    terms = [term for term in glossary() if term.lesson in cards]
    for card in cards.values():
        _lesson(stage, card, rows.get(card.id), terms)
    shutil.copyfile(docs / "conf.py", folder / "conf.py")
    shutil.copytree(docs / "static", folder / "static")
    mathjax = formulas.script()
    (folder / "static" / "mathjax").mkdir()
    shutil.copyfile(mathjax, folder / "static" / "mathjax" / mathjax.name)
    shutil.copyfile(repository() / "slides" / "timeline.png", folder / "timeline.png")
    guides = sorted(path.stem for path in docs.glob("*.md") if path.stem not in MADE)
    guides.sort(key=lambda name: name != "teaching")  # the teacher's guide first
    for name in guides:
        stage.write(f"{name}.md", (docs / f"{name}.md").read_text(encoding="utf-8"), docs / f"{name}.md")
    _data(stage)
    entries = timeline.entries()
    alt = (
        f"A timeline of {len(entries)} pretrained systems from {entries[0].name} ({entries[0].year}) to "
        f"{entries[-1].name} ({entries[-1].year}), in bands for {', '.join(timeline.MODALITIES)}. The tables below say "
        "the same in words."
    )
    tree = [
        *(
            _toctree(f"part-{number}", (f"lessons/{card.name}" for card in members), part)
            for number, (part, members) in enumerate(_parts(cards).items())
        ),
        _toctree("course", ("results", "glossary", "data", *guides), "The course"),
        _toctree("package", ("reference",), "The package"),
    ]
    first = next(iter(cards.values()))
    made = {
        "start": f"[{_plain(first.title)}](lessons/{first.notebook.name})",
        "timeline": f":::{{container}} picture-scroll\n![{alt}](timeline.png)\n:::",
        "lessons": _lessons(cards, rows),
        "history": _history(cards),
        "toctree": "\n".join(tree),
        "results": _results(cards, rows),
        "modules": _reference(folder),
        **_glossary(terms, cards),
    }
    for name in MADE:
        path = docs / f"{name}.md"
        stage.write(f"{name}.md", path.read_text(encoding="utf-8"), path, made)
    (folder / "alts.json").write_text(json.dumps(stage.alts), encoding="utf-8")


def _sphinx(stage: Path, output: Path, jobs: int) -> None:
    """Run Sphinx, in a process of its own: it leaves much behind in the one it runs in."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", str(jobs)]
    done = subprocess.run(
        [*command, "-d", str(output.with_name("doctrees")), str(stage), str(output)],
        env={**os.environ, "PFMCOURSE_OFFLINE": "1", "PYTHONUTF8": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        return
    said = [line.replace(f"{stage}{os.sep}", "") for line in done.stderr.splitlines() if line.strip()]
    wrong = [line for line in said if "WARNING" in line or "ERROR" in line or "CRITICAL" in line] or said[-WARNINGS:]
    more = f"\n  and {len(wrong) - WARNINGS} more" if len(wrong) > WARNINGS else ""
    raise CourseError(
        "Sphinx found something wrong with the pages, so the site was not built; mend the lessons, docs/ or docstrings "
        "that it names:\n  " + "\n  ".join(wrong[:WARNINGS]) + more
    )


def build(output: Path | None = None, *, cards: Mapping[str, Card] | None = None, jobs: int = 1) -> Path:
    """Build the site into ``output`` (default ``docs/built``) and return the path of its first page.

    ``cards`` are the lessons (default: all); ``jobs`` processes read the pages. An older site in ``output`` is
    replaced, and only when the new one is complete. Raises MissingPackage where Sphinx or what it needs is not
    installed, and CourseError for a missing notebook, for warnings of Sphinx, and for an ``output`` that holds
    something else than a site.
    """
    output = Path(output) if output else repository() / "docs" / "built"
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackage(f"the site needs {', '.join(missing)}, not installed here. Install it with: {INSTALL}")
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / MARK).is_file())):
        raise CourseError(f"{output} holds something else than a site. Choose another folder, or empty it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pfmcourse-site-") as temporary:
        stage, made = Path(temporary) / "pages", Path(temporary) / "site"
        stage.mkdir()
        gather(stage, cards)
        _sphinx(stage, made, jobs)
        shutil.rmtree(made / "_sources", ignore_errors=True)
        for path in (made / ".buildinfo", made / "objects.inv", *(made / "_static").rglob("*.html")):
            path.unlink(missing_ok=True)  # nothing that a reader opens
        (made / MARK).write_text("Built by: pfmcourse site\n", encoding="utf-8")
        shutil.rmtree(output, ignore_errors=True)
        shutil.move(made, output)
    return output / "index.html"
