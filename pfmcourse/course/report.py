"""What the command line prints about lessons, runs and results, as rich tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from pfmcourse import catalogue
from pfmcourse.course import batch
from pfmcourse.course.run import Run

WORDS = {True: "[green]PASS[/]", False: "[bold red]FAIL[/]", None: "[yellow]SKIPPED[/]"}


def number(value: float) -> str:
    """A measured value with four digits that matter, and whole numbers whole."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def metrics(row: Mapping[str, Any]) -> Table:
    """The metrics of one ledger row."""
    table = Table("metric", "value", "unit", "note", title="Measured", title_justify="left")
    table.columns[1].justify = "right"
    for name, metric in row["metrics"].items():
        unit, note = escape(metric.get("unit", "")), escape(metric.get("note", ""))
        table.add_row(escape(name), number(metric["value"]), unit, note)
    return table


def claims(row: Mapping[str, Any]) -> Table:
    """The claims of one ledger row, and whether they held."""
    table = Table("", "claim", "detail", title="Claims", title_justify="left")
    for claim in row["claims"]:
        table.add_row(WORDS[claim["holds"]], escape(claim["text"]), escape(claim.get("detail", "")))
    return table


def verdict(run: Run) -> str:
    """One line on how a run ended."""
    if run.error:
        return f"[bold red]stopped[/] {escape(run.error)}"
    if run.kept and not run.failed_claims:
        return "[cyan]kept[/]: it was finished before"
    if run.failed_claims:
        return f"[bold red]{len(run.failed_claims)} claim(s) failed[/]"
    memory = (run.row or {}).get("peak_memory_mb")
    peak = f", {memory / 1000:.2f} GB of memory at the peak" if memory else ""
    return f"[green]done[/] in {run.seconds:.0f} s{peak}"


def result(run: Run) -> str:
    """How a run ended, without what the other columns of the table say."""
    if run.ok:
        return "[cyan]kept[/]" if run.kept else "[green]done[/]"
    return f"[yellow]{escape(run.error)}[/]" if run.error in batch.WAITING else verdict(run)


def runs(finished: Iterable[Run]) -> Table:
    """Several runs, one line each."""
    table = Table("lesson", "preset", "seconds", "claims held", "memory, MB", "result")
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    table.columns[0].no_wrap = True
    for run in finished:
        held = [claim["holds"] for claim in run.row["claims"]] if run.row else None
        if held is None:
            claims = "-"
        elif held.count(None) == len(held):  # the smoke preset judges none
            claims = f"{len(held)} skipped"
        else:
            claims = f"{held.count(True)} of {len(held)}"
        seconds = f"{run.seconds:.0f}" if run.seconds else "-"
        memory = f"{run.memory_mb:,.0f}" if run.memory_mb else "-"
        table.add_row(run.card.name, run.preset or "-", seconds, claims, memory, result(run))
    return table


def lessons(cards: Iterable[catalogue.Card], ledger: Iterable[Mapping[str, Any]]) -> Table:
    """The lessons of the course, with measured seconds where there are some."""
    seconds = {row["lesson"]: row["seconds"] for row in ledger if row["preset"] == "laptop"}
    table = Table("", "lesson", "part", "what you can do afterwards", "read, min", "run, s")
    for column in (0, 4, 5):
        table.columns[column].justify = "right"
    for card in cards:
        run = f"{seconds[card.id]:.0f}" if card.id in seconds else "-"
        table.add_row(f"{card.number:02d}", card.id, card.part, escape(card.summary), str(card.minutes), run)
    return table


def ledger(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Every metric of a ledger, one line each."""
    table = Table("lesson", "preset", "seconds", "metric", "value", "unit")
    table.columns[2].justify = table.columns[4].justify = "right"
    for row in rows:
        start = (row["lesson"], row["preset"], f"{row['seconds']:.0f}")
        for name, metric in row["metrics"].items():
            table.add_row(*start, escape(name), number(metric["value"]), escape(metric.get("unit", "")))
            start = ("", "", "")
        if not row["metrics"]:
            table.add_row(*start, "", "", "")
    return table
