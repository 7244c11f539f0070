"""Slide decks: what an author can say, what a speaker gets, and every slide of every lesson seen in a browser."""

import contextlib
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from pfmcourse import catalogue, plots
from pfmcourse.base import MissingPackage, repository
from pfmcourse.course import browser, slides

LESSONS = catalogue.lessons()
PICTURE = nbformat.v4.new_output(
    "display_data",
    {"image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="},
    metadata={"image/png": {"alt": "a point", "width": 600}},
)


def words(source, kind="-"):
    return nbformat.v4.new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}})


def code(source, kind="-", tags=(), outputs=()):
    metadata = {"slideshow": {"slide_type": kind}, "tags": list(tags)}
    return nbformat.v4.new_code_cell(source, metadata=metadata, outputs=[nbformat.from_dict(one) for one in outputs])


def split(*cells):
    return slides.split(nbformat.v4.new_notebook(cells=list(cells)))


def test_slide_types():
    found = split(
        words("# Title", "slide"),
        code("hidden()", "skip"),
        words("## Part", "slide"),
        words("more", "fragment"),
        words("say this", "notes"),
        words("### Next", "subslide"),
    )
    assert [[cell.source for cell in slide.cells] for slide in found] == [
        ["# Title"],
        ["## Part", "more"],
        ["### Next"],
    ]
    assert [slide.begins for slide in found] == [True, True, False]
    assert found[1].notes == ["say this"]
    assert [cell.metadata.deck.fragment for cell in found[1].cells] == [False, True]


def test_short_words_on_the_slide_and_the_prose_in_the_notes():
    source = "## Part\n\nA long story.\n\n<!-- slide\n- short\n-->\n<!-- notes ask the room -->"
    (slide,) = split(words(source, "slide"))
    assert slide.cells[0].source == "## Part\n\n- short"
    assert slide.notes == ["A long story.", "ask the room"]
    (slide,) = split(words("## Part\n\nA story.\n<!-- notes wait -->", "slide"))
    assert slide.cells[0].source == "## Part\n\nA story."
    assert slide.notes == ["wait"]
    (slide,) = split(words("## Part\n\nA story.\n<!-- slide\n## Another heading\n-->", "slide"))
    assert slide.cells[0].source == "## Another heading"


def test_a_slide_without_a_heading_repeats_the_last_one():
    found = split(words("## Part", "slide"), code("draw()", "subslide", outputs=[PICTURE]))
    assert found[1].cells[0].source == "## Part"
    found = split(words("### Hidden", "skip"), code("draw()", "subslide", outputs=[PICTURE]))
    assert found[0].cells[0].source == "### Hidden"


def test_pictures_stand_side_by_side_or_beside_the_words(tmp_path):
    two = [
        words("## Two", "slide"),
        code("a", outputs=[PICTURE]),
        code("b", outputs=[PICTURE]),
        words("## One", "slide"),
        words("text", "fragment"),
        code("c", "fragment", outputs=[PICTURE]),
    ]
    made = slides.deck(nbformat.v4.new_notebook(cells=two), LESSONS["start_here"])
    before = [cell.metadata.deck.before for cell in made.cells]
    assert [number for number, text in enumerate(before) if '<div class="row">' in text] == [1]
    assert made.cells[2].metadata.deck.after == "</div>"
    assert 'class="page title"' in before[0] and 'class="page beside"' in "".join(before[4:])


@pytest.fixture
def decks(built, tmp_path):
    pytest.importorskip("sphinx_revealjs")
    return slides.build([built[0]], tmp_path / "decks")


def test_a_deck(decks):
    (deck,) = decks.decks
    page = deck.read_text(encoding="utf-8")
    assert page.count('<aside class="notes">') == 11  # the title and ten sections
    assert page.count("<section>") == page.count("</section>") == 22
    assert 'alt="A black point"' in page
    assert "scale = " not in re.sub("<[^>]+>", "", page)  # code is for the notebook
    assert "://" not in re.sub(r"data:[^\"]*|https?://(www\.w3\.org|reveal)", "", page.split("<body>")[0])
    index = decks.index.read_text(encoding="utf-8")
    assert 'href="01_tiny.html">A tiny lesson</a> (11 slides)' in index
    for name in ("reveal.js/dist/reveal.js", "mathjax/tex-svg.js", "DejaVuSansMono.ttf", "course.css", "fit.js"):
        assert (deck.parent / "files" / name).is_file()


def test_code_is_shown_where_the_author_asks(tmp_path, tiny):
    pytest.importorskip("sphinx_revealjs")
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    notebook.cells.append(code("shown = 1", "subslide", tags=[slides.SHOW_CODE]))
    notebook.cells.append(code("hidden = 1", "subslide"))
    nbformat.write(notebook, card.notebook)
    text = re.sub("<[^>]+>", "", slides.build([card], tmp_path).decks[0].read_text(encoding="utf-8"))
    assert "shown = 1" in text.replace("  ", " ") and "hidden" not in text.split("Reveal.initialize")[0]


def test_a_missing_package_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "REVEAL_PACKAGE", "no_package_of_this_name")
    with pytest.raises(MissingPackage, match=r"pip install -r requirements-teaching\.txt"):
        slides.build([tiny()], tmp_path / "decks")


# The lessons' decks, as a speaker sees them ---------------------------------------------------------------------------

# what runs out of the slide's page, sideways scrolling, and words of prose (tables and printed lines do not count)
SLIDE = """() => {
    const page = Reveal.getCurrentSlide().querySelector('.page'), box = page.getBoundingClientRect(), out = [];
    for (const one of page.querySelectorAll('*')) {
        if (one.closest('mjx-assistive-mml') || (one.closest('svg') && one.tagName !== 'svg')) continue;
        const at = one.getBoundingClientRect();
        const over = Math.max(at.bottom - box.bottom, at.right - box.right, box.left - at.left);
        if (at.width && at.height && over > 1) out.push(`${one.tagName} “${one.textContent.trim().slice(0, 40)}”`);
        if (one.tagName === 'PRE' && one.scrollWidth > one.clientWidth + 1) out.push('printed lines are too wide');
    }
    // words that lie on a picture, line by line as they are drawn
    for (const words of page.querySelectorAll('h1, h2, h3, p, li, td, pre')) {
        const range = document.createRange();
        range.selectNodeContents(words);
        const lines = [...range.getClientRects()].filter(one => one.width > 1);
        for (const image of page.querySelectorAll('img')) {
            const at = image.getBoundingClientRect();
            const share = Math.min(at.width / image.naturalWidth, at.height / image.naturalHeight);
            const side = (at.width - share * image.naturalWidth) / 2;  // object-fit: contain leaves a margin
            if (lines.some(one => one.right > at.left + side + 1 && one.left < at.right - side - 1
                && one.bottom > at.top + 4 && one.top < at.bottom - 4))
                out.push(`${words.tagName} “${words.textContent.trim().slice(0, 40)}” lies on a picture`);
        }
    }
    const spoken = page.cloneNode(true);
    spoken.querySelectorAll('mjx-container').forEach(one => one.replaceWith('formula'));
    const prose = [...spoken.querySelectorAll('p:not(.kicker), li')].filter(one => !one.querySelector('p, li'));
    const text = prose.map(one => one.textContent).join(' ');
    return {
        out,
        heading: page.querySelector('h1, h2, h3')?.textContent,
        words: text.split(/\\s+/).filter(Boolean).length,
        empty: !page.querySelector('p:not(.kicker), li, img, pre, table, mjx-container'),
        missing: [...page.querySelectorAll('img')].filter(one => !one.complete || !one.naturalWidth).length,
        unsaid: [...page.querySelectorAll('img')].filter(one => !one.alt.trim()).length,
        raw: /\\$[^$]+\\$|\\\\frac/.test(page.innerText),
        notes: Reveal.getCurrentSlide().querySelector('aside.notes').textContent.trim(),
    };
}"""
WORDS = 100


def walk(page):
    """Every slide of the open deck with all its fragments shown, as a speaker reaches them: by the space bar."""
    while True:
        while page.evaluate("Reveal.availableFragments().next"):
            page.keyboard.press("Space")
        yield page.evaluate("Reveal.getSlidePastCount() + 1"), page.evaluate(SLIDE)
        if page.evaluate("Reveal.isLastSlide()"):
            return
        page.keyboard.press("Space")


@pytest.fixture(scope="session")
def lessons_decks(tmp_path_factory):
    pytest.importorskip("sphinx_revealjs")
    return slides.build(list(LESSONS.values()), tmp_path_factory.mktemp("decks"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slide_of_a_lesson(lesson, lessons_decks, chrome):
    path = lessons_decks.index.with_name(f"{LESSONS[lesson].name}.html")
    with browser.window(chrome, slides.WIDTH, slides.HEIGHT) as (page, wrong):
        page.goto(path.as_uri())
        slides.ready(page)
        count = page.evaluate("Reveal.getTotalSlides()")
        seen = dict(walk(page))
        problems = [f"slide {number} runs out: {one}" for number, slide in seen.items() for one in slide["out"]]
        for number, slide in seen.items():
            problems += [f"slide {number} has no heading"] * (not slide["heading"])
            problems += [f"slide {number} is empty"] * slide["empty"]
            problems += [f"slide {number}: a picture is missing"] * slide["missing"]
            problems += [f"slide {number}: a picture without alt text"] * slide["unsaid"]
            problems += [f"slide {number}: a formula is not set"] * slide["raw"]
            problems += [f"slide {number} has no notes"] * (not slide["notes"])
            if slide["words"] > WORDS:
                problems.append(f"slide {number} has {slide['words']} words of prose, over {WORDS}")
        assert problems == []
        assert sorted(seen) == list(range(1, count + 1))
        assert 12 <= count <= 25
        assert wrong == []


def test_the_colours_of_the_slides_have_contrast_enough():
    style = (repository() / "slides" / "course" / "static" / "course.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style))
    text = {name: colour for name, colour in colours.items() if name not in ("line", "panel")}
    assert len(text) >= 10
    for name, colour in text.items():
        assert plots.contrast(colour) >= 4.5, name
        assert plots.contrast(colour, colours["panel"]) >= 4.5, name


def test_no_slide_is_a_page_of_code():
    for card in LESSONS.values():
        for slide in slides.split(slides.read_notebook(card.notebook)):
            shown = [cell for cell in slide.cells if cell.metadata.deck.code]
            lines = sum(len(cell.source.splitlines()) for cell in shown)
            assert lines <= 16, f"{card.id}: {lines} lines of code on one slide: {shown[0].source[:60]}"


def test_the_walk_notices(tiny, tmp_path, chrome):
    pytest.importorskip("sphinx_revealjs")
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    notebook.cells = [
        words("# A tiny lesson", "slide"),
        words("## Long\n\n" + "many words, " * 300, "slide"),
        words("## Wide\n\n    " + "x" * 300, "slide"),
        words("## Gone\n\n![there](nowhere.png) $x^2$\n<!-- notes here -->", "slide"),
        words("## Elsewhere\n\n<script src='https://example.com/a.js'></script>", "slide"),
        words("## On it\n\n<p style='position: absolute; left: 900px; top: 200px'>words</p>", "slide"),
        code("draw()", outputs=[PICTURE]),
    ]
    nbformat.write(notebook, card.notebook)
    deck = slides.build([card], tmp_path / "decks").decks[0]
    with browser.window(chrome, slides.WIDTH, slides.HEIGHT) as (page, wrong):
        page.goto(deck.as_uri())
        slides.ready(page)
        _, long, wide, gone, _, on_it = (slide for _, slide in walk(page))
    assert long["out"] and long["words"] == 600 and not long["notes"]
    assert "printed lines are too wide" in wide["out"]
    assert "P “words” lies on a picture" in on_it["out"]
    assert gone["missing"] == 1 and gone["notes"] == "here" and not gone["raw"]
    assert any("nowhere.png" in one for one in wrong)
    assert any("asks another host: https://example.com/a.js" in one for one in wrong)


def test_words_grow_where_a_slide_has_room(tiny, tmp_path, chrome):
    pytest.importorskip("sphinx_revealjs")
    card = tiny()
    notebook = nbformat.read(card.notebook, as_version=4)
    line = "    " + "x" * 108  # at a larger size it would be too wide
    notebook.cells = [
        words("# A tiny lesson", "slide"),
        words("## Short\n\nfew words", "slide"),
        words("## Long\n\n" + "\n".join(f"- line {number}" for number in range(14)), "slide"),
        words(f"## Wide\n\nfew words\n\n{line}", "slide"),
        words("## Picture\n\nwords beside it", "slide"),
        code("draw()", outputs=[PICTURE]),
    ]
    nbformat.write(notebook, card.notebook)
    deck = slides.build([card], tmp_path / "decks").decks[0]
    sizes = "['p, li', 'pre', 'img'].map(one => Reveal.getCurrentSlide().querySelector(one)).map("
    sizes += "one => one && (one.tagName == 'IMG' ? one.offsetHeight : parseFloat(getComputedStyle(one).fontSize)))"
    with browser.window(chrome, slides.WIDTH, slides.HEIGHT) as (page, wrong):
        page.goto(deck.as_uri())
        slides.ready(page)
        found = []
        for _, slide in walk(page):
            assert slide["out"] == []
            found.append(page.evaluate(sizes))
        assert wrong == []
        page.goto(f"{deck.as_uri()}?print-pdf")
        slides.ready(page)
        printed = page.evaluate(
            "[...document.querySelectorAll('.page:not(.title) :is(p, li:first-child)')].map("
            "one => parseFloat(getComputedStyle(one).fontSize))"
        )
    _, (short, _, _), (long, _, _), (wide, code_size, _), (beside, _, picture) = found
    assert short == 1.5 * 27 and long == 27
    assert code_size == 18 and 27 < wide <= 1.3 * 27
    assert beside > 27 and picture == 600
    assert printed == [short, long, wide, beside]


def test_the_speakers_view_opens_from_disk(lessons_decks, chrome):
    with browser.window(chrome, slides.WIDTH, slides.HEIGHT) as (page, wrong):
        page.goto(lessons_decks.decks[0].as_uri())
        slides.ready(page)
        with page.expect_popup() as popup:
            page.keyboard.press("s")
        popup.value.wait_for_function("document.querySelector('.speaker-controls-notes .value')?.innerText.trim()")
        said = popup.value.evaluate("document.querySelector('.speaker-controls-notes .value').innerText")
        assert said.split()[:3] == page.evaluate("document.querySelector('aside.notes').textContent").split()[:3]
        assert wrong == []


def test_printing_gives_a_page_a_slide(lessons_decks, chrome, tmp_path, monkeypatch):
    pypdf = pytest.importorskip("pypdf")
    monkeypatch.setattr(browser, "chromium", lambda: contextlib.nullcontext(chrome))
    deck = tmp_path / "deck.html"
    shutil.copytree(lessons_decks.index.parent / slides.FILES, tmp_path / slides.FILES)
    shutil.copy(lessons_decks.decks[0], deck)
    (printed,) = slides.print_decks([deck])
    pages = pypdf.PdfReader(printed).pages
    assert len(pages) == len(slides.split(slides.read_notebook(LESSONS["start_here"].notebook)))
    assert "Start here" in pages[0].extract_text()
    width, height = (float(side) for side in pages[0].mediabox[2:])
    assert abs(width / height - slides.WIDTH / slides.HEIGHT) < 0.01


def test_the_list_of_decks(lessons_decks, chrome):
    with browser.window(chrome, 390, 800) as (page, wrong):
        page.goto(lessons_decks.index.as_uri())
        links = page.eval_on_selector_all("a", "all => all.map(one => one.getAttribute('href'))")
        assert links == [f"{card.name}.html" for card in LESSONS.values()]
        assert all((Path(lessons_decks.index).parent / link).is_file() for link in links)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "A"
        assert wrong == []
