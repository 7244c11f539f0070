"""The generated parts of README.md: the table of lessons, from the ledger, and the table of data, from the catalogue.

The teacher's guide, docs/teaching.md, has such parts as well; ``pfmcourse.course.guide`` makes them.

Each part stands between two HTML comments, ``<!-- lessons:begin ... -->`` and ``<!-- lessons:end -->``. A test fails
when a part is stale; ``pfmcourse ledger --write`` makes it again.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pfmcourse import catalogue
from pfmcourse.base import CourseError, repository, write_atomically

COMMAND = "pfmcourse ledger --write"


def table(header: Iterable[str], rows: Iterable[Iterable[object]], right: Iterable[int] = ()) -> str:
    """A markdown table; ``right`` numbers the columns that are aligned to the right."""
    header, right = list(header), set(right)
    rule = ["---:" if number in right else ":---" for number in range(len(header))]
    lines = [header, rule, *[[str(value).replace("|", "\\|").replace("\n", " ") for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lessons_part(folder: Path | None = None) -> str:
    """The table of lessons: title, what a reader learns, reading minutes, measured seconds, main result."""
    folder = folder or catalogue.folder()
    ledger = folder / "results.json"
    rows = []
    machines = set()
    for card in catalogue.lessons(folder).values():
        row = catalogue.row(card.id, "laptop", ledger)
        if row and row.get("hardware"):
            machines.add("{device}, {cores} cores".format_map(row["hardware"]))
        rows.append(
            (
                f"{card.number:02d}",
                f"[{card.title}]({folder.name}/{card.notebook.name})",
                card.summary,
                card.minutes,
                f"{row['seconds']:.0f}" if row else "-",
                catalogue.headline(card, row),
            )
        )
    header = ("", "Lesson", "What you can do afterwards", "Read, min", "Run, s", "Measured")
    note = f"\n\nSeconds and results are those of the `laptop` preset, measured on: {'; '.join(sorted(machines))}."
    return table(header, rows, right=(3, 4)) + (note if machines else "")


def data_part() -> str:
    """The table of data sets: the package each arrives in, its size, licence and whom to thank."""
    from pfmcourse.data import source

    rows = [
        (
            f"[{entry.title}]({entry.url})",
            f"`{entry.requirement}`",
            f"{entry.bytes / 1e6:.1f}" if entry.bytes >= 1e5 else f"{entry.bytes / 1e6:.2f}",
            f"[{entry.licence}]({entry.licence_url})",
            entry.attribution,
        )
        for entry in source.catalog().values()
    ]
    return table(("Data", "Package", "MB", "Licence", "Attribution"), rows, right=(2,))


def parts(folder: Path | None = None) -> dict[str, Callable[[], str]]:
    """What makes each generated part, by its name in the markers."""
    return {"lessons": lambda: lessons_part(folder), "data": data_part}


def refreshed(text: str, makers: dict[str, Callable[[], str]], page: str = "README.md") -> str:
    """``text`` of ``page`` with each part between its markers made anew. Missing markers raise CourseError."""
    for name, make in makers.items():
        begin = f"<!-- {name}:begin, made by: {COMMAND} -->"
        pattern = re.compile(rf"<!-- {name}:begin\b[^>]*-->.*?<!-- {name}:end -->", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise CourseError(
                f"{page} needs the markers `<!-- {name}:begin -->` and `<!-- {name}:end -->` once each, around the "
                f"generated table of {name}."
            )
        made = f"{begin}\n{make()}\n<!-- {name}:end -->"
        text = pattern.sub(lambda _, made=made: made, text)
    return text


def _refresh(path: Path, makers: dict[str, Callable[[], str]]) -> bool:
    old = path.read_text(encoding="utf-8")
    new = refreshed(old, makers, path.name)
    if new != old:
        with write_atomically(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return new != old


def refresh(path: Path | None = None, folder: Path | None = None) -> bool:
    """Make the generated parts of README.md anew, and those of the teacher's guide; returns whether anything changed.

    With a ``path``, of that file alone, as if it were README.md.
    """
    changed = _refresh(path or repository() / "README.md", parts(folder))
    if path is None:
        from pfmcourse.course import guide

        changed = _refresh(repository() / "docs" / "teaching.md", guide.Planner().parts()) or changed
    return changed
