"""Every checker: an exercise calls it, its solution passes, its stub does not, and it names at least three mistakes.

Whole lessons, with the solutions in their places, run at the smoke preset in `pfmcourse verify --preset smoke`.
"""

import ast
import builtins
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

from pfmcourse import catalogue
from pfmcourse.checks import CheckFailed
from pfmcourse.course import student
from pfmcourse.course.run import read_notebook

CARDS = {card.id: card for card in catalogue.lessons().values()}
MODULES = {name: importlib.import_module(f"pfmcourse.checks.{name}") for name in CARDS}
HERE = Path(__file__).parent


def public(module):
    """The checkers of a module, in their order."""
    return [
        name
        for name, one in vars(module).items()
        if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
    ]


EVERY = [(lesson, name) for lesson, module in MODULES.items() for name in public(module)]
each_checker = pytest.mark.parametrize(("lesson", "name"), EVERY, ids=[".".join(pair) for pair in EVERY])


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def called(cell):
    """The checkers that a cell calls."""
    calls = [node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [call.attr for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call.value) == "check"]


def exercise(notebook, name):
    """(number of the exercise, its answer cell, its test cell) of the exercise that calls a checker."""
    for answer in code(notebook):
        note = answer.metadata.get("nbgrader", {})
        if not note.get("solution"):
            continue
        (test,) = [
            cell
            for cell in code(notebook)
            if cell.metadata.get("nbgrader", {}).get("grade_id") == note.grade_id.replace("-answer", "-test")
        ]
        if name in called(test):
            return int(note.grade_id.split("-")[-2]), answer, test
    raise AssertionError(f"no exercise calls check.{name}")


NOTEBOOKS = {}


def both(lesson):
    """The lesson and its student copy, with each answer and its test in two cells."""
    if lesson not in NOTEBOOKS:
        card = CARDS[lesson]
        notebook = read_notebook(card.notebook)
        NOTEBOOKS[lesson] = tuple(
            make(notebook, lesson, card.name) for make in (student.for_nbgrader, student.student_copy)
        )
    return NOTEBOOKS[lesson]


def names(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def bound(statement):
    """The names that a simple statement gives a meaning to: imports, functions and classes, but no results."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    return {statement.name} if isinstance(statement, ast.FunctionDef | ast.ClassDef) else set()


def namespace(notebook, until, wanted):
    """What the cells before ``until`` import and define of the ``wanted`` names, and of those that these need."""
    before = code(notebook)[: code(notebook).index(until)]
    statements = [
        statement
        for cell in before
        if not cell.source.lstrip().startswith("%")
        for statement in ast.parse(cell.source).body
    ]
    kept, wanted, known = [], set(wanted), set(dir(builtins))
    for statement in reversed(statements):
        if new := (bound(statement) & wanted) - known:
            known |= new
            wanted |= names(ast.unparse(statement))
            kept.insert(0, statement)
    space = {"__name__": "a lesson"}
    for statement in kept:
        exec(compile(ast.Module([statement], []), "a lesson", "exec"), space)
    return space


def answered(notebook, name):
    """The names of an exercise after its answer cell was run, and the source of its test cell."""
    _, answer, test = exercise(notebook, name)
    space = namespace(notebook, answer, names(answer.source) | names(test.source))
    exec(compile(answer.source, "answer", "exec"), space)
    return space, test.source


def test_every_lesson_has_checkers_and_tests_of_them():
    folder = Path(inspect.getfile(importlib.import_module("pfmcourse.checks"))).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(CARDS)
    assert {path.stem for path in HERE.glob("test_*.py")} == {f"test_{name}" for name in CARDS} | {Path(__file__).stem}


@pytest.mark.parametrize("lesson", CARDS)
def test_each_checker_belongs_to_one_exercise(lesson):
    notebook, _ = both(lesson)
    calls = [name for cell in code(notebook) for name in called(cell)]
    assert calls == public(MODULES[lesson]), "each checker once, in the order of the exercises"
    numbers = [exercise(notebook, name)[0] for name in calls]
    assert numbers == list(range(1, len(calls) + 1))
    for number, name in zip(numbers, calls, strict=True):
        assert getattr(MODULES[lesson], name).__doc__.startswith(f"Exercise {number}: ")


@each_checker
def test_the_solution_passes(lesson, name, capsys):
    space, test = answered(both(lesson)[0], name)
    exec(test, space)
    assert capsys.readouterr().out.startswith("Well done: ")


def in_double_precision(found):
    """What a function returned, as NumPy's users get it."""
    if isinstance(found, tuple | list):
        return type(found)(in_double_precision(one) for one in found)
    return found.double() if isinstance(found, torch.Tensor) and found.is_floating_point() else found


@each_checker
def test_the_solution_passes_in_double_precision(lesson, name):
    space, test = answered(both(lesson)[0], name)
    for argument in names(test) & {one for one, value in space.items() if inspect.isfunction(value)}:
        space[argument] = lambda *given, solved=space[argument]: in_double_precision(solved(*given))
    exec(test, space)


@each_checker
def test_the_stub_does_not_pass_and_is_kind_about_it(lesson, name, capsys):
    notebook, copy = both(lesson)
    number, _, _ = exercise(notebook, name)
    space, test = answered(copy, name)
    with pytest.raises(NotImplementedError, match=f"^Your turn: Exercise {number}. Your answer replaces this line"):
        exec(test, space)
    assert capsys.readouterr().out == ""


# Mistakes ------------------------------------------------------------------------------------------------------------


class Listener:
    """Stands in for a module of checkers, and keeps what they say of the wrong answers."""

    def __init__(self, module):
        self.module, self.said = module, []

    def __getattr__(self, name):
        def heard(*answers):
            try:
                getattr(self.module, name)(*answers)
            except CheckFailed as error:
                self.said.append(str(error))
                raise

        return heard


def cases(function):
    """The argument sets of a parametrised test, by name."""
    (mark,) = [mark for mark in function.pytestmark if mark.name == "parametrize"]
    names, sets = mark.args
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    for one in sets:
        one = getattr(one, "values", one)
        yield dict(zip(names, one if len(names) > 1 else [one], strict=True))


TESTS = {}


def module_of_tests(lesson):
    """The module with the tests of a lesson's checkers; a fresh copy, so that its checkers can be listened to."""
    if lesson not in TESTS:
        spec = importlib.util.spec_from_file_location(f"heard_{lesson}", HERE / f"test_{lesson}.py")
        TESTS[lesson] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(TESTS[lesson])
    return TESTS[lesson]


def kinds(said):
    """The different mistakes that are named; numbers aside, and without what names none."""
    unnamed = ("returned None", "expected")  # "expected 3, got 4" says that it is wrong, not why
    texts = {re.sub(r"-?\d+(\.\d+)?", "#", text) for text in said}
    return {text for text in texts if not any(word in text for word in unnamed)}


@each_checker
def test_each_checker_names_three_mistakes_that_people_make(lesson, name):
    module = module_of_tests(lesson)
    module.check = Listener(MODULES[lesson])
    function = getattr(module, f"test_{name}_names_the_mistake")
    count = 0
    for count, case in enumerate(cases(function), start=1):  # noqa: B007
        function(**case)
    assert count == len(module.check.said) >= 3
    assert len(kinds(module.check.said)) >= 3, sorted(kinds(module.check.said))


@each_checker
@pytest.mark.parametrize("odd", [0.0, [], (0.0, 1.0), torch.zeros(2, 3, 4)], ids=["number", "list", "pair", "tensor"])
def test_an_answer_of_another_type_does_not_pass(lesson, name, odd):
    checker = getattr(MODULES[lesson], name)
    answers = [lambda *arguments: odd] * len(inspect.signature(checker).parameters)
    with pytest.raises(CheckFailed):
        checker(*answers)
