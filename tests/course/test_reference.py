"""The reference is read from the source: signatures as they stand, comments of fields, nothing private."""

import textwrap

import pytest

from pfmcourse.course import reference

SOURCE = '''
"""Sums: what `add` gives. More about it."""

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

HIDDEN = 1


@dataclass(frozen=True)
class Sizes(Base):
    """How large things are."""

    width: int  # numbers in a row, *not* bytes
    names: tuple[str, ...] = tuple(name for name in "ab")
    _cache: int = 0

    @property
    def area(self) -> int:
        """Width times width."""

    @classmethod
    def of(cls, width: int) -> "Sizes":
        """Made of a width."""

    def without_a_docstring(self): ...


class Bad(ValueError):
    """Something is bad."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


def add(
    left: Float[Tensor, "*batch dim"],  # one
    *, right: Float[Tensor, "*batch dim"] | None = None,
) -> Float[Tensor, "*batch dim"]:
    """Add two tensors.

    Args:
        left: the first one
    """


def _private():
    """Not for you."""
'''


@pytest.fixture
def page(tmp_path):
    pytest.importorskip("sphinx")
    path = tmp_path / "sums.py"
    path.write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    return reference.page("pfmcourse.sums", path)


def test_signatures_stand_as_written(page):
    assert page.startswith("pfmcourse.sums\n==============\n\n.. py:module:: pfmcourse.sums\n\nSums: what `add` gives.")
    shape = "Float[Tensor, '*batch dim']"
    assert f".. py:function:: add(left: {shape}, *, right: {shape} | None=None) -> {shape}" in page
    assert ":param left: the first one" in page
    assert ".. py:class:: Sizes(width: int, names: tuple[str, ...] = ...)" in page
    assert ".. py:exception:: Bad(why: str)" in page
    assert "   .. py:property:: area\n      :type: int\n" in page
    assert "   .. py:method:: of(width: int) -> 'Sizes'\n      :classmethod:\n" in page


def test_comments_of_fields_are_shown_and_private_things_are_not(page):
    assert "* ``width``: numbers in a row, \\*not\\* bytes" in page
    assert "Extends `Base`." in page
    for name in ("_private", "_cache", "HIDDEN", "without_a_docstring"):
        assert name not in page


def test_every_module_has_a_sentence():
    modules = reference.modules()
    assert len(modules) > 90 and "pfmcourse.nn.attention" in modules and "pfmcourse.cli" not in modules
    assert next(iter(modules)) == "pfmcourse"
    for name, path in modules.items():
        assert len(reference.sentence(path)) > 15, name
