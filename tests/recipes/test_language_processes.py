"""GPT and BERT in two processes: the loss curve is that of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pfmcourse.base import repository

SCRIPT = repository() / "tests" / "train_scripts" / "language.py"
NAMES = ("gpt", "bert", "roberta")


def run(folder: Path, *launch: str) -> list[dict]:
    folder.mkdir()
    environment = os.environ | {"PFMCOURSE_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(SCRIPT), str(folder), *NAMES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir())]


@pytest.mark.timeout(300)
def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    (alone,) = run(tmp_path / "one")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launch += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    together = run(tmp_path / "two", *launch)
    assert [each["processes"] for each in (alone, *together)] == [1, 2, 2]
    for each in together:
        for name in NAMES:
            assert each["losses"][name] == pytest.approx(alone["losses"][name], rel=1e-4), name
            assert len(set(alone["losses"][name])) == 6  # each step differs: there was something to compare
