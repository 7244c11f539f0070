"""A notebook and its text agree, or the first difference is named."""

import nbformat
import pytest

from pfmcourse.base import CourseError
from pfmcourse.course import pairing


def test_a_pair_agrees_whatever_its_outputs(built):
    card, notebook, _ = built
    pairing.check(card)
    assert any(cell.get("outputs") for cell in notebook.cells)


def changed_source(notebook):
    notebook.cells[2].source += "\nx = 1"


def changed_tags(notebook):
    notebook.cells[1].metadata.tags.append("nbval-skip")


def dropped_cell(notebook):
    notebook.cells.pop()


def changed_kind(notebook):
    notebook.cells[0] = nbformat.v4.new_code_cell(notebook.cells[0].source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed_source, "cell 2 has another source"),
        (changed_tags, "cell 1 has another metadata"),
        (dropped_cell, "the notebook has [0-9]+ cells, the text has [0-9]+"),
        (changed_kind, "cell 0 has another kind"),
    ],
)
def test_differences_are_named(tiny, change, message):
    card = tiny()
    pairing.check(card)
    notebook = nbformat.read(card.notebook, as_version=4)
    change(notebook)
    nbformat.write(notebook, card.notebook)
    with pytest.raises(CourseError, match=message):
        pairing.check(card)


def test_what_tools_note_is_no_difference(tiny):
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"duration": 1}
        cell.metadata.setdefault("tags", [])
    nbformat.write(notebook, card.notebook)
    pairing.check(card)


def test_a_missing_text(tiny):
    card = tiny()
    card.text.unlink()
    with pytest.raises(CourseError, match="jupytext --to"):
        pairing.check(card)
