"""Many lessons at once: shares of the machine, failures and kills, taking up where it stopped, Ctrl+C, one table."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from pfmcourse import catalogue, cli
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.course import batch
from pfmcourse.course import run as running

posix = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


@pytest.fixture
def lessons(tiny, tmp_path, monkeypatch):
    """Makes short lessons: ``lessons(a="print(1)", b="1 / 0")``; the ledger gives each its seconds in that order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")

    def make(**codes):
        folder = tiny().folder
        (entry,) = json.loads((folder / "lessons.yaml").read_text(encoding="utf-8"))
        entries = [entry | {"id": name, "number": number} for number, name in enumerate(codes, start=1)]
        (folder / "lessons.yaml").write_text(json.dumps(entries), encoding="utf-8")
        for number, (name, code) in enumerate(codes.items()):
            write(catalogue.card(name, folder), code)
            row = {"lesson": name, "preset": "laptop", "seed": 0, "metrics": {}, "claims": []}
            catalogue.write_row(
                row | {"seconds": 100.0 - number, "peak_memory_mb": 1000.0 + number}, folder / "results.json"
            )
        monkeypatch.setattr(catalogue, "folder", lambda: folder)
        return list(catalogue.lessons(folder).values())

    return make


def write(card, code):
    """A notebook with parameters, ``code``, and an end that records and claims."""
    cells = [
        nbformat.v4.new_code_cell("preset = None\nseed = 0\nleft = 2", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            f"import os, sys, time\nfrom standin import Lesson\nlesson = Lesson({card.id!r}, preset, seed)"
        ),
        nbformat.v4.new_markdown_cell("## Middle"),
        nbformat.v4.new_code_cell(textwrap.dedent(code).strip()),
        nbformat.v4.new_code_cell('lesson.record("left", left)\nlesson.claim("fine", True)\nlesson.finish()'),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), card.notebook)


def outputs(run):
    notebook = nbformat.read(run.notebook, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


# Two lessons each wait for the other's file, so they can only end if they run at the same time.
MEET = """
from pathlib import Path
Path(lesson.row["lesson"] + ".here").touch()
end = time.monotonic() + 30
while len(list(Path().glob("*.here"))) < 2 and time.monotonic() < end:
    time.sleep(0.02)
print(len(list(Path().glob("*.here"))), "here")
print(*(os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")))
print("gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def test_two_at_a_time_share_threads_and_gpus_and_one_failure_stays_alone(lessons, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "cores", lambda: 7)
    monkeypatch.setattr(batch, "gpus", lambda: ["3", "5"])
    cards = lessons(a=MEET, b=MEET, c="1 / 0")
    order = []

    class Watch(batch.Watcher):
        def started(self, card, threads, gpu):
            order.append((card.id, threads, gpu))

    good, also_good, bad = batch.run_all(cards, "smoke", jobs=2, output=tmp_path / "runs", watch=Watch())
    assert good.ok and also_good.ok, (good.error, also_good.error)
    assert "2 here\n3 3 3\ngpu 3" in outputs(good) and "2 here\n3 3 3\ngpu 5" in outputs(also_good)
    assert "raised ZeroDivisionError" in bad.error and "“Middle”" in bad.error
    assert [card for card, _, _ in order] == ["a", "b", "c"]  # the longest first
    assert {threads for _, threads, _ in order} == {3}
    assert good.sampled_mb > 10 and good.memory_mb == 100  # the lesson's own figure goes first


@posix
def test_killed_lessons_leave_the_rest_alone_and_resume_runs_only_what_is_missing(
    lessons, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli.console, "_width", 250)
    kill = "import signal\nprint('once')\nos.kill({}, signal.SIGKILL)"
    cards = lessons(
        good="print('good')",
        kernel=kill.format("os.getpid()"),
        process=kill.format("os.getppid()"),
    )
    command = ("run", "--all", "--preset", "smoke", "--jobs", 2, "--output", tmp_path / "runs")
    code, out, err = call(capsys, *command)
    assert code == 1, out + err
    table = out[out.index("claims held") :]
    assert "died in a cell under “Middle” (SIGKILL); most often the memory was full" in table
    assert "killed by SIGKILL, most often because the memory was full" in table
    assert table.count("done") == 1 and "1 skipped" in table and "s in all" in table
    assert not (tmp_path / "runs" / "03_process" / running.STATE).exists()
    deadline = time.monotonic() + 10  # the notebook's process goes with the one that started it
    while left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_over(tmp_path)

    code, out, _ = call(capsys, "results", tmp_path / "runs")
    assert code == 1
    assert "unfinished: it was killed" in out and "(SIGKILL)" in out

    write(cards[1], "print('mended')")
    write(cards[2], "print('mended')")
    kept = (tmp_path / "runs" / "01_good" / "01_good.ipynb").stat().st_mtime_ns
    code, out, _ = call(capsys, *command, "--resume")
    assert code == 0, out
    assert out.count("kept: it was finished before") == 1
    assert "02_kernel …" in out and "03_process …" in out and "01_good …" not in out
    assert (tmp_path / "runs" / "01_good" / "01_good.ipynb").stat().st_mtime_ns == kept
    code, out, _ = call(capsys, "results", tmp_path / "runs")
    assert code == 0 and out.count("done") == 3


def left_over(folder):
    """Notebook processes that were started in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "ipykernel_launcher" in str(process.info["cmdline"]) and process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_what_resume_keeps(lessons, tmp_path, monkeypatch):
    """Everything but the running itself: a changed notebook, other parameters, lost and damaged files."""
    ran = []

    def execute(notebook, *, values, environment, **others):
        ran.append(values)
        row = {"lesson": "a", "preset": values["preset"], "seed": 0, "metrics": {}, "claims": [], "seconds": 1.0}
        catalogue.write_row(row, Path(environment["PFMCOURSE_LEDGER"]))
        return "broken" if values.get("left") == 13 else None

    monkeypatch.setattr(running, "execute", execute)
    monkeypatch.setattr(running, "write_html", lambda notebook, html: html.write_text("", encoding="utf-8"))
    (card,) = lessons(a="print(1)")

    def runs_again(preset="smoke", seed=None, **values):
        before = len(ran)
        run = running.run(card, preset, seed, values, output=tmp_path / "runs", resume=True)
        assert run.kept == (len(ran) == before)
        return not run.kept

    assert runs_again() and not runs_again()
    assert not runs_again(seed=0) and not runs_again(left=2)  # the notebook's own values, spelled out
    assert runs_again(seed=1) and runs_again(left=3) and runs_again("laptop") and runs_again()
    assert runs_again(left=13) and runs_again(left=13)  # it failed
    assert runs_again()

    notebook = nbformat.read(card.notebook, as_version=4)
    notebook.cells[2].source = "## Other words"
    nbformat.write(notebook, card.notebook)
    assert not runs_again()
    notebook.cells[3].source = "print(2)"
    nbformat.write(notebook, card.notebook)
    assert runs_again() and not runs_again()

    folder = tmp_path / "runs" / "01_a"
    for name in ("state.json", "results.json", "01_a.html", "01_a.ipynb"):
        (folder / name).unlink()
        assert runs_again() and not runs_again()
    for name in ("state.json", "results.json"):
        (folder / name).write_text("[{", encoding="utf-8")
        assert runs_again() and not runs_again()
    (folder / "state.json").write_text('{"ok": true}', encoding="utf-8")
    assert runs_again() and not runs_again()


def test_a_run_that_is_cut_off_has_no_state(lessons, tmp_path, monkeypatch):
    (card,) = lessons(a="print(1)")
    folder = tmp_path / "runs" / "01_a"
    folder.mkdir(parents=True)
    (folder / running.STATE).write_text("{}", encoding="utf-8")

    def cut_off(*arguments, **options):
        assert not (folder / running.STATE).exists()
        raise SystemExit

    monkeypatch.setattr(running, "execute", cut_off)
    with pytest.raises(SystemExit):
        running.run(card, "smoke", output=tmp_path / "runs")
    (run,) = batch.gather(tmp_path / "runs", [card])
    assert run.error == batch.UNFINISHED
    with running.own_folder("01_a", tmp_path / "runs"):
        assert next(batch.gather(tmp_path / "runs", [card])).error == batch.GOING_ON


PROGRAM = """
import sys
from pathlib import Path
from pfmcourse import catalogue
from pfmcourse.course import batch

if __name__ == "__main__":
    cards = list(catalogue.lessons(Path(sys.argv[1])).values())
    for run in batch.run_all(cards, "smoke", jobs=2, output=Path(sys.argv[2])):
        print(run.card.id, "|", run.error)
"""

SLEEP = """
from pathlib import Path
print("before", flush=True)
Path(lesson.row["lesson"] + ".on").touch()
time.sleep(600)
"""


def sleeping(cards, tmp_path, count):
    """Start a batch in a process of its own; returns it once ``count`` of its lessons sleep."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(program), str(cards[0].folder), str(tmp_path / "runs")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(cards[0].folder.glob("*.on"))) < count and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    return process


@posix
def test_ctrl_c_ends_every_process_and_says_what_is_done(lessons, tmp_path):
    process = sleeping(lessons(a=SLEEP, b=SLEEP, c="print(3)"), tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the batch and to its lessons
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines() == [
        f"a | {running.INTERRUPTED}",
        f"b | {running.INTERRUPTED}",
        f"c | {batch.NOT_STARTED}",
    ]
    assert "Traceback" not in err
    assert "before" in (tmp_path / "runs" / "01_a" / "01_a.ipynb").read_text(encoding="utf-8")
    assert not left_over(tmp_path)


@posix
def test_a_batch_that_is_killed_takes_its_lessons_along(lessons, tmp_path):
    process = sleeping(lessons(a=SLEEP), tmp_path, 1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert left_over(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert running.read_state(tmp_path / "runs" / "01_a")["ok"] is False


def test_the_command_line_after_ctrl_c(lessons, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli.console, "_width", 160)
    cards = lessons(a="", b="")
    ends = [running.INTERRUPTED, batch.NOT_STARTED]
    made = [batch._nothing(card, "smoke", tmp_path, error) for card, error in zip(cards, ends, strict=True)]
    monkeypatch.setattr(batch, "run_all", lambda *arguments, **options: made)
    code, out, _ = call(capsys, "run", "--all", "--output", tmp_path)
    assert code == 130
    assert "01_a" in out and "not started" in out


def test_memory_decides_what_starts_next(lessons, monkeypatch):
    cards = lessons(large="", small="")  # 1,000 and 1,001 MB; at smoke the laptop's figures stand in
    free = []
    monkeypatch.setattr(batch, "free_memory", lambda: free[0])

    def job(needs, now):
        return batch._Job(cards[0], None, None, None, None, needs, now=now)

    free[:] = [10.0]
    assert batch._next(cards, [], "smoke") is cards[0]  # nothing is running: it is tried
    assert batch._next(cards, [job(500, 500)], "smoke") is None
    free[:] = [1000.5]
    assert batch._next(cards, [job(500, 600)], "smoke") is cards[0]
    assert batch._next(cards[::-1], [job(500, 600)], "smoke") is cards[0]  # the one that fits
    assert batch._next(cards, [job(500, 400)], "smoke") is None  # 100 MB are still to be taken
    assert batch.free_memory() == 1000.5


def test_shares(monkeypatch):
    monkeypatch.setattr(batch, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [batch.share(jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert batch.share(2) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert batch.share(2) == 4


def test_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 7,-1")
    assert batch.gpus() == ["2", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert batch.gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert batch.gpus() == []
    said = ["0\n1\n"]
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, said[0]))
    assert batch.gpus() == ["0", "1"]

    def broken(*arguments, **options):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(subprocess, "run", broken)
    assert batch.gpus() == []


@pytest.mark.parametrize("devices", [["0"], []])
def test_one_gpu_is_everybodys(devices):
    assert batch._free_gpu(devices, []) is None


def test_bad_input_is_found_before_anything_runs(lessons, tmp_path, capsys):
    cards = lessons(a="", b="")
    with pytest.raises(UnknownName, match="unknown parameter 'lft'"):
        batch.run_all(cards, "smoke", values={"lft": 1}, output=tmp_path / "runs")
    with pytest.raises(UnknownName, match="unknown preset"):
        batch.run_all(cards, "large", output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(CourseError, match="--output"):
        list(batch.gather(tmp_path / "nothing", cards))
    code, out, err = call(capsys, "results", tmp_path / "nothing")
    assert code == 2 and "--output" in err and not out


def test_an_output_folder_that_cannot_be_made(lessons, tmp_path):
    cards = lessons(a="", b="")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CourseError, match="Choose another one with --output"):
        batch.run_all(cards, "smoke", jobs=2, output=tmp_path / "file")


def test_the_bare_names(lessons, capsys):
    lessons(b="", a="")
    assert call(capsys, "list", "--ids")[1] == "b\na\n"


def test_gathering_names_what_was_not_run(lessons, tmp_path):
    cards = lessons(a="", b="")
    (tmp_path / "01_abc").mkdir()  # another lesson's, and a file
    (tmp_path / "01_a-2.txt").touch()
    assert [run.error for run in batch.gather(tmp_path, cards)] == [batch.NOT_RUN] * 2
    for name in ("01_a-10", "01_a-2", "01_a"):
        (tmp_path / name).mkdir()
    assert [path.name for path in running.folders(cards[0], tmp_path)] == ["01_a", "01_a-2", "01_a-10"]
