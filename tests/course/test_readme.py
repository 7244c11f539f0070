"""The README's generated parts."""

import pytest

from pfmcourse.base import CourseError
from pfmcourse.course import readme


def test_the_lessons_table_comes_from_the_ledger(built):
    card, _, _ = built
    table = readme.lessons_part(card.folder)
    assert "| 01 | [A tiny lesson](notebooks/01_tiny.ipynb) | Add two numbers. | 5 | 1 | 3 points in all |" in table
    assert table.endswith("measured on: cpu, 2 cores.")


def test_a_lesson_without_a_row_says_so(tiny):
    table = readme.lessons_part(tiny().folder)
    assert "| - | not measured yet |" in table
    assert "measured on" not in table


def test_only_what_stands_between_the_markers_changes():
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->\n"
    makers = {"x": lambda: r"new \1", "y": lambda: "why"}
    new = readme.refreshed(text, makers)
    assert new.startswith("a\n<!-- x:begin") and "\nnew \\1\n<!-- x:end -->\nb " in new and "\nwhy\n" in new
    assert "old" not in new
    assert readme.refreshed(new, makers) == new


@pytest.mark.parametrize("text", ["nothing", "<!-- x:begin -->", "<!-- x:begin --><!-- x:end -->" * 2])
def test_missing_or_doubled_markers(text):
    with pytest.raises(CourseError, match="markers"):
        readme.refreshed(text, {"x": str})


def test_refresh_writes_only_a_change(tiny, tmp_path):
    folder = tiny().folder
    path = tmp_path / "README.md"
    path.write_text("<!-- lessons:begin --><!-- lessons:end --><!-- data:begin --><!-- data:end -->", encoding="utf-8")
    assert readme.refresh(path, folder)
    assert "A tiny lesson" in path.read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in path.read_text(encoding="utf-8")
    assert not readme.refresh(path, folder)


def test_a_bar_in_a_cell_does_not_break_the_table():
    assert readme.table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"
