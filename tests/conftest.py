"""Every test runs offline, on one thread, with the shapes in the annotations checked as it goes."""

import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background: Ctrl+C has tests of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["PFMCOURSE_OFFLINE"] = "1"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from jaxtyping import install_import_hook  # noqa: E402

if not any(argument.startswith("tests/benchmarks") for argument in sys.argv):  # what is timed runs as users run it
    install_import_hook(
        [
            "pfmcourse.nn",
            "pfmcourse.models",
            "pfmcourse.evaluate",
            "pfmcourse.data",
            "pfmcourse.recipes",
            "pfmcourse.checks",
        ],
        "beartype.beartype",
    )

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
