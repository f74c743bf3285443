"""Show a run to a person while it runs, and its curve when it has ended.

`PlainProgress` writes one line of text a round, for pipes, logs and CI. `LiveProgress` keeps a bar and the
growing curve on a terminal, and leaves only the final curve behind. `progress_for` chooses.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from rolecall.core.ids import RoleId
from rolecall.core.patterns import natural_key
from rolecall.core.records import DEPLOYMENT, SIMULATION, DeadLetter, LogLine, Metric, Record
from rolecall.observe.curve import draw
from rolecall.observe.series import PREFERRED, Series
from rolecall.observe.summary import Failure, Plan, Summary

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

__all__ = ("LiveProgress", "PlainProgress", "progress_for")

_VALUES_SHOWN = 4
_CURVE_WIDTH = 80
_FINAL_HEIGHT = 14
_LIVE_HEIGHT = 10
_ROWS_FOR_LIVE_CURVE = 20
_REDRAWS_PER_S = 8
_DEAD_LETTERS_SHOWN = 5
_ROLES_SHOWN = 20
_RETURNED_LENGTH = 1_000


def progress_for(out: IO[str]) -> PlainProgress:
    """Return live progress when `out` is a terminal that can do it, plain lines otherwise."""
    if not out.isatty():
        return PlainProgress(out)
    from rich.console import Console

    console = Console(file=out)
    return PlainProgress(out) if console.is_dumb_terminal else LiveProgress(console)


class PlainProgress:
    """Write a run as lines of plain text: one a round; one a second at most when there are no rounds."""

    def __init__(self, out: IO[str]) -> None:
        self.series = Series()
        self.plan: Plan | None = None
        self._out = out
        self._current: float | None = None
        self._reports = 0
        self._shown: float | None = None
        self._shown_at_s = float("-inf")
        self._latest_s = 0.0
        self._dead_letters = 0
        self._latest: dict[RoleId, dict[str, Any]] = {}
        self._simulated = ""

    def started(self, plan: Plan) -> None:
        """Write what is about to run."""
        self.plan = plan
        seed = "" if plan.seed is None else f", seed {plan.seed}"
        size = f"{_count(plan.nodes, 'node')}, {_count(plan.roles, 'role')}"
        self.say(f"{plan.name}: {size}, engine {plan.engine}{seed}")

    def record(self, record: Record) -> None:
        """Write a line when a round is complete, and at once what went wrong."""
        match record:
            case Metric():
                self._latest.setdefault(record.role, {}).update(record.values)
                x = self.series.add(record)
                if x is not None:
                    self.moved(x, record.time_s)
            case DeadLetter():
                self._dead_letter(record)
            case LogLine() if record.level != "info":
                self.say(f"{record.level}: {record.source}: {record.text}")
            case LogLine() if record.source == DEPLOYMENT:
                self.say(record.text)
            case LogLine() if record.source == SIMULATION:
                self._simulated = record.text

    def moved(self, x: float, time_s: float) -> None:
        """Show the headline's value at `x`, once all roles that report it have done so."""
        if x != self._current:
            self._flush()
            self._current, self._reports = x, 0
        self._reports += 1
        self._latest_s = time_s
        # In the first round the accuracy may come after lesser metrics; later it is known who reports what.
        known = self._shown is not None or self.series.headline == PREFERRED[0]
        if known and self._reports >= self.series.reporters():
            self._flush()

    def finished(self, summary: Summary) -> None:
        """Write the curve and the result."""
        self._flush()
        self.curve(_FINAL_HEIGHT)
        if self.series.headline not in PREFERRED:
            self._say_latest()
        for name, value in summary.returned.items():
            if value is not None:
                self.say(f"{name} returned {_cut(json.dumps(value))}")
        if self._dead_letters > _DEAD_LETTERS_SHOWN:
            self.say(f"warning: {self._dead_letters} dead letters in all; log.txt has every one")
        self.say(_result(summary))
        if summary.digest is not None:
            self.say(f"digest of the final parameters: {summary.digest}")
        if self._simulated:
            self.say(self._simulated)
        if summary.run_dir is not None:
            self.say(f"run directory: {summary.run_dir}")

    def failed(self, failure: Failure) -> None:
        """Write the curve as far as it came; the error itself is told on stderr."""
        self._flush()
        self.curve(_FINAL_HEIGHT)
        if failure.run_dir is not None and failure.traceback:
            self.say(f"the traceback is in {failure.run_dir}/log.txt")
        if failure.run_dir is not None and self._simulated:
            self.say(f"{self._simulated}\nto have it again: rolecall replay {failure.run_dir}")

    def curve(self, height: int) -> None:
        """Write the curve of the run so far, when it has two points or more."""
        if len(self.series.points()) > 1:
            self.say("\n" + self.drawn(height, _is_unicode(self._out)))

    def drawn(self, height: int, unicode: bool, *, x_until: float | None = None) -> str:
        """Return the curve of the run so far as text; `x_until` leaves room for what is to come."""
        width = min(_CURVE_WIDTH, shutil.get_terminal_size((_CURVE_WIDTH, 24)).columns)
        return draw(
            self.series.points(),
            x_label="seconds" if self.series.clock == "time_s" else self.series.clock,
            y_label=self.series.headline or "",
            width=width,
            height=height,
            unicode=unicode,
            x_until=x_until,
        )

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._out.write(text + "\n")
        self._out.flush()

    def values_at(self, x: float) -> str:
        """Return what the headline's roles logged at `x`, as text."""
        values = self.series.at(x)
        shown = [name for name in PREFERRED if name in values] or list(values)[:_VALUES_SHOWN]
        return "  ".join(f"{name} {_short(values[name])}" for name in shown)

    def _flush(self) -> None:
        x, clock = self._current, self.series.clock
        if x is None or x == self._shown or (clock != "round" and self._latest_s - self._shown_at_s < 1):
            return
        self._shown, self._shown_at_s = x, self._latest_s
        took = "" if clock == "time_s" else f"  {self._latest_s:6.1f} s"
        self.say(f"{_position(clock, x, self.plan)}  {self.values_at(x)}{took}")

    def _say_latest(self) -> None:
        """Write what each role logged last: nothing else says how an application did that learns nothing."""
        roles = sorted(self._latest, key=natural_key)
        for role in roles[:_ROLES_SHOWN]:
            values = "  ".join(f"{name} {_logged(value)}" for name, value in self._latest[role].items())
            self.say(f"{role}  {values}")
        if len(roles) > _ROLES_SHOWN:
            self.say(f"... and {_count(len(roles) - _ROLES_SHOWN, 'role')} more; metrics.jsonl has every one")

    def _dead_letter(self, letter: DeadLetter) -> None:
        self._dead_letters += 1
        if self._dead_letters <= _DEAD_LETTERS_SHOWN:
            self.say(f"warning: dead letter: {letter.kind} to {letter.role}.{letter.channel}: {letter.reason}")


class LiveProgress(PlainProgress):
    """Keep a bar and the growing curve on a terminal while the run goes on."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        super().__init__(console.file)
        self._console = console
        self._clock = clock
        self._redrawn_at = float("-inf")
        self._curve = ""
        self._bar = _bar()
        self._task = self._bar.add_task("starting", total=None)
        self._live = Live(get_renderable=self._display, console=console, refresh_per_second=8, transient=True)

    def started(self, plan: Plan) -> None:
        """Write what is about to run, and begin the display."""
        super().started(plan)
        self._bar.reset(self._task, total=plan.rounds)
        self._live.start()

    def moved(self, x: float, time_s: float) -> None:
        """Move the bar, and draw the curve anew a few times a second."""
        clock = self.series.clock
        done = x if clock == "round" else None
        self._bar.update(
            self._task, completed=done, description=f"{_position(clock, x, self.plan)}  {self.values_at(x)}"
        )
        now = self._clock()
        if now - self._redrawn_at >= 1 / _REDRAWS_PER_S and self._console.height >= _ROWS_FOR_LIVE_CURVE:
            self._redrawn_at = now
            until = self.plan.rounds if self.plan and clock == "round" else None
            self._curve = self.drawn(_LIVE_HEIGHT, _is_unicode(self._console.file), x_until=until)

    def finished(self, summary: Summary) -> None:
        """Take the display away, and write the curve and the result."""
        self._live.stop()
        super().finished(summary)

    def failed(self, failure: Failure) -> None:
        """Take the display away, and write the curve as far as it came."""
        self._live.stop()
        super().failed(failure)

    def say(self, text: str) -> None:
        """Write a line that stays, above the display."""
        from rich.text import Text

        styled = Text(text)
        styled.highlight_regex("[\u2801-\u28ff*]+", "bold cyan")
        styled.highlight_regex(r"^warning:|^error:", "bold yellow")
        self._console.print(styled, soft_wrap=True)

    def _flush(self) -> None:
        """Leave nothing behind: the bar has shown it."""

    def _display(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._curve, style="cyan"), self._bar) if self._curve else self._bar


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    return Progress(*columns, auto_refresh=False)


def _position(clock: str, x: float, plan: Plan | None) -> str:
    if clock == "time_s":
        return f"{x:8.1f} s"
    total = plan.rounds if plan and clock == "round" else None
    return f"{clock} {x:>{len(str(total))}.0f}/{total}" if total else f"{clock} {x:>4.0f}"


def _result(summary: Summary) -> str:
    how = {"ok": "finished", "stopped": "stopped early"}.get(summary.status, summary.status)
    accuracy = "" if summary.accuracy is None else f" with accuracy {summary.accuracy:.4f}"
    rounds = "" if summary.rounds is None else f" after {_count(summary.rounds, 'round')}"
    alone = "" if summary.solo is None else f"; the same nodes alone: {summary.solo:.4f}"
    return f"{summary.name or summary.architecture} {how}{accuracy}{rounds} in {summary.wall_s:.1f} s{alone}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _short(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def _logged(value: object) -> str:
    return _short(value) if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _RETURNED_LENGTH else f"{text[:_RETURNED_LENGTH]}..."


def _is_unicode(out: IO[str]) -> bool:
    return (getattr(out, "encoding", None) or "").lower().replace("-", "") in {"utf8", "utf16", "utf32"}
