"""Formulas and pictures of an HTML copy, in a browser without a network."""

import nbformat
import pytest

from pfmcourse.course import browser, formulas, run


@pytest.fixture
def page_of(tmp_path):
    def write(source):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
        nbformat.write(notebook, tmp_path / "one.ipynb")
        run.write_html(tmp_path / "one.ipynb", tmp_path / "one.html")
        return (tmp_path / "one.html").as_uri()

    return write


def test_mathjax_is_installed_with_the_course():
    assert formulas.script().name == "tex-svg.js"


def test_formulas_are_set_without_a_network(page_of, chrome):
    with browser.window(chrome) as (page, wrong):
        page.goto(page_of("Euler: $e^{i\\pi} = -1$, and $$\\sum_i p_i = 1$$"))
        page.wait_for_selector("mjx-container")
        assert page.locator("mjx-container").count() == 2
        assert wrong == []


def test_a_copy_on_another_machine_asks_the_network(page_of, chrome, monkeypatch, tmp_path):
    gone = tmp_path / "tex-svg.js"
    monkeypatch.setattr(formulas, "script", lambda: gone)
    with browser.window(chrome) as (page, wrong):
        page.goto(page_of("$x$"))
        page.wait_for_timeout(200)
    assert f"asks another host: {formulas.NETWORK}" in wrong


def test_without_the_package_the_network_is_asked(page_of, chrome, monkeypatch):
    monkeypatch.setattr(formulas, "PACKAGE", "no_package_of_this_name")
    assert formulas.script() is None
    with browser.window(chrome) as (page, wrong):
        page.goto(page_of("$x$"))
        page.wait_for_timeout(200)
    assert wrong == [f"asks another host: {formulas.NETWORK}"]
