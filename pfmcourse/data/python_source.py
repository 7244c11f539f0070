"""The source of Python's own standard library: code that is on every learner's disk.

What is there differs a little between Python versions, so results on it do, too. Python Software Foundation License.
"""

import functools
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from pfmcourse import base

# Whole packages and modules, of very different kinds; what imports one of them is still in train.
VALIDATION = ("argparse.py", "urllib")
TEST = ("json", "statistics.py", "zipfile.py", "zipfile", "textwrap.py", "dataclasses.py")
# Tests, tables, other people's packages, and generated files: repetitive, and no pleasure to read.
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data", "lib2to3"}
LONGEST = 110_000  # characters; longer files are mostly tables


@dataclass(frozen=True)
class PythonSource:
    """The modules, by their path within the library, in alphabetical order."""

    modules: dict[str, str]

    def split(self, part: str) -> dict[str, str]:
        """The modules of ``train``, ``validation`` or ``test``: whole packages, so that no package is in two parts."""
        if part not in ("train", "validation", "test"):
            raise base.unknown_name("part", part, ("train", "validation", "test"))
        return {path: text for path, text in self.modules.items() if _part(path) == part}

    def text(self, part: str) -> str:
        """The part's modules in a row."""
        return "\n\n".join(self.split(part).values())


def _part(path: str) -> str:
    top = path.split("/")[0]
    return "test" if top in TEST else "validation" if top in VALIDATION else "train"


@functools.cache
def load() -> PythonSource:
    """The standard library of the Python that runs this. Raises CourseError where it comes without source."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if LEFT_OUT.isdisjoint(name.parts) and not name.name.startswith("_sysconfigdata"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if 0 < len(text) <= LONGEST and "\ufffd" not in text:
                modules[name.as_posix()] = text
    if not {"train", "validation", "test"} <= {_part(path) for path in modules}:
        raise base.CourseError(
            f"this Python has no source in {folder}. Install one from python.org, conda or your system's packages."
        )
    return PythonSource(modules)
