"""Runs of lessons: what they leave behind, and every way in which they can go wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jupytext
import nbformat
import nbval.kernel
import psutil
import pytest
from filelock import FileLock
from jupyter_client.connect import LocalPortCache
from jupyter_client.kernelspec import NoSuchKernel

from pfmcourse import catalogue
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.course import kernel, nbval_kernel
from pfmcourse.course import run as running


@pytest.fixture
def go(tmp_path):
    """Run a lesson with its runs in a temporary folder."""
    return lambda card, *arguments, **options: running.run(card, *arguments, output=tmp_path / "runs", **options)


def outputs(run):
    notebook = nbformat.read(run.notebook, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_a_sound_lesson(tiny, go, monkeypatch):
    card = tiny("""
        import os, sys
        print(f"left={left} scale={scale} seed={seed} preset={preset} python={sys.executable} here={os.getcwd()}")
    """)
    committed = card.notebook.read_bytes()
    monkeypatch.setenv("JUPYTER_PATH", str(bogus_kernel(card.folder.parent)))
    seen = []
    run = go(card, "laptop", 7, {"left": 5, "scale": 1}, watch=lambda *state: seen.append(state))
    assert run.ok, run.error
    here = f"python={sys.executable} here={card.folder}"
    assert f"left=5 scale=1 seed=7 preset=laptop {here}" in outputs(run)
    assert run.row["metrics"]["sum"]["value"] == 6
    assert [claim["holds"] for claim in run.row["claims"]] == [True] * 3
    assert "lesson.finish()" in re.sub("<[^>]+>", "", run.html.read_text(encoding="utf-8"))
    assert 'alt="A black point"' in run.html.read_text(encoding="utf-8")
    assert (run.folder.name, run.notebook.parent, run.html.parent) == ("01_tiny", run.folder, run.folder)
    assert seen[-1][0] == seen[-1][1] - 1 and seen[-1][2] == "Claims and summary"
    assert card.notebook.read_bytes() == committed


def bogus_kernel(folder):
    """A registered kernelspec ``python3`` that leads nowhere, as another environment may leave behind."""
    spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    content = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "Other", "language": "python"}
    spec.write_text(json.dumps(content), encoding="utf-8")
    return folder / "jupyter"


def test_a_notebook_without_a_kernelspec_runs_and_smoke_skips_claims(tiny, go):
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    notebook.metadata.clear()
    nbformat.write(notebook, card.notebook)
    run = go(card, "smoke")
    assert run.ok, run.error
    assert [claim["holds"] for claim in run.row["claims"]] == [None] * 3


def test_a_failed_claim_fails_the_run(tiny, go):
    end = '\n# %%\nlesson.claim("pigs fly", False)\nlesson.finish()\n'
    run = go(tiny(end=end), "laptop")
    assert not run.ok
    assert [claim["text"] for claim in run.failed_claims] == ["pigs fly"]


def test_a_cell_that_raises(tiny, go):
    run = go(tiny('print("before")\n[][3]'), "smoke")
    assert not run.ok
    assert "under “Scale it” raised IndexError: list index out of range" in run.error
    assert run.row is None
    assert "before" in outputs(run)
    assert "IndexError" in run.html.read_text(encoding="utf-8")


def test_a_cell_that_hangs(tiny, go):
    start = time.monotonic()
    run = go(tiny('print("before", flush=True)\nimport time\ntime.sleep(600)'), "smoke", cell_timeout=1.5)
    assert time.monotonic() - start < 30
    assert "time-out of 1.5 s for one cell" in run.error
    assert "“Scale it”" in run.error
    assert "before" in outputs(run)


def test_a_notebook_that_takes_too_long_in_all(tiny, go):
    run = go(tiny("import time\ntime.sleep(600)"), "smoke", timeout=3)
    assert "time-out of 3 s for the whole notebook" in run.error


def test_a_kernel_that_dies(tiny, go):
    run = go(tiny("import os\nos._exit(3)"), "smoke")
    assert "died in a cell under “Scale it”" in run.error
    assert "memory" in run.error


def test_no_results_written(tiny, go):
    run = go(tiny(end='\n# %%\nprint("bye")\n'), "smoke")
    assert not run.ok
    assert "lesson.finish()" in run.error


def test_offline_means_offline(tiny, go):
    assert os.environ["PFMCOURSE_OFFLINE"] == "1"
    run = go(tiny('import urllib.request\nurllib.request.urlopen("http://example.com")'), "smoke")
    assert "NetworkForbidden" in run.error
    assert "'example.com'" in run.error


def test_a_failed_run_does_not_show_older_results(tiny, go):
    assert go(tiny(), "smoke").row is not None
    run = go(tiny("1 / 0"), "smoke")
    assert run.folder.name == "01_tiny"
    assert run.row is None


PROGRAM = """
import sys
from pathlib import Path
from pfmcourse import catalogue
from pfmcourse.course.run import run
result = run(catalogue.card("tiny", Path(sys.argv[1])), "smoke", output=Path(sys.argv[2]))
assert result.ok, result.error
print(result.folder.name)
"""


def test_two_runs_of_one_lesson_at_the_same_time(tiny, tmp_path):
    card = tiny("""
        import time
        from pathlib import Path

        while not Path("../runs/01_tiny-2").is_dir():  # until the other run has begun
            time.sleep(0.05)
    """)
    command = [sys.executable, "-c", PROGRAM, str(card.folder), str(tmp_path / "runs")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") for _ in range(2)]
    folders = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert folders == {"01_tiny", "01_tiny-2"}
    for name in folders:
        folder = tmp_path / "runs" / name
        assert catalogue.row("tiny", "smoke", folder / "results.json")
        assert (folder / "01_tiny.html").is_file()


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_keeps_what_ran_and_ends_the_kernel(tiny, tmp_path):
    card = tiny("""
        import os, time
        from pathlib import Path

        print("before", flush=True)
        Path("pid.part").write_text(str(os.getpid()))
        Path("pid.part").rename("pid")
        time.sleep(600)
    """)
    program = PROGRAM.replace("assert result.ok, result.error", "print(result.error)")
    command = [sys.executable, "-c", program, str(card.folder), str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    deadline = time.monotonic() + 60
    while not (card.folder / "pid").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert running.INTERRUPTED in out
    assert "before" in (tmp_path / "runs" / "01_tiny" / "01_tiny.ipynb").read_text(encoding="utf-8")
    assert not psutil.pid_exists(int((card.folder / "pid").read_text(encoding="utf-8")))


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    with FileLock(tmp_path / "x" / ".lock"), running.own_folder("x", tmp_path) as folder:
        assert folder == tmp_path / "x-2"
    with running.own_folder("x", tmp_path) as folder:
        assert folder == tmp_path / "x"


def test_a_folder_that_cannot_be_made(tiny, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CourseError, match="--output"):
        running.run(tiny(), "smoke", output=tmp_path / "file")


BAD = [
    ({"lft": 3}, UnknownName, r"unknown parameter 'lft'.*'left'"),
    ({"left": "three"}, CourseError, r"'left' wants int.*'three' \(str\)"),
    ({"left": 2.5}, CourseError, "wants int"),
    ({"scale": True}, CourseError, "wants float"),
    ({"preset": "smok"}, UnknownName, "unknown preset 'smok'.*'smoke'"),
]


@pytest.mark.parametrize(("values", "kind", "message"), BAD)
def test_bad_parameters_are_found_before_anything_runs(tiny, go, tmp_path, values, kind, message):
    card = tiny()
    with pytest.raises(kind, match=message):
        go(card, "smoke", None, values)
    assert not (tmp_path / "runs").exists()


def test_unknown_preset(tiny, go):
    with pytest.raises(UnknownName, match="unknown preset 'large'"):
        go(tiny(), "large")


def test_unknown_lesson():
    with pytest.raises(UnknownName, match=r"unknown lesson 'word_vektors'.*'word_vectors'"):
        running.run("word_vektors")


def retag(card, change):
    notebook = jupytext.read(card.text, fmt="py:percent")
    change(notebook)
    nbformat.write(notebook, card.notebook)


def test_a_notebook_without_the_parameters_tag(tiny, go):
    card = tiny()
    retag(card, lambda notebook: notebook.cells[1].metadata.pop("tags"))
    with pytest.raises(CourseError, match=r"01_tiny\.ipynb has no cell tagged 'parameters'"):
        go(card, "smoke")


def test_two_parameters_cells(tiny, go):
    card = tiny()
    retag(card, lambda notebook: notebook.cells[2].metadata.__setitem__("tags", ["parameters"]))
    with pytest.raises(CourseError, match="2 cells tagged"):
        go(card, "smoke")


@pytest.mark.parametrize("line", ["import os", "left = 1 + len('a')", "a, b = 1, 2", "left +="])
def test_a_parameters_cell_with_more_than_plain_values(tiny, go, line):
    card = tiny()
    retag(card, lambda notebook: notebook.cells[1].__setitem__("source", f"preset = None\n{line}"))
    with pytest.raises(CourseError, match="parameters cell"):
        go(card, "smoke")


def test_a_missing_and_a_damaged_notebook(tiny, go):
    card = tiny()
    card.notebook.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(CourseError, match="is not a notebook"):
        go(card)
    card.notebook.unlink()
    with pytest.raises(CourseError, match="is missing"):
        go(card)


@pytest.fixture
def taken(monkeypatch):
    """The first so many ports that kernels are given belong to another program: ``taken(2)``."""
    held = []

    def take(times):
        choose = LocalPortCache.find_available_port
        for _ in range(times):
            held.append(socket.create_server(("127.0.0.1", 0)))
        ports = iter([server.getsockname()[1] for server in held])
        monkeypatch.setattr(
            LocalPortCache, "find_available_port", lambda self, ip: next(ports, None) or choose(self, ip)
        )

    yield take
    for server in held:
        server.close()


def test_a_kernel_whose_port_was_taken_is_started_again(tiny, go, taken):
    taken(1)
    run = go(tiny('print("left", left)'), "smoke")
    assert run.ok, run.error
    assert "left 2" in outputs(run)


def test_a_kernel_that_never_comes_up(tiny, go, taken, monkeypatch):
    monkeypatch.setattr(kernel, "STARTS", 2)
    taken(10)
    run = go(tiny(), "smoke")
    assert "did not come up, 2 times (exit code 1)" in run.error and "pfmcourse doctor" in run.error


def test_nbval_starts_a_lost_kernel_again(taken):
    taken(1)
    manager, client = nbval_kernel.start_new_kernel(kernel_name=nbval.kernel.CURRENT_ENV_KERNEL_NAME)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    with pytest.raises(NoSuchKernel):
        nbval_kernel.start_new_kernel(kernel_name="nobody")


def test_other_errors_at_the_start_are_not_tried_again():
    times = []

    def start():
        times.append(1)
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        kernel.patiently(start)
    assert len(times) == 1
