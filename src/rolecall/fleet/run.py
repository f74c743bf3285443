"""Run an application: `history = await rc.run(app)`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.ids import RoleId
from rolecall.core.records import Metric, Observer, Record
from rolecall.core.tensors import Tensors
from rolecall.fleet.app import App
from rolecall.fleet.course import Ending
from rolecall.fleet.deployment import Deployment, deployment
from rolecall.fleet.importing import require_no_import
from rolecall.fleet.local import LocalEngine
from rolecall.fleet.structure import calls
from rolecall.runtime.event_loop import run_on_loop

if TYPE_CHECKING:
    from rolecall.fleet.management import OnManagement
    from rolecall.fleet.processes import ProcessEngine
    from rolecall.fleet.simulated import SimulatedEngine
    from rolecall.fleet.standing import StandingEngine

__all__ = ("History", "history_of", "prepared", "run", "run_sync")

ENGINES = ("local", "sim", "processes", "nodes")


class History(msgspec.Struct, kw_only=True):
    """What a run leaves: the expanded application, what roles logged, what calls returned, what roles hold.

    Attributes:
        app: the application as it ran; running it again gives the same result.
        status: `ok`, or `stopped` when it was told to stop before its end.
        metrics: everything that was logged, in order.
        returned: the result of each start call, by its name (`server/coordinator.run`).
        states: the declared state of every role at the end.
        final: the final parameters: those in the state of the first role that was started, or else of any role.
        digest: a hash of all parameters in all states; equal digests mean equal bits.
    """

    app: App
    status: str
    metrics: list[Metric]
    returned: dict[str, Any]
    states: dict[str, Any]
    final: Tensors | None
    digest: str
    wall_s: float

    def last(self, name: str) -> float | int | str | None:
        """Return the last value logged under a name, or None."""
        return next((m.values[name] for m in reversed(self.metrics) if name in m.values), None)

    def curve(self, name: str, over: str = "round") -> list[tuple[float, float]]:
        """Return the points of a metric over another that was logged with it."""
        both = [m.values for m in self.metrics if name in m.values and over in m.values]
        return [(float(values[over]), float(values[name])) for values in both]


async def run(
    app: App | str | Path,
    *,
    engine: str = "local",
    seed: int | None = None,
    sets: Iterable[str] = (),
    observers: Sequence[Observer] = (),
    checked: bool = False,
    stop: anyio.Event | None = None,
    on_management: OnManagement | None = None,
) -> History:
    """Run an application to its end and return its history.

    Args:
        app: the application, or the path of its file.
        engine: what runs it: `local`, all nodes in this process; `sim`, all in virtual time, over a modelled network;
            `processes`, each in a process of its own;
            `nodes`, each where somebody has started it.
        seed: replaces the application's.
        sets: parameters to override, such as `"rounds=3"`.
        observers: called with every record (metrics, changes of status, dead letters, log lines) as it comes.
        checked: encode and decode every message and check that nothing changes after it was sent, as between nodes.
        stop: set it to end the run at its next safe points.
        on_management: called once, when the nodes are there, with what reaches the native role of each.

    Raises:
        ConfigError: the application does not fit together.
        ApplicationFailed: a role failed; its error is the cause.
    """
    require_no_import()
    if engine not in ENGINES:
        raise ConfigError(
            "engine", f"there is no engine {engine!r}.{nearest(engine, ENGINES)}", hint=f"Engines: {', '.join(ENGINES)}"
        )
    deployed = await anyio.to_thread.run_sync(prepared, app, tuple(sets), seed)
    metrics: list[Metric] = []

    def collect(record: Record) -> None:
        if isinstance(record, Metric):
            metrics.append(record)

    began = time.perf_counter()
    made = _engine(engine)(
        deployed,
        [collect, *observers],
        checked=checked,
        stop=stop or anyio.Event(),
        on_management=on_management,
    )
    ending = await made.run()
    metrics.sort(key=lambda metric: metric.time_s)  # nodes of their own report when they come to it
    return history_of(deployed.app, ending, metrics, time.perf_counter() - began)


def _engine(name: str) -> type[LocalEngine | ProcessEngine | SimulatedEngine | StandingEngine]:
    if name == "processes":
        from rolecall.fleet.processes import ProcessEngine

        return ProcessEngine
    if name == "nodes":
        from rolecall.fleet.standing import StandingEngine

        return StandingEngine
    if name == "sim":
        from rolecall.fleet.simulated import SimulatedEngine

        return SimulatedEngine
    return LocalEngine


def run_sync(app: App | str | Path, **options: Any) -> History:
    """Run an application and wait for its end, from code that is not async (a script, a notebook); see `run`.

    Inside a running event loop, as in a notebook, the run gets a thread and a loop of its own.
    """
    main = functools.partial(run, app, **options)
    start = functools.partial(run_on_loop, main)
    if asyncio._get_running_loop() is None:
        return start()
    with ThreadPoolExecutor(1, thread_name_prefix="rolecall-run") as pool:
        return pool.submit(copy_context().run, start).result()


def prepared(app: App | str | Path, sets: tuple[str, ...], seed: int | None) -> Deployment:
    """Load, expand, check and import an application; reads files, so not on the event loop."""
    loaded = app if isinstance(app, App) else App.load(app)
    expanded = loaded.expanded(sets, seed=seed)
    expanded.check()
    return deployment(expanded)


def history_of(app: App, ending: Ending, metrics: list[Metric], wall_s: float) -> History:
    """Return the history of a run from how it ended and what it logged."""
    models = {role: found for role, state in ending.states.items() if (found := list(_tensors(state)))}
    hashed = hashlib.blake2b(digest_size=16)
    for role in sorted(models):
        for tensors in models[role]:
            hashed.update(f"{role}={tensors.digest()};".encode())
    return History(
        app=app,
        status=ending.status,
        metrics=metrics,
        returned=ending.returned,
        states=ending.states,
        final=_final(app, models),
        digest=hashed.hexdigest(),
        wall_s=wall_s,
    )


def _final(app: App, models: dict[str, list[Tensors]]) -> Tensors | None:
    started = [RoleId(call.role) for call in calls(app)]
    for role in (*started, *sorted(models)):
        if role in models:
            return models[role][0]
    return None


def _tensors(value: Any) -> Iterable[Tensors]:
    """Yield every `Tensors` in a value, in the order of fields and items."""
    if isinstance(value, Tensors):
        yield value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _tensors(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
