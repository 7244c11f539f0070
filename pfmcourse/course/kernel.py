"""A Jupyter kernel of the Python that is running now.

Notebooks name the kernel ``python3``. Which interpreter that is depends on the kernelspecs a machine happens to have:
another environment may have registered one, or none may be there. A course must run with its own packages, so it asks
for the current interpreter itself.
"""

import sys
from collections.abc import Mapping

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

NAME = "python3"
LANGUAGE = "python"


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
