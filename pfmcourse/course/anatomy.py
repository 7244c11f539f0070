"""The rules that every lesson's notebook follows, each as a function that lists what breaks it.

A learner who knows one lesson then knows their way around all of them. The rules are checked on the committed
notebooks, which carry outputs; ``pfmcourse notebooks`` checks a notebook right after making it.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

from pfmcourse.catalogue import Card
from pfmcourse.course import student
from pfmcourse.course.notebooks import cell_id, taken_up
from pfmcourse.course.parameters import TAG, tags

SECTIONS = (
    "The idea",
    "By hand",
    "The data",
    "Predict, then pretrain",
    "What did it learn?",
    "Adapt it",
    "In the library",
    "Scale it",
    "Exercises",
    "Claims and summary",
)
SLIDE_TYPES = ("slide", "subslide", "fragment", "skip", "notes", "-")
CHECKED = "nbval-check-output"
LINE = 100  # characters of a code line that fit on a slide and a laptop's screen
SIZE = 1_000_000  # bytes of a notebook
MINUTES = re.compile(r"\b\d+ minutes\b")
NETWORK_MODULES = {
    "requests",
    "urllib",
    "httpx",
    "http",
    "socket",
    "ftplib",
    "subprocess",
    "huggingface_hub",
    "datasets",
}
NETWORK_CALLS = {"hf_hub_download", "snapshot_download", "load_dataset", "urlopen", "urlretrieve", "system", "popen"}

Rule = Callable[[NotebookNode, Card], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Put ``check`` among the rules under its own name."""
    RULES[check.__name__] = check
    return check


def problems(notebook: NotebookNode, card: Card) -> list[str]:
    """Everything that breaks a rule in a lesson's notebook, one line each."""
    return [f"{name}: {problem}" for name, check in RULES.items() for problem in check(notebook, card)]


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _tree(cell: NotebookNode) -> ast.AST:
    """The cell's syntax tree; magics (``%time``) are left out, and bad syntax gives an empty tree."""
    lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _calls(cell: NotebookNode) -> list[str]:
    """The dotted names of what a cell calls: ``lesson.claim``, ``print``."""
    return [ast.unparse(node.func) for node in ast.walk(_tree(cell)) if isinstance(node, ast.Call)]


def _prose(source: str) -> str:
    """Markdown without code, formulas and links' addresses, where numbers are nobody's result.

    Comments stay: they are what slides and speakers say.
    """
    for pattern in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`\n]*`", r"\$[^$\n]*\$", r"\]\([^)]*\)"):
        source = re.sub(pattern, " ", source, flags=re.DOTALL)
    return source


def headings(notebook: NotebookNode) -> list[tuple[int, int, str]]:
    """(cell, level, title) of every heading in the prose."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```|<!--.*?-->", "", cell.source, flags=re.DOTALL)
            found += [(number, len(marks), title.strip()) for marks, title in re.findall(r"^(#+) (.+)$", text, re.M)]
    return found


@rule
def title(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """The first cell is the title, and there is one title, that of lessons.yaml."""
    titles = [(number, text) for number, level, text in headings(notebook) if level == 1]
    if len(titles) != 1 or titles[0][0] != 0 or card.title not in titles[0][1]:
        yield f"the first cell should be the only `# ` heading and contain {card.title!r}, but there is {titles}"


@rule
def sections(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """The sections of a lesson are there, in their order; more may stand between."""
    found = [text for _, level, text in headings(notebook) if level == 2]
    for section in SECTIONS:
        if found.count(section) != 1:
            yield f"the heading `## {section}` is there {found.count(section)} times, not once"
    ours = [text for text in found if text in SECTIONS]
    if ours != sorted(ours, key=SECTIONS.index):
        yield f"the sections stand in another order: {ours}"


@rule
def heading_levels(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """No heading skips a level, since screen readers and tables of contents follow them."""
    before = 0
    for number, level, text in headings(notebook):
        if level > before + 1:
            yield f"cell {number}: `{'#' * level} {text}` comes after a heading of level {before}"
        before = level


@rule
def parameters_cell(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """One cell is tagged parameters and sets preset and seed; the next code cell opens the lesson."""
    code = _code(notebook)
    tagged = [number for number, cell in enumerate(code) if TAG in tags(cell)]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged {TAG!r}, not one"
        return
    source = code[tagged[0]].source
    for name, pattern in (("preset = None", r"^preset = None\b"), ("seed = 0", r"^seed = 0\b")):
        if not re.search(pattern, source, re.M):
            yield f"the {TAG} cell lacks `{name}`"
    following = code[tagged[0] + 1] if tagged[0] + 1 < len(code) else None
    opens = following is not None and any(
        isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] == "Lesson"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == card.id
        for node in ast.walk(_tree(following))
    )
    if not opens:
        yield f'the code cell after it does not open the lesson with Lesson("{card.id}", ...)'


@rule
def execution(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """It was run once, from top to bottom, without an error, and every training in one go."""
    counts = [cell.execution_count for cell in _code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}, not 1 to {len(counts)}"
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"cell {number} shows an error: {output.ename}"
    for number in taken_up(notebook):
        yield f"cell {number} took up an interrupted training; make the notebook again"


@rule
def ids(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Cell ids are unique and come from the lesson's name, so that a new build changes none."""
    found = [cell.get("id") for cell in notebook.cells]
    if found != [cell_id(card.id, number) for number in range(len(found))]:
        yield f"the cell ids are not {cell_id(card.id, 0)} and so on; make the notebook with `pfmcourse notebooks`"


@rule
def metadata(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """The kernel is python3, and no tool left its notes."""
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    for number, cell in enumerate(notebook.cells):
        for name in ("papermill", "execution"):
            if name in cell.metadata:
                yield f"cell {number} has {name} metadata"


@rule
def line_length(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Code lines fit the screen."""
    for number, cell in enumerate(notebook.cells):
        for line in cell.source.splitlines() if cell.cell_type == "code" else ():
            if len(line) > LINE:
                yield f"cell {number}: a code line of {len(line)} characters (at most {LINE}): {line[:60]}…"


@rule
def size(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """The notebook is small enough to be read on the web and kept in git."""
    length = len(json.dumps(notebook, ensure_ascii=False).encode("utf-8"))
    if length >= SIZE:
        yield f"it has {length:,} bytes, not under {SIZE:,}: make its pictures smaller"


@rule
def alt_text(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Every picture says in words what it shows."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for alt in re.findall(r"!\[([^\]]*)\]\(", cell.source):
                if not alt.strip():
                    yield f"cell {number}: a markdown picture without alt text"
            for image in re.findall(r"<img\b[^>]*>", cell.source):
                if not re.search(r"alt=[\"'][^\"']+", image):
                    yield f"cell {number}: an <img> without alt text"
        for output in cell.get("outputs", []):
            for kind in output.get("data", {}):
                said = output.get("metadata", {}).get(kind, {})
                if kind.startswith("image/") and not (isinstance(said, dict) and str(said.get("alt", "")).strip()):
                    yield f"cell {number}: a picture ({kind}) without alt text in its metadata"


@rule
def checked_cells(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """At least six cells have outputs that may never change, and have them."""
    checked = [cell for cell in _code(notebook) if CHECKED in tags(cell)]
    if len(checked) < 6:
        yield f"{len(checked)} cells are tagged {CHECKED!r}, not at least six"
    for cell in checked:
        if not cell.outputs:
            yield f"cell In [{cell.execution_count}] is tagged {CHECKED!r} but prints nothing to compare"


@rule
def offline(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """No network, no shell, no installing. ``from_pretrained`` only where the cell asks whether it is offline."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        for line in cell.source.splitlines():
            if re.match(r"\s*(!|%pip|%conda|%%bash|%%sh|%sx|%system)", line):
                yield f"cell {number}: a shell command: {line.strip()}"
        for node in ast.walk(_tree(cell)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] in NETWORK_MODULES:
                    yield f"cell {number} imports {name}, which is for the network or the shell"
        for call in _calls(cell):
            if call.split(".")[-1] in NETWORK_CALLS:
                yield f"cell {number} calls {call}, which is for the network or the shell"
            if call.endswith(".from_pretrained") and "offline" not in cell.source:
                yield f"cell {number} calls {call} without asking pfmcourse.offline.active() first"


@rule
def exercises(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """At least three exercises, each with difficulty, minutes, a marked solution and a call of its checker."""
    starts = [
        (number, text) for number, level, text in headings(notebook) if level == 3 and text.startswith("Exercise ")
    ]
    if len(starts) < 3:
        yield f"there are {len(starts)} headings `### Exercise N: ...`, not at least three"
    boundaries = [number for number, level, _ in headings(notebook) if level <= 3]
    for number, text in starts:
        end = min((other for other in boundaries if other > number), default=len(notebook.cells))
        cells = notebook.cells[number:end]
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        code = [cell for cell in cells if cell.cell_type == "code"]
        source = "\n".join(cell.source for cell in code)
        if not student.DIFFICULTY.search(prose):
            yield f"{text}: no `Difficulty: easy` (or medium, or hard)"
        if not MINUTES.search(prose):
            yield f"{text}: no `5 minutes`"
        if student.BEGIN not in source or student.END not in source:
            yield f"{text}: no solution between `{student.BEGIN}` and `{student.END}`"
        if not any(re.match(r"checks?[._]", call) for cell in code for call in _calls(cell)):
            yield f"{text}: no call of a checker, such as `check.similarity(similarity)`"


@rule
def solutions(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Solution markers pair up, and what is left without the solutions is still Python."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "SOLUTION" in cell.source:
            try:
                ast.parse(student.without_solutions(cell.source, f"cell {number}"))
            except SyntaxError as error:
                yield f"cell {number}: without its solution it is no Python: {error.msg}"
            except Exception as error:
                yield str(error)


@rule
def claims(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """At least three claims, and the last code cell finishes the lesson."""
    code = _code(notebook)
    count = sum(_calls(cell).count("lesson.claim") for cell in code)
    if count < 3:
        yield f"lesson.claim is called {count} times, not at least three"
    if not code or "lesson.finish" not in _calls(code[-1]):
        yield "the last code cell does not call lesson.finish()"


@rule
def finished(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Nothing says that it is still to be done."""
    for number, cell in enumerate(notebook.cells):
        for word in re.findall(r"\b(?:TODO|FIXME|XXX)\b", cell.source):
            yield f"cell {number} says {word}"


@rule
def slides(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Every section starts a slide, and slide types are ones that exist."""
    types = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    for number, found in enumerate(types):
        if found is not None and found not in SLIDE_TYPES:
            yield f"cell {number}: {found!r} is no slide type; there are {', '.join(SLIDE_TYPES)}"
    for number, level, text in headings(notebook):
        if level <= 2 and types[number] != "slide":
            yield f"cell {number}, `{'#' * level} {text}`: its slide_type is {types[number]!r}, not 'slide'"


@rule
def typed_results(notebook: NotebookNode, card: Card) -> Iterator[str]:
    """Prose types no result: a number that code can print goes stale in a sentence."""
    measure = r"(?:accuracy|recall|precision|loss|perplexity|correlation|Spearman|F1|AUC|score)"
    patterns = (
        r"\d+\.\d+\s*(?:%|percent\b|percentage points|points\b|bits\b|accuracy|recall|Spearman)",
        rf"\d+\s*%\s+{measure}",
        rf"\b{measure}\s+(?:of|is|was|at|=|:)\s*(?:about\s+)?\d+(?:\.\d+|\s*%)",
    )
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for pattern in patterns:
                for found in re.finditer(pattern, _prose(cell.source), re.IGNORECASE):
                    yield f"cell {number}: a typed result, {found.group(0)!r}; let code print it"
