"""What lessons there are (``notebooks/lessons.yaml``) and what they measured (the results ledger).

The catalogue is read by the command line, the tests and the README; the ledger is written by ``Lesson.finish``.
"""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from pfmcourse.base import PRESETS, CourseError, repository, unknown_name, write_atomically

ROW_KEYS = ("lesson", "preset", "seed", "metrics", "claims", "seconds")


@dataclass(frozen=True)
class Card:
    """One lesson as ``lessons.yaml`` describes it, and where its notebook lives."""

    id: str  # the slug: word_vectors
    number: int  # its place in the course: 2
    title: str
    part: str  # Roots, Language, Vision, ...
    summary: str  # one sentence: what a reader can do afterwards
    minutes: int  # reading time; the running time is measured and stands in the ledger
    recipes: tuple[str, ...]  # names in pfmcourse.recipes
    data: tuple[str, ...]  # names in data/catalog.toml
    needs: tuple[str, ...]  # ids of lessons to read first
    headline: str  # a metric's name in the ledger, or a template such as "{spearman:.2f} Spearman"
    papers: tuple[str, ...]
    folder: Path  # the folder that holds the notebooks

    @property
    def name(self) -> str:
        """The file name without its ending: ``02_word_vectors``."""
        return f"{self.number:02d}_{self.id}"

    @property
    def notebook(self) -> Path:
        """The notebook with its outputs."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def text(self) -> Path:
        """The notebook's pair, a Python script with cells."""
        return self.folder / "text" / f"{self.name}.py"


def folder() -> Path:
    """The folder with lessons.yaml, the notebooks and the committed ledger."""
    return repository() / "notebooks"


def _read_card(entry: object, where: Path) -> Card:
    """A Card from one entry of the YAML list; says what is wrong with a bad one."""
    if not isinstance(entry, Mapping):
        raise CourseError(f"{where}: each lesson is a list of `field: value` lines, but one is {entry!r}.")
    kinds = {name: kind for name, kind in typing.get_type_hints(Card).items() if name != "folder"}
    label = f"{where}, lesson {entry.get('id', '?')}"
    for name in entry:
        if name not in kinds:
            raise CourseError(f"{label}: {unknown_name('field', name, kinds)}")
    values: dict[str, Any] = {"folder": where.parent}
    for name, kind in kinds.items():
        if name not in entry:
            raise CourseError(f"{label}: the field {name!r} is missing; the top of the file describes every field.")
        value = entry[name]
        many = typing.get_origin(kind) is tuple
        wanted = "a list of texts" if many else {int: "a whole number", str: "a text"}[kind]
        fits = (
            isinstance(value, list) and all(isinstance(part, str) for part in value)
            if many
            else isinstance(value, kind) and not isinstance(value, bool)
        )
        if not fits:
            raise CourseError(f"{label}: the field {name!r} wants {wanted}, but has {value!r}.")
        values[name] = tuple(value) if many else value
    return Card(**values)


def yaml_list(path: Path, of: str, fields: str) -> list[Any]:
    """The entries of a YAML file that lists things of the course. Raises CourseError where it is missing or no list.

    ``of`` says what it lists, and ``fields`` how an entry begins, as in ``- id: ...``.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        raise CourseError(f"{path} is missing: it lists the {of}. Restore it with: git checkout {path}") from None
    except yaml.YAMLError as error:
        raise CourseError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(entries, list):
        raise CourseError(f"{path} should be a list of the {of}, each beginning with `{fields}`.")
    return entries


def lessons(where: Path | None = None) -> dict[str, Card]:
    """Every lesson by its id, in the order of the course. ``where`` is a folder with a lessons.yaml."""
    path = (where or folder()) / "lessons.yaml"
    entries = yaml_list(path, "lessons", "- id: ...")
    cards = sorted((_read_card(entry, path) for entry in entries), key=lambda card: card.number)
    for field in ("id", "number"):
        values = [getattr(card, field) for card in cards]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise CourseError(f"{path}: two lessons have the {field} {twice!r}; each needs its own.")
    found = {card.id: card for card in cards}
    for card in cards:
        for need in card.needs:
            if need not in found:
                raise CourseError(f"{path}, lesson {card.id}, field 'needs': {unknown_name('lesson', need, found)}")
    return found


def card(name: str, where: Path | None = None) -> Card:
    """The lesson called ``name``: its id, its number (``02``) or its file name (``02_word_vectors``)."""
    cards = lessons(where)
    wanted = str(name).strip().removesuffix(".ipynb")
    for found in cards.values():
        if wanted in (found.id, found.name) or (wanted.isdecimal() and int(wanted) == found.number):
            return found
    raise unknown_name("lesson", name, cards)


def _order(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["lesson"], PRESETS.index(row["preset"]) if row["preset"] in PRESETS else len(PRESETS)


def _check_row(row: object, path: Path) -> None:
    """Raise unless ``row`` has the fields that readers of the ledger rely on."""
    missing = [key for key in ROW_KEYS if not isinstance(row, Mapping) or key not in row]
    if missing:
        raise CourseError(f"a row of the ledger {path} lacks {', '.join(missing)}: {str(row)[:80]}")


def ledger(path: Path | None = None) -> list[dict[str, Any]]:
    """The rows of a results ledger, one for each lesson and preset; a missing file is an empty ledger.

    ``path`` defaults to the committed ``notebooks/results.json``. Raises CourseError for a damaged file.
    """
    path = Path(path) if path else folder() / "results.json"
    mend = f"Restore it (git checkout {path.name} in {path.parent}) or delete it, then run the lessons again."
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:  # not JSON, or not UTF-8
        raise CourseError(f"the results ledger {path} is damaged ({error}). {mend}") from None
    if not isinstance(rows, list):
        raise CourseError(f"the results ledger {path} is damaged (it is no list of rows). {mend}")
    for row in rows:
        try:
            _check_row(row, path)
        except CourseError as error:
            raise CourseError(f"the results ledger {path} is damaged ({error}). {mend}") from None
    return rows


def row(lesson: str, preset: str = "laptop", path: Path | None = None) -> dict[str, Any] | None:
    """The ledger's row of one lesson at one preset, or None when it was not measured yet."""
    return next((found for found in ledger(path) if (found["lesson"], found["preset"]) == (lesson, preset)), None)


def write_row(row: Mapping[str, Any], path: Path) -> None:
    """Put ``row`` into the ledger at ``path``, in the place of an older row of the same lesson and preset.

    Safe against other processes that write at the same time (a lock) and against being killed (an atomic replace).
    """
    path = Path(path)
    _check_row(row, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        others = [old for old in ledger(path) if (old["lesson"], old["preset"]) != (row["lesson"], row["preset"])]
        rows = sorted([*others, dict(row)], key=_order)
        try:
            text = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CourseError(
                f"the results of lesson {row['lesson']!r} cannot be written to {path}: {error}. "
                "Record plain numbers: float(value), and no NaN or infinity."
            ) from None
        with write_atomically(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def headline(card: Card, row: Mapping[str, Any] | None) -> str:
    """The lesson's main result in words, from its ledger row; raises when the row lacks the metric it names."""
    if row is None:
        return "not measured yet"
    values = {name: metric["value"] for name, metric in row["metrics"].items()}
    try:
        if "{" in card.headline:
            return card.headline.format_map(values)
        metric = row["metrics"][card.headline]
    except KeyError as error:
        missing = unknown_name("metric", error.args[0], values)
        raise CourseError(f"lessons.yaml, lesson {card.id}, field 'headline': {missing}") from None
    return " ".join(part for part in (f"{metric['value']:.3g}", metric.get("unit", ""), metric.get("note", "")) if part)
