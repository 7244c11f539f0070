"""The course's figures: one style, colours that colour-blind readers can tell apart, and alt text on every picture.

Each function draws one figure and publishes it as one PNG with its alt text, or draws into ``axes`` where that is
given. The alt text is written from the data unless you pass your own. Outside a notebook nothing is shown; with
``PFMCOURSE_FIGURES`` set to a folder, every figure is written there as a PNG beside a text file with its alt text.

The palette is that of Okabe and Ito (2008), Color Universal Design. Colour never stands alone: shape, line or label
says the same.
"""

import contextlib
import functools
import inspect
import io
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from PIL import Image

from pfmcourse.base import CourseError, unknown_name, write_atomically

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # without Okabe and Ito's yellow, too faint on white
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
INK, GREY, FAINT, PANEL, BAND = "#222222", "#666666", "#DDDDDD", "#F6F6F6", "#F1F4F7"

DPI = 96  # a notebook's pixel: sizes below are in these
SHARPNESS = 1.5  # drawn so many times finer and shown at the same size, for screens with fine pixels and for print

STYLE: dict[str, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that a figure looks the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.titlecolor": INK,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#999999",
    "ytick.color": "#999999",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.cmap": "cividis",
    "text.color": INK,
}


def style() -> contextlib.AbstractContextManager:
    """The style sheet as a context: ``with plots.style(): ...`` for a figure of your own."""
    return matplotlib.rc_context(STYLE)


def panels(rows: int = 1, columns: int = 1, width: int = 640, height: int = 360) -> tuple[Figure, Any]:
    """An empty figure of the course's style, sizes in pixels, and its axes: one, or an array (rows, columns) squeezed.

    Pass the axes to the functions here and give the figure to ``show``.
    """
    with style():
        figure = Figure(figsize=(width / DPI, height / DPI), layout="constrained")
        figure.get_layout_engine().set(w_pad=10 / DPI, h_pad=8 / DPI)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns)


# Publishing --------------------------------------------------------------------------------


def in_notebook() -> bool:
    """Whether this code runs in a notebook's kernel, where pictures have a place to go."""
    module = sys.modules.get("IPython")  # not imported: then it is no notebook, and importing it would take a while
    shell = module.get_ipython() if module else None
    return shell is not None and all(kind.__name__ != "TerminalInteractiveShell" for kind in type(shell).__mro__)


def png(figure: Figure) -> bytes:
    """The figure as a small PNG: line art in 256 colours, photographs in full."""
    with style():
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(DPI * SHARPNESS)
        try:
            canvas.draw()
            if _fold_titles(figure, canvas):
                canvas.draw()
        finally:
            figure.set_dpi(DPI)
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    photographs = any(image.get_array().ndim == 3 for axes in figure.axes for image in axes.images)
    picture = Image.fromarray(np.ascontiguousarray(pixels)) if photographs else _in_256_colours(pixels)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _fold_titles(figure: Figure, canvas: FigureCanvasAgg) -> bool:
    """Break titles that run out of a drawn figure into lines; returns whether there was one."""
    import textwrap

    folded, room = False, figure.bbox.width
    for title in (text for axes in figure.axes for text in (axes.title, axes._left_title, axes._right_title)):
        box = title.get_window_extent(canvas.get_renderer())
        if title.get_text() and "\n" not in title.get_text() and box.x1 > room:
            letters = int(0.9 * len(title.get_text()) * (room - max(box.x0, 0)) / box.width)  # letters differ in width
            title.set_text(textwrap.fill(title.get_text(), max(letters, 10)))
            folded = True
    return folded


def _in_256_colours(pixels: np.ndarray) -> Image.Image:
    """The picture with its 256 most frequent colours, every other pixel taking the nearest.

    Areas of one colour keep it exactly; only the blends at edges and in letters move a little. Pillow's own choice of
    colours dims a small patch in a rare colour, which may be the very one that the legend explains.
    """
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.float32)
    kept = rgb[np.argsort(-counts, kind="stable")[:256]]
    # |a - b|² = |a|² - 2ab + |b|², and |a|² is the same for all b
    nearest = np.concatenate(
        [((kept**2).sum(1) - 2 * part @ kept.T).argmin(1) for part in np.split(rgb, range(4096, len(rgb), 4096))]
    )
    picture = Image.fromarray(nearest.astype(np.uint8)[inverse].reshape(packed.shape), "P")
    picture.putpalette(kept.astype(np.uint8).tobytes())
    return picture


def _publish(figure: Figure, alt: str, display_id: str | None = None, update: bool = False) -> None:
    """One PNG display with its alt text.

    The key is the one that nbconvert's classic template and IPython's own Image use. Only the width is given: where the
    page is narrower, the browser then keeps the proportions.
    """
    from IPython.display import display, update_display

    data = {"image/png": png(figure), "text/plain": alt}
    metadata = {"image/png": {"alt": alt, "width": round(figure.get_figwidth() * DPI)}}
    if update:
        update_display(data, raw=True, metadata=metadata, display_id=display_id)
    elif display_id:
        display(data, raw=True, metadata=metadata, display_id=display_id)
    else:
        display(data, raw=True, metadata=metadata)


def _write(figure: Figure, alt: str, folder: Path) -> None:
    """Write the figure as the next NNN.png, with NNN.txt beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem) for path in folder.glob("*.png") if path.stem.isdigit()]
    stem = f"{max(taken, default=0) + 1:03d}"
    with write_atomically(folder / f"{stem}.png") as path:
        path.write_bytes(png(figure))
    with write_atomically(folder / f"{stem}.txt") as path:
        path.write_text(alt + "\n", encoding="utf-8")


def show(figure: Figure, alt: str) -> None:
    """Publish ``figure`` as one PNG with ``alt`` as its text alternative, and close it.

    In a notebook it appears under the cell; elsewhere nothing happens. With ``PFMCOURSE_FIGURES`` set it is written
    there as well. Raises CourseError for an empty alt text: say what the picture shows, in one or two sentences.
    """
    alt = " ".join(alt.split())
    if not alt:
        raise CourseError(
            "every figure needs alt text. Say in a sentence what it shows, e.g. alt='Loss falls from 4.1 to 2.9'."
        )
    folder = os.environ.get("PFMCOURSE_FIGURES")
    if folder:
        _write(figure, alt, Path(folder))
    if in_notebook():
        _publish(figure, alt)
    if "matplotlib.pyplot" in sys.modules:  # a figure made with pyplot would be shown again at the end of the cell
        sys.modules["matplotlib.pyplot"].close(figure)


def _figure(size: Callable[..., tuple[float, float]]) -> Callable[[Callable[..., str]], Callable[..., None]]:
    """Turn ``function(axes, ...) -> alt text`` into one that draws on given axes, or on its own figure and shows it.

    ``size`` tells width and height in pixels from the same arguments; the caller can override it, and the alt text.
    """

    def decorate(function: Callable[..., str]) -> Callable[..., None]:
        default_size = size

        @functools.wraps(function)
        def draw(
            *arguments: Any,
            alt: str | None = None,
            axes: Axes | None = None,
            size: tuple[float, float] | None = None,
            **options: Any,
        ) -> None:
            with style():
                if axes is not None:
                    function(axes, *arguments, **options)
                    return
                width, height = size or default_size(*arguments, **options)
                figure, axes = panels(width=width, height=height)
                written = function(axes, *arguments, **options)
            show(figure, written if alt is None else alt)

        # What help() shows: the drawing function's parameters without the axes, and then the three added here.
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = inspect.signature(draw, follow_wrapped=False).parameters
        draw.__signature__ = inspect.Signature(
            [*own, *(shared[name] for name in ("alt", "axes", "size"))], return_annotation=None
        )
        return draw

    return decorate


# Small helpers --------------------------------------------------------------------------------


def _number(value: float) -> str:
    """A number as people write it in a sentence: three significant digits, thousands with commas."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text and abs(value) >= 100 else text


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _listing(words: Sequence[str], most: int = 12) -> str:
    words = [str(word) for word in words]
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _array(values: Any) -> np.ndarray:
    """A tensor of any device and type, or anything like an array, as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _bounds(value: Any) -> tuple[float, float, float]:
    """Mean, low, high of an Interval (anything with these fields) or of a plain number."""
    if not hasattr(value, "mean") or not hasattr(value, "low"):
        return float(value), float(value), float(value)
    known = math.isfinite(value.low) and math.isfinite(value.high)
    return (value.mean, value.low, value.high) if known else (value.mean, value.mean, value.mean)


def _apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions nearest to those wanted that keep ``gap`` between each other and stay inside where there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[float]] = []  # (centre, members): neighbours that touch are spread about their common centre
    for i in order:
        groups.append([min(max(wanted[i], low), high), 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (second, many), (first, few) = groups.pop(), groups.pop()
            centre, members = (first * few + second * many) / (few + many), few + many
            reach = gap * (members - 1) / 2
            groups.append([min(max(centre, low + reach), max(high - reach, low + reach)), members])
    places = [centre + gap * (k - (members - 1) / 2) for centre, members in groups for k in range(int(members))]
    result = [0.0] * len(wanted)
    for place, i in zip(places, order, strict=True):
        result[i] = place
    return result


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right edge at the heights where their lines end, moved apart where they would collide."""
    if not ends:
        return
    figure = axes.figure
    figure.draw_without_rendering()
    height = axes.get_window_extent().height / figure.dpi * 72  # in points
    transform = axes.transData + axes.transAxes.inverted()
    wanted = [float(transform.transform((axes.get_xlim()[1], y))[1]) for y, _, _ in ends]
    size = matplotlib.rcParams["font.size"] * 0.95
    for place, (_, name, colour) in zip(_apart(wanted, 1.3 * size / height, 0, 1), ends, strict=True):
        axes.annotate(
            name,
            (1, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            fontsize=size,
            color=colour,
            annotation_clip=False,
        )


def _dark(colour: str) -> str:
    """The colour darkened until text in it has a contrast of 4.5 to white, as WCAG asks."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    while contrast(rgb) < 4.5:
        rgb = rgb * 0.96
    return matplotlib.colors.to_hex(rgb)


def contrast(colour: Any, background: Any = "white") -> float:
    """WCAG 2 contrast ratio of two colours, from 1 (the same) to 21 (black on white)."""

    def luminance(one: Any) -> float:
        rgb = np.array(matplotlib.colors.to_rgb(one))
        return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))

    lighter, darker = sorted((luminance(colour), luminance(background)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


# Training --------------------------------------------------------------------------------


def _curve(history: Any, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that hold ``metric`` as a finite number."""
    rows = [row for row in history.rows if row.get(metric) is not None and math.isfinite(row[metric])]
    return np.array([row["step"] for row in rows], dtype=float), np.array([row[metric] for row in rows], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of some 7 % of the rows around each.

    It narrows to nothing at the start, where a loss falls fast.
    """
    reach = len(values) // 28
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    left, right = i - np.minimum(reach, i), np.minimum(i + np.minimum(reach, i), len(values) - 1) + 1
    return (total[right] - total[left]) / (right - left)


def _draw_curves(
    axes: Axes, histories: Mapping[str, Any], metric: str, references: Mapping[str, float], title: str, planned: int = 0
) -> str:
    name = metric.replace("_", " ")
    said, ends = [], []
    for number, (label, history) in enumerate(histories.items()):
        steps, values = _curve(history, metric)
        if not len(steps):
            continue
        colour, dashes = PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)]
        smooth = _smooth(values)
        if len(steps) >= 28:
            axes.plot(steps, values, color=colour, alpha=0.28, linewidth=0.9)
        axes.plot(steps, smooth, color=colour, linestyle=dashes, marker="o" if len(steps) < 3 else None)
        change = "stays at" if _number(smooth[0]) == _number(smooth[-1]) else None
        change = change or f"{'falls' if smooth[-1] < smooth[0] else 'rises'} from {_number(smooth[0])} to"
        who = f" of {label}" if len(histories) > 1 else ""
        said.append(f"{name}{who} {change} {_number(smooth[-1])} over {_count(steps[-1])} steps")
        if len(histories) > 1:
            ends.append((float(smooth[-1]), label, _dark(colour)))
    if not said:
        raise CourseError(f"no row of the history holds a finite {metric!r}. Known: {_known_metrics(histories)}.")
    for label, value in references.items():
        axes.axhline(value, color=GREY, linewidth=1.1, linestyle=(0, (3, 2)))
        ends.append((value, label, GREY))
    axes.set(title=title, xlabel="step", ylabel=name)
    axes.set_xlim(0, max([planned, *(_curve(one, metric)[0].max(initial=1) for one in histories.values())]))
    axes.margins(y=0.08)
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: _count(value))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    _label_ends(axes, ends)
    text = "; ".join(said)
    if references:
        text += ". For comparison: " + ", ".join(f"{label} {_number(value)}" for label, value in references.items())
    return f"{title + ': ' if title else ''}{text if title else text[0].upper() + text[1:]}."


def _known_metrics(histories: Mapping[str, Any]) -> str:
    names = sorted({name for history in histories.values() for row in history.rows for name in row} - {"step"})
    return ", ".join(names) or "none, the history is empty"


@_figure(lambda *_, **__: (640, 340))
def loss_curve(
    axes: Axes,
    histories: Any,
    *,
    metric: str = "loss",
    references: Mapping[str, float] | None = None,
    title: str = "",
) -> str:
    """The loss, or another metric of the rows, over the steps: of one History or of several by name.

    Each value is drawn thin and their running mean strong. ``references`` are horizontal lines by name: a baseline, ln
    V.
    """
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    return _draw_curves(axes, histories, metric, references or {}, title)


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    return (
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        if seconds >= 3600
        else f"{seconds // 60}:{seconds % 60:02d}"
    )


class LiveCurve:
    """Watch a training run in a notebook: ``fit(..., watch=LiveCurve("Skip-gram"))``.

    One line (step, loss, speed, time left) and one curve are kept up to date in place; ``close`` leaves their final
    state, the picture with alt text. So a saved notebook holds one line and one picture, not a thousand. Outside a
    notebook it does nothing.
    """

    def __init__(self, title: str = "", every: float = 4.0) -> None:
        self.title, self.every = title, every  # seconds between pictures
        self._ids: dict[str, str] = {}
        self._first: tuple[int, float] | None = (
            None  # step and time of the first call, from which the time left is told
        )
        self._next_picture = 0.0

    def __call__(self, history: Any) -> None:
        """Bring the display up to date. ``history`` has the fields of ``train.History``."""
        if not in_notebook():
            return
        now = time.monotonic()
        self._first = self._first or (history.steps, now)
        self._line(self._running(history, now))
        if now >= self._next_picture:
            self._picture(history)
            spent = time.monotonic() - now
            self._next_picture = now + max(self.every, 40 * spent)  # drawing takes a fortieth of the time at most

    def close(self, history: Any) -> None:
        """Leave one line and one picture of the finished run."""
        if not in_notebook():
            return
        self._line(self._finished(history))
        self._picture(history)

    def _running(self, history: Any, now: float) -> str:
        planned = getattr(history, "planned", 0) or history.steps
        parts = [f"step {_count(history.steps)} of {_count(planned)}"]
        steps, losses = _curve(history, "loss")
        if len(steps):
            parts.append(f"loss {_number(losses[-1])}")
        if history.units_per_second:
            parts.append(f"{_count(history.units_per_second)} {history.unit}/s")
        first, began = self._first or (history.steps, now)
        if history.steps > first:
            parts.append(f"{_duration((planned - history.steps) * (now - began) / (history.steps - first))} left")
        return self._titled(" · ".join(parts))

    def _finished(self, history: Any) -> str:
        planned = getattr(history, "planned", 0) or history.steps
        done = history.steps >= planned and not getattr(history, "interrupted", False)
        parts = [
            f"{_count(history.steps)} steps in {_duration(history.seconds)}"
            if done
            else f"stopped at step {_count(history.steps)} of {_count(planned)} after {_duration(history.seconds)}"
        ]
        steps, losses = _curve(history, "loss")
        if len(steps):
            losses = _smooth(losses)
            parts.append(f"loss {_number(losses[0])} → {_number(losses[-1])}")
        if history.units_per_second:
            parts.append(f"{_count(history.units_per_second)} {history.unit}/s")
        if getattr(history, "resumed_at", None):
            parts.append(f"resumed at step {_count(history.resumed_at)}")
        return self._titled(" · ".join(parts))

    def _titled(self, text: str) -> str:
        return f"{self.title}: {text}" if self.title else text

    def _slot(self, name: str) -> tuple[str, bool]:
        """The display id of a slot, and whether it is already on the page."""
        known = name in self._ids
        return self._ids.setdefault(name, f"pfmcourse-{uuid.uuid4().hex}"), known

    def _line(self, text: str) -> None:
        from IPython.display import display, update_display

        display_id, known = self._slot("line")
        (update_display if known else display)({"text/plain": text}, raw=True, display_id=display_id)

    def _picture(self, history: Any) -> None:
        if len(_curve(history, "loss")[0]) < 2:
            return
        with style():
            figure, axes = panels(width=640, height=320)
            alt = _draw_curves(axes, {"": history}, "loss", {}, self.title, getattr(history, "planned", 0))
        display_id, known = self._slot("picture")
        _publish(figure, alt, display_id, update=known)


# Vectors --------------------------------------------------------------------------------


def _plane(vectors: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """The vectors in two dimensions, and how they came there."""
    if vectors.ndim != 2 or len(vectors) < 3:
        raise CourseError(f"a map needs three vectors or more, shape (points, dim), but got the shape {vectors.shape}.")
    if not np.isfinite(vectors).all():
        raise CourseError("the vectors hold nan or infinity, so they have no place on a map. Did training diverge?")
    if vectors.shape[1] == 2:
        return vectors, ""
    centred = vectors - vectors.mean(0)
    if method == "pca":
        left, sizes, right = np.linalg.svd(centred, full_matrices=False)
        # A singular vector's sign is arbitrary: make its largest entry positive, so that a map looks the same anywhere.
        sign = np.sign(right[:2][np.arange(2), np.abs(right[:2]).argmax(1)])
        share = (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-30)
        return left[:, :2] * sizes[:2] * sign, f"PCA: the plane holds {100 * share:.0f} % of the variance"
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(vectors) - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred.astype(np.float32))
        return flat, "t-SNE: neighbours stay together; sizes and distances of clusters mean little"
    raise unknown_name("method", method, ("pca", "tsne"))


def _place_labels(
    axes: Axes, points: np.ndarray, names: Mapping[int, str], colours: Mapping[int, str], always: set[int]
) -> None:
    """Write names beside their points where they fit without covering each other; ``always`` ones may move further."""
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    pixels = axes.transData.transform(points)
    unit = figure.dpi / 72
    dots = np.concatenate([pixels - 3 * unit, pixels + 3 * unit], axis=1)
    taken = np.empty((0, 4))

    def overlap(box: np.ndarray, others: np.ndarray) -> int:
        across = (box[0] < others[:, 2]) & (box[2] > others[:, 0])
        return int((across & (box[1] < others[:, 3]) & (box[3] > others[:, 1])).sum())

    for i in sorted(names, key=lambda i: i not in always):
        text = axes.annotate(
            names[i], points[i], xytext=(0, 0), textcoords="offset points", fontsize=8.5, color=colours[i]
        )
        text.set_in_layout(False)
        if i in always:
            text.set_fontweight("bold")
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height
        best = None
        for reach in (5, 14, 26, 40) if i in always else (5, 9):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)):
                x = pixels[i, 0] + dx * reach * unit - (width if dx < 0 else width / 2 if dx == 0 else 0)
                y = pixels[i, 1] + dy * reach * unit - (height if dy < 0 else height / 2 if dy == 0 else 0)
                box = np.array([x - 1, y - 1, x + width + 1, y + height + 1])
                inside = box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1
                if not inside or overlap(box, taken):
                    continue
                covered = overlap(box, np.delete(dots, i, axis=0))
                if best is None or covered < best[0]:
                    best = (covered, box, reach)
            if best is not None and best[0] == 0:
                break
        if best is None or (best[0] and i not in always):
            text.remove()
            continue
        _, box, reach = best
        text.set_position(((box[0] + 1 - pixels[i, 0]) / unit, (box[1] + 1 - pixels[i, 1]) / unit))
        if reach > 9:
            end = axes.transData.inverted().transform(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
            axes.plot(
                *zip(points[i], end, strict=True), color=FAINT, linewidth=0.8, zorder=0.5, scalex=False, scaley=False
            )
        taken = np.vstack([taken, box])


@_figure(lambda *_, **__: (720, 480))
def embedding_map(
    axes: Axes,
    vectors: Any,
    labels: Sequence[str] | None = None,
    *,
    groups: Sequence[Any] | None = None,
    highlight: Mapping[str, Collection[str]] | None = None,
    method: Literal["pca", "tsne"] = "pca",
    title: str = "",
    seed: int = 0,
) -> str:
    """Vectors (points, dim) as a map in the plane, reduced by PCA or t-SNE unless dim is 2.

    ``labels`` are written where they fit. ``groups`` (one a point) sets colour and shape; or ``highlight`` names a few
    groups of labels and leaves the rest grey, and highlighted labels are always written.
    """
    vectors = _array(vectors)
    points, how = _plane(vectors, method, seed)
    labels = None if labels is None else [str(label) for label in labels]
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(points):
            raise CourseError(
                f"`{name}` should hold one entry a point, but there are {len(values)} for {len(points)} points."
            )
    if highlight:
        if labels is None:
            raise CourseError("`highlight` names points by their labels: pass `labels` too.")
        missing = sorted({word for words in highlight.values() for word in words} - set(labels))
        if missing:
            raise (
                unknown_name("label", missing[0], labels)
                if len(labels) < 100
                else CourseError(f"`highlight` names {_listing(missing)}, which `labels` does not hold.")
            )
        group_of = {word: group for group, words in highlight.items() for word in words}
        groups = [group_of.get(label) for label in labels]
        order: list[Any] = list(highlight)
    else:
        groups = (
            [None] * len(points)
            if groups is None
            else _array(groups).tolist()
            if hasattr(groups, "dtype")
            else list(groups)
        )
        order = sorted({group for group in groups if group is not None}, key=lambda group: (str(type(group)), group))
    rest = np.array([group is None for group in groups])
    plain = not order
    axes.scatter(
        *points[rest].T, s=14, color=BLUE if plain else "#BBBBBB", linewidths=0, alpha=0.8 if plain else 0.9, zorder=1
    )
    colours = dict.fromkeys(range(len(points)), INK if plain else GREY)
    for number, group in enumerate(order):
        chosen = np.array([one == group for one in groups])
        colour = PALETTE[number % len(PALETTE)]
        # Colours and shapes turn at different rates, so that more groups than colours stay distinct.
        marker = MARKERS[(number % len(PALETTE) + number // len(PALETTE)) % len(MARKERS)]
        axes.scatter(
            *points[chosen].T,
            s=26,
            color=colour,
            marker=marker,
            label=str(group),
            linewidths=0.5,
            edgecolors="white",
            zorder=2,
        )
        colours.update(dict.fromkeys(np.flatnonzero(chosen).tolist(), _dark(colour)))
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_facecolor(PANEL)
    axes.margins(0.06)
    if how:
        axes.set_xlabel(how, color=GREY, fontsize=8.5, loc="left")
    if order:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.2, borderaxespad=0.3)
    if labels is not None:
        always = set(np.flatnonzero(~rest).tolist()) if highlight else set()
        _place_labels(axes, points, dict(enumerate(labels)), colours, always)
    text = f"Map of {_count(len(points))} points in the plane"
    if order:
        text += f", marked as {_listing([str(group) for group in order])}"
    if how:
        text += f". {how}"
    return f"{title}: {text[0].lower()}{text[1:]}." if title else f"{text}."


# Pictures and matrices --------------------------------------------------------------------------------


def _picture(image: Any) -> np.ndarray:
    """One picture as (height, width, 3) in 0..1.

    From channels first or last, grey or colour; alpha is laid on white.
    """
    pixels = _array(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    elif pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and hasattr(image, "detach"):
        pixels = pixels.transpose(1, 2, 0)  # a tiny picture could be read both ways; tensors have channels first
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise CourseError(
            f"a picture should have the shape (channels, height, width), but has {tuple(_array(image).shape)}."
        )
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    if not np.isfinite(pixels).all() or pixels.min() < -0.01 or pixels.max() > 1.01:
        raise CourseError(
            f"pixels should lie between 0 and 1 (or be uint8), but reach from {pixels.min():.3g} to "
            f"{pixels.max():.3g}. "
            "Undo the normalisation first, or clip."
        )
    pixels = pixels.clip(0, 1)
    if pixels.shape[2] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def image_grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    row_titles: Sequence[str] | None = None,
    size: int = 72,
    title: str = "",
    alt: str | None = None,
) -> None:
    """Pictures in rows, each about ``size`` pixels high, with a title under each and one before each row.

    A picture is a tensor (channels, height, width) or an array, grey, RGB or RGBA, in 0..1 or uint8. Pixels stay crisp
    squares.
    """
    pictures = [_picture(image) for image in images]
    if not pictures:
        raise CourseError("an image grid needs one picture or more, but got none.")
    if titles is not None and len(titles) != len(pictures):
        raise CourseError(
            f"`titles` should hold one entry a picture, but there are {len(titles)} for {len(pictures)} pictures."
        )
    if alt is None and not title and titles is None:
        raise CourseError(
            "say what the pictures are, in `title`, `titles` or `alt`: a reader who cannot see them needs it."
        )
    columns = columns or min(len(pictures), 10)
    rows = math.ceil(len(pictures) / columns)
    if row_titles is not None and len(row_titles) != rows:
        raise CourseError(f"`row_titles` should hold one entry a row, but there are {len(row_titles)} for {rows} rows.")
    gap, line = 8, 14
    shapes = [(size, round(size * one.shape[1] / one.shape[0])) for one in pictures]
    wide = max(width for _, width in shapes)
    lines = [_wrapped(str(name), max(wide, 48)) for name in titles] if titles is not None else [""] * len(pictures)
    caption = line * max(text.count("\n") + 1 for text in lines) + 4 if titles is not None else 0
    cell = max(wide, 48) if titles is not None else wide
    before = 12 + max((_bold_width(text, 9) for text in row_titles or []), default=-12)
    head = 30 if title else 4
    width, height = before + columns * (cell + gap), head + rows * (size + caption + gap)
    with style():
        figure = Figure(figsize=(width / DPI, height / DPI))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for i, (picture, (high, across)) in enumerate(zip(pictures, shapes, strict=True)):
            left = before + (i % columns) * (cell + gap) + gap / 2 + (cell - across) / 2
            top = head + (i // columns) * (size + caption + gap)
            axes.imshow(picture, extent=(left, left + across, top + high, top), interpolation="nearest", aspect="auto")
            frame = Rectangle((left, top), across, high, fill=False, edgecolor=FAINT, linewidth=0.8)
            axes.add_patch(frame)  # a white picture would have no edge
            axes.text(left + across / 2, top + high + 4, lines[i], ha="center", va="top", fontsize=8, linespacing=1.15)
        for row, text in enumerate(row_titles or []):
            axes.text(
                4, head + row * (size + caption + gap) + size / 2, text, va="center", fontsize=9, fontweight="bold"
            )
        if title:
            axes.text(4, 6, title, va="top", fontsize=11, fontweight="bold")
        axes.set(xlim=(0, width), ylim=(height, 0))
    text = f"{len(pictures)} pictures" if len(pictures) > 1 else "One picture"
    text += f" in {rows} rows" if rows > 1 else ""
    text += f" ({_listing(row_titles, 8)})" if row_titles else ""
    text += f": {_listing([' '.join(str(name).split()) for name in titles], 20)}" if titles is not None else ""
    show(figure, (f"{title}. {text}." if title else f"{text}.") if alt is None else alt)


def _bold_width(text: str, size: float) -> int:
    """Width in pixels of a bold text of ``size`` points."""
    with style():
        return math.ceil(TextPath((0, 0), text, size, FontProperties(weight="bold")).get_extents().x1 * DPI / 72)


def _wrapped(text: str, pixels: float) -> str:
    """Text broken into at most three lines that fit ``pixels`` at the size of captions.

    The rest is cut with an ellipsis.
    """
    import textwrap

    letters = max(6, int(pixels / 6.1))
    return "\n".join(textwrap.wrap(text, letters, max_lines=3, placeholder="…")) if text else ""


def _attention_size(
    matrix: Any, rows: Sequence[str], columns: Sequence[str] | None = None, **_: Any
) -> tuple[int, int]:
    """A cell of 46 pixels on small maps and 17 on large ones, and the room that the labels need."""
    across, down = len(rows if columns is None else columns), len(rows)
    cell = 46 if max(across, down) <= 10 else 17
    side = [7 * max((len(name) for name in names), default=0) for names in (rows, rows if columns is None else columns)]
    return max(300, cell * across + side[0] + (40 if cell == 46 else 90)), max(220, cell * down + side[1] + 60)


def _with_blanks(token: str) -> str:
    """A token with the blanks at its ends made visible, for they are part of it, and an empty one as a blank."""
    inner = token.strip(" ")
    if not inner:
        return "␣" * max(len(token), 1)
    before, after = token.split(inner, 1)
    return "␣" * len(before) + inner + "␣" * len(after)


@_figure(_attention_size)
def attention_map(
    axes: Axes,
    matrix: Any,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    numbers: bool | None = None,
) -> str:
    """Attention weights (queries, keys) as a heat map: each row shows where its token looks.

    Weights are numbered in the cells of small maps, or as ``numbers`` says. Any other matrix from 0 up works too.
    """
    weights = _array(matrix).astype(float)
    columns = rows if columns is None else columns
    if weights.shape != (len(rows), len(columns)):
        raise CourseError(
            f"the matrix should have the shape ({len(rows)}, {len(columns)}), as the labels say, but has "
            f"{weights.shape}."
        )
    top = max(float(weights.max()), 1e-12)
    image = axes.imshow(
        weights, cmap="Blues", vmin=min(0.0, float(weights.min())), vmax=top, aspect="equal", interpolation="nearest"
    )
    small = max(weights.shape) <= 10 if numbers is None else numbers
    if small:
        for (i, j), weight in np.ndenumerate(weights):
            ink = "white" if contrast(image.cmap(image.norm(weight))[:3]) > 4.5 else INK
            said = f"{weight:.2f}".replace("0.", ".", 1) if 0.005 <= abs(weight) < 0.995 else f"{weight:.1f}"
            if abs(weight) >= 0.005:
                axes.text(j, i, said, ha="center", va="center", color=ink, fontsize=8)
    shown = [[_with_blanks(name) for name in names] for names in (rows, columns)]
    axes.set_xticks(range(len(columns)), shown[1], rotation=90 if max(map(len, columns)) > 3 else 0)
    axes.set_yticks(range(len(rows)), shown[0])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if small else 0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    if not small:
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
    i, j = np.unravel_index(weights.argmax(), weights.shape)
    text = (
        f"{len(rows)} by {len(columns)} weights; the largest, {weights[i, j]:.2f}, goes from {rows[i]!r} to "
        f"{columns[j]!r}"
    )
    return f"{title}: {text}." if title else f"Heat map of {text}."


# Comparisons --------------------------------------------------------------------------------


def _formatter(percent: bool, digits: int | None) -> Callable[[float], str]:
    if percent:
        return lambda value: f"{100 * value:.{1 if digits is None else digits}f} %"
    return (lambda value: f"{value:,.{digits}f}") if digits is not None else _number


def _tick(percent: bool) -> Callable[[float, int], str]:
    """How an axis writes its numbers."""
    return lambda value, _: (f"{100 * value:.0f} %" if percent else f"{value:g}").replace("-", "−")


def _said(value: Any, written: Callable[[float], str]) -> str:
    mean, low, high = _bounds(value)
    return written(mean) + (f" ({written(low)} to {written(high)})" if high > low else "")


def _bars_size(values: Mapping[str, Any], **options: Any) -> tuple[int, int]:
    """Some 34 pixels a bar, and room for the title, the names of the lines, and the axis."""
    bars = sum(len(value) + 0.7 if isinstance(value, Mapping) else 1 for value in values.values())
    extra = 24 * bool(options.get("title")) + 26 * bool(options.get("baseline")) + 20 * bool(options.get("xlabel"))
    return 640, round(34 * bars + 50 + extra)


@_figure(_bars_size)
def bars(
    axes: Axes,
    values: Mapping[str, Any],
    *,
    baseline: Mapping[str, float] | None = None,
    percent: bool = False,
    digits: int | None = None,
    xlabel: str = "",
    highlight: Collection[str] = (),
    title: str = "",
) -> str:
    """Bars from zero with their intervals, the value written beside each.

    ``values`` maps a name to a number or an Interval, or a group to such a mapping: then one colour a series.
    ``baseline`` draws vertical lines by name, e.g. ``{"chance": 0.1}``. ``percent`` writes 0.123 as 12.3 %.
    ``highlight`` keeps its names in colour and turns the others grey.
    """
    if not values:
        raise CourseError("a bar chart needs one value or more, but got none.")
    unknown = sorted(set(highlight) - set(values))
    if unknown:
        raise unknown_name("bar", unknown[0], values)
    written = _formatter(percent, digits)
    if digits is None and not percent:
        numbers = [
            one for value in values.values() for one in (value.values() if isinstance(value, Mapping) else [value])
        ]
        written = _formatter(False, 2) if max(abs(_bounds(one)[0]) for one in numbers) < 10 else _number
    grouped = all(isinstance(value, Mapping) for value in values.values())
    groups = values if grouped else {"": values}
    series = list(dict.fromkeys(name for group in groups.values() for name in group)) if grouped else []
    ticks, place, reach = [], 0.0, [0.0]
    for group, members in groups.items():
        start = place
        for name, value in members.items():
            mean, low, high = _bounds(value)
            colour = PALETTE[series.index(name) % len(PALETTE)] if grouped else BLUE
            if highlight and (group if grouped else name) not in highlight:
                colour = "#BDBDBD"
            axes.barh(place, mean, height=0.86 if grouped else 0.74, color=colour, zorder=2)
            if high > low:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=3)
                axes.plot([low, high], [place, place], color=INK, marker="|", markersize=7, linestyle="none", zorder=3)
            end = min(mean, low, 0) if mean < 0 else max(mean, high)
            axes.annotate(
                written(mean).replace("-", "−"),
                (end, place),
                xytext=(-5 if mean < 0 else 5, 0),
                textcoords="offset points",
                ha="right" if mean < 0 else "left",
                va="center",
                fontsize=9,
                zorder=6,  # above the lines of baselines
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )
            reach += [end, low]
            if not grouped:
                ticks.append((place, name))
            place += 1
        if grouped:
            ticks.append(((start + place - 1) / 2, group))
            place += 0.7
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    lowest, highest = min(reach), max([*reach, *(baseline or {}).values()])
    span = max(highest - lowest, 1e-12)
    axes.set_xlim(lowest - (0.16 * span if lowest < 0 else 0), highest + (0.16 * span if highest > 0 else 0))
    axes.set_ylim(place - (1.0 if grouped else 0.4) - (0.1 if grouped else 0), -0.6)
    axes.xaxis.set_major_formatter(_tick(percent))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    if lowest < 0:
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=2.5)
    for number, value in enumerate((baseline or {}).values()):
        axes.axvline(value, color=INK, linewidth=1.2, linestyle=DASHES[(number + 1) % len(DASHES)], zorder=5)
    named = _name_baselines(axes, baseline or {}, written)
    axes.set_xlabel(xlabel)
    if title:
        axes.set_title(title, pad=9 + 13 * named)
    if grouped:
        handles = [Rectangle((0, 0), 1, 1, color=PALETTE[i % len(PALETTE)]) for i in range(len(series))]
        axes.legend(handles, series, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1, handleheight=1)
    parts = [
        f"{group + ': ' if group else ''}"
        + ", ".join(f"{name} {_said(value, written)}" for name, value in members.items())
        for group, members in groups.items()
    ]
    text = f"{xlabel[0].upper() + xlabel[1:] if xlabel else 'Values'}: {'; '.join(parts)}"
    if baseline:
        text += ". Lines: " + ", ".join(f"{name} {written(value)}" for name, value in baseline.items())
    return f"{title}. {text}." if title else f"{text}."


def _name_baselines(axes: Axes, baseline: Mapping[str, float], written: Callable[[float], str]) -> int:
    """Names of vertical lines above the axes, in as many rows as they need; returns that number."""
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    taken: list[tuple[int, float, float]] = []
    for name, value in sorted(baseline.items(), key=lambda pair: pair[1]):
        text = axes.annotate(
            f"{name} {written(value)}",
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=INK,
        )
        extent = text.get_window_extent(renderer)
        row = 0
        while any(r == row and extent.x0 - 6 < right and extent.x1 + 6 > left for r, left, right in taken):
            row += 1
        taken.append((row, extent.x0, extent.x1))
        text.set_position((0, 3 + 12 * row))
    return max((row + 1 for row, _, _ in taken), default=0)


@_figure(lambda *_, **__: (640, 360))
def lines(
    axes: Axes,
    series: Mapping[str, Mapping[float, Any]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    percent: bool = False,
    log: bool | None = None,
    references: Mapping[str, float] | None = None,
    title: str = "",
) -> str:
    """Curves with 95 % bands: ``series`` maps a name to a mapping from x to a number or an Interval.

    Made for few-label curves, ``{"probe": few_label(...), ...}``: accuracy over the number of labels. ``references``
    are horizontal lines by name (chance, all labels). x is logarithmic, with a tick at every x, where it spans a factor
    of eight or more.
    """
    if not series or not all(series.values()):
        raise CourseError("a curve needs one point or more, but a series is empty.")
    written = _formatter(percent, None)
    xs = sorted({float(x) for one in series.values() for x in one})
    log = (xs[0] > 0 and xs[-1] / xs[0] >= 8) if log is None else log
    ends, said = [], []
    for number, (name, one) in enumerate(series.items()):
        colour = PALETTE[number % len(PALETTE)]
        x = np.array(sorted(one), dtype=float)
        mean, low, high = np.array([_bounds(one[key]) for key in sorted(one)]).T
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colour,
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
        )
        ends.append((float(mean[-1]), name, _dark(colour)))
        first, last = min(one), max(one)
        said.append(
            f"{name}: {_said(one[first], written)} at {_count(first)}, {_said(one[last], written)} at {_count(last)}"
        )
    for name, value in (references or {}).items():
        axes.axhline(value, color=GREY, linewidth=1.1, linestyle=(0, (3, 2)))
        ends.append((value, name, GREY))
    if log:
        axes.set_xscale("log")
    if len(xs) <= 8:
        axes.set_xticks(xs, [f"{x:,g}" for x in xs])
        axes.minorticks_off()
    axes.yaxis.set_major_formatter(_tick(percent))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.margins(x=0.03)
    axes.grid(axis="y")
    _label_ends(axes, ends)
    text = f"{ylabel or 'value'} over {xlabel or 'x'}. {'; '.join(said)}"
    if references:
        text += ". Lines: " + ", ".join(f"{name} {written(value)}" for name, value in references.items())
    return f"{title}: {text}." if title else f"{text[0].upper()}{text[1:]}."


# The history --------------------------------------------------------------------------------

KIND_MARKS = {"generative": (BLUE, "o"), "contrastive": (VERMILLION, "^"), "supervised": (GREEN, "s")}


def _year_places(years: Sequence[int]) -> tuple[dict[int, float], list[float]]:
    """Each year's place in columns of one year.

    A run of more than two empty years shrinks to one column, marked as a break.
    """
    places, breaks, at = {}, [], 0.0
    present = sorted(set(years))
    for year, following in zip(present, [*present[1:], present[-1] + 1], strict=True):
        places[year] = at
        if following - year > 3:
            breaks.append(at + 0.75)
            at += 1.5
        else:
            places.update({year + k: at + k for k in range(1, following - year)})
            at += following - year
    return places, breaks


def timeline(
    entries: Sequence[Any],
    *,
    highlight: Collection[str] = (),
    width: int = 1100,
    title: str = "",
    alt: str | None = None,
) -> None:
    """The history as a picture: years from left to right, a band for each modality, colour and shape for the kind.

    ``entries`` have the fields of ``timeline.Entry``. Names in ``highlight`` (those of a lesson, say) stand out and the
    rest steps back. Entries keep to their year's column; a name that is longer may reach into the next one where that
    is free.
    """
    figure, text, _ = _timeline(entries, highlight, width, title)
    show(figure, text if alt is None else alt)


def _timeline(
    entries: Sequence[Any], highlight: Collection[str], width: int, title: str
) -> tuple[Figure, str, list[Any]]:
    """The figure, its alt text, and the artists of the names, which a test measures."""
    entries = sorted(entries, key=lambda entry: entry.year)
    if not entries:
        raise CourseError("a timeline needs one entry or more, but got none.")
    for entry in entries:
        if entry.kind not in KIND_MARKS:
            raise unknown_name("kind", entry.kind, KIND_MARKS)
    unknown = sorted(set(highlight) - {entry.name for entry in entries})
    if unknown:
        raise unknown_name("system", unknown[0], (entry.name for entry in entries))
    modalities = list(
        dict.fromkeys(["language", "vision", "graphs", "speech", "video", "multimodal", *(e.modality for e in entries)])
    )
    modalities = [one for one in modalities if any(entry.modality == one for entry in entries)]
    if "other" in modalities:
        modalities = [one for one in modalities if one != "other"] + ["other"]
    places, breaks = _year_places([entry.year for entry in entries])
    left, right, head, foot, line, pad = 106, 10, 62 + (24 if title else 0), 26, 17.5, 9
    column = (width - left - right) / (max(places.values()) + 1)
    with style():
        figure = Figure(figsize=(width / DPI, 1))
        renderer = FigureCanvasAgg(figure).get_renderer()
        names, bands = [], []
        top = float(head)
        for modality in modalities:
            ground = BAND if len(bands) % 2 == 0 else "white"
            rows: list[float] = []  # where each line of names ends
            for entry in (one for one in entries if one.modality == modality):
                bold = entry.name in highlight
                probe = figure.text(0, 0, entry.name, fontsize=9, fontweight="bold" if bold else "normal")
                length = probe.get_window_extent(renderer).width
                probe.remove()
                start = min(left + places[entry.year] * column + 9, width - 4 - length - 10)
                row = next((i for i, end in enumerate(rows) if end + 12 <= start), len(rows))
                rows[row : row + 1] = [start + 9 + length]
                names.append((entry, start, top + pad + (row + 0.5) * line, bold, ground))
            bands.append((modality, top, len(rows) * line + 2 * pad, ground))
            top += bands[-1][2]
        height = top + foot
        figure.set_size_inches(width / DPI, height / DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for modality, start, tall, ground in bands:
            axes.add_patch(Rectangle((0, start), width, tall, color=ground, linewidth=0, zorder=0))
            axes.text(10, start + tall / 2, modality, va="center", fontsize=9.5, fontweight="bold")
        for year, place in places.items():
            x = left + place * column
            axes.plot([x, x], [head, top], color="#D5D9DD", linewidth=0.8, zorder=1)
            for y, where in ((head - 5, "bottom"), (top + 5, "top")):
                axes.text(x, y, str(year), ha="center", va=where, fontsize=9, color=INK)
        for place in breaks:
            x = left + place * column
            for y in (head - 11, top + 11):
                axes.text(x, y, "⋯", ha="center", va="center", fontsize=12, color=GREY)
        artists = []
        for entry, x, y, bold, ground in names:
            colour, marker = KIND_MARKS[entry.kind]
            back = bool(highlight) and not bold
            axes.plot(
                x,
                y,
                marker=marker,
                markersize=8 if bold else 6.3,
                color="#B5B5B5" if back else colour,
                linestyle="none",
                zorder=3,
            )
            artists.append(
                axes.text(
                    x + 9,
                    y,
                    entry.name,
                    va="center_baseline",
                    fontsize=9,
                    zorder=3,
                    color="#767676" if back else INK,
                    fontweight="bold" if bold else "normal",
                    path_effects=[withStroke(linewidth=3, foreground=ground)],
                )
            )
        kinds = [kind for kind in KIND_MARKS if any(entry.kind == kind for entry in entries)]
        meaning = {
            "generative": "generative: predict what is missing or comes next",
            "contrastive": "contrastive: tell what belongs together from what does not",
            "supervised": "supervised: predict what people labelled",
        }
        handles = [
            Line2D([], [], linestyle="none", marker=KIND_MARKS[kind][1], color=KIND_MARKS[kind][0], markersize=7)
            for kind in kinds
        ]
        axes.legend(
            handles,
            [meaning[kind] if width >= 1000 else kind for kind in kinds],
            loc="upper left",
            bbox_to_anchor=(2 / width, 1 - (4 + 24 * bool(title)) / height),
            ncols=3,
            handletextpad=0.1,
            columnspacing=1.6,
            borderaxespad=0,
            fontsize=9,
        )
        if title:
            axes.text(10, 8, title, va="top", fontsize=12, fontweight="bold")
    text = (
        f"Timeline of {len(entries)} pretrained models from {entries[0].name} ({entries[0].year}) to "
        f"{entries[-1].name} "
    )
    text += f"({entries[-1].year}), in bands for {_listing(modalities)}. "
    text += _listing([f"{sum(entry.kind == kind for entry in entries)} are {kind}" for kind in kinds])
    if highlight:
        text += f". Marked: {_listing([entry.name for entry in entries if entry.name in highlight])}"
    return figure, f"{title}. {text}." if title else f"{text}.", artists
