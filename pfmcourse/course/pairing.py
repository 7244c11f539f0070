"""A notebook and its text: ``notebooks/NN_slug.ipynb`` with outputs, ``notebooks/text/NN_slug.py`` to read and review.

The text (jupytext's percent format) is where a lesson is edited; ``pfmcourse notebooks`` executes it into the notebook.
"""

from pathlib import Path

from nbformat import NotebookNode

from pfmcourse.base import CourseError
from pfmcourse.catalogue import Card
from pfmcourse.course.run import read_notebook

FORMAT = "py:percent"
# what running or looking at a notebook leaves in a cell's metadata; no part of what the author wrote
NOISE = (
    "execution",
    "papermill",
    "collapsed",
    "scrolled",
    "trusted",
    "autoscroll",
    "editable",
    "ExecuteTime",
    "lines_to_next_cell",  # jupytext's, about blank lines in the text
    "lines_to_end_of_cell_marker",
)


def read_text(path: Path) -> NotebookNode:
    """The notebook that the text at ``path`` describes, without outputs."""
    import jupytext

    try:
        return jupytext.read(path, fmt=FORMAT)
    except FileNotFoundError:
        raise CourseError(
            f"the text {path} is missing: every notebook is made from one. Make it from an existing notebook with: "
            f"jupytext --to {FORMAT} notebooks/{path.stem}.ipynb --output notebooks/text/{path.name}"
        ) from None


def _content(cell: NotebookNode) -> tuple[str, str, dict]:
    """What the author wrote in a cell: its kind, its source, its metadata. Empty tags are as good as none."""
    kept = {name: value for name, value in cell.metadata.items() if name not in NOISE and value != []}
    return cell.cell_type, cell.source.rstrip(), kept


def difference(notebook: NotebookNode, text: NotebookNode) -> str | None:
    """The first place where a notebook and its text differ, in words; None when they agree. Outputs do not count."""
    for number, (left, right) in enumerate(zip(notebook.cells, text.cells, strict=False)):
        ours, theirs = _content(left), _content(right)
        for what, one, other in zip(("kind", "source", "metadata"), ours, theirs, strict=True):
            if one != other:
                return f"cell {number} has another {what}: the notebook has {one!r:.200}, the text has {other!r:.200}"
    if len(notebook.cells) != len(text.cells):
        return f"the notebook has {len(notebook.cells)} cells, the text has {len(text.cells)}"
    return None


def check(card: Card) -> None:
    """Raise CourseError unless the lesson's notebook and text agree."""
    found = difference(read_notebook(card.notebook), read_text(card.text))
    if found:
        raise CourseError(
            f"{card.notebook.name} and text/{card.text.name} differ: {found}. Edit the text, then make the notebook "
            f"from it: pfmcourse notebooks {card.id}"
        )
