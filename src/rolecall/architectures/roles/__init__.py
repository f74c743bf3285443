"""Roles that architectures share: trainers, aggregators, coordinators, and the small ones around them."""

from __future__ import annotations

from rolecall.architectures.roles.aggregators import (
    CollectiveAggregator,
    CumulativeAggregator,
    GradientAggregator,
    LayeredCollectiveAggregator,
    Merging,
)
from rolecall.architectures.roles.attacking import Attacker
from rolecall.architectures.roles.configuring import ClientConfigurator, Configuring, EpochsByData
from rolecall.architectures.roles.gradients import ContinuousTrainer, GradientTrainer
from rolecall.architectures.roles.hooks import Rounds
from rolecall.architectures.roles.learners import (
    Learner,
    Pulse,
    Trainer,
    TrainingReport,
    Worker,
)
from rolecall.architectures.roles.monitoring import Monitor, Stalled
from rolecall.architectures.roles.organizing import Organizer
from rolecall.architectures.roles.planned import LayeredPlannedTrainer, PlannedTrainer
from rolecall.architectures.roles.rounds import Coordinator, FederationState, RoundCoordinator
from rolecall.architectures.roles.selecting import (
    ClientSelector,
    CyclicSelector,
    FastestSelector,
    LossSelector,
    RandomSelector,
    TrainingTimeProber,
)
from rolecall.architectures.roles.testing import ClientTester, DataReport, Loader, Tester

__all__ = (
    "Attacker",
    "ClientConfigurator",
    "ClientSelector",
    "ClientTester",
    "CollectiveAggregator",
    "Configuring",
    "ContinuousTrainer",
    "Coordinator",
    "CumulativeAggregator",
    "CyclicSelector",
    "DataReport",
    "EpochsByData",
    "FastestSelector",
    "FederationState",
    "GradientAggregator",
    "GradientTrainer",
    "LayeredCollectiveAggregator",
    "LayeredPlannedTrainer",
    "Learner",
    "Loader",
    "LossSelector",
    "Merging",
    "Monitor",
    "Organizer",
    "PlannedTrainer",
    "Pulse",
    "RandomSelector",
    "RoundCoordinator",
    "Rounds",
    "Stalled",
    "Tester",
    "Trainer",
    "TrainingReport",
    "TrainingTimeProber",
    "Worker",
)
