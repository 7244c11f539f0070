"""The page about running lessons in batches: its shell lines run as they stand, and its figures leave room."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from pfmcourse import catalogue
from pfmcourse.base import repository

PAGE = (repository() / "docs" / "running.md").read_text(encoding="utf-8")
SCRIPT, SUBMIT, SEEDS, _ = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
needs_bash = pytest.mark.skipif(not shutil.which("bash") or os.name == "nt", reason="no bash here")


@pytest.fixture
def bash(tiny, tmp_path):
    """Run shell lines where the course is the tiny lesson, and `sbatch` prints how it was called."""
    folder = tiny().folder
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    program = (
        f"from pathlib import Path\nfrom pfmcourse import catalogue, cli\n"
        f"catalogue.folder = lambda: Path({str(folder)!r})\ncli.main()\n"
    )
    (tmp_path / "course.py").write_text(program, encoding="utf-8")
    commands = {
        "pfmcourse": f'exec {sys.executable} {tmp_path}/course.py "$@"',
        "sbatch": 'echo "sbatch $*" >&2; echo 77',
    }
    for name, line in commands.items():
        (binaries / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (binaries / name).chmod(0o755)
    (binaries / "activate").write_text(f'export PATH="{binaries}:$PATH"\n', encoding="utf-8")

    def run(lines, **variables):
        environment = os.environ | {"COURSE": str(tmp_path), "PRESET": "smoke", "OUT": "out"} | variables
        done = subprocess.run(
            ["bash", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    return run


@needs_bash
def test_a_job_of_the_array_runs_its_lesson_and_the_second_time_keeps_it(bash, tmp_path):
    code, out, err = bash(SCRIPT, SLURM_ARRAY_TASK_ID="0", SLURM_CPUS_PER_TASK="1")
    assert code == 0, out + err
    assert (tmp_path / "out" / "01_tiny" / "state.json").is_file()
    code, out, err = bash(SCRIPT, SLURM_ARRAY_TASK_ID="0")
    assert code == 0 and "kept: it was finished before" in out, out + err
    code, out, err = bash("source .venv/bin/activate\npfmcourse results out")
    assert code == 0 and "01_tiny" in out, out + err


@needs_bash
def test_a_number_without_a_lesson_fails(bash):
    code, _, err = bash(SCRIPT, SLURM_ARRAY_TASK_ID="10")
    assert code != 0 and "unbound variable" in err


@needs_bash
def test_the_lines_that_submit(bash):
    code, _, err = bash(SUBMIT)
    assert code == 0, err
    assert "sbatch --parsable --array=0-0 lessons.sh" in err
    assert "--dependency=afterany:77 --wrap source .venv/bin/activate && pfmcourse results out" in err


@needs_bash
def test_seeds_and_lessons_from_one_number(bash):
    lines = f'lessons=(a b c)\npfmcourse() {{ echo "$@"; }}\n{SEEDS}'
    code, out, err = bash(lines, SLURM_ARRAY_TASK_ID="4")
    assert code == 0, err
    assert out.strip() == "run b --preset smoke --seed 1 --output out/seed_1 --resume"


def test_the_job_asks_for_enough():
    rows = [row for row in catalogue.ledger() if row["preset"] == "laptop"]
    gigabytes = int(re.search(r"--mem=(\d+)G", SCRIPT)[1])
    hours, minutes, seconds = map(int, re.search(r"--time=(\d+):(\d+):(\d+)", SCRIPT).groups())
    assert 1000 * gigabytes > 1.5 * max(row["peak_memory_mb"] for row in rows)
    assert (hours * 60 + minutes) * 60 + seconds > 3 * max(row["seconds"] for row in rows)
    assert re.search(r"--cpus-per-task=(\d+)", SCRIPT)[1] == str(rows[0]["hardware"]["cores"])
