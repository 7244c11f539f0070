"""Running the committed notebooks again with nbval."""

import dataclasses
import json

import nbformat
import pytest

from pfmcourse.base import CourseError
from pfmcourse.course import verify


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_LEDGER", str(tmp_path / "results.json"))
    return tmp_path / "results.json"


def test_a_sound_lesson_passes_at_another_preset(built, ledger, capfd):
    card, _, _ = built
    assert verify.verify([card], "smoke") == 0
    assert " passed" in capfd.readouterr().out.splitlines()[-1]
    assert json.loads(ledger.read_text(encoding="utf-8"))[0]["preset"] == "smoke"


def test_a_changed_output_and_a_failed_claim_fail(tiny, built, ledger, capfd):
    card = tiny()
    notebook = built[1]
    checked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    checked[0].outputs[0].text = "999\n"
    checked[-1].source += '\nlesson.claim("pigs fly", left > 5)'
    checked[-1].outputs[0].text += "PASS     pigs fly  []\n"
    nbformat.write(notebook, card.notebook)
    assert verify.verify([card], "laptop") == 1
    out = capfd.readouterr().out
    assert "2 failed" in out.splitlines()[-1]
    assert "FAIL     pigs fly" in out


def test_two_lessons_at_a_time_run_every_cell_of_both(tiny, built, ledger, capfd):
    first = tiny()
    second = dataclasses.replace(first, number=2)
    for card in (first, second):
        nbformat.write(built[1], card.notebook)
    assert verify.verify([first, second], "smoke", jobs=2) == 0
    cells = sum(cell.cell_type == "code" for cell in built[1].cells)
    out = capfd.readouterr().out
    assert f"{2 * cells} passed" in out.splitlines()[-1]
    assert "2 workers" in out


def test_one_job_at_a_time_uses_no_workers(built):
    card, _, _ = built
    assert "-n" not in verify.command([card], 1)
    assert "--nbval-current-env" in verify.command([card], 1)


def test_a_missing_notebook(tiny):
    card = tiny()
    card.notebook.unlink()
    with pytest.raises(CourseError, match="pfmcourse notebooks"):
        verify.verify([card], "smoke")
