"""Every figure is one small PNG with truthful alt text; colours stay apart for colour-blind eyes; no labels collide."""

import base64
import io
import math
import subprocess
import sys
import textwrap
import types
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from pfmcourse import plots, timeline
from pfmcourse.base import CourseError, UnknownName

Interval = types.SimpleNamespace


def around(mean, half=0.05):
    return Interval(mean=mean, low=mean - half, high=mean + half)


def history(first=4.1, last=2.9, steps=600, rows=200, **fields):
    """Anything with the fields of train.History: a loss that decays from ``first`` to ``last``."""
    given = rows if isinstance(rows, list) else None
    at = np.unique(np.linspace(1, steps, 200 if given is not None else rows).astype(int))
    decay = np.exp(-6 * (at - 1) / (steps - 1))
    decay = (decay - decay[-1]) / (1 - decay[-1])
    losses = last + (first - last) * decay
    made = [{"step": int(s), "loss": float(x), "accuracy": float(1 - x / 10)} for s, x in zip(at, losses, strict=True)]
    defaults = {
        "rows": made if given is None else given, "steps": steps, "planned": steps, "seconds": 75.0,
        "units_per_second": 41234.0, "unit": "words", "interrupted": False, "resumed_at": None,
    }  # fmt: skip
    return types.SimpleNamespace(**{**defaults, **fields})


@pytest.fixture
def notebook(monkeypatch):
    """A real IPython shell that is no terminal, as in a kernel; what it displays can be captured."""
    shell = InteractiveShell.instance()
    monkeypatch.delenv("PFMCOURSE_FIGURES", raising=False)
    yield shell
    InteractiveShell.clear_instance()


def displayed(draw):
    """What ``draw`` displays, as raw display messages."""
    with capture_output() as captured:
        result = draw()
    assert result is None  # or the notebook would print it under the figure
    assert captured.stdout == ""
    assert captured.stderr == ""
    return [one.__dict__ if hasattr(one, "__dict__") else one for one in captured.outputs]


def picture(message):
    """Check one display message and return (pixels, alt)."""
    data, metadata = (
        message["data"] if "data" in message else message["_data"],
        message.get("metadata") or message["_metadata"],
    )
    assert set(data) == {"image/png", "text/plain"}
    raw = data["image/png"]
    raw = base64.b64decode(raw) if isinstance(raw, str) else raw
    image = Image.open(io.BytesIO(raw))
    alt = metadata["image/png"]["alt"]
    assert data["text/plain"] == alt
    assert alt.endswith(".")
    assert len(alt) > 20
    assert "\n" not in alt
    width = metadata["image/png"]["width"]
    assert image.width == pytest.approx(width * plots.SHARPNESS, abs=1)
    assert len(raw) < 110_000
    return np.asarray(image.convert("RGB")), alt


WORDS = [
    "king",
    "queen",
    "prince",
    "sword",
    "dagger",
    "blood",
    "war",
    "peace",
    "love",
    "hate",
    "heart",
    "eye",
    "hand",
    "head",
    "sun",
    "moon",
    "star",
    "sea",
]
FIGURES = {
    "loss_curve": lambda **kw: plots.loss_curve(history(), **kw),
    "several_losses": lambda **kw: plots.loss_curve(
        {"NNLM": history(6.9, 4.6), "CBOW": history(6.9, 4.9)}, references={"ln V": 6.91}, title="Losses", **kw
    ),
    "embedding_map": lambda **kw: plots.embedding_map(
        torch.randn(18, 6), WORDS, highlight={"royal": ["king", "queen"]}, title="Words", **kw
    ),
    "embedding_tsne": lambda **kw: plots.embedding_map(
        torch.randn(40, 6), groups=torch.arange(40) % 10, method="tsne", **kw
    ),
    "image_grid": lambda **kw: plots.image_grid(torch.rand(6, 3, 8, 8), list("abcdef"), columns=3, title="In", **kw),
    "attention_map": lambda **kw: plots.attention_map(torch.eye(4), ["to", "be", "or", "not"], **kw),
    "large_attention_map": lambda **kw: plots.attention_map(torch.rand(20, 20), list("not to be, that is t"), **kw),
    "bars": lambda **kw: plots.bars(
        {"probe": around(0.7), "scratch": 0.4}, baseline={"chance": 0.1}, percent=True, **kw
    ),
    "grouped_bars": lambda **kw: plots.bars({"20": {"a": 0.4, "b": -0.1}, "90": {"a": 0.6, "b": 0.5}}, title="G", **kw),
    "lines": lambda **kw: plots.lines(
        {"probe": {20: around(0.5), 200: around(0.8)}, "pixels": {20: 0.4, 200: 0.6}}, references={"chance": 0.1}, **kw
    ),
    "timeline": lambda **kw: plots.timeline(timeline.entries(), **kw),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_one_png_with_alt_text(notebook, name):
    messages = displayed(FIGURES[name])
    assert len(messages) == 1
    pixels, _ = picture(messages[0])
    assert (pixels[:3] > 250).mean() > 0.5  # a white page
    assert (pixels < 128).any()  # with something on it
    own = displayed(lambda: FIGURES[name](alt="My own words about it, in a sentence."))
    assert picture(own[0])[1] == "My own words about it, in a sentence."


def test_row_titles_of_a_grid_keep_clear_of_the_pictures(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "show", lambda figure, alt: shown.append(figure))
    titles = ["WWWWMMMM", "guessed", "i"]
    plots.image_grid(torch.rand(3, 1, 8, 8), columns=1, row_titles=titles, title="Rows")
    (figure,) = shown
    figure.canvas.draw()
    edge = min(image.get_window_extent().x0 for image in figure.axes[0].images)
    named = [text.get_window_extent().x1 for text in figure.axes[0].texts if text.get_text() in titles]
    assert len(named) == 3 and edge - 20 < max(named) < edge


def test_an_attention_map_shows_the_blanks_at_the_ends_of_tokens():
    _, axes = plots.panels()
    names = ["king", " my", "to be ", " ", ""]
    plots.attention_map(torch.eye(5), names, axes=axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["king", "␣my", "to be␣", "␣", "␣"]


@pytest.mark.parametrize("name", ["loss_curve", "bars", "lines", "attention_map", "embedding_map"])
def test_figures_draw_into_given_axes_without_showing(notebook, name):
    figure, axes = plots.panels(1, 2)
    assert displayed(lambda: FIGURES[name](axes=axes[1])) == []
    assert not axes[0].has_data()
    assert axes[1].has_data()
    assert len(displayed(lambda: plots.show(figure, "Two panels, of which the left is empty."))) == 1


def test_help_shows_what_a_learner_may_pass():
    import inspect

    names = list(inspect.signature(plots.bars).parameters)
    assert names[0] == "values"
    assert names[-3:] == ["alt", "axes", "size"]


# Truthful alt text


def alt_of(draw):
    return picture(displayed(draw)[0])[1]


def test_the_alt_text_of_a_loss_curve_is_read_from_its_data(notebook):
    falls = alt_of(lambda: plots.loss_curve(history(4.1, 2.9, rows=20)))
    assert falls == "Loss falls from 4.10 to 2.90 over 600 steps."
    rises = alt_of(lambda: plots.loss_curve(history(1.0, 12345.0, 1500, 20), title="Trouble"))
    assert rises == "Trouble: loss rises from 1.00 to 12,345 over 1,500 steps."
    flat = alt_of(lambda: plots.loss_curve(history(2.0, 2.0), references={"ln V": 6.907755}))
    assert flat == "Loss stays at 2.00 over 600 steps. For comparison: ln V 6.91."
    both = alt_of(lambda: plots.loss_curve({"A": history(rows=20), "B": history(5, 1, rows=20)}, metric="accuracy"))
    assert both.startswith("Accuracy of A rises from 0.590 to 0.710 over 600 steps; accuracy of B rises from 0.500 to")


def test_other_alt_texts_name_values_and_extremes(notebook):
    bars = alt_of(FIGURES["bars"])
    assert bars == "Values: probe 70.0 % (65.0 % to 75.0 %), scratch 40.0 %. Lines: chance 10.0 %."
    weights = torch.tensor([[0.9, 0.1], [0.25, 0.75]])
    assert "largest, 0.90, goes from 'a' to 'x'" in alt_of(lambda: plots.attention_map(weights, ["a", "b"], ["x", "y"]))
    assert "probe: 0.500 (0.450 to 0.550) at 20" in alt_of(FIGURES["lines"])
    assert "6 pictures in 2 rows: a, b, c, d, e and f" in alt_of(FIGURES["image_grid"])
    assert "marked as royal. PCA: the plane holds" in alt_of(FIGURES["embedding_map"])
    counts = [sum(entry.kind == kind for entry in timeline.entries()) for kind in plots.KIND_MARKS]
    text = alt_of(FIGURES["timeline"])
    assert f"Timeline of {sum(counts)} pretrained models from NNLM (2003)" in text
    assert f"{counts[0]} are generative, {counts[1]} are contrastive and {counts[2]} are supervised" in text


def test_smoothing_keeps_the_ends_of_a_straight_line_and_the_mean_of_noise():
    line = np.linspace(5, 1, 100)
    assert plots._smooth(line)[:90] == pytest.approx(line[:90])
    noise = np.random.default_rng(0).normal(size=280)
    assert plots._smooth(noise)[20:].std() < 0.4 * noise.std()
    slow = [np.mean(noise[max(i - min(10, i), 0) : i + min(10, i) + 1]) for i in range(280)]
    assert plots._smooth(noise) == pytest.approx(slow)


# Where it is shown


def test_outside_a_notebook_nothing_is_shown(capsys, monkeypatch):
    monkeypatch.delenv("PFMCOURSE_FIGURES", raising=False)
    assert not plots.in_notebook()
    plots.loss_curve(history())
    live = plots.LiveCurve("quiet")
    live(history())
    live.close(history())
    assert capsys.readouterr() == ("", "")


def test_figures_are_written_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PFMCOURSE_FIGURES", str(tmp_path / "out"))
    plots.loss_curve(history(rows=20))
    plots.bars({"a": 1.0})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["001.png", "001.txt", "002.png", "002.txt"]
    text = (tmp_path / "out" / "001.txt").read_text(encoding="utf-8")
    assert text == "Loss falls from 4.10 to 2.90 over 600 steps.\n"
    assert Image.open(tmp_path / "out" / "002.png").width == 640 * plots.SHARPNESS


def test_show_wants_alt_text_and_closes_a_pyplot_figure(notebook):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2])
    with pytest.raises(CourseError, match="alt"):
        plots.show(figure, "  \n ")
    assert len(displayed(lambda: plots.show(figure, "A line\n  that rises."))) == 1
    assert plt.get_fignums() == []


def test_style_does_not_leak():
    before = dict(matplotlib.rcParams)
    plots.panels()
    with plots.style():
        assert matplotlib.rcParams["axes.titleweight"] == "bold"
    assert dict(matplotlib.rcParams) == before


def test_a_terminal_is_no_notebook():
    code = """
        from IPython.terminal.interactiveshell import TerminalInteractiveShell
        from IPython.core.interactiveshell import InteractiveShell
        from pfmcourse import plots
        answers = [plots.in_notebook()]
        TerminalInteractiveShell.instance(); answers.append(plots.in_notebook())
        TerminalInteractiveShell.clear_instance()
        InteractiveShell.instance(); answers.append(plots.in_notebook())
        print(answers)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, True]"


def test_a_saved_notebook_holds_one_line_one_picture_and_their_alt_text(tmp_path):
    """In a real kernel, and through nbconvert's classic template, which turns the metadata into alt=."""
    import nbclient
    import nbconvert
    import nbformat

    code = """
        import types
        from pfmcourse import plots
        history = types.SimpleNamespace(rows=[], steps=0, planned=30, seconds=0.0, units_per_second=500.0, unit="words",
                                        interrupted=False, resumed_at=None)
        watch = plots.LiveCurve("Skip-gram", every=0.0)
        for step in range(1, 31):
            history.rows.append({"step": step, "loss": 5 - step / 15})
            history.steps, history.seconds = step, step / 10
            if step % 5 == 0:
                watch(history)
        watch.close(history)
    """
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    nbclient.NotebookClient(book, kernel_name="python3", timeout=60).execute()
    line, curve = book.cells[0].outputs
    assert line.data == {"text/plain": "Skip-gram: 30 steps in 0:03 · loss 4.93 → 3.03 · 500 words/s"}
    alt = "Skip-gram: loss falls from 4.93 to 3.03 over 30 steps."
    assert curve.metadata["image/png"] == {"alt": alt, "width": 640}
    html, _ = nbconvert.HTMLExporter(template_name="classic").from_notebook_node(book)
    assert html.count(f'alt="{alt}"') == 1
    assert html.count("<img") == 1


# The live curve


@pytest.fixture
def wire(notebook, monkeypatch):
    """Every message to the page: (data, metadata, display id, update)."""
    sent = []

    def publish(data, metadata=None, *, transient=None, update=False, **_):
        sent.append((data, metadata or {}, (transient or {}).get("display_id"), update))

    monkeypatch.setattr(notebook.display_pub, "publish", publish)
    return sent


LOSSES = history(rows=600).rows


def test_live_curve_updates_two_places_and_no_more(wire, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(plots.time, "monotonic", lambda: clock[0])
    live = plots.LiveCurve("GPT", every=4.0)
    for step in range(50, 601, 50):
        live(history(steps=step, planned=600, rows=LOSSES[:step]))
        clock[0] += 1.0
    live.close(history())
    lines = [one for one in wire if "image/png" not in one[0]]
    pictures = [one for one in wire if "image/png" in one[0]]
    for part in (lines, pictures):
        assert len({display_id for *_, display_id, _ in part}) == 1
        assert [update for *_, update in part] == [False] + [True] * (len(part) - 1)
    assert len(lines) == 13
    assert len(pictures) == 4  # at 0, 4 and 8 seconds, and at the end
    assert lines[0][0]["text/plain"].startswith("GPT: step 50 of 600 · loss 3.")
    assert lines[2][0]["text/plain"].endswith("41,234 words/s · 0:09 left")  # a second for 50 steps, 450 to go
    assert lines[-1][0]["text/plain"] == "GPT: 600 steps in 1:15 · loss 4.10 → 2.90 · 41,234 words/s"
    assert pictures[-1][1]["image/png"]["alt"] == "GPT: loss falls from 4.10 to 2.90 over 600 steps."


def test_live_curve_tells_of_an_interrupted_and_a_resumed_run(wire):
    live = plots.LiveCurve()
    live.close(history(interrupted=True, planned=1000, resumed_at=200, seconds=3700.0))
    assert wire[0][0]["text/plain"].startswith("stopped at step 600 of 1,000 after 1:01:40 · loss")
    assert wire[0][0]["text/plain"].endswith("resumed at step 200")


def test_live_curve_survives_a_history_without_losses(wire):
    live = plots.LiveCurve("empty")
    live(history(rows=[], units_per_second=0.0))
    live.close(history(rows=[{"step": 1, "loss": math.nan}], units_per_second=0.0))
    assert [one[0].get("text/plain") for one in wire] == [
        "empty: step 600 of 600",
        ("empty: 600 steps in 1:15"),
    ]


# Colours

# Machado, Oliveira and Fernandes (2009), A Physiologically-based Model for Simulation of Color Vision Deficiency,
# severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(colour, matrix):
    """CIELAB of a colour as seen through ``matrix``."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_palette_stays_apart_for_colour_blind_eyes(kind):
    seen = {colour: lab(colour, BLINDNESS[kind]) for colour in plots.PALETTE}
    distance = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(distance.values()) > 15, min(distance, key=distance.get)
    # A classic pair that fails the same test, so the test can.
    if kind != "none":
        assert np.linalg.norm(lab("#AA5500", BLINDNESS[kind]) - lab("#6E6E00", BLINDNESS[kind])) < 15


def test_contrast_is_wcags_and_enough():
    assert plots.contrast("black") == pytest.approx(21)
    assert plots.contrast("#767676") == pytest.approx(4.54, abs=0.01)
    for text in (plots.INK, plots.GREY, *map(plots._dark, plots.PALETTE)):
        assert plots.contrast(text) >= 4.5
        assert text in map(plots._dark, plots.PALETTE) or plots.contrast(text, plots.BAND) >= 4.5
    for colour, _ in plots.KIND_MARKS.values():
        assert plots.contrast(colour) >= 3
        assert plots.contrast(colour, plots.BAND) >= 3
    assert all(plots.contrast(colour) >= 3 for colour in plots.PALETTE[:4])


def test_kinds_differ_in_shape_as_well_as_colour():
    assert len({marker for _, marker in plots.KIND_MARKS.values()}) == 3
    groups = 40
    figure, axes = plots.panels()
    plots.embedding_map(torch.randn(groups, 2), groups=list(range(groups)), axes=axes)
    looks = {
        (tuple(points.get_facecolor()[0].round(3)), points.get_paths()[0].vertices.tobytes())
        for points in axes.collections
        if len(points.get_offsets())
    }
    assert len(looks) == groups
    del figure


def test_few_colours_keep_the_palette_exactly(notebook):
    pixels, _ = picture(displayed(lambda: plots.timeline(timeline.entries(), highlight=["NNLM"]))[0])
    present = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    for colour, _ in plots.KIND_MARKS.values():  # two of them in the legend alone
        assert tuple(round(255 * part) for part in matplotlib.colors.to_rgb(colour)) in present


def test_256_colours_are_exact_where_they_suffice_and_near_where_not():
    few = np.random.default_rng(0).integers(0, 6, (40, 50, 3)).astype(np.uint8) * 50
    assert np.array_equal(np.asarray(plots._in_256_colours(few).convert("RGB")), few)
    ramp = np.repeat(np.linspace(0, 255, 600)[None, :, None], 3, axis=2).repeat(4, axis=0)
    ramp[..., 1] = ramp[..., 0] ** 2 / 255
    ramp = ramp.astype(np.uint8)
    error = np.asarray(plots._in_256_colours(ramp).convert("RGB")).astype(int) - ramp
    assert np.abs(error).max() <= 8


# Labels


def collisions(boxes):
    return [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


@pytest.mark.parametrize(
    ("highlight", "width"), [((), 1100), (("BERT", "MAE", "Trajectory Transformer"), 1100), ((), 800)]
)
def test_timeline_labels_do_not_overlap_and_stay_inside(highlight, width):
    figure, _, artists = plots._timeline(timeline.entries(), highlight, width, "A title")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {artist.get_text(): artist.get_window_extent(renderer) for artist in artists}
    assert len(boxes) == len(timeline.entries())
    axes = figure.axes[0]
    others = [text for text in axes.texts if text not in artists]
    for number, text in enumerate(others):  # years above and below, names of the bands
        boxes[f"{number} {text.get_text()}"] = text.get_window_extent(renderer)
    for number, text in enumerate(axes.get_legend().get_texts()):
        boxes[f"legend {number}"] = text.get_window_extent(renderer)
    for line in axes.lines:
        if line.get_marker() not in ("None", None):
            (x,), (y,) = line.get_data()
            at, radius = axes.transData.transform((x, y)), line.get_markersize() / 2 * figure.dpi / 72
            boxes[f"mark at {x:.0f} {y:.0f}"] = matplotlib.transforms.Bbox([at - radius, at + radius])
    assert collisions(boxes) == []
    page = figure.bbox
    assert all(
        page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes.values()
    )
    assert figure.get_figwidth() * plots.DPI == pytest.approx(width)


def test_timeline_puts_years_in_order_and_marks_the_break():
    places, breaks = plots._year_places([2003, 2012, 2013, 2015])
    assert list(places) == [2003, 2012, 2013, 2014, 2015]
    assert list(places.values()) == sorted(places.values())
    assert [places[year + 1] - places[year] for year in (2012, 2013, 2014)] == [1, 1, 1]
    assert len(breaks) == 1
    assert places[2003] < breaks[0] < places[2012]


def test_labels_of_a_crowded_map_do_not_overlap():
    figure, axes = plots.panels(width=700, height=480)
    words = [f"word{i}" for i in range(120)]
    chosen = words[:12]
    plots.embedding_map(torch.randn(120, 2), words, highlight={"chosen": chosen}, axes=axes)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert set(chosen) <= set(boxes)
    assert 20 < len(boxes) < 120
    assert collisions(boxes) == []


def test_names_at_the_ends_of_lines_do_not_overlap():
    figure, axes = plots.panels()
    plots.lines(
        {f"method {i}": {10: 0.5, 100: 0.6 + i / 1000} for i in range(7)}, references={"chance": 0.1}, axes=axes
    )
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert len(boxes) == 8
    assert collisions(boxes) == []
    assert all(box.x1 <= figure.bbox.x1 for box in boxes.values())


@pytest.mark.parametrize("wanted", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.9], [1.0, 1.0, 0.99, 0.2], [0.3]])
def test_labels_move_apart_no_more_than_they_must(wanted):
    placed = plots._apart(wanted, 0.1, 0, 1)
    assert all(abs(a - b) >= 0.1 - 1e-9 for a, b in combinations(placed, 2))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in placed)
    assert np.argsort(placed, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()
    assert plots._apart([0.1, 0.5], 0.1, 0, 1) == [0.1, 0.5]


def test_names_of_baselines_do_not_overlap():
    figure, axes = plots.panels()
    plots.bars({"a": 0.9, "b": 0.2}, baseline={"chance": 0.1, "majority": 0.12, "noise": 0.14}, title="T", axes=axes)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    boxes["title"] = axes._left_title.get_window_extent(renderer)
    assert collisions(boxes) == []


# Pictures


def test_pictures_are_read_in_every_common_form():
    grey = torch.linspace(0, 1, 12).view(3, 4)
    for same in (grey, grey[None], grey[None].bfloat16().float(), grey.numpy(), grey.numpy()[..., None]):
        assert plots._picture(same) == pytest.approx(grey.numpy()[..., None].repeat(3, 2), abs=0.01)
    colour = torch.rand(3, 5, 4)
    assert plots._picture(colour) == pytest.approx(colour.permute(1, 2, 0).numpy())
    assert plots._picture((colour * 255).byte()) == pytest.approx(colour.permute(1, 2, 0).numpy(), abs=0.01)
    clear = torch.cat([torch.zeros(3, 4, 4), torch.full((1, 4, 4), 0.25)])
    assert plots._picture(clear) == pytest.approx(np.full((4, 4, 3), 0.75))


def test_a_long_title_is_broken_into_lines():
    figure, axes = plots.panels(width=200, height=160)
    axes.set_title("A title that is much too long for such a narrow figure")
    plots.png(figure)
    assert axes.get_title(loc="left").count("\n") >= 1 or axes.get_title().count("\n") >= 1
    figure.set_dpi(plots.DPI * plots.SHARPNESS)  # as it was drawn
    for title in (axes.title, axes._left_title):
        box = title.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    figure, axes = plots.panels(width=600, height=160)
    axes.set_title("Short")
    plots.png(figure)
    assert "\n" not in axes.get_title(loc="left") + axes.get_title()


def test_image_grid_shows_the_pixels(notebook):
    red = torch.zeros(3, 10, 10)
    red[0] = 1
    pixels, _ = picture(displayed(lambda: plots.image_grid([red] * 3, size=60, title="Three red squares"))[0])
    assert (pixels == [255, 0, 0]).all(2).sum() == pytest.approx(3 * (60 * plots.SHARPNESS) ** 2, rel=0.06)


# Errors


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: plots.loss_curve(history(), metric="perplexity"), "Known: accuracy, loss"),
        (lambda: plots.loss_curve(types.SimpleNamespace(rows=[])), "the history is empty"),
        (lambda: plots.embedding_map(torch.randn(2, 5)), "three vectors"),
        (lambda: plots.embedding_map(torch.full((5, 5), math.nan)), "nan"),
        (lambda: plots.embedding_map(torch.randn(5, 5), ["a"]), "`labels` should hold one entry a point"),
        (lambda: plots.embedding_map(torch.randn(3, 5), list("abc"), highlight={"g": ["d"]}), "unknown label 'd'"),
        (lambda: plots.embedding_map(torch.randn(3, 5), highlight={"g": ["d"]}), "pass `labels`"),
        (lambda: plots.embedding_map(torch.randn(5, 5), method="umap"), "unknown method 'umap'"),
        (lambda: plots.image_grid([]), "one picture or more"),
        (lambda: plots.image_grid([torch.rand(3, 8, 8)]), "say what the pictures are"),
        (lambda: plots.image_grid([torch.randn(3, 8, 8) * 3]), "between 0 and 1"),
        (lambda: plots.image_grid([torch.rand(5, 8, 8)]), "shape"),
        (lambda: plots.image_grid([torch.rand(3, 8, 8)], ["a", "b"]), "`titles`"),
        (lambda: plots.attention_map(torch.eye(3), ["a", "b"]), r"\(2, 2\)"),
        (lambda: plots.bars({}), "one value or more"),
        (lambda: plots.bars({"probe": 1.0}, highlight=["prob"]), "Did you mean 'probe'"),
        (lambda: plots.lines({"a": {}}), "empty"),
        (lambda: plots.timeline([]), "one entry or more"),
        (lambda: plots.timeline(timeline.entries(), highlight=["BERTa"]), "Did you mean 'BERT'"),
    ],
)
def test_errors_say_what_to_do(draw, match):
    with pytest.raises(CourseError, match=match) as caught:
        draw()
    assert isinstance(caught.value, UnknownName) == ("unknown" in match or "Did you mean" in match)
