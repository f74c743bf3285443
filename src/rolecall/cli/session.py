"""Run one application from the command line: run directory, progress or events, signals, exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer
from msgspec import structs

from rolecall.cli.data import use_data_dir
from rolecall.cli.exit_codes import ExitCode
from rolecall.cli.failures import Aborted, failure_of, reported, tell
from rolecall.cli.interrupts import Interrupts
from rolecall.cli.options import Format
from rolecall.core.errors import ConfigError, MissingDependency, nearest
from rolecall.observe.summary import Failure, Plan, Summary

if TYPE_CHECKING:
    import anyio

    from rolecall.core.records import Observer, Record
    from rolecall.fleet.app import App
    from rolecall.fleet.records import Record as FoundRecord
    from rolecall.fleet.run import History
    from rolecall.observe.reporter import Reporter
    from rolecall.observe.run_directory import RunDirectory
    from rolecall.observe.series import Series

__all__ = ("Settings", "attend", "let_go")

_PACKAGED = re.compile(r"rolecall\.architectures\.(?!roles\b)(\w+)")  # roles that architectures share name none


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says about a run.

    `live` shows a bar where the output is a terminal. `on_directory` is called with the run directory before anything
    is run, `on_record` when others can look after the run.
    """

    engine: str = "local"
    sets: tuple[str, ...] = ()
    seed: int | None = None
    format: Format = Format.TEXT
    runs_dir: Path = Path("runs")
    data_dir: Path | None = None
    check: bool = False
    debug: bool = False
    judged: bool = False  # find out what the models of the end are worth
    live: bool = True
    on_directory: Callable[[Path], None] = lambda directory: None
    on_record: Callable[[FoundRecord], None] = lambda record: None


def attend(load: Callable[[], App], settings: Settings) -> None:
    """Run the application that `load` returns to its end, and show it; raise `typer.Exit` with its code."""
    out = sys.stdout
    session = _Session(_reporter(settings, out), settings)
    with ExitStack() as stack:
        if settings.format is Format.JSONL:
            stack.enter_context(redirect_stdout(sys.stderr))  # what roles print must not get among the events
        stack.callback(session.close)
        stack.callback(lambda: let_go(out) if session.output_closed else None)
        stack.enter_context(reported(session.failed, debug=settings.debug))
        code = session.run(load)
    raise typer.Exit(int(ExitCode.OUTPUT_CLOSED if session.output_closed else code))


class _Session:
    """One run as the command line sees it: its directory, its reporter, its signals."""

    def __init__(self, reporter: Reporter, settings: Settings) -> None:
        from rolecall.observe.series import Series

        self.output_closed = False
        self._reporter = reporter
        self._settings = settings
        self._series = Series()
        self._directory: RunDirectory | None = None
        self._plan: Plan | None = None
        self._lost: Exception | None = None
        self._interrupts = Interrupts(notice=_say, last_words=self._last_words)

    def run(self, load: Callable[[], App]) -> ExitCode:
        """Expand, check and run the application; write and show how it ended."""
        from rolecall.observe.run_directory import RunDirectory

        use_data_dir(self._settings.data_dir)
        _check_engine(self._settings.engine)
        app = load().expanded(sets=self._settings.sets, seed=self._settings.seed)
        app.check()
        directory = self._directory = RunDirectory.create(self._settings.runs_dir, app.name, now=datetime.now())
        directory.save_app(app)
        self._settings.on_directory(directory.path)
        plan = self._plan = _plan(app, self._settings.engine, directory.path)
        self._show(lambda: self._reporter.started(plan))
        history = self._run(app, directory)
        if isinstance(self._lost, ConfigError):
            raise self._lost
        if self._lost is not None:
            raise ConfigError(str(directory.path), f"the run could not be recorded ({self._lost})") from self._lost
        summary = _summary(history, plan, self._series)
        if self._settings.judged:
            summary = _judged(summary, history)
        self._draw(directory, plan)
        directory.finish(summary, history.final)
        self._show(lambda: self._reporter.finished(summary))
        return ExitCode.STOPPED if summary.status == "stopped" and app.until != "stopped" else ExitCode.OK

    def failed(self, failure: Failure) -> None:
        """Write and show that the run ended without a result."""
        if self._plan is not None:
            failure = structs.replace(failure, architecture=self._plan.architecture, run_dir=self._plan.run_dir)
        try:
            self._record_failure(failure)
        except ConfigError as error:
            _say(f"warning: {error}")
        self._show(lambda: self._reporter.failed(failure))

    def _record_failure(self, failure: Failure) -> None:
        if self._directory is None or self._lost is not None:
            return
        if failure.status != "aborted" and self._plan is not None:
            self._draw(self._directory, self._plan)
        self._directory.fail(failure)

    def close(self) -> None:
        """Close the files of the run directory."""
        if self._directory is not None:
            self._directory.close()

    def _run(self, app: App, directory: RunDirectory) -> History:
        from rolecall.fleet.gate import attended
        from rolecall.fleet.run import run
        from rolecall.observe.pump import Pump
        from rolecall.runtime.event_loop import run_on_loop

        settings = self._settings
        sinks: list[Observer] = [directory.record, self._collect, self._reporter.record]
        with Pump(*sinks, on_error=self._sink_failed) as pump, self._interrupts:

            async def body(stop: anyio.Event) -> History:
                run_dir = str(directory.path.resolve())
                async with attended(app.name, settings.engine, run_dir, settings.on_record) as on_management:
                    return await run(
                        app,
                        engine=settings.engine,
                        observers=(pump,),
                        checked=settings.check,
                        stop=stop,
                        on_management=on_management if settings.engine != "sim" else None,  # time is its own there
                    )

            return run_on_loop(self._interrupts.run, body)

    def _collect(self, record: Record) -> None:
        self._series.add(record)

    def _sink_failed(self, error: Exception) -> None:
        """Take note, in the pump's thread, that records cannot be written; running on gains nothing."""
        if isinstance(error, BrokenPipeError):
            self.output_closed = True
        else:
            self._lost = error
        self._interrupts.stop()

    def _show(self, show: Callable[[], None]) -> None:
        """Have the reporter show something, unless nobody reads any more."""
        try:
            if not self.output_closed:
                show()
        except BrokenPipeError:
            self.output_closed = True

    def _draw(self, directory: RunDirectory, plan: Plan) -> None:
        from rolecall.observe.plot import save_curves

        try:
            directory.save_curve(lambda path: save_curves(path, self._series, title=plan.name))
        except (ConfigError, MissingDependency) as error:
            _say(f"warning: {error}" if isinstance(error, ConfigError) else str(error))

    def _last_words(self, exit_code: int) -> None:
        failure = failure_of(Aborted(exit_code - 128))
        self.failed(failure)
        tell(failure, debug=False)


def _reporter(settings: Settings, out: TextIO) -> Reporter:
    from rolecall.observe.events import EventStream
    from rolecall.observe.progress import PlainProgress, progress_for

    if settings.format is Format.JSONL:
        return EventStream(out)
    return progress_for(out) if settings.live else PlainProgress(out)


def let_go(out: TextIO) -> None:
    """Send what is left in a stream that nobody reads to nowhere; Python would complain at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _check_engine(name: str) -> None:
    """Refuse an unknown engine before anything is written."""
    from rolecall.fleet.run import ENGINES

    if name not in ENGINES:
        hint = f"{nearest(name, ENGINES).strip()} There are: {', '.join(ENGINES)}".strip()
        raise ConfigError("--engine", f"there is no engine {name!r}", hint=hint)


def _plan(app: App, engine: str, run_dir: Path) -> Plan:
    rounds = app.parameters.get("rounds")
    return Plan(
        name=app.name,
        architecture=_architecture(app),
        engine=engine,
        seed=app.seed,
        nodes=len(app.nodes),
        roles=sum(len(roles) for roles in app.roles.values()),
        rounds=rounds if isinstance(rounds, int) and not isinstance(rounds, bool) else None,
        run_dir=str(run_dir),
    )


def _architecture(app: App) -> str:
    """Return the name of the packaged architecture, by the application's name or its roles; else the application's."""
    from rolecall.architectures import CATALOGUE

    if app.name in CATALOGUE:
        return app.name
    for roles in app.roles.values():
        for spec in roles.values():
            named = spec.class_ if isinstance(spec.class_, str) else spec.class_.__module__
            if found := _PACKAGED.match(named):
                return found[1]
    return app.name


def _judged(summary: Summary, history: History) -> Summary:
    """Add what the models of the end are worth."""
    from rolecall.observe.outcome import outcome

    found = outcome(history)
    accuracy = summary.accuracy if found.accuracy is None else found.accuracy
    return structs.replace(summary, accuracy=accuracy, consensus=found.consensus, solo=found.solo)


def _summary(history: History, plan: Plan, series: Series) -> Summary:
    from rolecall.wire.plain import as_json

    points = series.points()
    return Summary(
        status="stopped" if history.status == "stopped" else "ok",
        architecture=plan.architecture,
        rounds=int(points[-1][0]) if points and series.clock == "round" else None,
        accuracy=series.last("accuracy"),
        wall_s=history.wall_s,
        digest=history.digest if history.final is not None else None,
        loss=series.last("loss"),
        name=plan.name,
        engine=plan.engine,
        seed=plan.seed,
        run_dir=plan.run_dir,
        returned={name: as_json(result) for name, result in history.returned.items()},
    )
