"""Copies of the lessons for learners: without solutions, without outputs; and the same for a class that is graded.

One source serves all: the lesson itself holds each solution between two marker lines, and the copy asks for it. The
markers, and what the copies note about each exercise, are nbgrader's, so that it reads the copies as they are.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from pfmcourse.base import CourseError, write_atomically
from pfmcourse.catalogue import Card
from pfmcourse.course.notebooks import tidy
from pfmcourse.course.run import read_notebook

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HEADING = re.compile(r"^#{1,3} (?:(Exercise \d+))?", re.MULTILINE)
DIFFICULTY = re.compile(r"Difficulty:\**\s*(easy|medium|hard)", re.IGNORECASE)
POINTS = {"easy": 1, "medium": 2, "hard": 3}  # of an exercise, for nbgrader
CHECKER = re.compile(r"checks?[._]\w+\(")  # a line that calls a checker begins so
REQUEST = "Your turn: {task}. Your answer replaces this line. No hurry!"  # fits a screen

# nbgrader's settings for the folder that `write_nbgrader` makes. It reads this file whenever it runs there.
SETTINGS = f'''\
"""How nbgrader grades lessons of pfmcourse. It reads this file when it runs in this folder."""

import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821 (nbgrader defines it)

# A whole lesson runs for each submission. At smoke that takes seconds; the exercises are the same at every preset.
os.environ.setdefault("PFMCOURSE_PRESET", "smoke")
os.environ.setdefault("PFMCOURSE_OFFLINE", "1")
os.environ.setdefault("PFMCOURSE_LEDGER", str(Path(__file__).resolve().parent / "ledger.json"))
# nbgrader gives no points where anything was written to stderr, so a warning would make a right answer a wrong one.
os.environ.setdefault("PYTHONWARNINGS", "ignore")
# nbgrader calls a program that was installed beside it, which is found only where the environment is active.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

c.Execute.timeout = 600  # seconds for one cell
c.ClearSolutions.code_stub = {{
    "python": 'raise NotImplementedError("{REQUEST.format(task="this exercise")}")'
}}
'''


def without_solutions(source: str, where: str, task: str = "this exercise") -> str:
    """``source`` with each marked solution replaced by a line that asks for it, indented as the marker was.

    ``where`` names the notebook and cell in errors; markers that do not pair up raise CourseError.
    """
    kept: list[str] = []
    inside = False
    for number, line in enumerate(source.splitlines(), start=1):
        marker = line.strip()
        if marker == BEGIN and not inside:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            kept.append(f'{indent}raise NotImplementedError("{REQUEST.format(task=task)}")')
        elif marker == END and inside:
            inside = False
        elif "BEGIN SOLUTION" in marker or "END SOLUTION" in marker:
            raise CourseError(
                f"{where}, line {number}: {marker!r} has no partner. Each solution starts with a line {BEGIN!r} and "
                f"ends with a line {END!r}, and none lies within another."
            )
        elif not inside:
            kept.append(line)
    if inside:
        raise CourseError(f"{where}: the line {BEGIN!r} has no {END!r} after it in the same cell.")
    return "\n".join(kept)


def _exercises(cell: NotebookNode) -> list[str]:
    """For each heading of a cell the exercise that it names, such as "Exercise 2", or ""."""
    prose = cell.cell_type == "markdown"
    return HEADING.findall(re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)) if prose else []


def _split(cell: NotebookNode) -> Iterator[NotebookNode]:
    """A cell that holds a solution and then calls its checker, as two; any other cell as it is."""
    lines = cell.source.splitlines() if cell.cell_type == "code" else []
    ends = [number for number, line in enumerate(lines) if line.strip() == END]
    calls = [number for number, line in enumerate(lines) if CHECKER.match(line) and ends and number > ends[-1]]
    if not calls:
        yield cell
        return
    for source in (lines[: calls[0]], lines[calls[0] :]):
        part = nbformat.from_dict(cell)
        part.source = "\n".join(source).strip("\n")
        yield part


def _note(cell: NotebookNode, grade_id: str, points: int | None = None) -> None:
    """Tell nbgrader what a cell is: the test of an answer when it has ``points``, else the answer."""
    test = points is not None
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": test,
        "solution": not test,
        "locked": test,
        "task": False,
    } | ({"points": points} if test else {})


def for_nbgrader(notebook: NotebookNode, lesson: str, name: str) -> NotebookNode:
    """The notebook without outputs, and each exercise as nbgrader wants it: a cell for the answer, then one to test it.

    A cell that holds both becomes two. The test is worth 1, 2 or 3 points where the exercise is easy, medium or hard.
    All else stays, and so does the argument. ``name`` is what errors call the notebook; an exercise that cannot be
    graded raises CourseError.
    """
    copy = nbformat.from_dict(notebook)
    copy.cells = [part for cell in copy.cells for part in _split(cell)]
    sections: dict[str, list[NotebookNode]] = {}
    exercise = ""
    for cell in copy.cells:
        exercise = next(reversed(_exercises(cell)), exercise)
        if exercise:
            sections.setdefault(exercise, []).append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    for exercise, cells in sections.items():
        code = [cell for cell in cells if cell.cell_type == "code"]
        difficulty = DIFFICULTY.search("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        answers = [cell for cell in code if BEGIN in cell.source]
        tests = [cell for cell in code if any(map(CHECKER.match, cell.source.splitlines())) and cell not in answers]
        if not (difficulty and len(answers) == len(tests) == 1):
            raise CourseError(
                f"{name}: {exercise} cannot be graded. It wants `Difficulty: easy` (or medium, or hard) in its text, "
                f"which is {'there' if difficulty else 'missing'}; one code cell with a solution after {BEGIN!r}, but "
                f"there are {len(answers)}; and after the solution, or in another cell, one call of a checker, such "
                f"as `check.similarity(similarity)`, but there are {len(tests)} cells with one."
            )
        grade_id = f"{lesson}-{exercise.lower().replace(' ', '-')}"
        _note(answers[0], f"{grade_id}-answer")
        _note(tests[0], f"{grade_id}-test", POINTS[difficulty.group(1).lower()])
    return tidy(copy, lesson)


def student_copy(notebook: NotebookNode, lesson: str, name: str) -> NotebookNode:
    """The notebook without solutions and outputs. ``name`` is what errors call it; the argument stays as it is.

    nbgrader reads it, and grades what learners write into it: see ``for_nbgrader``.
    """
    copy = for_nbgrader(notebook, lesson, name)
    task = ""
    for number, cell in enumerate(copy.cells):
        where = f"{name}, cell {number}"
        task = next(reversed(_exercises(cell)), task)
        if cell.cell_type == "markdown" and (BEGIN in cell.source or END in cell.source):
            raise CourseError(f"{where}: a solution marker stands in text; solutions belong in code cells.")
        if cell.cell_type == "code":
            cell.source = without_solutions(cell.source, where, task or "this exercise")
    return copy


def _write(notebooks: dict[Path, NotebookNode]) -> None:
    for target, notebook in notebooks.items():
        with write_atomically(target) as temporary:
            nbformat.write(notebook, temporary)


def write_copies(cards: list[Card], folder: Path, *, force: bool = False) -> list[Path]:
    """Write a student copy of each lesson into ``folder`` and return the paths.

    Raises CourseError, before writing anything, when a copy would replace a file (a learner's work, say) and ``force``
    is false, or when ``folder`` is where the lessons themselves are.
    """
    folder = Path(folder)
    targets = [folder / card.notebook.name for card in cards]
    for card, target in zip(cards, targets, strict=True):
        if target.resolve() == card.notebook.resolve():
            raise CourseError(f"{folder} holds the lessons themselves; give the student copies another folder.")
        if target.exists() and not force:
            raise CourseError(
                f"{target} exists and may hold a learner's work. Choose another folder, or replace it with --force."
            )
    _write(
        {
            target: student_copy(read_notebook(card.notebook), card.id, card.notebook.name)
            for card, target in zip(cards, targets, strict=True)
        }
    )
    return targets


def write_nbgrader(cards: list[Card], folder: Path, *, force: bool = False) -> list[Path]:
    """Make ``folder`` a course of nbgrader, with each lesson as an assignment, and return what was written.

    The lessons go, with their solutions and without outputs, to ``source/NN_slug/NN_slug.ipynb``; nbgrader's settings
    go to ``nbgrader_config.py``. There ``nbgrader generate_assignment NN_slug`` makes what learners get, and
    ``nbgrader autograde NN_slug`` grades ``submitted/LEARNER/NN_slug/NN_slug.ipynb``, which may just as well come from
    `write_copies`. Raises CourseError, before writing anything, when a file is there already and ``force`` is false;
    settings that are there are never replaced.
    """
    folder = Path(folder)
    settings = folder / "nbgrader_config.py"
    targets = [folder / "source" / card.name / card.notebook.name for card in cards]
    for target in targets:
        if target.exists() and not force:
            raise CourseError(f"{target} exists. Choose another folder, or replace it with --force.")
    notebooks = {}
    for card, target in zip(cards, targets, strict=True):
        source = read_notebook(card.notebook)
        student_copy(source, card.id, card.notebook.name)  # a solution without its end, say, raises here
        notebooks[target] = for_nbgrader(source, card.id, card.notebook.name)
    _write(notebooks)
    if settings.exists():
        return targets
    with write_atomically(settings) as temporary:
        temporary.write_text(SETTINGS, encoding="utf-8")
    return [settings, *targets]
