"""Student copies: no solutions, no outputs, no lost work."""

import ast
import json

import nbformat
import pytest

from pfmcourse import catalogue
from pfmcourse.base import CourseError
from pfmcourse.course import anatomy, student
from pfmcourse.course.run import read_notebook

CARDS = list(catalogue.lessons().values())
each_lesson = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)


def test_the_copy_asks_instead_of_telling(built):
    card, notebook, _ = built
    before = nbformat.writes(notebook)
    copy = student.student_copy(notebook, card.id, "tiny")
    source = "\n".join(cell.source for cell in copy.cells)
    assert "secret" not in source and "SOLUTION" not in source
    for number in (1, 2, 3):
        assert f'    raise NotImplementedError("Your turn: Exercise {number}. Your answer replaces' in source
    assert source.count("check.plus(plus)") == 3
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copy.cells)
    assert nbformat.writes(notebook) == before
    nbformat.validate(copy)


def test_the_copy_is_always_the_same(built):
    card, notebook, _ = built
    first, second = (nbformat.writes(student.student_copy(notebook, card.id, "tiny")) for _ in range(2))
    assert first == second


def test_indentation_and_several_solutions_in_a_cell():
    source = """
def f(x):
    if x:
        ### BEGIN SOLUTION
        y = 1

        ### END SOLUTION
    ### BEGIN SOLUTION
    return y
    ### END SOLUTION
""".strip()
    lines = student.without_solutions(source, "here", "it").splitlines()
    assert [line[: len(line) - len(line.lstrip())] for line in lines if "raise" in line] == ["        ", "    "]
    assert len(lines) == 4
    ast.parse("\n".join(lines))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("### BEGIN SOLUTION\nx = 1", "has no '### END SOLUTION' after it"),
        ("x = 1\n### END SOLUTION", "line 2: '### END SOLUTION' has no partner"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "line 2"),
        ("#### BEGIN SOLUTION\nx\n### END SOLUTION", "line 1"),
        ("### BEGIN SOLUTION: sum\nx\n### END SOLUTION", "line 1"),
    ],
)
def test_markers_that_do_not_pair_up(source, message):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("a"), nbformat.v4.new_code_cell(source)])
    with pytest.raises(CourseError) as caught:
        student.student_copy(notebook, "tiny", "01_tiny.ipynb")
    assert message in str(caught.value)
    assert "01_tiny.ipynb, cell 1" in str(caught.value)


def test_a_marker_in_prose():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("### BEGIN SOLUTION\nforty-two")])
    with pytest.raises(CourseError, match="cell 0: a solution marker stands in text"):
        student.student_copy(notebook, "tiny", "01_tiny.ipynb")


def test_copies_are_written_and_work_is_not_lost(tiny, tmp_path):
    card = tiny()
    out = tmp_path / "out"
    (path,) = student.write_copies([card], out)
    assert path == out / "01_tiny.ipynb"
    path.write_text("my work", encoding="utf-8")
    with pytest.raises(CourseError, match="--force"):
        student.write_copies([card], out)
    assert path.read_text(encoding="utf-8") == "my work"
    student.write_copies([card], out, force=True)
    assert "Your turn" in path.read_text(encoding="utf-8")


def test_the_lessons_themselves_are_never_replaced(tiny):
    card = tiny()
    before = card.notebook.read_bytes()
    with pytest.raises(CourseError, match="another folder"):
        student.write_copies([card], card.folder, force=True)
    assert card.notebook.read_bytes() == before


# nbgrader's notes on the exercises -----------------------------------------------------------------------------------


def lesson_of(*cells):
    """A notebook: text where it begins with #, else code."""
    make = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[source.startswith("#")](source) for source in cells])


ANSWER = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
TEXT = "### Exercise 7: one\n**Difficulty:** hard · 5 minutes"


@pytest.mark.parametrize(
    "cells",
    [
        (f"{ANSWER}\n\n\ncheck.f(f)  # ours\nprint(f())",),
        (ANSWER, "check.f(f)  # ours\nprint(f())"),
        (ANSWER, "#### A hint\n```\n# no heading\n```", "print(2)", "check.f(f)  # ours\nprint(f())"),
    ],
)
def test_an_exercise_becomes_an_answer_and_its_test(cells):
    notebook = lesson_of(TEXT, *cells, "## Claims", "check.g(g)")
    marked = student.for_nbgrader(notebook, "tiny", "01_tiny.ipynb")
    noted = [cell for cell in marked.cells if "nbgrader" in cell.metadata]
    assert [cell.source for cell in noted] == [ANSWER, "check.f(f)  # ours\nprint(f())"]
    answer, test = (cell.metadata.nbgrader for cell in noted)
    both = {"schema_version": 3, "task": False}
    assert answer == both | {"grade_id": "tiny-exercise-7-answer", "solution": True, "grade": False, "locked": False}
    assert test == both | {
        "grade_id": "tiny-exercise-7-test",
        "solution": False,
        "grade": True,
        "locked": True,
        "points": 3,
    }
    assert [cell.id for cell in marked.cells] == [f"tiny-{number:03d}" for number in range(len(marked.cells))]
    assert not any("nbgrader" in cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["### Exercise 7: one", f"{ANSWER}\ncheck.f(f)"], "which is missing; one code cell"),
        ([TEXT, "check.f(f)"], "but there are 0; and after"),
        ([TEXT, ANSWER, ANSWER, "check.f(f)"], "but there are 2; and after"),
        ([TEXT, ANSWER], "there are 0 cells with one"),
        ([TEXT, f"check.f(f)\n{ANSWER}"], "there are 0 cells with one"),
        ([TEXT, f"{ANSWER}\ncheck.f(f)", "check.g(f)"], "there are 2 cells with one"),
    ],
)
def test_an_exercise_that_cannot_be_graded(cells, message):
    with pytest.raises(CourseError, match="tiny: Exercise 7 cannot be graded") as caught:
        student.student_copy(lesson_of(*cells), "tiny", "tiny")
    assert message in str(caught.value)


def test_a_course_of_nbgrader_is_written_and_nothing_is_lost(tiny, tmp_path):
    card, out = tiny(), tmp_path / "class"
    settings, source = student.write_nbgrader([card], out)
    assert settings == out / "nbgrader_config.py"
    assert source == out / "source" / "01_tiny" / "01_tiny.ipynb"
    cells = nbformat.read(source, as_version=4).cells
    assert sum("secret" in cell.source for cell in cells) == 3
    assert sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in cells) == 3
    settings.write_text("mine", encoding="utf-8")
    with pytest.raises(CourseError, match="--force"):
        student.write_nbgrader([card], out)
    before = source.read_bytes()
    assert student.write_nbgrader([card], out, force=True) == [source]
    assert source.read_bytes() == before
    assert settings.read_text(encoding="utf-8") == "mine"


# The lessons ---------------------------------------------------------------------------------------------------------


@each_lesson
def test_two_copies_of_a_lesson_are_equal(card, tmp_path):
    for write, name in ((student.write_copies, "copies"), (student.write_nbgrader, "class")):
        first, second = (write([card], tmp_path / f"{name}{number}") for number in (1, 2))
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def parts(notebook):
    """The lines of a notebook's code and text that are in a solution, and those that are not."""
    inside, outside = [], []
    for cell in notebook.cells:
        where = outside
        for line in map(str.strip, cell.source.splitlines()):
            where = outside if line == student.END else where
            where.append(line)
            where = inside if line == student.BEGIN else where
    return inside, outside


@each_lesson
def test_no_line_of_a_solution_survives(card, tmp_path):
    solved, rest = parts(read_notebook(card.notebook))
    telling = {line for line in solved if len(line) > 25} - set(rest)
    assert telling, "no line of any solution is long enough to look for"
    (path,) = student.write_copies([card], tmp_path)
    found = path.read_text(encoding="utf-8")
    assert [line for line in telling if json.dumps(line, ensure_ascii=False)[1:-1] in found] == []


@each_lesson
def test_a_copy_keeps_all_but_solutions_and_outputs(card):
    notebook = read_notebook(card.notebook)
    copy = student.student_copy(notebook, card.id, card.notebook.name)
    nbformat.validate(copy)
    _, rest = parts(notebook)
    kept = [line.strip() for cell in copy.cells for line in cell.source.splitlines()]
    lost = [line for line in rest if line and line not in (student.BEGIN, student.END)]
    assert [line for line in kept if line and "Your turn" not in line] == lost
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum(cell.source.count("Your turn") for cell in code) == sum(
        cell.source.count(student.BEGIN) for cell in notebook.cells
    )
    assert list(anatomy.RULES["line_length"](copy, card)) == []


@each_lesson
def test_every_exercise_of_a_lesson_can_be_graded(card):
    copy = student.student_copy(read_notebook(card.notebook), card.id, card.notebook.name)
    noted = [cell.metadata.nbgrader for cell in copy.cells if "nbgrader" in cell.metadata]
    assert len({note.grade_id for note in noted}) == len(noted) >= 6
    assert sum(note.solution for note in noted) == sum(note.grade for note in noted) == len(noted) / 2
    assert all(note.points in (1, 2, 3) for note in noted if note.grade)
