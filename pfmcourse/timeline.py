"""The history of pretrained models as data: what appeared when, for which modality, with which kind of objective.

The entries live in ``pfmcourse/history.toml``, which also says how years and kinds were decided. ``plots.timeline``
draws them.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pfmcourse.base import CourseError, unknown_name

MODALITIES = ("language", "vision", "graphs", "speech", "video", "multimodal", "other")
KINDS = ("generative", "contrastive", "supervised")
HISTORY = Path(__file__).with_name("history.toml")

_REQUIRED = {"name": str, "year": int, "modality": str, "kind": str, "idea": str, "authors": str, "title": str}


@dataclass(frozen=True)
class Paper:
    """What to cite: authors in short, title, year in which it became public."""

    authors: str
    title: str
    year: int

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}."


@dataclass(frozen=True)
class Entry:
    """One system of the history. ``lesson`` is the id of the lesson that builds it, or None."""

    name: str
    year: int
    modality: str
    kind: str
    idea: str
    paper: Paper
    lesson: str | None = None


def _entry(row: dict[str, Any], path: Path) -> Entry:
    """One checked entry; raises CourseError naming the file, the entry and the field."""
    where = f"{path.name}, entry {row.get('name', '?')!r}"
    for field in row:
        if field not in _REQUIRED and field != "lesson":
            raise CourseError(f"{where}: {unknown_name('field', field, [*_REQUIRED, 'lesson'])}")
    for field, kind in _REQUIRED.items():
        if not isinstance(row.get(field), kind):
            raise CourseError(f"{where}: {field!r} should be {kind.__name__}, but is {row.get(field)!r}.")
    for field, known in (("modality", MODALITIES), ("kind", KINDS)):
        if row[field] not in known:
            raise CourseError(f"{where}: {unknown_name(field, row[field], known)}")
    return Entry(
        name=row["name"],
        year=row["year"],
        modality=row["modality"],
        kind=row["kind"],
        idea=row["idea"],
        paper=Paper(row["authors"], row["title"], row["year"]),
        lesson=row.get("lesson"),
    )


@cache
def entries(path: Path = HISTORY) -> tuple[Entry, ...]:
    """All entries, oldest first; within a year in the order of the file. Raises CourseError for a damaged file."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["entry"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise CourseError(f"{path} should hold [[entry]] tables in TOML, but could not be read: {error}.") from error
    found = tuple(sorted((_entry(row, path) for row in rows), key=lambda entry: entry.year))
    names = [entry.name for entry in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CourseError(f"{path.name} names {', '.join(twice)} more than once; each system gets one entry.")
    return found


def entry(name: str) -> Entry:
    """The entry called ``name``; an unknown name raises with the nearest one."""
    named = {one.name: one for one in entries()}
    if name not in named:
        raise unknown_name("system", name, named)
    return named[name]


def of_lesson(lesson: str) -> tuple[Entry, ...]:
    """The systems that ``lesson`` builds, oldest first; empty for a lesson without any."""
    return tuple(one for one in entries() if one.lesson == lesson)
