"""Making the committed notebooks."""

import nbformat
import pytest

from pfmcourse import catalogue
from pfmcourse.base import CourseError
from pfmcourse.course import notebooks


def test_the_notebook_is_executed_and_clean(built):
    card, notebook, run = built
    assert run.ok and run.preset == "laptop"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert [cell.id for cell in notebook.cells] == [f"tiny-{number:03d}" for number in range(len(notebook.cells))]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags", "slideshow"} for cell in notebook.cells)
    assert "papermill" not in card.notebook.read_text(encoding="utf-8")
    assert catalogue.row("tiny", "laptop", card.folder / "results.json")["metrics"]["sum"]["value"] == 3


def test_making_it_again_changes_nothing(built, tmp_path):
    card, _, _ = built
    before = card.notebook.read_bytes()
    assert notebooks.build(card, output=tmp_path).ok
    assert card.notebook.read_bytes() == before


def test_a_failure_leaves_notebook_and_ledger_alone(tiny, tmp_path):
    card = tiny("1 / 0")
    before = card.notebook.read_bytes()
    run = notebooks.build(card, output=tmp_path / "runs")
    assert "ZeroDivisionError" in run.error
    assert run.html.is_file()
    assert card.notebook.read_bytes() == before
    assert not (card.folder / "results.json").exists()


def test_a_text_without_a_parameters_cell(tiny, tmp_path):
    card = tiny()
    card.text.write_text("# %%\nprint(1)\n", encoding="utf-8")
    with pytest.raises(CourseError, match=r"01_tiny\.py has no cell tagged"):
        notebooks.build(card, output=tmp_path)


def test_a_training_that_took_up_an_interrupted_run_makes_no_notebook(tiny, tmp_path):
    card = tiny('print("Pretraining nnlm: 9 steps · resumed at step 3")')
    before = card.notebook.read_bytes()
    with pytest.raises(CourseError, match="took up an interrupted run"):
        notebooks.build(card, output=tmp_path)
    assert card.notebook.read_bytes() == before


def test_streams_are_joined_and_widgets_dropped():
    def stream(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    widget = nbformat.v4.new_output("display_data", {notebooks.WIDGET: {"model_id": "x"}, "text/plain": "bar"})
    outputs = [stream("stdout", "a"), stream("stdout", "b"), widget, stream("stderr", "c"), stream("stdout", "d")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    tidied = notebooks.tidy(notebook, "tiny").cells[0].outputs
    assert [(output.name, output.text) for output in tidied] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]
