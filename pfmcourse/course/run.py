"""Run a lesson from top to bottom, with papermill underneath, and keep what it made.

Each run has a folder, ``runs/02_word_vectors``: the executed notebook, an HTML copy of it, ``results.json`` with its
metrics and claims, and ``state.json``, which says how it ended. The notebook is saved after every cell, so a run that
fails leaves everything up to the failure. ``state.json`` is written last of all and in one step: a run that was killed
has none, and is never taken for a finished one.
"""

import contextlib
import hashlib
import json
import logging
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from filelock import FileLock, Timeout
from nbformat import NotebookNode

from pfmcourse import catalogue
from pfmcourse.base import CourseError, resolve_preset, write_atomically
from pfmcourse.course import formulas, kernel, parameters

Watch = Callable[[int, int, str], None]  # (cells done, cells in all, the heading above the current cell)

INTERRUPTED = "interrupted from the keyboard; the notebook holds what ran before"
STATE = "state.json"
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
    kept: bool = False  # whether an earlier run was found good and nothing ran now
    sampled_mb: float | None = None  # the most memory seen from outside, in MB (10^6 bytes); None when nobody looked

    @property
    def memory_mb(self) -> float | None:
        """Peak memory in MB: the lesson's own figure, or what was seen from outside when it did not get that far."""
        return (self.row or {}).get("peak_memory_mb") or self.sampled_mb

    @property
    def failed_claims(self) -> list[dict[str, Any]]:
        """The claims that did not hold; claims skipped at the smoke preset are not among them."""
        return [claim for claim in (self.row or {}).get("claims", []) if claim["holds"] is False]

    @property
    def ok(self) -> bool:
        """Whether every cell ran and no claim failed."""
        return self.error is None and not self.failed_claims


def make_folder(folder: Path) -> None:
    """Make ``folder`` unless it is there; raises CourseError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(
            f"cannot make the folder {folder} for the run: {error}. Choose another one with --output."
        ) from None


@contextlib.contextmanager
def own_folder(name: str, parent: Path) -> Iterator[Path]:
    """``parent/name`` for this process alone; while another run is using it, ``parent/name-2`` and so on."""
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        make_folder(folder)
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


def ending(code: int | None) -> str:
    """In words, how a process with the exit code ``code`` ended: ``SIGKILL``, ``exit code 3``."""
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return "unknown exit code" if code is None else f"exit code {code}"


def _ending(code: int | None) -> str:
    return "" if code is None else f" ({ending(code)})"


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

    class Witness(kernel.manager_class(environment or {})):
        """A kernel manager that keeps how its process ended."""

        async def is_alive(self) -> bool:
            alive = await super().is_alive()
            if not alive and self.provisioner is not None:
                state["exit"] = await self.provisioner.poll()
            return alive

    start = time.monotonic()
    state: dict[str, Any] = {"index": 0, "headings": [], "limit": cell_timeout, "timed_out": False, "exit": None}

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

    def execute_cells() -> None:
        papermill.execute_notebook(
            path,
            path,
            parameters=dict(values or {}),
            kernel_name=kernel.NAME,
            language=kernel.LANGUAGE,
            progress_bar=False,
            kernel_manager_class=Witness,
            resources={"metadata": {"path": str(folder or notebook.parent)}},
            timeout_func=limit,
            interrupt_on_timeout=True,  # so that the saved notebook shows the line that was running
            error_on_timeout={"ename": "CellTimeout", "evalue": "time-out", "traceback": []},
            on_notebook_start=at_start,
            on_cell_start=before_cell,
            on_cell_error=on_error,
        )

    try:
        kernel.patiently(execute_cells)
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
            f"the Python process of the notebook died in a cell {where()}{_ending(state['exit'])}; most often the "
            "memory was full. Close other programs, or use a smaller preset: --preset smoke."
        )
    except RuntimeError as error:
        if not kernel.lost_at_start(error):
            raise
        return (
            f"the Python process of the notebook did not come up, {kernel.STARTS} times{_ending(state['exit'])}. "
            "Find out what is missing with: pfmcourse doctor"
        )
    return too_slow() if state["timed_out"] else None


def write_html(notebook: Path, html: Path) -> None:
    """Write a copy of ``notebook`` that any browser shows, without a network as long as it stays on this machine."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="page", extra_template_basedirs=[str(TEMPLATES)])
    exporter.log.setLevel(logging.ERROR)  # a warning about alt text helps the author, who sees it from `anatomy`
    here = formulas.script()
    mathjax = {"mathjax_here": here.as_uri() if here else None, "mathjax_network": formulas.NETWORK}
    body, _ = exporter.from_filename(str(notebook), resources=mathjax)
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


def fingerprint(notebook: NotebookNode) -> str:
    """SHA-256 of the notebook's code cells; words and outputs may change without changing it."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def _asked(notebook: NotebookNode, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a run was asked for, as ``state.json`` keeps it: every parameter, as Python text, and the code's SHA-256."""
    complete = parameters.known(notebook, name) | dict(values)
    return {"parameters": {key: repr(value) for key, value in complete.items()}, "code": fingerprint(notebook)}


def folders(card: catalogue.Card, parent: Path) -> list[Path]:
    """The folders of this lesson's runs in ``parent``, in the order of their numbers."""
    pattern = re.compile(rf"{re.escape(card.name)}(?:-(\d+))?")
    found = {path: pattern.fullmatch(path.name) for path in parent.glob(f"{card.name}*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(found[path][1] or 1))


def _files(card: catalogue.Card, folder: Path) -> tuple[Path, Path, Path]:
    return folder / f"{card.name}.ipynb", folder / f"{card.name}.html", folder / "results.json"


def read_state(folder: Path) -> dict[str, Any] | None:
    """How the run in ``folder`` ended; None when it did not end, or its ``state.json`` is damaged."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"lesson", "preset", "parameters", "code", "ok", "error", "seconds"}
    return state if isinstance(state, dict) and wanted <= set(state) else None


def finished(card: catalogue.Card, folder: Path) -> Run | None:
    """The run whose results lie in ``folder``; None when it did not end, or lost a file since."""
    state = read_state(folder)
    executed, html, results = _files(card, folder)
    if state is None or state["lesson"] != card.id or not (executed.is_file() and html.is_file()):
        return None
    try:
        row = catalogue.row(card.id, state["preset"], results)
    except CourseError:
        return None
    if row is None and state["error"] is None:
        return None
    return Run(card, state["preset"], folder, executed, html, state["seconds"], row, state["error"])


def earlier(card: catalogue.Card, notebook: NotebookNode, values: Mapping[str, Any], parent: Path) -> Run | None:
    """A finished, successful run in ``parent`` of the same code with the same parameters, or None.

    ``notebook`` and ``values`` are those that ``prepare`` gives.
    """
    asked = _asked(notebook, values, card.notebook.name)
    for folder in folders(card, parent):
        state, run = read_state(folder), finished(card, folder)
        if run and state and state["ok"] and run.ok and all(state[key] == asked[key] for key in asked):
            return replace(run, kept=True)
    return None


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
    resume: bool = False,
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
        resume: whether to keep a finished, successful run of the same code with the same parameters, if there is one.

    Bad input (an unknown lesson, preset or parameter, a value of another type, a notebook without a parameters cell)
    raises CourseError before anything runs. A cell that raises does not: see ``Run.error`` and ``Run.ok``.
    """
    card = lesson if isinstance(lesson, catalogue.Card) else catalogue.card(lesson)
    notebook, values = prepare(card, preset, seed, values)
    parent = output or card.folder.parent / "runs"
    kept = earlier(card, notebook, values, parent) if resume else None
    if kept:
        return kept
    with own_folder(card.name, parent) as folder:
        executed, html, results = _files(card, folder)
        (folder / STATE).unlink(missing_ok=True)  # first, so that a kill from here on leaves no word of an ending
        for old in folder.iterdir():  # a failed run must not show an older run's results
            if old.is_file() and old.name != ".lock":
                old.unlink()
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
        done = Run(card, values["preset"], folder, executed, html, seconds, row, error)
        state = {
            "lesson": card.id,
            "preset": done.preset,
            **_asked(notebook, values, card.notebook.name),
            "ok": done.ok,
            "error": error,
            "seconds": round(seconds, 1),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with write_atomically(folder / STATE) as temporary:
            temporary.write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return done
