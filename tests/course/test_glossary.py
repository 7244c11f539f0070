"""The glossary: complete, in two languages, and each term in the lesson that introduces it."""

import re
from collections import Counter

import jupytext
import pytest

from pfmcourse import catalogue
from pfmcourse.base import CourseError
from pfmcourse.course import site

TERMS = site.glossary()
CARDS = catalogue.lessons()


@pytest.fixture(scope="module")
def prose():
    """The text of each lesson by its id, on one line, without papers, formulas and code."""
    found = {}
    for card in CARDS.values():
        cells = jupytext.read(card.text, fmt="py:percent").cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        text = re.sub(r"\*\*Papers\.\*\*.*?\n\n|\$\$.*?\$\$|```.*?```|`[^`\n]+`", " ", text + "\n\n", flags=re.DOTALL)
        found[card.id] = " ".join(text.split())
    return found


def forms(term):
    """What prose may write for a term: the term, its aliases, each with a plural."""
    names = "|".join(re.escape(name) for name in (term.term, *term.aliases))
    return re.compile(rf"(?<![\w-])(?:{names})(?:s|es)?(?![\w-])", re.IGNORECASE)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.term)
def test_each_term_stands_in_the_lesson_that_introduces_it(term, prose):
    having = [lesson for lesson in CARDS if forms(term).search(prose[lesson])]
    assert term.lesson in having, f"{term.lesson} does not have it; {having} do"
    earlier = having[: having.index(term.lesson)]
    assert earlier == list(term.also_in), f"lessons before {term.lesson} that have it: {earlier}"


def test_the_search_for_a_term_finds_words_only():
    mask = site.Term("mask", "掩码", "transformer", "A table.")
    assert forms(mask).search("two Masks") and forms(mask).search("the mask.")
    assert not forms(mask).search("masking") and not forms(mask).search("a mask-like thing")


def test_every_lesson_introduces_some():
    count = Counter(term.lesson for term in TERMS)
    few = {lesson: count[lesson] for lesson in CARDS if count[lesson] < 3}
    assert not few and 60 <= len(TERMS) <= 120


def test_definitions_are_one_or_two_sentences_and_translations_differ():
    for term in TERMS:
        assert 1 <= len(re.findall(r"[.?!](?:\s|$)", term.definition)) <= 3, term.definition
        assert term.definition[0].isupper() and term.definition.endswith("."), term.definition
        assert len(term.definition) < 200, term.definition
    twice = [zh for zh, times in Counter(term.zh for term in TERMS).items() if times > 1]
    assert not twice, twice


GOOD = "- {term: patch, zh: 图像块, lesson: vit, definition: A square.}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD.replace("patch", "Patch"), "is there twice"),
        (GOOD.replace("图像块", "tuxiang"), "should be the Chinese term"),
        (GOOD.replace("vit", "vitt"), "Did you mean 'vit'"),
        (GOOD.replace("lesson:", "lessons:"), "an entry has the fields"),
        (GOOD.replace("}", ", alias: [x]}"), "Did you mean 'aliases'"),
        (GOOD.replace("}", ", also_in: [x]}"), "unknown lesson 'x'"),
        ("patch", "should be a list"),
        ("- [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = tmp_path / "glossary.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=message):
        site.glossary(path)


def test_a_good_one(tmp_path):
    path = tmp_path / "glossary.yaml"
    path.write_text(GOOD, encoding="utf-8")
    (term,) = site.glossary(path)
    assert (term.term, term.zh, term.lesson, term.aliases) == ("patch", "图像块", "vit", ())
