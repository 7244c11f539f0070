"""The teacher's guide: plans with computed minutes, parts that are not stale, questions that lead into the lessons."""

import re

import pytest
import yaml

from pfmcourse import catalogue
from pfmcourse.base import CourseError, repository
from pfmcourse.course import anatomy, guide, readme
from pfmcourse.course.run import read_notebook

PAGE = (repository() / "docs" / "teaching.md").read_text(encoding="utf-8")
PLANS = yaml.safe_load((repository() / "docs" / "plans.yaml").read_text(encoding="utf-8"))
CARDS = catalogue.lessons()


def section(text, title, level):
    """What stands under a heading, up to the next one of its level or a higher one."""
    (found,) = re.findall(rf"^{'#' * level} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.M | re.S)
    return found


def test_the_guide_is_fresh():
    assert readme.refreshed(PAGE, guide.Planner().parts(), "teaching.md") == PAGE, (
        "stale; run: pfmcourse ledger --write"
    )


def test_every_plan_is_in_the_guide():
    assert {plan["id"] for plan in PLANS} == {"half_day", "two_days", "semester"}
    semester = next(plan for plan in PLANS if plan["id"] == "semester")
    blocks = [block for session in semester["sessions"] for block in (*session["class"], *session.get("home", []))]
    assert {block.get("lesson") for block in blocks} >= set(CARDS)
    for name in CARDS:  # over a semester every exercise has its place
        numbers = [number for block in blocks if block.get("lesson") == name for number in block.get("numbers", [])]
        assert sorted(numbers) == sorted(guide.measure(CARDS[name]).exercises), name


@pytest.mark.parametrize("name", CARDS)
def test_what_learners_ask(name):
    asked = section(section(PAGE, "What learners ask", 2), CARDS[name].title, 3)
    questions = re.findall(r"^\*\*[^*]+\?\*\*|^\*\*[^*]+\*\*", asked, re.M)
    assert 3 <= len(questions) <= 7
    notebook = read_notebook(CARDS[name].notebook)
    headings = {title for _, _, title in anatomy.headings(notebook)}
    cited = [" ".join(text.split()) for text in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", asked)]
    assert len(cited) >= len(questions)
    assert [title for title in cited if title not in headings] == []
    numbers = {int(number) for number in re.findall(r"exercise (\d)", asked)}
    assert numbers <= set(guide.measure(CARDS[name]).exercises)
    assert not re.search(r"\d+ ?%|\b\d+\.\d", asked), "a measured number belongs to the lesson"


def test_links_lead_somewhere():
    for name in ("teaching.md", "running.md"):
        text = (repository() / "docs" / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = repository() / "docs" / (path or name)
            assert target.is_file(), f"{name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


# Plans of our own -----------------------------------------------------------------------------------------------------


@pytest.fixture
def planner(built, tmp_path):
    """A planner over the tiny lesson; takes the sessions' blocks in class and at home."""
    card, _, _ = built

    def make(*here, home=None, limit=60, **more):
        session = {"title": "Only one", "limit": limit, "class": list(here)} | ({"home": home} if home else {})
        plan = {"id": "x", "title": "X", "for": "testers", "minutes_per_slide": 0.5, "sessions": [session], **more}
        path = tmp_path / "plans.yaml"
        path.write_text(yaml.safe_dump([plan]), encoding="utf-8")
        return guide.Planner(card.folder, path)

    return make


def tiny(do, **more):
    return {"do": do, "lesson": "tiny", **more}


BREAK = {"do": "break", "minutes": 10}


def test_minutes_are_computed(planner):
    made = planner(tiny("slides"), tiny("run"), BREAK, tiny("exercises", numbers=[2, 3]), tiny("read")).plan("x")
    link = "[A tiny lesson](../notebooks/01_tiny.ipynb)"
    slides = 6  # eleven of them, half a minute each
    assert made.startswith("For testers.")
    for line in (
        f"| 0:00 | {link}: slides | {slides} |",
        f"| 0:06 | {link}: run the notebook | 1 |",
        "| 0:07 | break | 10 |",
        f"| 0:17 | {link}: exercises 2, 3 | 10 |",
        f"| 0:27 | {link}: read the notebook | 5 |",
        "| 0:32 | end, 28 minutes to spare |  |",
    ):
        assert line in made
    assert "the slowest of these takes 1 s" in made


def test_homework_makes_a_table_of_weeks(planner):
    made = planner(tiny("run"), tiny("exercises"), BREAK, home=[tiny("read", about="slowly")]).plan("x")
    assert "run the notebook, all exercises; break | 26 |" in made
    assert "read the notebook (slowly) | 5 |" in made
    assert "|  | in all |  | 26 |  | 5 |" in made


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([tiny("slide")], "unknown thing to do 'slide'. Did you mean 'slides'"),
        ([{"do": "run", "lesson": "tny"}], "unknown lesson 'tny'. Did you mean 'tiny'"),
        ([{"do": "run"}], "'lesson' is missing"),
        ([{"do": "break"}], "'minutes' is missing"),
        ([tiny("run", minutes=3)], "unknown field 'minutes'"),
        ([tiny("run", minuts=3)], "unknown field 'minuts'. Did you mean 'minutes'"),
        ([{"do": "break", "minutes": "ten"}], "'minutes' has 'ten'"),
        ([tiny("exercises", numbers=[4])], "unknown exercise '4'"),
        (["break"], "lines are wanted"),
        ([BREAK] * 7, r"takes 70 minutes, but has 60"),
    ],
)
def test_mistakes_in_a_plan(planner, blocks, message):
    with pytest.raises(CourseError, match=message):
        planner(*blocks).plan("x")


def test_an_unknown_plan_and_a_damaged_file(planner, tmp_path):
    made = planner(BREAK)
    with pytest.raises(CourseError, match="no plan with `id: y`"):
        made.plan("y")
    (tmp_path / "plans.yaml").write_text("- [", encoding="utf-8")
    with pytest.raises(CourseError, match="not valid YAML"):
        made.parts()
    (tmp_path / "plans.yaml").write_text("a: b", encoding="utf-8")
    with pytest.raises(CourseError, match="should be a list"):
        made.parts()
    (tmp_path / "plans.yaml").unlink()
    with pytest.raises(CourseError, match="is missing"):
        made.parts()


def test_a_lesson_does_not_come_before_what_it_needs(tmp_path):
    def plan(*lessons, **more):
        blocks = [{"do": "run", "lesson": name} for name in lessons]
        session = {"title": "One", "limit": 60, "class": blocks}
        entry = {"id": "x", "title": "X", "for": "all", "minutes_per_slide": 1, "sessions": [session], **more}
        (tmp_path / "plans.yaml").write_text(yaml.safe_dump([entry]), encoding="utf-8")
        return guide.Planner(path=tmp_path / "plans.yaml").plan("x")

    assert "run the notebook" in plan("start_here", "simclr")
    with pytest.raises(CourseError, match="simclr comes before start_here, which it needs"):
        plan("simclr", "start_here")
    made = plan("simclr", skips=["start_here"])
    assert "Left out, though a lesson of this plan builds on it: [Start here]" in made


def test_exercises_are_read_from_the_prose():
    easy, hard = "**Difficulty: easy · 5 minutes**", "**Difficulty:** hard · 25 minutes"
    text = f"### Exercise 1: add\n\n{easy}\n\n### Exercise 2: b\n{hard}"
    found = guide.exercises(text, "x")
    assert found[1] == guide.Exercise(1, "add", "easy", 5) and found[2].minutes == 25
    with pytest.raises(CourseError, match="x: exercise 2 has no line"):
        guide.exercises(text.replace("25 minutes", "long"), "x")
