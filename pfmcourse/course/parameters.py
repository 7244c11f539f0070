"""The numbers a lesson lets you turn: found in its ``parameters`` cell, checked before anything runs.

Papermill only warns about a name it does not know, and then the lesson runs for minutes with the old value.
"""

import ast
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

from pfmcourse.base import CourseError, unknown_name

TAG = "parameters"


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell; a cell without any has an empty list."""
    return list(cell.metadata.get("tags", []))


def known(notebook: NotebookNode, name: str) -> dict[str, Any]:
    """The parameters of ``notebook`` with their defaults. ``name`` is what error messages call the notebook.

    The cell tagged ``parameters`` may hold only assignments of plain values; everything else raises CourseError.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and TAG in tags(cell)]
    if len(cells) != 1:
        count = "no cell" if not cells else f"{len(cells)} cells"
        raise CourseError(
            f"{name} has {count} tagged {TAG!r}, but papermill needs exactly one: a code cell with "
            f"`preset = None` and `seed = 0`. In JupyterLab: select the cell, open the property inspector (the gears), "
            f"add the tag {TAG}."
        )
    defaults: dict[str, Any] = {}
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise CourseError(f"{name}: the {TAG} cell is not valid Python, line {error.lineno}: {error.msg}") from None
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        try:
            if len(targets) != 1 or not isinstance(targets[0], ast.Name):
                raise ValueError
            defaults[targets[0].id] = ast.literal_eval(statement.value)
        except (ValueError, AttributeError):
            raise CourseError(
                f"{name}: the {TAG} cell may only set names to plain values, as in `steps = 300`, but it has "
                f"`{ast.unparse(statement)}`."
            ) from None
    return defaults


def parse(text: str) -> Any:
    """What ``text`` from the command line means: a Python number, list, True, False, None, or else the text itself."""
    plain = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def check(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise CourseError unless every value has a known name and its default's type (an int may stand for a float)."""
    for name, value in values.items():
        if name not in defaults:
            raise unknown_name("parameter", name, defaults)
        default = defaults[name]
        if default is None or value is None or type(value) is type(default):
            continue
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            continue
        raise CourseError(
            f"parameter {name!r} wants {type(default).__name__}, as its default {default!r}, "
            f"but got {value!r} ({type(value).__name__})."
        )
