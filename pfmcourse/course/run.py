"""Run a lesson from top to bottom, with papermill underneath, and keep what it made.

Each run has a folder, ``runs/02_word_vectors``: the executed notebook, an HTML copy of it, and ``results.json`` with
its metrics and claims. The notebook is saved after every cell, so a run that fails leaves everything up to the failure.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from filelock import FileLock, Timeout
from nbformat import NotebookNode

from pfmcourse import catalogue
from pfmcourse.base import CourseError, resolve_preset, write_atomically
from pfmcourse.course import kernel, parameters

Watch = Callable[[int, int, str], None]  # (cells done, cells in all, the heading above the current cell)

INTERRUPTED = "interrupted from the keyboard; the notebook holds what ran before"
TEMPLATES = Path(__file__).with_name("templates")
CELL_TIMEOUT = 3600.0  # seconds; the longest cell of the long preset trains for 40 minutes


@dataclass(frozen=True)
class Run:
    """What became of one run."""

    card: catalogue.Card
    preset: str
    folder: Path
    notebook: Path
    html: Path
    seconds: float
    row: dict[str, Any] | None  # the ledger row; None when the notebook stopped before lesson.finish()
    error: str | None  # what went wrong, naming the cell; None when every cell ran

    @property
    def failed_claims(self) -> list[dict[str, Any]]:
        """The claims that did not hold; claims skipped at the smoke preset are not among them."""
        return [claim for claim in (self.row or {}).get("claims", []) if claim["holds"] is False]

    @property
    def ok(self) -> bool:
        """Whether every cell ran and no claim failed."""
        return self.error is None and not self.failed_claims


@contextlib.contextmanager
def own_folder(name: str, parent: Path) -> Iterator[Path]:
    """``parent/name`` for this process alone; while another run is using it, ``parent/name-2`` and so on."""
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CourseError(
                f"cannot make the folder {folder} for the run: {error}. Choose another one with --output."
            ) from None
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        with lock:
            lock.release()  # the `with` holds it a second time; this one lets it go at the end
            yield folder
        return
    raise CourseError(f"a thousand runs of {name} are going on in {parent}.")


def _headings(notebook: NotebookNode) -> list[str]:
    """For every cell, the last heading at or above it."""
    heading, found = "the top", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = lines[-1].lstrip("# ").strip() if lines else heading
        found.append(heading)
    return found


def _first_line(text: str, width: int = 300) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= width else line[: width - 1] + "…"


def execute(
    notebook: Path,
    *,
    values: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    cell_timeout: float = CELL_TIMEOUT,
    timeout: float | None = None,
    watch: Watch | None = None,
) -> str | None:
    """Run every cell of the file ``notebook`` in place. Returns None, or the reason it stopped, naming the cell.

    Args:
        notebook: the file, which is saved after every cell.
        values: papermill parameters, already checked.
        environment: variables for the kernel, beside this process's own.
        folder: where the kernel runs; default: the notebook's folder.
        cell_timeout: seconds one cell may take.
        timeout: seconds for all cells together.
        watch: called before every cell.
    """
    import papermill  # takes half a second
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    log = logging.getLogger("papermill")
    log.addHandler(logging.NullHandler())  # the reason is returned; nothing needs to be printed twice
    log.propagate = False

    start = time.monotonic()
    state: dict[str, Any] = {"index": 0, "headings": [], "limit": cell_timeout, "timed_out": False}

    def limit(cell: NotebookNode) -> float:
        left = cell_timeout if timeout is None else min(cell_timeout, start + timeout - time.monotonic())
        state["limit"] = cell_timeout if timeout is None or left == cell_timeout else timeout
        return max(left, 0.01)  # zero would mean no limit

    def before_cell(cell: NotebookNode, cell_index: int) -> None:
        state["index"] = cell_index
        if watch is not None:
            watch(cell_index, len(state["headings"]), state["headings"][cell_index])

    def at_start(notebook: NotebookNode) -> None:
        state["headings"] = _headings(notebook)  # here, because papermill has put the cell with the values in

    def on_error(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        state["timed_out"] = execute_reply["content"].get("ename") == "CellTimeout"

    def where() -> str:
        heading = state["headings"][state["index"]] if state["headings"] else "the top"
        return f"under “{heading}”"

    def too_slow() -> str:
        of = "the whole notebook" if state["limit"] == timeout else "one cell"
        return (
            f"the time-out of {state['limit']:g} s for {of} ran out in a cell {where()}. "
            "Give it more time (--timeout), a smaller preset (--preset smoke), or find out what hangs."
        )

    path = str(notebook).replace("{", "{{").replace("}", "}}")  # papermill formats its paths
    try:
        papermill.execute_notebook(
            path,
            path,
            parameters=dict(values or {}),
            kernel_name=kernel.NAME,
            language=kernel.LANGUAGE,
            progress_bar=False,
            kernel_manager_class=kernel.manager_class(environment or {}),
            resources={"metadata": {"path": str(folder or notebook.parent)}},
            timeout_func=limit,
            interrupt_on_timeout=True,  # so that the saved notebook shows the line that was running
            error_on_timeout={"ename": "CellTimeout", "evalue": "time-out", "traceback": []},
            on_notebook_start=at_start,
            on_cell_start=before_cell,
            on_cell_error=on_error,
        )
    except PapermillExecutionError as error:
        if state["timed_out"]:
            return too_slow()
        return f"cell In [{error.exec_count}] {where()} raised {error.ename}: {_first_line(error.evalue)}"
    except CellTimeoutError:  # the cell did not even react to the interrupt
        return too_slow()
    except KeyboardInterrupt:
        return INTERRUPTED
    except DeadKernelError:
        return (
            f"the Python process of the notebook died in a cell {where()}; most often the memory was full. "
            "Close other programs, or use a smaller preset: --preset smoke."
        )
    return too_slow() if state["timed_out"] else None


def write_html(notebook: Path, html: Path) -> None:
    """Write a copy of ``notebook`` that any browser shows."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(TEMPLATES)])
    exporter.log.setLevel(logging.ERROR)  # a warning about alt text helps the author, who sees it from `anatomy`
    body, _ = exporter.from_filename(str(notebook))
    with write_atomically(html) as temporary:
        temporary.write_text(body, encoding="utf-8")


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at ``path``; raises CourseError when it is missing or damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise CourseError(
            f"the notebook {path} is missing. Restore it with `git checkout {path.name}` in {path.parent}, "
            "or make it from its text with: pfmcourse notebooks"
        ) from None
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise CourseError(f"{path} is not a notebook ({_first_line(str(error), 120)}).") from None


def prepare(
    card: catalogue.Card, preset: str | None = None, seed: int | None = None, values: Mapping[str, Any] | None = None
) -> tuple[NotebookNode, dict[str, Any]]:
    """The lesson's notebook and the complete papermill parameters; every kind of bad input raises CourseError here."""
    notebook = read_notebook(card.notebook)
    defaults = parameters.known(notebook, card.notebook.name)
    values = dict(values or {})
    if seed is not None:
        values.setdefault("seed", seed)
    values["preset"] = resolve_preset(values.get("preset") or preset)
    parameters.check(values, defaults)
    return notebook, values


def run(
    lesson: str | catalogue.Card,
    preset: str | None = None,
    seed: int | None = None,
    values: Mapping[str, Any] | None = None,
    *,
    output: Path | None = None,
    cell_timeout: float = CELL_TIMEOUT,
    timeout: float | None = None,
    watch: Watch | None = None,
) -> Run:
    """Execute a lesson and say what became of it.

    Args:
        lesson: a lesson's id, number or card.
        preset: smoke, laptop, long or gpu; default: ``PFMCOURSE_PRESET``, else laptop.
        seed: default: the notebook's own.
        values: values for names in the notebook's parameters cell.
        output: the folder that gets the run's folder; default: ``runs/`` beside the folder of the lessons.
        cell_timeout, timeout: seconds for one cell, and for all of them.
        watch: called before every cell with the number of cells done, of all cells, and the heading.

    Bad input (an unknown lesson, preset or parameter, a value of another type, a notebook without a parameters cell)
    raises CourseError before anything runs. A cell that raises does not: see ``Run.error`` and ``Run.ok``.
    """
    card = lesson if isinstance(lesson, catalogue.Card) else catalogue.card(lesson)
    notebook, values = prepare(card, preset, seed, values)
    with own_folder(card.name, output or card.folder.parent / "runs") as folder:
        results = folder / "results.json"
        for old in folder.iterdir():  # a failed run must not show an older run's results
            if old.is_file() and old.name != ".lock":
                old.unlink()
        executed, html = folder / f"{card.name}.ipynb", folder / f"{card.name}.html"
        nbformat.write(notebook, executed)
        start = time.monotonic()
        error = execute(
            executed,
            values=values,
            environment={"PFMCOURSE_LEDGER": str(results.resolve()), "PFMCOURSE_PRESET": values["preset"]},
            folder=card.folder,
            cell_timeout=cell_timeout,
            timeout=timeout,
            watch=watch,
        )
        seconds = time.monotonic() - start
        write_html(executed, html)
        row = catalogue.row(card.id, values["preset"], results)
        if error is None and row is None:
            error = "every cell ran, but no results were written: the last code cell should be lesson.finish()"
        return Run(card, values["preset"], folder, executed, html, seconds, row, error)
