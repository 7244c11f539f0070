"""The rules of a lesson accept a sound notebook, and each of them notices what it is there for."""

import json

import nbformat
import pytest

from pfmcourse.course import anatomy


def test_a_sound_notebook_breaks_no_rule(built):
    card, notebook, _ = built
    assert anatomy.problems(notebook, card) == []


def find(notebook, start):
    return next(cell for cell in notebook.cells if start in cell.source)


def edit(start, old, new):
    def breaking(notebook):
        cell = find(notebook, start)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return breaking


def append(code):
    def breaking(notebook):
        find(notebook, "from standin").source += "\n" + code

    return breaking


def say(text):
    def breaking(notebook):
        find(notebook, "## The idea").source += "\n\n" + text

    return breaking


def each_cell(change):
    def breaking(notebook):
        for cell in notebook.cells:
            change(cell)

    return breaking


def no_alt(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.metadata = nbformat.from_dict({})


def error_output(notebook):
    output = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    find(notebook, "from standin").outputs = [output]


def tag_silent_cell(notebook):
    find(notebook, "from standin").metadata["tags"] = ["nbval-check-output"]


def resumed_output(notebook):
    find(notebook, "lesson.finish")["outputs"] = [nbformat.v4.new_output("stream", text="9 steps · resumed at step 3")]


def swap_sections(notebook):
    one, other = find(notebook, "## By hand"), find(notebook, "## The data")
    one.source, other.source = other.source, one.source


BREAKING = [
    ("title", edit("# A tiny lesson", "# A tiny lesson", "# Another")),
    ("title", edit("## Exercises", "## Exercises", "# Exercises")),
    ("sections", edit("## Adapt it", "## Adapt it", "## Adaptation")),
    ("sections", swap_sections),
    ("heading_levels", edit("## By hand", "Words", "#### Deep\nWords")),
    ("parameters_cell", lambda notebook: find(notebook, "preset = None").metadata.pop("tags")),
    ("parameters_cell", edit("preset = None", "preset = None", 'preset = "laptop"')),
    ("parameters_cell", edit("from standin", 'Lesson("tiny"', 'Lesson("other"')),
    ("execution", lambda notebook: find(notebook, "lesson.finish").__setitem__("execution_count", None)),
    ("execution", error_output),
    ("execution", resumed_output),
    ("ids", lambda notebook: notebook.cells[4].__setitem__("id", "abc")),
    ("metadata", lambda notebook: notebook.metadata.pop("kernelspec")),
    ("metadata", each_cell(lambda cell: cell.metadata.__setitem__("papermill", {}))),
    ("line_length", append("x = 1" + " " * 100 + "# far out")),
    ("size", append("# " + "x\n# " * 400_000)),
    ("alt_text", no_alt),
    ("alt_text", say("![](picture.png)")),
    ("alt_text", say('<img src="picture.png">')),
    ("checked_cells", each_cell(lambda cell: cell.metadata.pop("tags", None))),
    ("checked_cells", tag_silent_cell),
    ("offline", append("!ls")),
    ("offline", append("%pip install numpy")),
    ("offline", append("import requests")),
    ("offline", append("from urllib.request import urlopen")),
    ("offline", append('hub.hf_hub_download("gpt2")')),
    ("offline", append('os.system("ls")')),
    ("offline", append('model = GPT2.from_pretrained("gpt2")')),
    ("exercises", edit("### Exercise 2", "### Exercise 2", "### Task 2")),
    ("exercises", edit("### Exercise 2", "Difficulty: easy", "Easy")),
    ("exercises", edit("### Exercise 2", "5 minutes", "a moment")),
    ("exercises", edit("Add 2.", "check.plus(plus)", "plus(1)")),
    ("exercises", edit("Add 2.", "    ### BEGIN SOLUTION\n", "")),
    ("solutions", edit("Add 2.", "    ### END SOLUTION\n", "")),
    ("solutions", edit("Add 2.", '    """Add 2."""\n    ### BEGIN', "### BEGIN")),
    ("claims", edit("lesson.record", "lesson.claim(", "print(")),
    ("claims", edit("lesson.finish", "lesson.finish()", "pass")),
    ("finished", append("# TODO: the real run")),
    ("slides", lambda notebook: find(notebook, "## Scale it").metadata.pop("slideshow")),
    ("slides", lambda notebook: find(notebook, "## Scale it").metadata.slideshow.__setitem__("slide_type", "page")),
    ("typed_results", say("It reaches 93.1 % in the end.")),
    ("typed_results", say("<!-- slide\nIt reaches 93.1 % in the end.\n-->")),
    ("typed_results", say("That is 2.5 points better.")),
    ("typed_results", say("The accuracy is 0.93 then.")),
    ("typed_results", say("We see 93% accuracy.")),
]


@pytest.mark.parametrize(("rule", "breaking"), BREAKING, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BREAKING)])
def test_each_rule_notices(built, rule, breaking):
    card, notebook, _ = built
    breaking(notebook)
    assert list(anatomy.RULES[rule](notebook, card)), f"{rule} did not notice"


def test_every_rule_is_tried():
    assert {rule for rule, _ in BREAKING} == set(anatomy.RULES)


@pytest.mark.parametrize(
    "prose",
    [
        "A 95 % interval over five seeds.",
        "Half the words, some 50 % of them.",
        "The formula $p = 0.93$ and `accuracy = 0.93`.",
        "Published in 2013; version 1.2 of it.",
        "```\naccuracy 0.93 %\n```",
    ],
)
def test_numbers_that_are_no_results_may_stand_in_prose(built, prose):
    card, notebook, _ = built
    say(prose)(notebook)
    assert list(anatomy.RULES["typed_results"](notebook, card)) == []


def test_real_weights_may_be_loaded_where_the_cell_asks_for_the_network(built):
    card, notebook, _ = built
    append('if not offline.active():\n    model = GPT2.from_pretrained("gpt2")')(notebook)
    assert list(anatomy.RULES["offline"](notebook, card)) == []


def test_headings_of_a_slide_are_no_headings(built):
    card, notebook, _ = built
    notebook.cells[1:1] = [nbformat.v4.new_markdown_cell("<!-- slide\n# Another title\n-->", id="x")]
    assert list(anatomy.RULES["title"](notebook, card)) == []


def test_headings_in_code_blocks_are_no_headings(built):
    _, notebook, _ = built
    say("```\n# a comment\n```")(notebook)
    assert all(text != "a comment" for _, _, text in anatomy.headings(notebook))


def test_the_notebook_is_json_that_nbformat_accepts(built):
    card, notebook, _ = built
    nbformat.validate(notebook)
    assert json.loads(card.notebook.read_text(encoding="utf-8"))["nbformat_minor"] == 5
