"""Extensions that test models and describe data."""

from __future__ import annotations

import msgspec

import rolecall as rc
from rolecall.architectures.roles.hooks import Rounds
from rolecall.architectures.roles.learners import Trainer
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Scorable, label_histogram, weighted_metrics

__all__ = ("ClientTester", "DataReport", "Loader", "Tester")


class Tester(Rounds):
    """Extends a role with rounds: tests the model of each round on test data of its own."""

    model: Scorable = rc.element()
    test_data: Dataset = rc.element()

    async def after_round(self, round: int, params: Tensors) -> None:
        """Log accuracy and loss of the round."""
        score = await self.compute(self.model.evaluate, params, self.test_data)
        self.log(round=round, accuracy=score.accuracy, loss=score.loss)
        await super().after_round(round, params)


class ClientTester(Rounds):
    """Extends a coordinator: has every trainer test the global model on its data, and weights what they say."""

    trainers: rc.Group[Trainer] = rc.many()

    async def after_round(self, round: int, params: Tensors) -> None:
        """Log accuracy and loss of the round."""
        score = weighted_metrics((await self.trainers.call(Trainer.evaluate, params)).values())
        self.log(round=round, client_accuracy=score.accuracy, client_loss=score.loss)
        await super().after_round(round, params)


class DataReport(msgspec.Struct, frozen=True):
    """How many samples a role holds, and how many of each label (empty where labels are no whole numbers)."""

    samples: int
    labels: list[int]


class Loader(rc.Extension):
    """Extends a role that holds data: says what data that is."""

    data: Dataset = rc.element()

    @rc.service
    async def describe(self) -> DataReport:
        """Return the number of samples and of each label."""
        classified = self.data.y.dtype.kind in "iu" and self.data.y.ndim == 1
        return DataReport(len(self.data), label_histogram(self.data).tolist() if classified else [])
