"""A Jupyter kernel of the Python that is running now.

Notebooks name the kernel ``python3``. Which interpreter that is depends on the kernelspecs a machine happens to have:
another environment may have registered one, or none may be there. A course must run with its own packages, so it asks
for the current interpreter itself.

A kernel's ports are chosen before its process binds them, so that any other process may take one in between, and the
kernel dies at its start. On a machine that runs many kernels this does happen; starting again is the remedy.
"""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

NAME = "python3"
LANGUAGE = "python"
STARTS = 4  # how often a kernel is started before its failure is taken to be more than a lost port

Result = TypeVar("Result")


def lost_at_start(error: RuntimeError) -> bool:
    """Whether ``error`` is how Jupyter's clients say that a kernel died, or kept silent, before its first answer."""
    return str(error).startswith(("Kernel died before replying", "Kernel didn't respond"))


def patiently(start: Callable[[], Result]) -> Result:
    """``start()``, which starts a kernel; again, up to ``STARTS`` times, while the kernel is lost at its start."""
    for _ in range(STARTS - 1):
        try:
            return start()
        except RuntimeError as error:
            if not lost_at_start(error):
                raise
    return start()


def manager_class(environment: Mapping[str, str]) -> type[AsyncKernelManager]:
    """A kernel manager whose kernels run ``sys.executable`` with ``environment`` added to this process's own."""
    spec = KernelSpec(
        # log level critical: errors of cells are in the notebook, and the rest is about the transport
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=50"],
        # jupyter_client fills in $NAME in these values; $$ keeps a dollar sign in a path a dollar sign
        env={name: value.replace("$", "$$") for name, value in environment.items()},
        display_name="Python 3 (ipykernel)",
        language=LANGUAGE,
        interrupt_mode="signal",
    )

    class CurrentInterpreter(AsyncKernelManager):
        """Starts the interpreter that runs this code, whatever kernelspecs are registered."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return CurrentInterpreter
