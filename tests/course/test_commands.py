"""The command line on a tiny lesson: what it prints, what it writes, how it exits."""

import pytest

from pfmcourse import catalogue, cli
from pfmcourse.course import readme


@pytest.fixture
def command(monkeypatch, capsys):
    """Run ``pfmcourse ...``; gives (exit code, stdout, stderr)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    monkeypatch.setenv("COLUMNS", "160")
    return call


@pytest.fixture
def lesson(tiny, monkeypatch):
    def make(*arguments, **options):
        card = tiny(*arguments, **options)
        monkeypatch.setattr(catalogue, "folder", lambda: card.folder)
        return card

    return make


def test_run(lesson, command, tmp_path):
    lesson()
    code, out, _ = command("run", "tiny", "-p", "left", "-4", "--preset", "smoke", "--output", tmp_path / "runs")
    assert code == 0
    assert "sums commute" in out and "SKIPPED" in out and "-3" in out
    assert str(tmp_path / "runs" / "01_tiny" / "01_tiny.html") in out.replace("\n", "")


def test_a_failed_claim_gives_exit_code_1(lesson, command, tmp_path):
    lesson(end='\n# %%\nlesson.claim("pigs fly", False)\nlesson.finish()\n')
    code, out, _ = command("run", "01", "--preset", "laptop", "--output", tmp_path)
    assert code == 1
    assert "FAIL" in out and "1 claim(s) failed" in out


def test_a_cell_that_raises_gives_exit_code_1(lesson, command, tmp_path):
    lesson("1 / 0")
    code, out, err = command("run", "--all", "--preset", "smoke", "--output", tmp_path)
    assert code == 1
    assert "ZeroDivisionError: division by zero" in out and "“Scale it”" in out
    assert "Traceback" not in out + err


def test_notebooks(lesson, command, monkeypatch):
    refreshed = []
    monkeypatch.setattr(readme, "refresh", lambda: refreshed.append(True))
    card = lesson()
    code, out, _ = command("notebooks")
    assert code == 0, out
    assert refreshed and catalogue.row("tiny") is not None
    assert '"execution_count": 1' in card.notebook.read_text(encoding="utf-8")
    card = lesson("x = 1  #" + " x" * 50)
    code, out, _ = command("notebooks", "tiny")
    assert code == 1
    assert "line_length: cell" in out.replace("\n", " ")


def test_list_and_student(lesson, command, tmp_path):
    lesson()
    code, out, _ = command("list")
    assert code == 0 and "tiny" in out and "Add two numbers." in out
    code, out, _ = command("student", tmp_path / "copies")
    assert code == 0 and (tmp_path / "copies" / "01_tiny.ipynb").is_file()
    code, out, err = command("student", tmp_path / "copies")
    assert code == 2 and "--force" in err
    code, out, _ = command("student", tmp_path / "course", "--nbgrader")
    assert code == 0 and (tmp_path / "course" / "source" / "01_tiny" / "01_tiny.ipynb").is_file()


def test_slides(lesson, command, tmp_path):
    pytest.importorskip("sphinx_revealjs")
    lesson()
    code, out, _ = command("slides", "--lesson", "tiny", "--output", tmp_path / "decks")
    assert code == 0 and (tmp_path / "decks" / "index.html").is_file()
    assert "open" in out and "index.html" in out


def test_parameters_are_checked_for_all_lessons_before_the_first_runs(lesson, command, tmp_path):
    lesson()
    code, _, err = command("run", "tiny", "-p", "lft", "3", "--output", tmp_path / "runs")
    assert code == 2
    assert "unknown parameter 'lft'. Did you mean 'left'?" in err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_ledger(lesson, command):
    card = lesson()
    (card.folder / "results.json").write_text("[{", encoding="utf-8")
    code, _, err = command("ledger")
    assert code == 2
    assert "is damaged" in err and "Traceback" not in err
