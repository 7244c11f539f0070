"""The command line on the real course: bad input ends with one clear line and exit code 2."""

import json
import os
import subprocess
import sys

import pytest

from pfmcourse import cli


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "word_vektors"], "unknown lesson 'word_vektors'. Did you mean 'word_vectors'?"),
        (["run"], "which lesson?"),
        (["run", "word_vectors", "-p", "steps"], "-p steps has no value"),
        (["verify", "nothing_like_it"], "unknown lesson"),
        (["verify", "--preset", "lapptop"], "unknown preset 'lapptop'. Did you mean 'laptop'?"),
        (["student", "out", "--lesson", "99"], "unknown lesson '99'"),
        (["slides", "--lesson", "99"], "unknown lesson '99'"),
        (["notebooks", "99"], "unknown lesson '99'"),
        (["pretrain", "skip_gramm"], "unknown recipe 'skip_gramm'. Did you mean 'skip_gram'?"),
        (
            ["pretrain", "skip_gram", "--preset", "smoke", "-p", "dmi", "8"],
            "unknown parameter 'dmi'. Did you mean 'dim'?",
        ),
        (["pretrain", "skip_gram", "--preset", "smoke", "-p", "dim", "many"], "'dim' wants int, but got 'many'"),
        (["pretrain", "skip_gram", "--preset", "huge"], "unknown preset 'huge'"),
    ],
)
def test_bad_input(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2
    assert message in err.replace("\n", " ")
    assert "Traceback" not in out + err
    assert out == ""


def test_an_unknown_command_and_an_unknown_option(command):
    assert command("rum")[0] == 2
    assert command("run", "--presett", "smoke")[0] == 2


def test_the_environment_may_name_no_unknown_preset(command, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_PRESET", "smok")
    code, _, err = command("verify")
    assert code == 2 and "Did you mean 'smoke'?" in err


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["-p", "left", "3"], ["-p", "left=3"]),
        (["-p", "left", "-3", "x"], ["-p", "left=-3", "x"]),
        (["-p", "left=3", "x"], ["-p", "left=3", "x"]),
        (["--parameter", "name", "a=b"], ["--parameter", "name=a=b"]),
        (["-p", "left"], ["-p", "left"]),
        (["--", "-p", "left", "3"], ["--", "-p", "left", "3"]),
    ],
)
def test_parameter_pairs(typed, read):
    assert cli._join_pairs(typed) == read


def test_list_data_and_ledger(command):
    code, out, _ = command("list")
    assert code == 0 and "word_vectors" in out
    code, out, _ = command("data")
    assert code == 0 and "OpenMoji" in out and "CC BY-SA 4.0" in out
    assert command("ledger")[0] == 0


def test_help_names_every_command(command):
    code, out, _ = command("--help")
    assert code == 0
    commands = ("list", "run", "results", "pretrain", "doctor", "data", "student", "slides", "site", "wheelhouse")
    for name in (*commands, "ledger", "notebooks", "verify"):
        assert name in out


def test_pretrain(command, tmp_path):
    code, out, _ = command("pretrain", "skip_gram", "--preset", "smoke", "-p", "dim", "8", "--output", tmp_path)
    assert code == 0
    assert "words/s" in out
    kept = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert kept["preset"] == "smoke" and kept["history"]["rows"] and kept["metrics"]
    assert (tmp_path / "weights.safetensors").stat().st_size > 0


def test_python_m_and_only_the_first_process_prints():
    for rank, lines in (("0", True), ("1", False)):
        done = subprocess.run(
            [sys.executable, "-m", "pfmcourse", "list"],
            env=os.environ | {"RANK": rank, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        assert bool(done.stdout) == lines
