"""The command ``pfmcourse``: run lessons and pretraining recipes, and look after the course.

Bad input ends with one red line and exit code 2, never with a traceback. Exit code 1 means that something ran and
failed: a cell, a claim, a check of the doctor.
"""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pfmcourse import catalogue
from pfmcourse.base import CourseError, resolve_preset

app = typer.Typer(
    help="Pretrained foundation models: lessons that pretrain real models on a laptop.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
leading = os.environ.get("RANK", "0") == "0"  # under torchrun only the first process prints
console = Console(quiet=not leading, highlight=False)
errors = Console(stderr=True, quiet=not leading, highlight=False)

LessonsArgument = Annotated[list[str] | None, typer.Argument(metavar="LESSON…", help="A lesson's name or number.")]
PresetOption = Annotated[str | None, typer.Option(help="smoke, laptop, long or gpu.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of all randomness.")]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", metavar="NAME VALUE", help="Change one number; repeatable.")
]
TimeoutOption = Annotated[float | None, typer.Option(help="Seconds after which a lesson is stopped.", min=1)]
AllOption = Annotated[bool, typer.Option("--all", help="Every lesson.")]


def _join_pairs(arguments: Sequence[str]) -> list[str]:
    """``-p name value`` as ``-p name=value``, which is what the option parser can read; ``-p name=value`` stays."""
    joined, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word == "--":
            return joined + rest
        if word in ("-p", "--parameter") and rest:
            name = rest.pop(0)
            joined.append(f"{name}={rest.pop(0)}" if "=" not in name and rest else name)
    return joined


def _values(pairs: list[str] | None) -> dict[str, Any]:
    """The parameters given with ``-p``, by name."""
    from pfmcourse.course import parameters

    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CourseError(f"-p {name} has no value. Write it as: -p NAME VALUE, for example: -p steps 300")
        values[name] = parameters.parse(text)
    return values


def _cards(lessons: list[str] | None, everything: bool) -> list[catalogue.Card]:
    """The lessons that a command names, each once."""
    cards = catalogue.lessons()
    if everything:
        return list(cards.values())
    if not lessons:
        raise CourseError(f"which lesson? Name at least one, or use --all. There are: {', '.join(cards)}.")
    return list({card.id: card for card in map(catalogue.card, lessons)}.values())


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Any]:
    """A progress bar, as a function for ``watch``; where there is no terminal, one line at the start."""
    if not console.is_terminal:
        console.print(f"{title} …")
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} cells"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def watch(done: int, total: int, heading: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {escape(heading)}")

        yield watch


@app.command("list")
def list_lessons(
    ids: Annotated[bool, typer.Option("--ids", help="Only the names, one a line, for scripts.")] = False,
) -> None:
    """List the lessons."""
    from pfmcourse.course import report

    if ids:
        console.print("\n".join(catalogue.lessons()), soft_wrap=True)
        return
    console.print(report.lessons(catalogue.lessons().values(), catalogue.ledger()))


@app.command()
def run(
    lessons: LessonsArgument = None,
    preset: PresetOption = None,
    seed: SeedOption = None,
    parameter: ParameterOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the runs; default: runs/.")] = None,
    timeout: TimeoutOption = None,
    everything: AllOption = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Lessons at a time, when there are several.", min=1)] = 1,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Keep finished, good runs of the same code and parameters.")
    ] = False,
) -> None:
    """Execute lessons; show their metrics and claims, and where the executed notebook and its HTML copy are."""
    from pfmcourse.course import report
    from pfmcourse.course.run import INTERRUPTED, prepare
    from pfmcourse.course.run import run as run_lesson

    cards, values = _cards(lessons, everything), _values(parameter)
    if len(cards) > 1:
        _run_many(cards, preset, seed, values, jobs=jobs, output=output, timeout=timeout, resume=resume)
        return
    (card,) = cards
    prepare(card, preset, seed, values)  # a typing error shows before the progress bar does
    with _progress(f"{card.name} ({resolve_preset(values.get('preset') or preset)})") as watch:
        result = run_lesson(card, preset, seed, values, output=output, timeout=timeout, watch=watch, resume=resume)
    for table in (report.metrics, report.claims) if result.row else ():
        console.print(table(result.row))
    console.print(f"[bold]{card.title}[/] ({result.preset}): {report.verdict(result)}", soft_wrap=True)
    console.print(f"notebook  {escape(str(result.notebook))}\nHTML      {escape(str(result.html))}\n", soft_wrap=True)
    if result.error == INTERRUPTED:
        raise typer.Exit(130)
    if not result.ok:
        raise typer.Exit(1)


def _run_many(cards: list[catalogue.Card], preset: str | None, seed: int | None, values: Any, **options: Any) -> None:
    """Run several lessons, each in a process of its own; show one table."""
    from pfmcourse.course import batch, report
    from pfmcourse.course.run import INTERRUPTED

    live = console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} cells"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not live)
    tasks: dict[str, Any] = {}

    class Show(batch.Watcher):
        def started(self, card: catalogue.Card, threads: int | None, gpu: str | None) -> None:
            shares = [f"{threads} thread{'s' if threads > 1 else ''}"] if threads else []
            shares += [f"GPU {gpu}"] if gpu is not None else []
            tasks[card.id] = bar.add_task(card.name, total=None)
            if not live:
                console.print(f"{card.name} …" + (f" ({', '.join(shares)})" if shares else ""))

        def at(self, card: catalogue.Card, done: int, total: int, heading: str) -> None:
            bar.update(tasks[card.id], completed=done, total=total, description=f"{card.name}: {escape(heading)}")

        def ended(self, run: Any) -> None:
            if run.card.id in tasks:
                bar.remove_task(tasks.pop(run.card.id))
            console.print(f"[bold]{run.card.title}[/] ({run.preset}): {report.verdict(run)}", soft_wrap=True)
            for claim in run.failed_claims:
                console.print(f"  [bold red]FAIL[/] {escape(claim['text'])}  {escape(claim['detail'])}", soft_wrap=True)

    began = time.monotonic()
    with bar:
        results = batch.run_all(cards, preset, seed, values, watch=Show(), **options)
    console.print(report.runs(results))
    where = escape(str(results[0].folder.parent))
    console.print(f"{time.monotonic() - began:.0f} s in all; the runs are in {where}", soft_wrap=True)
    if any(result.error in (INTERRUPTED, batch.NOT_STARTED) for result in results):
        raise typer.Exit(130)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command()
def results(folder: Annotated[Path, typer.Argument(help="The folder given to --output.")]) -> None:
    """Show one table of the runs in a folder; exit code 1 unless every lesson is there, finished and sound."""
    from pfmcourse.course import batch, report

    found = list(batch.gather(folder, list(catalogue.lessons().values())))
    console.print(report.runs(found))
    if not all(run.ok for run in found):
        raise typer.Exit(1)


@app.command()
def wheelhouse(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make, for a stick.")],
    teaching: Annotated[bool, typer.Option("--teaching", help="With requirements-teaching.txt.")] = False,
    platform: Annotated[str | None, typer.Option(help="Another system, as pip calls it: win_amd64.")] = None,
    python_version: Annotated[str | None, typer.Option(help="Another Python: 3.12. Wants --platform.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare the files with their check sums.")] = False,
) -> None:
    """Make one folder from which computers without a network install the course."""
    from pfmcourse.course import wheelhouse as house

    def say(line: str) -> None:
        console.print(escape(line), soft_wrap=True)

    if check:
        problems = house.check(folder)
        for problem in problems:
            say(problem)
        if problems:
            raise typer.Exit(1)
        say(f"{folder}: every file is as it was written")
        return
    began = time.monotonic()
    facts = house.build(folder, teaching=teaching, platform_name=platform, python=python_version, say=say)
    minutes = (time.monotonic() - began) / 60
    say(f"{folder}: {facts['wheels']} wheels, {facts['bytes'] / 1e9:.2f} GB, made in {minutes:.1f} minutes")
    say(f"For Python {facts['python']} on {facts['system']} ({facts['machine']}). Next: read {folder / 'README.txt'}")


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.")],
    preset: PresetOption = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    parameter: ParameterOption = None,
    output: Annotated[Path | None, typer.Option(help="Also write history.json and weights.safetensors here.")] = None,
) -> None:
    """Run one pretraining recipe alone, also under torchrun. The long preset saves the checkpoint of the repository."""
    from pfmcourse.course import pretraining, report

    result = pretraining.pretrain(recipe, preset, seed, _values(parameter))
    history = result.history
    if leading:
        table = Table("metric", "value", title=f"{recipe} ({result.preset})", title_justify="left")
        table.columns[1].justify = "right"
        for name, value in result.metrics.items():
            table.add_row(escape(name), report.number(value))
        console.print(table)
        rate = f"{history.units_per_second:,.0f} {history.unit}/s on {history.device}, {history.precision}"
        console.print(f"{history.steps:,} steps in {history.seconds:.1f} s, {rate}, {history.processes} process(es)")
        for path in pretraining.keep(result, output, "pfmcourse " + shlex.join(sys.argv[1:])):
            console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    if history.interrupted:
        raise typer.Exit(130)


@app.command()
def doctor() -> None:
    """Check Python, packages, device, memory, disk and data, and say what to do about each problem."""
    from pfmcourse.course import doctor as examination

    colours = {examination.OK: "green", examination.ADVICE: "yellow", examination.PROBLEM: "bold red"}

    def say(line: str) -> None:
        level = line.split(" ", 1)[0]
        console.print(f"[{colours[level]}]{level}[/]{escape(line[len(level) :])}" if level in colours else escape(line))

    findings = examination.examine()
    examination.show(findings, say)
    if not examination.healthy(findings):
        raise typer.Exit(1)


@app.command()
def data() -> None:
    """Show the data sets: what they are, where they come from, their licence."""
    from pfmcourse.data import source

    for name, entry in source.catalog().items():
        console.print(f"[bold]{name}[/]: {escape(entry.title)}")
        console.print(f"  from     {entry.requirement}, {entry.bytes / 1e6:.1f} MB, {entry.url}", soft_wrap=True)
        console.print(f"  licence  {escape(entry.licence)}, {entry.licence_url}", soft_wrap=True)
        console.print(f"  thanks   {escape(entry.attribution)}", soft_wrap=True)


@app.command()
def student(
    out: Annotated[Path, typer.Argument(help="Folder for the copies.")],
    lesson: Annotated[list[str] | None, typer.Option(help="Only this lesson; repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace copies that are there.")] = False,
    nbgrader: Annotated[bool, typer.Option("--nbgrader", help="Make a course folder of nbgrader instead.")] = False,
) -> None:
    """Write copies of the lessons without solutions and outputs."""
    from pfmcourse.course.student import write_copies, write_nbgrader

    write = write_nbgrader if nbgrader else write_copies
    for path in write(_cards(lesson, everything=not lesson), out, force=force):
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


@app.command()
def slides(
    lesson: Annotated[list[str] | None, typer.Option(help="Only this lesson; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the decks; default: slides/built.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print each deck, with the machine's Chromium.")] = False,
) -> None:
    """Make a slide deck of each lesson; it opens from disk, without a network."""
    from pfmcourse.course.slides import build

    built = build(_cards(lesson, everything=not lesson), output, pdf=pdf)
    for deck in built.decks:
        console.print(f"wrote {escape(str(deck))}", soft_wrap=True)
    console.print(f"open  {escape(str(built.index))}", soft_wrap=True)


@app.command()
def site(
    output: Annotated[Path | None, typer.Option(help="Folder for the pages; default: docs/built.")] = None,
) -> None:
    """Make the site: lessons, timeline, results, reference, glossary, teacher's guide; it opens from disk."""
    from pfmcourse.course.site import build

    index = build(output, jobs=min(2, os.cpu_count() or 1))
    console.print(f"open  {escape(str(index))}", soft_wrap=True)


@app.command()
def ledger(
    write: Annotated[bool, typer.Option("--write", help="Make the generated parts of README.md anew.")] = False,
) -> None:
    """Show the committed results; with --write, refresh the tables that the README makes from them."""
    from pfmcourse.course import readme, report

    console.print(report.ledger(catalogue.ledger()))
    if write:
        console.print("README.md refreshed" if readme.refresh() else "README.md was up to date")


@app.command()
def notebooks(
    lessons: LessonsArgument = None,
    timeout: TimeoutOption = None,
    words: Annotated[bool, typer.Option("--words", help="Take over words and slides only.")] = False,
) -> None:
    """Execute the lessons' texts at the laptop preset into the committed notebooks, and refresh ledger and README."""
    from pfmcourse.course import anatomy, readme, report
    from pfmcourse.course.notebooks import build, retell
    from pfmcourse.course.run import INTERRUPTED, read_notebook

    good = True
    for card in _cards(lessons, everything=not lessons):
        if words:
            for problem in anatomy.problems(retell(card), card):
                good = False
                console.print(f"[yellow]anatomy[/] {escape(problem)}", soft_wrap=True)
            console.print(f"wrote {escape(str(card.notebook))}", soft_wrap=True)
            continue
        with _progress(f"{card.name}: making the notebook") as watch:
            result = build(card, timeout=timeout, watch=watch)
        console.print(f"[bold]{card.title}[/]: {report.verdict(result)}", soft_wrap=True)
        if result.error == INTERRUPTED:
            raise typer.Exit(130)
        good = good and result.ok
        if not result.ok:
            for table in (report.claims,) if result.row else ():
                console.print(table(result.row))
            console.print(f"The notebook stays as it was. See {escape(str(result.html))}", soft_wrap=True)
            continue
        console.print(f"wrote {escape(str(card.notebook))}", soft_wrap=True)
        for problem in anatomy.problems(read_notebook(card.notebook), card):
            good = False
            console.print(f"[yellow]anatomy[/] {escape(problem)}", soft_wrap=True)
    readme.refresh()
    if not good:
        raise typer.Exit(1)


@app.command()
def verify(
    lessons: LessonsArgument = None,
    preset: PresetOption = None,
    jobs: Annotated[int, typer.Option(help="Lessons at a time; with more than one, each gets one thread.", min=1)] = 1,
) -> None:
    """Run the committed notebooks again with nbval and compare claims and checked outputs."""
    from pfmcourse.course.verify import verify as run_nbval

    code = run_nbval(_cards(lessons, everything=not lessons), resolve_preset(preset), jobs)
    if code:
        raise typer.Exit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. ``arguments`` default to those of this process."""
    if hasattr(sys.stdout, "reconfigure"):  # a Windows console may have a narrow encoding
        sys.stdout.reconfigure(errors="replace")
        sys.stderr.reconfigure(errors="replace")
    try:
        app(args=_join_pairs(sys.argv[1:] if arguments is None else arguments), prog_name="pfmcourse")
    except CourseError as error:
        errors.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("interrupted")
        sys.exit(130)
