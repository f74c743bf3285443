"""Draw the curves of a run into a PNG file, when matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rolecall.core.errors import MissingDependency
from rolecall.observe.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ("save_curves",)

_PANELS = 2
_LINE_COLOURS = ("#1f6feb", "#d1581f")


def save_curves(path: Path, series: Series, *, title: str) -> bool:
    """Write the headline of `series`, and the loss or next metric beneath it, to the PNG file `path`.

    Return False, and write nothing, when there is no point to draw. Raise `MissingDependency` without
    matplotlib, and `OSError` when the file cannot be written. Safe in any thread: nothing of matplotlib's
    global state is used.
    """
    names = [name for name in _panels(series) if series.points(name)]
    if not names:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", needed_for=f"the plot {path.name}", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 2.0 + 2.2 * len(names)), dpi=120, layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0])
    for axes, name, colour in zip(panels, names, _LINE_COLOURS, strict=False):
        _draw(axes, series.points(name), name, colour)
    panels[-1].set_xlabel("seconds" if series.clock == "time_s" else series.clock)
    panels[0].set_title(title, loc="left")
    figure.savefig(path, format="png")
    return True


def _panels(series: Series) -> list[str]:
    """Return the names of the metrics to draw: the headline, then the loss or another metric."""
    names = series.names()
    rest = sorted(names[1:], key=lambda name: name != "loss")
    return [*names[:1], *rest][:_PANELS]


def _draw(axes: Axes, points: Sequence[tuple[float, float]], name: str, colour: str) -> None:
    marker = "o" if len(points) <= 40 else ""
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        marker=marker,
        markersize=3,
        linewidth=1.5,
    )
    axes.annotate(f" {points[-1][1]:.3g}", points[-1], va="center", annotation_clip=False)
    axes.set_ylabel(name)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
