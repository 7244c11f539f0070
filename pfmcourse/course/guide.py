"""The generated parts of the teacher's guide, ``docs/teaching.md``: plans for a course, and what each lesson needs.

``docs/plans.yaml`` says which lessons a plan has and what is done with each; its first lines explain every field. The
minutes are computed: reading from lessons.yaml, running from the ledger, exercises and slides from the notebooks.
``docs/hub.json`` holds what a class on one machine took (tests/benchmarks/test_hub.py measures it).
"""

import ast
import functools
import itertools
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfmcourse import catalogue
from pfmcourse.base import CourseError, repository, unknown_name
from pfmcourse.course.run import read_notebook

EXERCISE = re.compile(
    r"^### Exercise (\d+): ([^\n]+)\n+\**Difficulty:?\**:? *(easy|medium|hard)[^\n]*?\b(\d+) minutes", re.MULTILINE
)
WITH_LESSON = {"slides": "slides", "run": "run the notebook", "read": "read the notebook", "exercises": "exercises"}
WITH_MINUTES = ("break", "discussion", "project")
PLAN = {"id": str, "title": str, "for": str, "minutes_per_slide": (int, float), "skips": list, "sessions": list}
SESSION = {"title": str, "limit": int, "class": list, "home": list}
BLOCK = {"do": str, "lesson": str, "numbers": list, "minutes": int, "about": str}
CLASS, MACHINES = 30, (8, 16, 32)  # students, and cores of the machines that are compared
# what every lesson needs, so that the table need not say it
EVERYWHERE = {"torch", "numpy", "IPython", "pfmcourse"}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}  # where the module's name is not the package's


@dataclass(frozen=True)
class Exercise:
    """One exercise as its heading and its line of difficulty describe it."""

    number: int
    title: str
    difficulty: str
    minutes: int


@dataclass(frozen=True)
class Measured:
    """What a plan needs to know of a lesson."""

    card: catalogue.Card
    run: float | None  # seconds at the laptop preset; None when not measured yet
    memory: float | None  # peak, MB (10^6 bytes)
    slides: int
    exercises: Mapping[int, Exercise]
    packages: tuple[str, ...]  # that the notebook imports, beside those that every lesson needs


@dataclass(frozen=True)
class Block:
    """One line of a session, with its minutes."""

    lesson: str  # a link to it; empty for breaks and the like
    what: str
    minutes: int

    @property
    def text(self) -> str:
        """The lesson and what is done with it."""
        return f"{self.lesson}: {self.what}" if self.lesson else self.what


@dataclass(frozen=True)
class Session:
    """A session of a plan: what is done in class, and what is asked for at home."""

    title: str
    limit: int  # minutes that the session has
    here: tuple[Block, ...]
    home: tuple[Block, ...]


def _packages(notebook: Any) -> tuple[str, ...]:
    """The packages that a notebook's code imports, without those of the standard library and those everywhere."""
    names = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:  # a magic
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
    top = {name.partition(".")[0] for name in names} - EVERYWHERE - set(sys.stdlib_module_names)
    return tuple(sorted(DISTRIBUTIONS.get(name, name) for name in top if name))


def exercises(prose: str, name: str) -> dict[int, Exercise]:
    """The exercises of a lesson's prose, by number. ``name`` is what an error calls the lesson."""
    found = {int(number): Exercise(int(number), *rest[:2], int(rest[2])) for number, *rest in EXERCISE.findall(prose)}
    headings = re.findall(r"^### Exercise (\d+)", prose, re.MULTILINE)
    lost = [number for number in headings if int(number) not in found]
    if lost:
        raise CourseError(
            f"{name}: exercise {lost[0]} has no line such as `**Difficulty: easy · 5 minutes**` below its heading."
        )
    return found


def measure(card: catalogue.Card) -> Measured:
    """What a plan needs to know of a lesson, from its notebook and its ledger."""
    notebook = read_notebook(card.notebook)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    row = catalogue.row(card.id, "laptop", card.folder / "results.json") or {}
    return Measured(
        card,
        row.get("seconds"),
        row.get("peak_memory_mb"),
        kinds.count("slide") + kinds.count("subslide"),
        exercises(prose, card.notebook.name),
        _packages(notebook),
    )


def _fields(entry: object, kinds: Mapping[str, Any], where: str, required: Iterable[str]) -> Mapping[str, Any]:
    """``entry``, if it is a mapping with known fields of the right kinds and all those required."""
    if not isinstance(entry, Mapping):
        raise CourseError(f"{where}: `field: value` lines are wanted here, but there is {entry!r}.")
    for name, value in entry.items():
        if name not in kinds:
            raise CourseError(f"{where}: {unknown_name('field', name, kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise CourseError(f"{where}: the field {name!r} has {value!r}, which is of the wrong kind.")
    for name in required:
        if name not in entry:
            raise CourseError(f"{where}: the field {name!r} is missing; the top of the file describes every field.")
    return entry


class Planner:
    """Turns plans.yaml into plans with minutes. ``folder`` holds the lessons, ``path`` is the file with the plans."""

    def __init__(self, folder: Path | None = None, path: Path | None = None) -> None:
        self.cards = catalogue.lessons(folder)
        self.path = path or repository() / "docs" / "plans.yaml"
        self.lesson = functools.cache(lambda name: measure(self.cards[name]))

    def entries(self) -> list[Mapping[str, Any]]:
        """The plans as the file has them."""
        return catalogue.yaml_list(self.path, "plans of the teacher's guide", "- id: ...")

    def block(self, entry: object, where: str, per_slide: float) -> Block:
        """One block, with its minutes."""
        entry = _fields(entry, BLOCK, where, ["do"])
        do = entry["do"]
        if do in WITH_MINUTES:
            _fields(entry, {name: BLOCK[name] for name in ("do", "minutes", "about")}, where, ["minutes"])
            return Block("", f"{do}: {entry['about']}" if "about" in entry else do, entry["minutes"])
        if do not in WITH_LESSON:
            raise CourseError(f"{where}: {unknown_name('thing to do', do, [*WITH_LESSON, *WITH_MINUTES])}")
        _fields(entry, {name: BLOCK[name] for name in ("do", "lesson", "numbers", "about")}, where, ["lesson"])
        if entry["lesson"] not in self.cards:
            raise CourseError(f"{where}: {unknown_name('lesson', entry['lesson'], self.cards)}")
        lesson = self.lesson(entry["lesson"])
        what, minutes = WITH_LESSON[do], 0
        if do == "slides":
            minutes = math.ceil(lesson.slides * per_slide)
        elif do == "read":
            minutes = lesson.card.minutes
        elif do == "run":
            if lesson.run is None:
                raise CourseError(f"{where}: {lesson.card.id} has no seconds yet; run: pfmcourse notebooks")
            minutes = math.ceil(lesson.run / 60)
        else:
            numbers = entry.get("numbers") or list(lesson.exercises)
            for number in numbers:
                if number not in lesson.exercises:
                    raise CourseError(f"{where}: {unknown_name('exercise', number, map(str, lesson.exercises))}")
            minutes = sum(lesson.exercises[number].minutes for number in numbers)
            every = len(numbers) == len(lesson.exercises)
            listed = ", ".join(map(str, numbers))
            what = "all exercises" if every else f"exercise{'s' if len(numbers) > 1 else ''} {listed}"
        about = f" ({entry['about']})" if "about" in entry else ""
        return Block(self.link(lesson.card), f"{what}{about}", minutes)

    def sessions(self, plan: Mapping[str, Any], where: str) -> list[Session]:
        """The sessions of a plan. Raises CourseError for one that takes longer than its limit."""
        made = []
        for number, entry in enumerate(plan["sessions"], start=1):
            place = f"{where}, session {number}"
            entry = _fields(entry, SESSION, place, ["title", "limit", "class"])
            here, home = (
                tuple(self.block(one, f"{place}, {name}", plan["minutes_per_slide"]) for one in entry.get(name, []))
                for name in ("class", "home")
            )
            taken = sum(block.minutes for block in here)
            if taken > entry["limit"]:
                raise CourseError(
                    f"{place} ({entry['title']}) takes {taken} minutes, but has {entry['limit']}. Take something out, "
                    "or ask for it at home."
                )
            made.append(Session(entry["title"], entry["limit"], here, home))
        return made

    def check_order(self, plan: Mapping[str, Any], where: str) -> None:
        """Raise CourseError when a lesson comes before one that it needs, unless the plan says that it skips that."""
        met: list[str] = []
        for session in plan["sessions"]:
            for block in (*session["class"], *session.get("home", [])):
                name = block.get("lesson")
                if name is None or name in met:
                    continue
                lost = [need for need in self.cards[name].needs if need not in (*met, *plan.get("skips", []))]
                if lost:
                    raise CourseError(
                        f"{where}: {name} comes before {lost[0]}, which it needs. Put {lost[0]} first, or name it "
                        "under `skips` if the class can do without."
                    )
                met.append(name)

    def link(self, card: catalogue.Card) -> str:
        """A lesson as a link from the guide to its notebook."""
        return f"[{card.title}](../{card.folder.name}/{card.notebook.name})"

    def plan(self, name: str) -> str:
        """The table or tables of one plan, as markdown."""
        entry = next((one for one in self.entries() if isinstance(one, Mapping) and one.get("id") == name), None)
        where = f"{self.path}, plan {name}"
        if entry is None:
            raise CourseError(f"{self.path} has no plan with `id: {name}`.")
        entry = _fields(entry, PLAN, where, ["id", "title", "for", "minutes_per_slide", "sessions"])
        sessions = self.sessions(entry, where)
        self.check_order(entry, where)
        parts = [f"For {entry['for']}.", (_weeks if any(one.home for one in sessions) else _timetables)(sessions)]
        used = {one["lesson"] for session in entry["sessions"] for one in session["class"] if "lesson" in one}
        slowest = max((self.lesson(one) for one in used), key=lambda one: one.run or 0.0)
        parts.append(
            f"A slide is counted as {entry['minutes_per_slide']:g} minutes. A notebook runs while you talk about it: "
            f"the slowest of these takes {slowest.run or 0:.0f} s on the machine of the ledger."
        )
        if entry.get("skips"):
            skipped = ", ".join(self.link(self.cards[one]) for one in entry["skips"])
            parts.append(f"Left out, though a lesson of this plan builds on it: {skipped}.")
        return "\n\n".join(parts)

    def needs(self) -> str:
        """The table of what each lesson needs."""
        from pfmcourse.course.readme import table
        from pfmcourse.data import source

        catalog = source.catalog()
        rows = []
        for name, card in self.cards.items():
            lesson = self.lesson(name)
            packages = {*lesson.packages, *(catalog[one].requirement.partition("==")[0] for one in card.data)}
            rows.append(
                (
                    f"{card.number:02d}",
                    self.link(card),
                    ", ".join(f"{self.cards[need].number:02d}" for need in card.needs) or "–",
                    card.minutes,
                    sum(one.minutes for one in lesson.exercises.values()),
                    lesson.slides,
                    "–" if lesson.run is None else f"{lesson.run:.0f}",
                    "–" if lesson.memory is None else f"{lesson.memory:,.0f}",
                    f"{sum(catalog[one].bytes for one in card.data) / 1e6:.1f}",
                    ", ".join(sorted(packages, key=str.lower)),
                )
            )
        header = (
            *("", "Lesson", "Needs", "Read, min", "Exercises, min", "Slides", "Run, s", "Peak memory, MB", "Data, MB"),
            "Packages",
        )
        return table(header, rows, right=(3, 4, 5, 6, 7, 8))

    def hub(self) -> str:
        """What a class on one machine took, and from that the machine for a larger class."""
        from pfmcourse.course.readme import table

        path = repository() / "docs" / "hub.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        header = ("Students", "Threads each", "To a server, s", "The lesson, slowest, s", "Memory of all, GB")
        shown = [
            (
                row["students"],
                row["threads"],
                f"{row['seconds_to_a_server']:.0f}",
                f"{row['seconds_of_the_slowest']:.0f}",
                f"{row['hub_and_all_mb'] / 1000:.1f}",
            )
            for row in rows
        ]
        few, many = rows[0], rows[-1]
        each = (many["hub_and_all_mb"] - few["hub_and_all_mb"]) / (many["students"] - few["students"]) / 1000
        besides = max(0.0, few["hub_and_all_mb"] / 1000 - few["students"] * each)
        work = max(row["cores"] * row["seconds_of_the_slowest"] / row["students"] for row in rows)  # core-seconds
        greediest = max(self.cards, key=lambda name: self.lesson(name).memory or 0)
        title, most = self.cards[many["lesson"]].title, (self.lesson(greediest).memory or 0) / 1000
        server = many["largest_server_mb"] / 1000
        waits = ", ".join(f"{CLASS * work / cores / 60:.1f} minutes on {cores} cores" for cores in MACHINES)
        told = (
            f"Measured with *{title}* at the `{many['preset']}` preset on {many['cores']} cores. Each student "
            f"takes {each:.1f} GB and at most {work:.0f} seconds of a core, the hub {besides:.1f} GB. So {CLASS} "
            f"students who all run it at once need {CLASS * each + besides:.0f} GB and, with cores as fast as these, "
            f"wait {waits}. With the lesson that takes most memory, *{self.cards[greediest].title}*, plan for "
            f"{CLASS * (most + server) + besides:.0f} GB."
        )
        return f"{table(header, shown, right=range(len(header)))}\n\n{textwrap.fill(told, 120)}"

    def parts(self) -> dict[str, Callable[[], str]]:
        """What makes each generated part of the guide, by its name in the markers."""
        plans = {one["id"]: one for one in self.entries() if isinstance(one, Mapping) and "id" in one}
        return {name: functools.partial(self.plan, name) for name in plans} | {"needs": self.needs, "hub": self.hub}


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _timetables(sessions: Sequence[Session]) -> str:
    """Each session as a table of its own, with the time since its beginning."""
    from pfmcourse.course.readme import table

    made = []
    for session in sessions:
        at, rows = 0, []
        for block in session.here:
            rows.append((_clock(at), block.text, block.minutes))
            at += block.minutes
        rows.append((_clock(at), f"end, {session.limit - at} minutes to spare", ""))
        made.append(f"**{session.title}**\n\n{table(('From', 'What', 'Minutes'), rows, right=(0, 2))}")
    return "\n\n".join(made)


def _weeks(sessions: Sequence[Session]) -> str:
    """All sessions in one table, a line for each."""
    from pfmcourse.course.readme import table

    def texts(blocks: Sequence[Block]) -> str:
        by_lesson = itertools.groupby(blocks, key=lambda block: block.lesson)
        joined = ((lesson, ", ".join(block.what for block in group)) for lesson, group in by_lesson)
        return "; ".join(f"{lesson}: {what}" if lesson else what for lesson, what in joined) or "–"

    def minutes(blocks: Sequence[Block]) -> int:
        return sum(block.minutes for block in blocks)

    rows = [
        (number, one.title, texts(one.here), minutes(one.here), texts(one.home), minutes(one.home))
        for number, one in enumerate(sessions, start=1)
    ]
    rows.append(("", "in all", "", sum(row[3] for row in rows), "", sum(row[5] for row in rows)))
    header = ("", "Subject", "In class", "Minutes", "At home", "Minutes")
    longest = max(one.limit for one in sessions)
    return table(header, rows, right=(0, 3, 5)) + f"\n\nA session has {longest} minutes."
