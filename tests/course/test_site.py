"""The site, built once and looked at in a real browser: every page, wide and narrow, light and dark, from disk."""

import importlib.util
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from filelock import FileLock

from pfmcourse import catalogue, timeline
from pfmcourse.base import CourseError, MissingPackage, repository
from pfmcourse.course import browser, reference, site

# What is on a page: links, targets, pictures, headings.
CONTENT = """() => ({
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  pictures: [...document.images].map(i => [i.src, i.getAttribute('alt') || '', i.naturalWidth]),
  headings: [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(h => h.checkVisibility())
    .map(h => [Number(h.tagName[1]), h.innerText]),
  skip: !!document.querySelector('a[href="#main-content"]'),
  unset: [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container svg')).length,
  raw: document.querySelector('main').innerText.match(/\\{\\{ \\w+ \\}\\}|:::|\\{term\\}/g) || [],
})"""

# The lowest contrast of each pair of colours in which text stands, below 4.5 (3 for large text): [ratio, text].
CONTRAST = """() => {
  const parse = c => { const p = c.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const v = c.slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const grounds = new Map();
  const ground = e => {
    if (!e) return [255, 255, 255, 1];
    if (!grounds.has(e)) {
      const own = parse(getComputedStyle(e).backgroundColor);
      grounds.set(e, own[3] >= 1 ? own : over(own, ground(e.parentElement)));
    }
    return grounds.get(e);
  };
  const seen = new Set(), bad = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || seen.has(e)) continue;
    seen.add(e);
    if (e.closest('mjx-assistive-mml, script, style, noscript')) continue;
    const style = getComputedStyle(e);
    const below = ground(e), colour = over(parse(style.color), below);
    const [a, b] = [light(colour), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5) && e.checkVisibility({visibilityProperty: true, opacityProperty: true})) {
      const pair = `${style.color} on ${below.map(Math.round)}`;
      bad[pair] = `${ratio.toFixed(2)}: ${walk.currentNode.data.trim().slice(0, 40)}`;
    }
  }
  return Object.entries(bad).map(([pair, text]) => `${pair}: ${text}`);
}"""

WIDTH = """() => {
  const boxes = 'pre, table, .pst-scrollable-table-container, mjx-container, .sig, .picture-scroll, .headerlink';
  const wide = [...document.querySelectorAll('main article *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(boxes));
  return [document.documentElement.scrollWidth, wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80))];
}"""


PHONE, DESK = (390, 800), (1280, 800)


def required():
    return os.environ.get("PFMCOURSE_BROWSER") == "required"


def once(factory, name, make):
    """What ``make(folder)`` returns, made by whichever test process comes first."""
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with FileLock(f"{folder}.lock"):
        made = folder.with_suffix(".json")
        if not made.is_file():
            made.write_text(json.dumps(make(folder)), encoding="utf-8")
        return json.loads(made.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    if not required():
        for package in site.PACKAGES:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
    return Path(once(tmp_path_factory, "site", lambda folder: str(site.build(folder, jobs=min(2, os.cpu_count())))))


@pytest.fixture(scope="session")
def pages(index):
    return sorted(index.parent.rglob("*.html"))


@pytest.fixture(scope="session")
def visits(index, pages, chrome, tmp_path_factory):
    """What a browser finds on each page, by the page's path."""

    def look(_):
        found = {}
        with browser.window(chrome, *PHONE, dark=True) as (page, wrong):
            for path in pages:
                name = path.relative_to(index.parent).as_posix()
                page.goto(path.as_uri())
                page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
                seen = page.evaluate(CONTENT)
                seen["width"], seen["wide"] = page.evaluate(WIDTH)
                seen["contrast"] = {"phone, dark": page.evaluate(CONTRAST)}
                if "reference/" not in name:  # these are alike; the rest is looked at in every way
                    for width, colours in ((PHONE, "light"), (DESK, "light"), (DESK, "dark")):
                        page.set_viewport_size({"width": width[0], "height": width[1]})
                        page.emulate_media(color_scheme=colours)
                        page.wait_for_function(f"document.documentElement.dataset.theme == '{colours}'")
                        seen["contrast"][f"{width[0]}, {colours}"] = page.evaluate(CONTRAST)
                    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
                found[name] = seen | {"wrong": list(wrong)}
                wrong.clear()
        return found

    return once(tmp_path_factory, "visits", look)


def complaints(visits, find):
    return {name: wrong for name, seen in visits.items() if (wrong := find(seen))}


def test_the_site_has_every_page(index, pages):
    names = {path.relative_to(index.parent).as_posix() for path in pages}
    assert names >= {f"lessons/{card.name}.html" for card in catalogue.lessons().values()}
    assert names >= {f"reference/{name}.html" for name in reference.modules()}
    assert names >= {"index.html", "results.html", "glossary.html", "data.html", "reference.html", "search.html"}
    assert ("teaching.html" in names) == (repository() / "docs" / "teaching.md").is_file()
    assert not (index.parent / "_sources").exists()


def test_no_page_has_an_error_or_asks_another_host(visits):
    assert not complaints(visits, lambda seen: seen["wrong"])


def test_no_link_is_broken(index, visits):
    ids = {name: set(seen["ids"]) for name, seen in visits.items()}
    broken = set()
    for name, seen in visits.items():
        for link in set(seen["links"]):
            parts = urlsplit(link)
            if parts.scheme != "file":
                assert parts.scheme in ("https", "http"), link
                continue
            target = Path(unquote(parts.path))
            inside = target.relative_to(index.parent).as_posix() if target.is_relative_to(index.parent) else None
            lost = parts.fragment and inside in ids and unquote(parts.fragment) not in ids[inside]
            if inside is None or not target.is_file() or lost:
                broken.add((name, link))
    assert not broken


def test_every_picture_is_there_and_has_an_alternative(visits):
    assert not complaints(
        visits, lambda seen: [src for src, alt, width in seen["pictures"] if not width or len(alt.strip()) < 10]
    )
    assert sum(len(seen["pictures"]) for seen in visits.values()) > 100


def test_headings_are_in_order(visits):
    def jumps(seen):
        levels = [level for level, _ in seen["headings"]]
        ones = levels.count(1)
        return ([f"{ones} first-level headings"] if ones != 1 else []) + [
            text for (before, _), (level, text) in zip(seen["headings"], seen["headings"][1:], strict=False)
            if level > before + 1
        ]  # fmt: skip

    assert not complaints(visits, jumps)


def test_formulas_are_set_and_nothing_is_left_raw(visits):
    assert not complaints(visits, lambda seen: seen["unset"])
    assert not complaints(visits, lambda seen: seen["raw"])


def test_pages_fit_a_phone(visits):
    assert not complaints(visits, lambda seen: seen["wide"] or seen["width"] > PHONE[0])


def test_text_can_be_read_in_the_light_and_in_the_dark(visits):
    assert not complaints(visits, lambda seen: {how: bad for how, bad in seen["contrast"].items() if bad})
    assert sum(len(seen["contrast"]) for seen in visits.values()) > len(visits) + 30


def test_there_is_a_link_past_the_navigation_and_the_focus_shows(index, chrome, visits):
    assert all(seen["skip"] for seen in visits.values())
    with browser.window(chrome) as (page, wrong):
        page.goto(index.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"
        for _ in range(4):
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            shadow = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
            assert outline != "none" or shadow != "none"
        assert not wrong


WORDS = [
    ("perplexity", "Word vectors"),
    ("perplexity", "Glossary: perplexity"),
    ("词向量", "Glossary"),
    ("causal_mask", "pfmcourse.nn.attention.causal_mask"),
]


@pytest.mark.parametrize(("word", "where"), WORDS)
def test_search_from_disk(index, chrome, word, where):
    with browser.window(chrome) as (page, wrong):
        page.goto(index.with_name("search.html").as_uri() + f"?q={word}")
        page.locator("#search-results ul.search li a", has_text=where).first.wait_for(timeout=10_000)
        assert not wrong


def test_the_first_page_says_in_words_what_the_timeline_shows(index, chrome):
    with browser.window(chrome) as (page, wrong):
        page.goto(index.as_uri())
        rows = page.eval_on_selector_all(".history tbody tr", "rows => rows.map(r => r.innerText.split('\\t'))")
        links = page.eval_on_selector_all(
            ".history tbody tr", "rows => rows.map(r => (r.querySelector('td:last-child a') || {}).pathname || '')"
        )
        assert not wrong
    cards = catalogue.lessons()
    wanted = {one.name: cards[one.lesson].name if one.lesson in cards else "" for one in timeline.entries()}
    assert {row[1].strip(): Path(link).stem for row, link in zip(rows, links, strict=True)} == wanted


def test_solutions_are_folded_away(index, chrome):
    with browser.window(chrome) as (page, wrong):
        page.goto(index.with_name("lessons").joinpath("02_word_vectors.html").as_uri())
        exercises = page.locator("section#exercises")
        assert "raise NotImplementedError" in exercises.inner_text()
        solution = exercises.locator("details").first
        assert solution.locator("summary").inner_text().strip() == "Show the solution"
        assert not solution.locator("pre").is_visible()
        solution.locator("summary").click()
        assert solution.locator("pre").is_visible() and not wrong


# Without a browser


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "PACKAGES", ("sphinx", "no_package_of_this_name"))
    with pytest.raises(MissingPackage, match=r"needs no_package_of_this_name.*requirements-teaching"):
        site.build(tmp_path / "site")


def test_a_folder_with_something_else_stays(tmp_path, index):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(CourseError, match="something else than a site"):
        site.build(tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_a_missing_notebook_is_named(tmp_path, tiny, index):
    card = tiny()
    card.notebook.unlink()
    with pytest.raises(CourseError, match=r"01_tiny\.ipynb is missing"):
        site.build(tmp_path / "site", cards={card.id: card})
    assert not (tmp_path / "site").exists()


def test_a_lesson_in_its_place(tmp_path, tiny):
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    notebook.cells[0].source += "\n\nAs in lesson 01 and lesson 02, `lesson 02`; see [the data](../data/README.md)."
    (card.folder.parent / "data").mkdir()
    nbformat.write(notebook, card.notebook)
    stage = site._Stage(tmp_path / "stage", catalogue.lessons() | {card.id: card})
    stage.pages[(card.folder.parent / "data" / "README.md").resolve()] = "data.md"
    (tmp_path / "stage").mkdir()
    site._lesson(stage, card, None, [site.Term("sum", "和", "tiny", "What addition gives.")])
    made = nbformat.read(tmp_path / "stage" / "lessons" / card.notebook.name, as_version=4)
    first = made.cells[0].source
    assert first.startswith("# A tiny lesson\n\n:::{container} facts\nLesson 01, part *Roots* · reading: 5 minutes")
    assert "As in lesson 01 and lesson [02](02_word_vectors.ipynb), `lesson 02`; see [the data](../data.md)." in first
    assert made.cells[-1].source == '**New words of this lesson**: {term}`sum` <span lang="zh-Hans">和</span>.'
    stub, solution = next(
        (before, cell) for before, cell in zip(made.cells, made.cells[1:], strict=False)
        if "hide-input" in cell.metadata.get("tags", [])
    )  # fmt: skip
    assert "raise NotImplementedError" in stub.source and "secret" not in stub.source
    assert "secret = x + 1" in solution.source and "SOLUTION" not in solution.source


def test_a_link_to_nowhere_is_an_error(tmp_path):
    stage = site._Stage(tmp_path, catalogue.lessons())
    source = repository() / "docs" / "index.md"
    text = "[a](../notebooks/05_gpt.ipynb#the-idea) [b](../data/catalog.toml) ```[c](no.md)``` [d](https://e.org)"
    good = "[a](lessons/05_gpt.ipynb#the-idea) [b](files/data/catalog.toml) ```[c](no.md)``` [d](https://e.org)"
    assert stage.relink(text, source, "index.md") == good
    assert (tmp_path / "files" / "data" / "catalog.toml").is_file()
    with pytest.raises(CourseError, match=r"'no\.md' leads to no file"):
        stage.relink("[c](no.md)", source, "index.md")
    with pytest.raises(CourseError, match=r"unknown part 'timelin'.*Did you mean 'timeline'"):
        stage.write("index.md", "{{ timelin }}", source, {"timeline": "..."})


def test_what_sphinx_warns_of_is_an_error(tmp_path, index):
    stage = tmp_path / "pages"
    stage.mkdir()
    (stage / "conf.py").write_text("extensions = ['myst_parser']\n", encoding="utf-8")
    (stage / "index.md").write_text("# Title\n\n[broken](#nowhere)\n", encoding="utf-8")
    with pytest.raises(CourseError, match=r"(?s)not built.*index\.md:3: WARNING.*nowhere"):
        site._sphinx(stage, tmp_path / "out", 1)
