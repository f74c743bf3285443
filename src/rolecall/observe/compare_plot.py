"""Draw a comparison: accuracy against samples, bytes and time, in one figure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rolecall.core.errors import MissingDependency
from rolecall.observe.comparison import Result
from rolecall.observe.measuring import Measured, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ("save_comparison",)

_PANELS: tuple[tuple[str, Callable[[Point], float]], ...] = (
    ("thousand samples trained", lambda point: point.samples / 1e3),
    ("megabytes sent", lambda point: point.bytes / 1e6),
    ("virtual seconds", lambda point: point.time_s),
)


def save_comparison(path: Path, results: Sequence[Result], *, title: str) -> bool:
    """Write a figure with three panels to a file (`.png` or `.svg`); return False where there is nothing to draw.

    A line is the mean over the seeds; the band around it goes from the lowest to the highest. Raise
    `MissingDependency` without matplotlib, and `OSError` when the file cannot be written.
    """
    if not results:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", needed_for=f"the plot {path.name}", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 3.8), dpi=100, layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(_PANELS), sharey=True))
    labels: dict[str, list[Measured]] = {}
    for result in results:
        labels.setdefault(result.entry.label, []).append(result.measured)
    for axes, (what, of) in zip(panels, _PANELS, strict=True):
        for label, runs in labels.items():
            _draw(axes, label, runs, of)
        axes.set_xlabel(what)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy")
    panels[-1].legend(frameon=False, loc="lower right")
    figure.suptitle(title, x=0.01, ha="left")
    figure.savefig(path)
    return True


def _draw(axes: Axes, label: str, runs: Sequence[Measured], of: Callable[[Point], float]) -> None:
    count = min(len(run.points) for run in runs)
    x = np.array([[of(point) for point in run.points[:count]] for run in runs])
    y = np.array([[point.accuracy for point in run.points[:count]] for run in runs])
    (line,) = axes.plot(x.mean(axis=0), y.mean(axis=0), label=label, linewidth=1.5, marker="." if count < 40 else "")
    if len(runs) > 1:
        axes.fill_between(x.mean(axis=0), y.min(axis=0), y.max(axis=0), color=line.get_color(), alpha=0.15, linewidth=0)
