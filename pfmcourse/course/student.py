"""Copies of the lessons for learners: without solutions, without outputs.

One source serves both: the lesson itself holds each solution between two marker lines, and the copy asks for it.
"""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from pfmcourse.base import CourseError, write_atomically
from pfmcourse.catalogue import Card
from pfmcourse.course.notebooks import tidy
from pfmcourse.course.run import read_notebook

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
EXERCISE = re.compile(r"^#+ (Exercise \d+)", re.MULTILINE)


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
            request = f"Your turn: {task}. Take your time; the checker below tells you how you are doing."
            kept.append(f'{indent}raise NotImplementedError("{request}")')
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


def student_copy(notebook: NotebookNode, lesson: str, name: str) -> NotebookNode:
    """The notebook without solutions and outputs. ``name`` is what errors call it; the argument stays as it is."""
    copy = nbformat.from_dict(notebook)
    task = "this exercise"
    for number, cell in enumerate(copy.cells):
        where = f"{name}, cell {number}"
        if cell.cell_type == "markdown":
            found = EXERCISE.findall(cell.source)
            task = found[-1] if found else task
            if "SOLUTION" in cell.source and (BEGIN in cell.source or END in cell.source):
                raise CourseError(f"{where}: a solution marker stands in text; solutions belong in code cells.")
        elif cell.cell_type == "code":
            cell.source = without_solutions(cell.source, where, task)
            cell.outputs, cell.execution_count = [], None
    return tidy(copy, lesson)


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
    copies = [student_copy(read_notebook(card.notebook), card.id, card.notebook.name) for card in cards]
    for copy, target in zip(copies, targets, strict=True):
        with write_atomically(target) as temporary:
            nbformat.write(copy, temporary)
    return targets
