"""nbgrader reads the student copies, and grades right, wrong and missing answers."""

import csv
import os
import re
import subprocess
import sys

import nbformat
import pytest

from pfmcourse.course import kernel, student

if os.environ.get("PFMCOURSE_BROWSER") != "required":  # CI has what lecturers install, and wants this to run
    pytest.importorskip("nbgrader")

MISTAKE = "one too few: did you stop before the last?"
RIGHT = "return x + {number}"
WARNS = "import warnings; warnings.warn('slow'); return x + {number}"
WRONG = "return x + {number} - 1"


def edited(path, edit):
    """Write the notebook at ``path`` again, with ``edit`` applied to the source of each code cell."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = edit(cell.source)
    nbformat.write(notebook, path)


def with_difficulties(source):
    """The tiny lesson's exercises, one of each difficulty, and a checker that names a mistake."""
    for number, word in ((2, "medium"), (3, "hard")):
        if f"### Exercise {number}" in source:
            source = source.replace("Difficulty: easy", f"Difficulty: {word}")
    return re.sub(r"(assert function\(1\) == 1 \+ \d)", rf"\1, {MISTAKE!r}", source)


def answering(**answers):
    """Puts the answers in the places of the requests: ``one`` to exercise 1 and so on. Others stay unanswered."""

    def edit(source):
        for number, name in enumerate(("one", "two", "three"), start=1):
            request = f'raise NotImplementedError("{student.REQUEST.format(task=f"Exercise {number}")}")'
            source = source.replace(request, answers.get(name, request).format(number=number))
        return source

    return edit


def nbgrader(folder, lessons, *arguments):
    """Run nbgrader in its course folder; what the lesson needs to know it has to tell the lesson itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PFMCOURSE")}
    environment |= {"PYTHONPATH": str(lessons), "JUPYTER_CONFIG_DIR": str(folder / "jupyter")}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    for _ in range(kernel.STARTS):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
        if "Kernel died before replying" not in done.stderr:  # another program took its port
            break
    assert done.returncode == 0, done.stderr
    return done.stderr


def outputs(path):
    """The text of all outputs of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(
        output.get("text", "") or output.get("evalue", "") for cell in cells for output in cell.get("outputs", [])
    )


@pytest.mark.slow
def test_a_class_is_graded(tiny, tmp_path):
    card, course = tiny(), tmp_path / "class"
    edited(card.notebook, with_difficulties)
    student.write_nbgrader([card], course)
    (copy,) = student.write_copies([card], tmp_path / "copies")
    before = copy.read_bytes()

    nbgrader(course, card.folder, "generate_assignment", card.name)
    released = course / "release" / card.name / card.notebook.name
    theirs, ours = (nbformat.read(path, as_version=4).cells for path in (released, copy))
    for number in (1, 2, 3):
        for cell in ours:
            cell.source = cell.source.replace(f"Exercise {number}. Your answer", "this exercise. Your answer")
    assert [cell.source for cell in theirs] == [cell.source for cell in ours]

    class_of = {
        "ada": answering(one=RIGHT, two=WARNS, three=RIGHT),
        # bob's second answer is wrong, and he takes the checkers away
        "bob": lambda source: answering(one=RIGHT, two=WRONG, three=RIGHT)(source).replace("check.plus(plus)", "pass"),
        "cyd": lambda source: source,
    }
    for name, edit in class_of.items():
        path = course / "submitted" / name / card.name / card.notebook.name
        path.parent.mkdir(parents=True)
        path.write_bytes(before)
        edited(path, edit)
    nbgrader(course, card.folder, "autograde", card.name, "--create")

    nbgrader(course, card.folder, "export", "--to", "grades.csv")
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        found = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert found == {"ada": (6, 6), "bob": (4, 6), "cyd": (0, 6)}
    said = {name: outputs(course / "autograded" / name / card.name / card.notebook.name) for name in class_of}
    assert said["bob"].count(MISTAKE) == 1 and MISTAKE not in said["ada"] + said["cyd"]
    assert said["cyd"].count("Your turn: Exercise") == 3
    assert all("SKIPPED" in text for text in said.values()), "the lesson should run at the smoke preset"
    assert (course / "ledger.json").is_file()
