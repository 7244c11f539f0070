"""Run many lessons at once: a process for each, the machine's threads, memory and GPUs shared out among them.

A lesson that fails, or whose process is killed, leaves the others alone. What is finished is known by each run's own
``state.json`` (see ``pfmcourse.course.run``), so a batch that was cut off can be taken up again.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from pfmcourse import catalogue
from pfmcourse.base import CourseError
from pfmcourse.course import run as running
from pfmcourse.course.run import INTERRUPTED, Run

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NOT_STARTED = "not started"
NOT_RUN = "not run"
UNFINISHED = "unfinished: it was killed, most often because the memory was full; run it again"
GOING_ON = "still running"
WAITING = (NOT_STARTED, NOT_RUN, GOING_ON)  # nothing went wrong with these
LOOK = 1.0  # seconds between two looks at the memory of the running lessons
GRACE = 20.0  # seconds that an interrupted lesson gets to save its notebook and its HTML copy


class Watcher:
    """What a batch tells while it runs. Every method does nothing; override those you want."""

    def started(self, card: catalogue.Card, threads: int | None, gpu: str | None) -> None:
        """A lesson starts, with so many threads (None: as it likes) and on this GPU."""

    def at(self, card: catalogue.Card, done: int, total: int, heading: str) -> None:
        """A lesson is about to run a cell."""

    def ended(self, run: Run) -> None:
        """A lesson has ended, or an earlier run of it was kept."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return said.split()


def free_memory() -> float:
    """Memory in MB (10^6 bytes) that new processes can have without swapping."""
    return psutil.virtual_memory().available / 1e6


def share(jobs: int) -> int:
    """Threads for each of ``jobs`` lessons at a time; a smaller number in OMP_NUM_THREADS is left as it is."""
    threads = max(1, cores() // jobs)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(asked)) if asked.isdecimal() and int(asked) else threads


def expected(card: catalogue.Card, preset: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of a lesson, from its ledger; at a preset without a row, those of laptop."""
    ledger = card.folder / "results.json"
    row = catalogue.row(card.id, preset, ledger) or catalogue.row(card.id, "laptop", ledger) or {}
    return row.get("seconds", 0.0), row.get("peak_memory_mb") or 0.0


# In the process of one lesson -----------------------------------------------------------------------------------------


def _stop_with_parent(line: Connection) -> None:
    """Interrupt this process's main thread as soon as the other end of ``line`` is closed, or its owner is dead."""
    with contextlib.suppress(EOFError, OSError):
        line.recv()  # nothing is ever sent
    if hasattr(signal, "SIGUSR1"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    else:
        signal.raise_signal(signal.SIGINT)


def _work(
    line: Connection, reports: Connection, environment: Mapping[str, str], arguments: tuple, options: Mapping[str, Any]
) -> None:
    """Run one lesson here and report: ("cell", ...) before each cell, then ("run", Run) or ("refused", message)."""
    if hasattr(signal, "SIGUSR1"):
        # Ctrl+C in a terminal reaches this process too; the parent decides, and closes `line`
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # see _quietly; the notebook's process needs it
    os.environ.update(environment)
    try:
        threading.Thread(target=_stop_with_parent, args=(line,), daemon=True).start()
        run = running.run(*arguments, **options, watch=lambda *state: reports.send(("cell", *state)))
        reports.send(("run", run))
    except CourseError as error:
        reports.send(("refused", str(error)))
    except KeyboardInterrupt:  # before or after the cells; while they run, `run` takes care of it
        reports.send(("refused", INTERRUPTED))
    except OSError as error:  # a full disk; or nobody listens any more
        with contextlib.suppress(OSError):
            reports.send(("refused", f"{type(error).__name__}: {error}"))


# In the process of the batch ------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One running lesson, seen from outside."""

    card: catalogue.Card
    process: multiprocessing.process.BaseProcess
    line: Connection  # closing it interrupts the lesson
    reports: Connection
    gpu: str | None
    needs: float  # MB
    begun: float = field(default_factory=time.monotonic)
    now: float = 0.0  # MB it has taken
    most: float = 0.0
    looked: float = 0.0
    tree: list[psutil.Process] = field(default_factory=list)
    run: Run | None = None
    refused: str | None = None

    def look(self) -> None:
        """Find out which processes belong to the lesson, and how much memory they have."""
        self.looked = time.monotonic()
        if self.process.is_alive():  # otherwise its number may be another process's by now
            with contextlib.suppress(psutil.Error):
                top = psutil.Process(self.process.pid)
                self.tree = [top, *top.children(recursive=True)]
        total = 0
        for process in self.tree:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self.now = total / 1e6
        self.most = max(self.most, self.now)

    def hear(self, watch: Watcher) -> bool:
        """Take in what the lesson reported; False once it has nothing more to say."""
        try:
            while self.reports.poll():
                kind, *what = self.reports.recv()
                if kind == "cell":
                    watch.at(self.card, *what)
                elif kind == "run":
                    self.run = what[0]
                else:
                    self.refused = what[0]
        except (EOFError, OSError):
            return False
        return True

    def sweep(self) -> None:
        """End whatever is left of the lesson's processes."""
        self.look()
        for process in self.tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.join(5)
        for connection in (self.line, self.reports):
            connection.close()

    def outcome(self, preset: str, parent: Path) -> Run:
        """What became of the lesson, after its process has ended."""
        seconds = time.monotonic() - self.begun
        if self.run is not None:
            return replace(self.run, sampled_mb=self.most or None)
        code = self.process.exitcode
        how = running.ending(code)
        memory = ", most often because the memory was full" if how == "SIGKILL" else ""
        died = f"killed by {how}{memory}" if code is not None and code < 0 else f"its process ended with {how}"
        error = self.refused or died
        return replace(_nothing(self.card, preset, parent, error), seconds=seconds, sampled_mb=self.most or None)


def _nothing(card: catalogue.Card, preset: str, parent: Path, error: str) -> Run:
    """A lesson without results, and why."""
    folder = parent / card.name
    return Run(card, preset, folder, folder / f"{card.name}.ipynb", folder / f"{card.name}.html", 0.0, None, error)


def _next(waiting: Sequence[catalogue.Card], jobs: Sequence[_Job], preset: str) -> catalogue.Card | None:
    """The first waiting lesson for which there is memory; any, when nothing is running."""
    if not jobs:
        return waiting[0]
    still_to_come = sum(max(0.0, job.needs - job.now) for job in jobs)
    free = free_memory() - still_to_come
    return next((card for card in waiting if expected(card, preset)[1] <= free), None)


def _free_gpu(devices: Sequence[str], jobs: Sequence[_Job]) -> str | None:
    """The GPU with the fewest lessons on it; None where there is no choice."""
    if len(devices) < 2:
        return None
    busy = [job.gpu for job in jobs]
    return min(devices, key=busy.count)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Within, Ctrl+C waits. A process started here waits too, so that it cannot die in its imports with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(card: catalogue.Card, gpu: str | None, threads: int | None, call: tuple, options: Mapping[str, Any]) -> _Job:
    context = multiprocessing.get_context("spawn")  # no lesson inherits threads, locks or a CUDA context
    ours, theirs = context.Pipe(duplex=True)
    reports, report = context.Pipe(duplex=False)
    environment = dict.fromkeys(THREADS, str(threads)) if threads else {}
    environment |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {}
    arguments = (theirs, report, environment, (card, *call), options)
    process = context.Process(target=_work, args=arguments, name=card.name, daemon=True)
    with _quietly():
        process.start()
    theirs.close()
    report.close()
    return _Job(card, process, ours, reports, gpu, expected(card, call[0])[1])


def _interrupt(jobs: Sequence[_Job], watch: Watcher) -> None:
    """Ask every running lesson to stop, and give each the time to save what it has; a second Ctrl+C cuts that short."""
    for job in jobs:
        job.look()
        job.line.close()
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(KeyboardInterrupt):
        for job in jobs:
            while job.process.is_alive() and time.monotonic() < deadline:
                job.hear(watch)  # a full pipe would hold the lesson up
                job.process.join(0.05)


def run_all(
    cards: Sequence[catalogue.Card],
    preset: str | None = None,
    seed: int | None = None,
    values: Mapping[str, Any] | None = None,
    *,
    jobs: int = 1,
    output: Path | None = None,
    timeout: float | None = None,
    resume: bool = False,
    watch: Watcher | None = None,
) -> list[Run]:
    """Run lessons, ``jobs`` of them at a time, the longest first; returns one Run a lesson, in the order of ``cards``.

    With more than one job each lesson gets an equal share of the cores as its threads and, where there are several
    GPUs, one of them. Another lesson starts only while the memory that the ledger says it needs is free, or while
    nothing else is running.

    Args:
        cards: the lessons.
        preset, seed, values, timeout: as in ``pfmcourse.course.run.run``; the time-out is for each lesson.
        jobs: lessons at a time.
        output: the folder that gets the runs' folders; default: ``runs/`` beside the folder of the lessons.
        resume: whether to keep finished, successful runs of the same code with the same parameters.
        watch: is told what happens.

    Bad input raises CourseError before anything runs. After Ctrl+C the lessons that were running have the error
    ``INTERRUPTED`` and those that were not begun ``NOT_STARTED``; no process is left over.
    """
    watch = watch or Watcher()
    prepared = {card.id: running.prepare(card, preset, seed, values) for card in cards}
    if not cards:
        return []
    preset = next(iter(prepared.values()))[1]["preset"]
    parents = {card.id: Path(output or card.folder.parent / "runs") for card in cards}
    for parent in set(parents.values()):
        running.make_folder(parent)
    done: dict[str, Run] = {}
    if resume:
        for card in cards:
            kept = running.earlier(card, *prepared[card.id], parents[card.id])
            if kept:
                done[card.id] = kept
                watch.ended(kept)
    waiting = [card for card in cards if card.id not in done]
    waiting.sort(key=lambda card: -expected(card, preset)[0])
    jobs = max(1, min(jobs, len(waiting)))
    threads = share(jobs) if jobs > 1 else None
    devices = gpus() if jobs > 1 else []
    going: list[_Job] = []

    def begin(card: catalogue.Card) -> None:
        gpu = _free_gpu(devices, going)
        call, options = (preset, seed, dict(values or {})), {"output": output, "timeout": timeout}
        watch.started(card, threads, gpu)
        going.append(_start(card, gpu, threads, call, options))

    def finish(job: _Job) -> None:
        job.hear(watch)
        job.process.join(5)
        job.sweep()
        going.remove(job)
        done[job.card.id] = job.outcome(preset, parents[job.card.id])
        watch.ended(done[job.card.id])

    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                card = _next(waiting, going, preset)
                if card is None:
                    break
                waiting.remove(card)
                begin(card)
            wait([*(job.process.sentinel for job in going), *(job.reports for job in going)], timeout=LOOK)
            for job in list(going):
                heard = job.hear(watch)
                if not job.process.is_alive():
                    finish(job)
                    continue
                if not heard:  # the pipe is closed, so the end is a moment away
                    job.process.join(LOOK)
                if time.monotonic() - job.looked >= LOOK:
                    job.look()
    except KeyboardInterrupt:
        _interrupt(going, watch)
        for job in list(going):
            if job.process.is_alive():
                job.refused = INTERRUPTED
            finish(job)
        for card in waiting:
            done[card.id] = _nothing(card, preset, parents[card.id], NOT_STARTED)
    finally:
        for job in going:  # after an error of ours
            job.sweep()
    return [done[card.id] for card in cards]


# Afterwards -----------------------------------------------------------------------------------------------------------


def _in_use(folder: Path) -> bool:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return False
    lock.release()
    return False


def gather(folder: Path, cards: Sequence[catalogue.Card]) -> Iterator[Run]:
    """What the folder of many runs holds: every run of every lesson, and the lessons without one.

    Raises CourseError for a folder that is not there.
    """
    if not folder.is_dir():
        raise CourseError(f"no folder {folder}. Name the one that the runs were written to with --output.")
    for card in cards:
        found = running.folders(card, folder)
        if not found:
            yield _nothing(card, "", folder, NOT_RUN)
        for place in found:
            run = running.finished(card, place)
            error = GOING_ON if _in_use(place) else UNFINISHED
            yield run or replace(_nothing(card, "", folder, error), folder=place)
