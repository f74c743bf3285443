"""What trains when it is given a model: trainers, and the contract that an aggregator of a tree fulfils too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import anyio
import msgspec

import rolecall as rc
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Model, PlanStep, Score, Update

__all__ = ("Learner", "Pulse", "Trainer", "TrainingReport", "Worker")


class TrainingReport(msgspec.Struct, frozen=True):
    """One piece of work: its round, the samples read, their mean loss, and how long it took on the role's clock."""

    round: int
    samples: int
    loss: float
    seconds: float
    layer: int = 0


class Pulse(msgspec.Struct, frozen=True):
    """What a worker is at: how many pieces of work it has done, and for how long the current one has gone on."""

    done: int = 0
    working_s: float | None = None


class Worker(rc.Role):
    """What all roles that train have in common: they tell what they did, and say whether they are at work."""

    trained = rc.Topic(TrainingReport)
    layer = 0
    _done = 0
    _since: float | None = None

    @rc.service(concurrent=True)
    async def pulse(self) -> Pulse:
        """Answer at once, whatever the worker is at."""
        since = self._since
        return Pulse(self._done, None if since is None else anyio.current_time() - since)

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Let `pulse` say that the worker is at a piece of work, and count it when it has been done."""
        self._since = anyio.current_time()
        try:
            yield
            self._done += 1
        finally:
            self._since = None

    async def report(self, round: int, samples: int, loss: float, began_s: float) -> None:
        """Tell what has been done: as the metric `trained` and to whoever subscribes to the topic of that name."""
        self.log(round=round, trained=samples)
        seconds = anyio.current_time() - began_s
        await self.trained.emit(TrainingReport(round, samples, loss, seconds, self.layer))


class Learner(Worker):
    """What makes a new model of one that it is given: a trainer, or an aggregator with learners below it."""

    @rc.task
    @abstractmethod
    async def train(self, params: Tensors, round: int) -> Update: ...


class Trainer(Learner):
    """Trains a model on the local data; `epochs`, `batch_size` and `lr` hold unless a call brings its own."""

    model: Model = rc.element()
    data: Dataset = rc.element()

    def __init__(self, epochs: int = 1, batch_size: int = 32, lr: float = 0.1) -> None:
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr

    @rc.task
    async def train(self, params: Tensors, round: int) -> Update:
        return await self.train_as(params, round, PlanStep(self.epochs, self.batch_size, self.lr))

    @rc.task
    async def train_as(self, params: Tensors, round: int, step: PlanStep) -> Update:
        """Train with the settings of `step`."""
        began_s, samples = anyio.current_time(), step.epochs * len(self.data)
        with self.at_work():
            update = await self.fitted(params, step, seed=self.seed("fit", round))
        await self.report(round, samples, update.loss, began_s)
        return update

    async def fitted(self, params: Tensors, step: PlanStep, seed: int) -> Update:
        """Train once, in a worker thread; what variants override."""
        fit = partial(self.model.fit, epochs=step.epochs, batch_size=step.batch_size, lr=step.lr, seed=seed)
        return await self.compute(fit, params, self.data, cost=step.epochs * len(self.data))

    @rc.service
    async def evaluate(self, params: Tensors) -> Score:
        """Test a model on the local data."""
        return await self.compute(self.model.evaluate, params, self.data, cost=len(self.data) / 3)
