"""Parameters typed on the command line."""

import pytest

from pfmcourse.course import parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("none", None),
        ("[1, 2]", [1, 2]),
        ("adamw", "adamw"),
        ("'3'", "3"),
        ("a=b", "a=b"),
        ("__import__('os')", "__import__('os')"),
        ("", ""),
    ],
)
def test_what_a_text_means(text, value):
    parsed = parameters.parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("default", "value"), [(None, "x"), (0.5, 1), (3, None), ("a", "b"), ([1], [2, 3]), (True, False)]
)
def test_values_that_fit(default, value):
    parameters.check({"name": value}, {"name": default})
