"""Make the notebooks of the repository: execute each lesson's text at the laptop preset and keep the outputs.

Making one twice gives the same file but for what the cells print: cell ids come from the lesson's name and the cell's
place, and nothing about the clock or the machine goes into the metadata.
"""

import json
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from pfmcourse import catalogue
from pfmcourse.base import CourseError, write_atomically
from pfmcourse.course import kernel, pairing, parameters
from pfmcourse.course.run import CELL_TIMEOUT, Run, Watch, execute, own_folder, read_notebook, write_html

PRESET = "laptop"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": kernel.LANGUAGE, "name": kernel.NAME},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}
TAKEN_UP = "resumed at step"  # what a training says then
WIDGET = "application/vnd.jupyter.widget-view+json"  # shows nothing without its live kernel


def cell_id(lesson: str, number: int) -> str:
    """The id of cell ``number`` (from 0) of a lesson's notebook."""
    return f"{lesson}-{number:03d}"


def _tidy_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring pieces of one stream joined, and without widgets, which are dead once saved."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if kept and output.output_type == "stream" and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
            continue
        if WIDGET in output.get("data", {}):
            continue
        kept.append(output)
    return kept


def tidy(notebook: NotebookNode, lesson: str) -> NotebookNode:
    """Give a notebook steady cell ids and metadata, and take away what papermill noted. Changes it in place."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = cell_id(lesson, number)
        for name in pairing.NOISE:
            cell.metadata.pop(name, None)
        if not parameters.tags(cell):
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs = _tidy_outputs(cell.outputs)
    return notebook


def taken_up(notebook: NotebookNode) -> list[int]:
    """The cells whose training took up an interrupted run: their times and speeds are those of no run."""
    said = (json.dumps(cell.get("outputs", []), ensure_ascii=False) for cell in notebook.cells)
    return [number for number, outputs in enumerate(said) if TAKEN_UP in outputs]


def retell(card: catalogue.Card) -> NotebookNode:
    """Take the words and the metadata of the lesson's text into its notebook; the outputs stay, for no code changed.

    Raises CourseError when any code differs: then the notebook has to be executed.
    """
    made, old = pairing.read_text(card.text), read_notebook(card.notebook)
    ours, theirs = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (made, old))
    if [cell.source.rstrip() for cell in ours] != [cell.source.rstrip() for cell in theirs]:
        raise CourseError(
            f"the code of text/{card.text.name} is not that of {card.notebook.name}: its outputs would be wrong. "
            f"Execute it with: pfmcourse notebooks {card.id}"
        )
    for cell, executed in zip(ours, theirs, strict=True):
        cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    tidy(made, card.id)
    with write_atomically(card.notebook) as temporary:
        nbformat.write(made, temporary)
    return made


def build(
    card: catalogue.Card, *, output: Path | None = None, timeout: float | None = None, watch: Watch | None = None
) -> Run:
    """Execute the lesson's text at the laptop preset; if all is well, replace its notebook and its row in the ledger.

    It runs with ``PFMCOURSE_OFFLINE=1``, in a folder of its own under ``output`` (default ``runs/``), where a failed
    attempt stays to be looked at; the notebook and the ledger are then untouched. So they are when a training took up
    an interrupted run, which raises CourseError.
    """
    notebook = pairing.read_text(card.text)
    notebook.metadata = nbformat.from_dict(METADATA)
    parameters.known(notebook, card.text.name)
    with own_folder(f"{card.name}.build", output or card.folder.parent / "runs") as folder:
        results, executed, html = (folder / name for name in ("results.json", card.notebook.name, f"{card.name}.html"))
        results.unlink(missing_ok=True)
        nbformat.write(tidy(notebook, card.id), executed)
        start = time.monotonic()
        error = execute(
            executed,
            environment={
                "PFMCOURSE_LEDGER": str(results.resolve()),
                "PFMCOURSE_PRESET": PRESET,
                "PFMCOURSE_OFFLINE": "1",
            },
            folder=card.folder,
            cell_timeout=CELL_TIMEOUT,
            timeout=timeout,
            watch=watch,
        )
        seconds = time.monotonic() - start
        row = catalogue.row(card.id, PRESET, results)
        if error is None and row is None:
            error = "every cell ran, but no results were written: the last code cell should be lesson.finish()"
        run = Run(card, PRESET, folder, executed, html, seconds, row, error)
        if not run.ok:
            write_html(executed, html)
            return run
        made = tidy(read_notebook(executed), card.id)
        if taken_up(made):
            raise CourseError(
                f"a training in cell {taken_up(made)[0]} took up an interrupted run, so its times are not those of "
                "one run. It is complete now: make the notebook again."
            )
        found = pairing.difference(made, pairing.read_text(card.text))
        if found:
            raise CourseError(f"text/{card.text.name} was changed while it was executed ({found}). Run it again.")
        with write_atomically(card.notebook) as temporary:
            nbformat.write(made, temporary)
        catalogue.write_row(row, card.folder / "results.json")
        write_html(card.notebook, html)
        return run
