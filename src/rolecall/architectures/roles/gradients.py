"""Trainers that hand out gradients and leave the step to others."""

from __future__ import annotations

from functools import partial

import anyio

import rolecall as rc
from rolecall.architectures.roles.learners import Worker
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Differentiable, Gradient

__all__ = ("ContinuousTrainer", "GradientTrainer")


class GradientTrainer(Worker):
    """Computes the gradient of one batch of the local data a round; the batches of an epoch do not overlap.

    Args:
        batch_size: samples a batch; None for all there are.
        lr: not used here: the learning rate of whoever makes the steps, for those who compare.
    """

    model: Differentiable = rc.element()
    data: Dataset = rc.element()
    computed = rc.Topic(Gradient)

    def __init__(self, batch_size: int | None = 32, lr: float = 0.1) -> None:
        self.batch_size, self.lr = batch_size, lr

    @rc.task
    async def gradient(self, params: Tensors, round: int) -> Gradient:
        """Return the mean gradient at `params` of batch number `round` (from 1)."""
        began_s = anyio.current_time()
        with self.at_work():
            found = await self.batch(params, round - 1)
        await self.computed.emit(found)
        await self.report(round, found.samples, found.loss, began_s)
        return found

    async def batch(self, params: Tensors, step: int) -> Gradient:
        """Compute the gradient of batch number `step` (from 0) in a worker thread."""
        size = min(self.batch_size or len(self.data), max(1, len(self.data)))
        compute = partial(self.model.gradient, batch_size=size, step=step, seed=self.seed("batches"))
        return await self.compute(compute, params, self.data, cost=size)


class ContinuousTrainer(GradientTrainer):
    """Computes batch after batch and keeps the mean gradient, until it is told to finish.

    Reports how many samples it has read, as the progress of the task and as a topic.
    """

    progressed = rc.Topic(int)

    def __init__(self, batch_size: int | None = 32, lr: float = 0.1, most: int | None = None) -> None:
        """Finish by itself after `most` samples, where that is given."""
        super().__init__(batch_size, lr)
        self.most = most
        self._steps, self._finish = 0, False

    @rc.task(progress=int)
    async def accumulate(self, params: Tensors, round: int) -> Gradient:
        """Return the mean gradient at `params` of the batches read until `finish`, one at least."""
        began_s, self._finish = anyio.current_time(), False
        with self.at_work():
            mean = await self._next(params)
            while not self._finish and (self.most is None or mean.samples < self.most):
                mean = _joined(mean, await self._next(params))
                rc.progress(mean.samples)
                await self.progressed.emit(mean.samples)
        await self.report(round, mean.samples, mean.loss, began_s)
        return mean

    @rc.service
    async def finish(self) -> None:
        """Let the current `accumulate` end with the batch it is at."""
        self._finish = True

    async def _next(self, params: Tensors) -> Gradient:
        self._steps += 1
        return await self.batch(params, self._steps - 1)


def _joined(mean: Gradient, new: Gradient) -> Gradient:
    counts = [mean.samples, new.samples]
    loss = (mean.loss * counts[0] + new.loss * counts[1]) / sum(counts)
    return Gradient(Tensors.mean([mean.values, new.values], counts), sum(counts), loss)
