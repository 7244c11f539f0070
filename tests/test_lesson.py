"""What a notebook opens: presets and overrides, claims and results, and the row that stays."""

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pfmcourse import base, catalogue, lesson, recipes
from pfmcourse.lesson import ClaimFailed, Lesson

CARDS = """
- {id: words, number: 1, title: Words, part: Roots, summary: s, minutes: 1, recipes: [nnlm, skip_gram], data: [],
   needs: [], headline: score, papers: []}
- {id: plain, number: 2, title: Plain, part: Roots, summary: s, minutes: 1, recipes: [], data: [],
   needs: [], headline: score, papers: []}
"""


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    """A course of two lessons, with nothing measured yet, whose ledger is ``tmp_path / ledger.json``."""
    (tmp_path / "lessons.yaml").write_text(CARDS, encoding="utf-8")
    monkeypatch.setattr(catalogue, "folder", lambda: tmp_path)
    monkeypatch.setenv("PFMCOURSE_LEDGER", str(tmp_path / "ledger.json"))
    monkeypatch.delenv("PFMCOURSE_PRESET", raising=False)


@pytest.fixture
def row(tmp_path):
    """The only row of the ledger, when asked for."""

    def read():
        (found,) = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
        return found

    return read


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "wrods"}, "unknown lesson 'wrods'. Did you mean 'words'?"),
        ({"id": "words", "preset": "Smoke"}, "unknown preset 'Smoke'. Did you mean 'smoke'?"),
        ({"id": "words", "epoch": 3}, "unknown parameter of lesson words: 'epoch'. Did you mean 'epochs'?"),
        ({"id": "plain", "epochs": 3}, "unknown parameter of lesson plain: 'epochs'. Known: none."),
    ],
)
def test_unknown_names_suggest_the_nearest(arguments, message):
    with pytest.raises(base.UnknownName) as caught:
        Lesson(**arguments)
    assert str(caught.value).startswith(message)


def test_an_override_of_the_wrong_type_is_refused_at_once(capsys):
    with pytest.raises(base.CourseError, match=r"parameter 'dim' wants int, but got 'wide' \(str\)\. Its default is "):
        Lesson("words", "smoke", dim="wide")
    assert capsys.readouterr().out == ""


def test_the_environment_chooses_the_preset_and_the_argument_wins(monkeypatch):
    assert Lesson("plain").preset == "laptop"
    monkeypatch.setenv("PFMCOURSE_PRESET", "smoke")
    assert Lesson("plain").preset == "smoke" and Lesson("plain").smoke
    assert Lesson("plain", "long").preset == "long" and not Lesson("plain", "long").smoke


def test_an_override_reaches_every_recipe_that_has_the_field():
    run = Lesson("words", "smoke", dim=24, epochs=3, steps=None)
    for name, changes in (("nnlm", {"dim": 24}), ("skip_gram", {"dim": 24, "epochs": 3})):
        assert run.config(name) == base.replace_fields(recipes.get(name).presets["smoke"], changes)
    assert run.overrides == {"dim": 24, "epochs": 3}


def test_the_opening_shows_machine_sizes_and_time(capsys, tmp_path):
    Lesson("words", "smoke", seed=7, dim=24)
    text = capsys.readouterr().out
    assert text.startswith("Words · preset smoke · seed 7\nMachine: ")
    assert "nnlm: " in text and "skip_gram: " in text and text.count("dim 24") == 2
    assert text.endswith("Expected time: not measured yet at this preset.\n")
    row = {"lesson": "words", "preset": "smoke", "seed": 0, "metrics": {}, "claims": [], "seconds": 41.6}
    row["hardware"] = {"device": "cpu", "cores": 3}
    (tmp_path / "results.json").write_text(json.dumps([row]), encoding="utf-8")
    Lesson("words", "smoke")
    assert capsys.readouterr().out.endswith("Expect about 42 s (measured: cpu, 3 cores).\n")


def test_opening_a_lesson_seeds_it():
    def draw(seed):
        Lesson("plain", "smoke", seed)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_values_by_preset():
    assert Lesson("plain", "smoke").at(5, smoke=1) == 1
    assert Lesson("plain", "long").at(5, smoke=1) == 5
    with pytest.raises(base.UnknownName, match="Did you mean 'smoke'"):
        Lesson("plain", "long").at(5, smok=1)


def test_training_goes_through_the_recipes(monkeypatch):
    calls = []

    def pretrain(name, preset, seed, *, watch, **overrides):
        calls.append((name, preset, seed, watch, overrides))
        return SimpleNamespace(history=SimpleNamespace(seconds=2.25))

    monkeypatch.setattr(recipes, "pretrain", pretrain)
    monkeypatch.setattr(recipes, "load", lambda name: f"checkpoint of {name}")
    run = Lesson("words", "smoke", 5, dim=24, epochs=2)
    run.pretrain("nnlm")
    run.pretrain("skip_gram", epochs=1, window=2)
    assert calls == [
        ("nnlm", "smoke", 5, None, {"dim": 24}),
        ("skip_gram", "smoke", 5, None, {"dim": 24, "epochs": 1, "window": 2}),
    ]
    assert run._training_seconds == 4.5
    assert run.load("nnlm") == "checkpoint of nnlm"


def test_claims_are_lines(capsys, row):
    run = Lesson("plain", "laptop")
    capsys.readouterr()
    run.claim("two is more than one", np.bool_(True), "2 > 1")
    run.claim("nothing to add", torch.tensor(3) > 2)
    assert capsys.readouterr().out == "PASS     two is more than one  [2 > 1]\nPASS     nothing to add\n"
    run.finish()
    assert row()["claims"] == [
        {"text": "two is more than one", "holds": True, "detail": "2 > 1"},
        {"text": "nothing to add", "holds": True, "detail": ""},
    ]


@pytest.mark.parametrize("preset", ["laptop", "long", "gpu"])
def test_a_failed_claim_is_seen_written_and_raised(preset, capsys, row):
    run = Lesson("words", preset, dim=24)
    run.claim("one is more than two", 1 > 2, "1 < 2")
    run.claim("two is more than one", 2 > 1)
    assert "FAIL     one is more than two  [1 < 2]\n" in capsys.readouterr().out
    with pytest.raises(
        ClaimFailed, match=r"1 of 2 claims did not hold.*one is more than two.*You changed dim: "
    ) as caught:
        run.finish()
    assert isinstance(caught.value, base.CourseError)
    assert [claim["holds"] for claim in row()["claims"]] == [False, True]


def test_at_smoke_claims_are_skipped(capsys, row):
    run = Lesson("plain", "smoke")
    run.claim("one is more than two", 1 > 2, "1 < 2")
    run.claim("two is more than one", 2 > 1)
    run.finish()
    text = capsys.readouterr().out
    assert "SKIPPED  one is more than two  [1 < 2]\nSKIPPED  two is more than one\n" in text
    assert "FAIL" not in text
    assert [claim["holds"] for claim in row()["claims"]] == [None, None]


def test_the_row_holds_the_run(row, capsys):
    run = Lesson("words", "laptop", 3, dim=24)
    run.record("score", torch.tensor(0.5), "rho", "held out")
    run.record("score", np.float32(0.75), "rho", "held out")  # measured again: the last one counts
    run.record("words", 12)
    run._training_seconds = 1.26
    run.finish()
    found = row()
    assert (found["lesson"], found["preset"], found["seed"]) == ("words", "laptop", 3)
    assert found["overrides"] == {"dim": 24}
    assert found["metrics"] == {
        "score": {"value": 0.75, "unit": "rho", "note": "held out"},
        "words": {"value": 12.0, "unit": "", "note": ""},
    }
    assert found["claims"] == []
    assert found["training_seconds"] == 1.3
    assert 0 <= found["seconds"] < 60
    assert 50 < found["peak_memory_mb"] < 50_000
    assert {"machine", "system", "cores", "threads", "memory_gb", "device"} == set(found["hardware"])
    assert found["hardware"]["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(lesson.VERSIONS) | {"python"} == set(found["versions"])
    assert found["when"].endswith("+00:00")
    assert capsys.readouterr().out.splitlines()[-1].endswith("2 results in ledger.json.")
    run.finish()  # a second run takes the first one's place
    assert row()["seed"] == 3


def test_without_a_ledger_in_the_environment_it_goes_to_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("PFMCOURSE_LEDGER")
    monkeypatch.setattr(base, "repository", lambda: tmp_path)
    Lesson("plain", "smoke").finish()
    assert catalogue.ledger(tmp_path / "runs" / "ledger.json")[0]["lesson"] == "plain"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan")), np.float64("-inf")])
def test_what_is_no_number_is_no_result(value, row):
    run = Lesson("plain", "smoke")
    with pytest.raises(base.CourseError, match=r"result 'score' is (nan|-?inf), no result"):
        run.record("score", value)
    run.finish()
    assert row()["metrics"] == {}


@pytest.mark.parametrize("value", [None, [1.0, 2.0], "good", torch.ones(2)])
def test_what_is_no_number_at_all(value):
    with pytest.raises(base.CourseError, match="result 'score' wants a number, but got"):
        Lesson("plain", "smoke").record("score", value)


def test_two_runs_that_finish_at_once(tmp_path):
    program = """
        import dataclasses, pathlib, sys
        from pfmcourse import catalogue
        catalogue.folder = lambda: pathlib.Path(sys.argv[1])
        from pfmcourse.lesson import Lesson
        run = Lesson("plain", "smoke")
        run.record("score", 1.0)
        card = run.card
        print("ready", flush=True)
        sys.stdin.readline()
        run.finish()
        for number in range(25):
            run.card = dataclasses.replace(card, id=f"{sys.argv[2]}{number}")
            run.finish()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*command, name], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) for name in "ab"]
    for process in runs:
        assert any(line == "ready\n" for line in process.stdout), process.stderr.read()
    for process in runs:  # both have opened the lesson; now both finish it
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in runs:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    rows = catalogue.ledger(tmp_path / "ledger.json")
    expected = ["plain", *(f"{name}{number}" for name in "ab" for number in range(25))]
    assert sorted(row["lesson"] for row in rows) == sorted(expected)
    assert all(row["metrics"]["score"]["value"] == 1.0 for row in rows)
    assert not list(tmp_path.glob("*.part"))
