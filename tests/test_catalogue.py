"""The catalogue of lessons and the ledger of results."""

import json
import subprocess
import sys

import pytest

from pfmcourse import catalogue, recipes
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.data import source

ENTRY = {
    "id": "alpha",
    "number": 3,
    "title": "Alpha",
    "part": "Roots",
    "summary": "Read.",
    "minutes": 10,
    "recipes": ["one"],
    "data": [],
    "needs": [],
    "headline": "score",
    "papers": [],
}


@pytest.fixture
def course(tmp_path):
    def write(*entries):
        (tmp_path / "lessons.yaml").write_text(json.dumps(entries), encoding="utf-8")
        return tmp_path

    return write


def row(**changes):
    metrics = {"score": {"value": 0.5, "unit": "points", "note": ""}}
    base = {"lesson": "alpha", "preset": "laptop", "seed": 0, "metrics": metrics, "claims": [], "seconds": 2.0}
    return base | changes


def test_cards_come_in_the_order_of_the_course(course):
    folder = course(ENTRY, ENTRY | {"id": "beta", "number": 1, "needs": ["alpha"]})
    cards = catalogue.lessons(folder)
    assert list(cards) == ["beta", "alpha"]
    assert cards["alpha"].name == "03_alpha"
    assert cards["alpha"].notebook == folder / "03_alpha.ipynb"
    assert cards["alpha"].text == folder / "text" / "03_alpha.py"
    assert cards["alpha"].recipes == ("one",)


@pytest.mark.parametrize("name", ["alpha", "3", "03", "03_alpha", "03_alpha.ipynb", " alpha "])
def test_a_lesson_has_several_names(course, name):
    assert catalogue.card(name, course(ENTRY)).id == "alpha"


def test_an_unknown_lesson_suggests_the_nearest(course):
    with pytest.raises(UnknownName, match=r"unknown lesson 'alfa'\. Did you mean 'alpha'"):
        catalogue.card("alfa", course(ENTRY))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([ENTRY | {"titel": "A"}], "unknown field 'titel'. Did you mean 'title'"),
        ([{name: value for name, value in ENTRY.items() if name != "minutes"}], "the field 'minutes' is missing"),
        ([ENTRY | {"minutes": "ten"}], "'minutes' wants a whole number, but has 'ten'"),
        ([ENTRY | {"minutes": True}], "'minutes' wants a whole number"),
        ([ENTRY | {"recipes": "one"}], "'recipes' wants a list of texts"),
        ([ENTRY | {"title": 3}], "'title' wants a text"),
        ([ENTRY, ENTRY | {"number": 4}], "two lessons have the id 'alpha'"),
        ([ENTRY, ENTRY | {"id": "beta"}], "two lessons have the number 3"),
        ([ENTRY | {"needs": ["alpa"]}], "unknown lesson 'alpa'. Did you mean 'alpha'"),
        (["alpha"], "a list of `field: value` lines"),
    ],
)
def test_a_wrong_catalogue_says_where(course, entries, message):
    with pytest.raises(CourseError) as caught:
        catalogue.lessons(course(*entries))
    assert message in str(caught.value)
    assert "lessons.yaml" in str(caught.value)


def test_a_catalogue_that_is_missing_or_no_yaml(tmp_path):
    with pytest.raises(CourseError, match="is missing"):
        catalogue.lessons(tmp_path)
    (tmp_path / "lessons.yaml").write_text("- id: [", encoding="utf-8")
    with pytest.raises(CourseError, match="not valid YAML"):
        catalogue.lessons(tmp_path)
    (tmp_path / "lessons.yaml").write_text("id: alpha", encoding="utf-8")
    with pytest.raises(CourseError, match="should be a list"):
        catalogue.lessons(tmp_path)


def test_the_course_names_recipes_and_data_that_exist():
    for card in catalogue.lessons().values():
        assert set(card.recipes) <= set(recipes.names()), card.id
        assert set(card.data) <= set(source.catalog()), card.id
        assert card.title and card.summary.endswith(".") and card.minutes > 0


def test_rows_replace_older_rows_of_the_same_lesson_and_preset(tmp_path):
    path = tmp_path / "deep" / "results.json"
    catalogue.write_row(row(), path)
    catalogue.write_row(row(preset="smoke"), path)
    catalogue.write_row(row(lesson="aaa"), path)
    catalogue.write_row(row(seconds=3.0), path)
    assert [(r["lesson"], r["preset"], r["seconds"]) for r in catalogue.ledger(path)] == [
        ("aaa", "laptop", 2.0),
        ("alpha", "smoke", 2.0),
        ("alpha", "laptop", 3.0),
    ]
    assert catalogue.row("alpha", "laptop", path)["seconds"] == 3.0
    assert catalogue.row("alpha", "gpu", path) is None


def test_a_missing_ledger_is_empty(tmp_path):
    assert catalogue.ledger(tmp_path / "results.json") == []


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe", b"{}", b"[3]", b'[{"lesson": "alpha"}]'])
def test_a_damaged_ledger_is_neither_read_nor_overwritten(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=r"is damaged.*git checkout results\.json"):
        catalogue.ledger(path)
    with pytest.raises(CourseError, match="is damaged"):
        catalogue.write_row(row(), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_row_that_is_no_json_leaves_the_ledger_alone(tmp_path, value):
    path = tmp_path / "results.json"
    catalogue.write_row(row(), path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match="plain numbers"):
        catalogue.write_row(row(metrics={"score": {"value": value}}), path)
    assert path.read_bytes() == before


def test_an_incomplete_row(tmp_path):
    with pytest.raises(CourseError, match="lacks claims, seconds"):
        catalogue.write_row(
            {name: row()[name] for name in ("lesson", "preset", "seed", "metrics")}, tmp_path / "r.json"
        )


WRITER = """
import json, sys
from pathlib import Path
from pfmcourse.catalogue import write_row
row = json.loads(sys.argv[3])
for number in range(10):
    write_row(row | {"lesson": f"{sys.argv[2]}{number}"}, Path(sys.argv[1]))
"""


def test_no_row_is_lost_when_processes_write_at_once(tmp_path):
    path = tmp_path / "results.json"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name, json.dumps(row())]) for name in ("a", "b")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(catalogue.ledger(path)) == 20


def test_headlines(course):
    folder = course(ENTRY)
    card = catalogue.card("alpha", folder)
    assert catalogue.headline(card, None) == "not measured yet"
    assert catalogue.headline(card, row()) == "0.5 points"
    template = catalogue.card("alpha", course(ENTRY | {"headline": "{score:.0%} right"}))
    assert catalogue.headline(template, row()) == "50% right"
    wrong = catalogue.card("alpha", course(ENTRY | {"headline": "{skore:.2f}"}))
    with pytest.raises(CourseError, match=r"unknown metric 'skore'\. Did you mean 'score'"):
        catalogue.headline(wrong, row())
