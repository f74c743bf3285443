"""Models, data sets, partitioning and averaging. Importing it does not import torch."""

from __future__ import annotations

from rolecall.learn.averaging import mean_gradient, weighted_mean, weighted_metrics
from rolecall.learn.data import DatasetInfo, datasets, load, register, shard, test_set
from rolecall.learn.dataset import ArrayDataset, Dataset, as_float
from rolecall.learn.inversion import invert
from rolecall.learn.model import (
    Differentiable,
    Gradient,
    Model,
    Parametric,
    Predictable,
    Proximal,
    ProximalModel,
    Scorable,
    Score,
    Trainable,
    Update,
    stop_if_cancelled,
)
from rolecall.learn.models import CNN, MLP, LeNet5, LogisticRegression, ResNet8
from rolecall.learn.plans import EarlyStop, FixedPlan, PlanStep, StepResult, TrainingPlan
from rolecall.learn.rules import Krum, Median, Rule, TrimmedMean, WeightedMean
from rolecall.learn.screening import BadUpdate, screened
from rolecall.learn.server_optimizers import (
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    OptimizerState,
    ServerOptimizer,
)
from rolecall.learn.staleness import discount
from rolecall.learn.torch_model import TorchModel
from rolecall.learn.views import batches, label_histogram, mapped, sample

__all__ = (
    "CNN",
    "MLP",
    "ArrayDataset",
    "BadUpdate",
    "Dataset",
    "DatasetInfo",
    "Differentiable",
    "EarlyStop",
    "FedAdagrad",
    "FedAdam",
    "FedAvgM",
    "FedYogi",
    "FixedPlan",
    "Gradient",
    "Krum",
    "LeNet5",
    "LogisticRegression",
    "Median",
    "Model",
    "OptimizerState",
    "Parametric",
    "PlanStep",
    "Predictable",
    "Proximal",
    "ProximalModel",
    "ResNet8",
    "Rule",
    "Scorable",
    "Score",
    "ServerOptimizer",
    "StepResult",
    "TorchModel",
    "Trainable",
    "TrainingPlan",
    "TrimmedMean",
    "Update",
    "WeightedMean",
    "as_float",
    "batches",
    "datasets",
    "discount",
    "invert",
    "label_histogram",
    "load",
    "mapped",
    "mean_gradient",
    "register",
    "sample",
    "screened",
    "shard",
    "stop_if_cancelled",
    "test_set",
    "weighted_mean",
    "weighted_metrics",
)
