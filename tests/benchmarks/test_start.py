"""How long a learner waits: the import, and a whole lesson with its peak memory."""

import os
import statistics
import subprocess
import sys
import time

from pfmcourse import catalogue
from pfmcourse.course.run import run


def test_import(report):
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    runs = [(seconds("import pfmcourse"), seconds("pass")) for _ in range(5)]
    took = statistics.median(ours - bare for ours, bare in runs)
    report("import_pfmcourse", seconds=took)
    assert took < 0.5


def test_lesson(report, tmp_path):
    threads = str(os.cpu_count())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = threads  # the kernel inherits them
    began = time.perf_counter()
    done = run(catalogue.card("word_vectors"), preset="laptop", output=tmp_path)
    took = time.perf_counter() - began
    assert done.ok, done.error
    report("lesson_word_vectors", seconds=took, peak_memory_mb=float(done.row["peak_memory_mb"]))
    assert took < 150
    assert done.row["peak_memory_mb"] < 2000
