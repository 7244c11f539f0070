"""Student copies: no solutions, no outputs, no lost work."""

import ast

import nbformat
import pytest

from pfmcourse.base import CourseError
from pfmcourse.course import student


def test_the_copy_asks_instead_of_telling(built):
    card, notebook, _ = built
    before = nbformat.writes(notebook)
    copy = student.student_copy(notebook, card.id, "tiny")
    source = "\n".join(cell.source for cell in copy.cells)
    assert "secret" not in source and "SOLUTION" not in source
    for number in (1, 2, 3):
        assert f'    raise NotImplementedError("Your turn: Exercise {number}. Take your time' in source
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
