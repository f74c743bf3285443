"""Models, data sets, partitioning and averaging. Importing it does not import torch."""

from __future__ import annotations

from rolecall.learn.averaging import weighted_mean, weighted_metrics
from rolecall.learn.data import DatasetInfo, datasets, load, register, shard, test_set
from rolecall.learn.dataset import ArrayDataset, Dataset, as_float
from rolecall.learn.model import Differentiable, Gradient, Model, Score, Update, stop_if_cancelled
from rolecall.learn.models import MLP, LeNet5
from rolecall.learn.torch_model import TorchModel

__all__ = (
    "MLP",
    "ArrayDataset",
    "Dataset",
    "DatasetInfo",
    "Differentiable",
    "Gradient",
    "LeNet5",
    "Model",
    "Score",
    "TorchModel",
    "Update",
    "as_float",
    "datasets",
    "load",
    "register",
    "shard",
    "stop_if_cancelled",
    "test_set",
    "weighted_mean",
    "weighted_metrics",
)
