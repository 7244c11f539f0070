"""A tiny lesson with everything that a lesson has, in a temporary folder, so that the course's tools can be tested."""

import copy
import json
import os
import textwrap

import jupytext
import nbformat
import pytest

from pfmcourse import catalogue
from pfmcourse.course import anatomy, browser, notebooks

CARD = {
    "id": "tiny",
    "number": 1,
    "title": "A tiny lesson",
    "part": "Roots",
    "summary": "Add two numbers.",
    "minutes": 5,
    "recipes": [],
    "data": [],
    "needs": [],
    "headline": "{sum:.0f} points in all",
    "papers": ["Nobody (2000): Sums"],
}

# Stands in for pfmcourse.lesson in the kernel: it needs no torch, and the lesson need not be in the real catalogue.
STANDIN = """
import os
from pathlib import Path

from pfmcourse.catalogue import write_row


class Lesson:
    def __init__(self, lesson, preset=None, seed=0):
        self.preset = preset or os.environ["PFMCOURSE_PRESET"]
        self.row = {"lesson": lesson, "preset": self.preset, "seed": seed, "metrics": {}, "claims": [], "seconds": 1.0,
                    "peak_memory_mb": 100.0, "hardware": {"device": "cpu", "cores": 2}}

    def record(self, metric, value, unit="", note=""):
        self.row["metrics"][metric] = {"value": float(value), "unit": unit, "note": note}

    def claim(self, text, holds, detail=""):
        smoke = self.preset == "smoke"
        self.row["claims"].append({"text": text, "holds": None if smoke else bool(holds), "detail": detail})
        print(f"{'SKIPPED' if smoke else 'PASS' if holds else 'FAIL':<8} {text}  [{detail}]")

    def finish(self):
        write_row(self.row, Path(os.environ["PFMCOURSE_LEDGER"]))
"""

HEAD = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # A tiny lesson
# Afterwards you can add.

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
left = 2
scale = 0.5

# %%
from standin import Lesson

lesson = Lesson("tiny", preset=preset, seed=seed)
"""


def _section(title, body):
    return f'\n# %% [markdown] slideshow={{"slide_type": "slide"}}\n# ## {title}\n# Words about it.\n{body}'


def _checked(code):
    return f'\n# %% tags=["nbval-check-output"]\n{code}\n'


EXERCISE = '''
# %% [markdown]
# ### Exercise {number}: add one
# Difficulty: easy, 5 minutes.

# %%
class check:
    @staticmethod
    def plus(function):
        assert function(1) == 1 + {number}


def plus(x):
    """Add {number}."""
    ### BEGIN SOLUTION
    secret = x + {number}
    return secret
    ### END SOLUTION


check.plus(plus)
'''

PICTURE = """
# %%
from IPython.display import Image, display

pixel = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
display(Image(pixel), metadata={"image/png": {"alt": "A black point"}})
"""

END = """
# %% tags=["nbval-check-output"]
lesson.record("sum", left + 1, "points")
lesson.claim("sums are positive", left + 1 > 0, f"{left + 1} > 0")
lesson.claim("sums commute", left + 1 == 1 + left, "equal")
lesson.claim("there is a sum", True, "yes")

# %%
lesson.finish()
"""


def text(middle="", end=END):
    """The lesson's text; ``middle`` is put under "Scale it"."""
    body = HEAD
    for title in anatomy.SECTIONS:
        inside = _checked(f"print({len(title)})") if title not in ("Exercises", "Claims and summary") else ""
        inside += PICTURE if title == "What did it learn?" else ""
        inside += middle if title == "Scale it" else ""
        inside += "".join(EXERCISE.format(number=number) for number in (1, 2, 3)) if title == "Exercises" else ""
        inside += end if title == "Claims and summary" else ""
        body += _section(title, inside)
    return body


def cell(code):
    """One more code cell of the text."""
    return f"\n# %%\n{textwrap.dedent(code).strip()}\n"


def write_lesson(folder, source):
    """A course folder with the one lesson of ``source``; returns its card. The notebook has no outputs yet."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "lessons.yaml").write_text(json.dumps([CARD]), encoding="utf-8")  # JSON is YAML
    (folder / "standin.py").write_text(STANDIN, encoding="utf-8")
    card = catalogue.card("tiny", folder)
    card.text.write_text(source, encoding="utf-8")
    nbformat.write(jupytext.read(card.text, fmt="py:percent"), card.notebook)
    return card


@pytest.fixture
def tiny(tmp_path):
    """Makes the lesson: ``tiny()`` is sound; ``tiny(code)`` has one more cell; ``tiny(end=...)`` another end."""

    def make(code=None, end=END):
        return write_lesson(tmp_path / "notebooks", text(cell(code) if code else "", end))

    return make


@pytest.fixture(scope="session")
def _built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    card = write_lesson(folder / "notebooks", text())
    run = notebooks.build(card, output=folder / "runs")
    assert run.ok, run.error
    return card, run


@pytest.fixture
def built(_built):
    """(card, executed notebook, run) of the lesson that `pfmcourse notebooks` made; the notebook is a copy."""
    card, run = _built
    return card, copy.deepcopy(nbformat.read(card.notebook, as_version=4)), run


@pytest.fixture(scope="session")
def chrome():
    """A headless browser; where there is none the test is skipped, unless PFMCOURSE_BROWSER=required, as in CI."""
    if os.environ.get("PFMCOURSE_BROWSER") != "required":
        pytest.importorskip("playwright")
        if browser.find() is None:
            pytest.skip("no Chromium, Chrome or Edge here")
    with browser.chromium() as started:
        yield started
