"""Run an application in virtual time until it has trained on so many samples, and say what that was worth, and cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import anyio
import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.records import Metric, Record
from rolecall.core.tensors import Tensors
from rolecall.fleet.app import App
from rolecall.fleet.simulation import Simulation
from rolecall.learn import ArrayDataset, Scorable
from rolecall.observe.outcome import models_in
from rolecall.sim.simulate import simulate

__all__ = ("Measured", "Point", "measure")


class Point(msgspec.Struct, frozen=True):
    """What has been reached at a moment of a run.

    Attributes:
        samples: trained on so far by all nodes together, each as often as it was read.
        time_s: virtual seconds since the beginning.
        bytes: of arguments, results and events that roles have sent to other nodes.
        messages: that roles have sent to other nodes: calls, results, events; not acknowledgements or heartbeats.
        accuracy: on the test data, the mean over the models that nodes hold.
    """

    samples: int
    time_s: float
    bytes: int
    messages: int
    accuracy: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A run: its points, of which the last is tested on all the test data, and the real time it took."""

    points: list[Point]
    models: int
    wall_s: float

    @property
    def final(self) -> Point:
        """The last point."""
        return self.points[-1]

    @property
    def best(self) -> float:
        """The highest accuracy of any point."""
        return max(point.accuracy for point in self.points)


class _Over(Exception):
    """The budget is used up."""


def measure(
    app: App,
    *,
    model: Scorable,
    test: ArrayDataset,
    budget: int,
    every: int,
    test_samples: int,
    on_point: Callable[[Point], None] = lambda point: None,
) -> Measured:
    """Run an expanded application until it has trained on `budget` samples.

    Args:
        every: samples between two points; each is tested on the first `test_samples` of the test data.
        on_point: called with each point.

    Raises:
        ApplicationFailed: a role failed; its error is the cause.
        ConfigError: it ended earlier, or no node holds a model.
    """
    began = time.perf_counter()
    meter = _Meter(model, test, budget, every, test_samples, on_point)
    simulate(lambda: meter.run(app), seed=app.seed or 0, threads="inline")
    return Measured(points=meter.points, models=meter.models, wall_s=time.perf_counter() - began)


class _Meter:
    """Counts what trainers report, and tests the models of the nodes when it is time to.

    That is when the next report comes after so many samples: by then what was trained before has been merged.
    """

    def __init__(
        self,
        model: Scorable,
        test: ArrayDataset,
        budget: int,
        every: int,
        test_samples: int,
        on_point: Callable[[Point], None],
    ) -> None:
        self._model, self._test, self._some = model, test, test.subset(range(min(test_samples, len(test))))
        self._budget, self._every, self._on_point = budget, every, on_point
        self._samples, self._due = 0, min(every, budget)
        self._over = anyio.Event()
        self._failure: Exception | None = None
        self._simulation: Simulation
        self.points: list[Point] = []
        self.models = 0

    async def run(self, app: App) -> None:
        """Run the application until the budget is used up."""
        self._name = app.name
        self._simulation = Simulation(app, observers=[self._record])
        try:
            async with self._simulation as sim, anyio.create_task_group() as tasks:
                tasks.start_soon(self._ended, sim)
                await self._over.wait()
                raise _Over
        except* _Over:
            pass
        if self._failure is not None:
            raise self._failure

    async def _ended(self, sim: Simulation) -> None:
        """Fail as the application does; whatever else ends it, ends it too early."""
        try:
            await sim.finished()
            early = f"it ended after {self._samples:,} of {self._budget:,} samples"
            raise ConfigError(self._name, early, hint="Let it have more rounds")
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._over.set()

    def _record(self, record: Record) -> None:
        if not isinstance(record, Metric) or self._over.is_set():
            return
        if isinstance(trained := record.values.get("trained"), int):
            if self._samples >= self._due:
                try:
                    self._look()
                except Exception as error:  # not a fault of the role that has just reported
                    self._fail(error)
            self._samples += trained

    def _look(self) -> None:
        last, held = self._samples >= self._budget, list(self._held())
        if not held and not last:  # nothing has been merged yet
            return
        self.models = len(held)
        self.points.append(self._point(held, self._test if last else self._some))
        self._on_point(self.points[-1])
        self._due = min((self._samples // self._every + 1) * self._every, self._budget)
        if last:
            self._over.set()

    def _point(self, held: Sequence[Tensors], test: ArrayDataset) -> Point:
        if not held:
            problem = f"after {self._samples:,} samples no role holds a model in its state, so none can be tested"
            raise ConfigError(self._name, problem, hint="Train on more, or declare a state with a field `params`")
        sim = self._simulation
        networks = [life.node.network for life in sim.world.living() if life.node.network is not None]
        return Point(
            samples=self._samples,
            time_s=sim.time_s,
            bytes=sum(network.sent_bytes for network in networks),
            messages=sum(network.sent_messages for network in networks),
            accuracy=fmean(self._model.evaluate(params, test).accuracy for params in held),
        )

    def _held(self) -> Iterator[Tensors]:
        for life in self._simulation.world.living():
            for instance in life.node.instances:
                state: Any = instance.state_value()
                if state is not None:
                    yield from models_in(state)
