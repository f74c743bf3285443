"""From what a user has in hand, a torch module and some data, to the elements of roles; for the builders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import rolecall as rc
from rolecall.architectures.settings import at_least_one
from rolecall.core.errors import ConfigError
from rolecall.learn import Dataset, Model, TorchModel, shard, test_set

if TYPE_CHECKING:
    from torch import nn

    AnyModel: TypeAlias = "rc.ElementSpec | Model | nn.Module | Callable[[], Model | nn.Module]"
else:
    AnyModel = Any

__all__ = ("AnyModel", "client_data", "divided", "federation", "model_element", "test_element")


def model_element(model: AnyModel) -> rc.ElementSpec:
    """Return the element for a model: an `nn.Module` or its class, a `Model` or its class, or an element as it is.

    What is built from a class or factory starts from weights common to all roles; a module that exists already is
    copied, so that its weights are the first ones everywhere.
    """
    if isinstance(model, rc.ElementSpec):
        return model
    if _is_model(model):
        return rc.ElementSpec(class_=model) if isinstance(model, type) else rc.ElementSpec(value=model)
    if not callable(model):
        raise ConfigError("model", f"found {type(model).__name__}, expected an nn.Module, a Model or a class of either")
    return rc.ElementSpec(factory=made_model, options={"make": model})


def made_model(make: Any, seed: int = 0) -> Model:
    """Return a model from a module, its class, or a function that makes a module or a `Model`."""
    if not isinstance(make, type) and not hasattr(make, "state_dict"):
        made = make()
        if _is_model(made):
            return cast(Model, made)
    return TorchModel(make, seed=seed)


def client_data(data: str | Dataset | Sequence[Dataset], partition: str, clients: int | None) -> list[rc.ElementSpec]:
    """Return the element for the data of each client.

    Args:
        data: one data set for each client; or one for all, or its name, to be partitioned.
        partition: how; see `rolecall.learn.partition`.
        clients: how many parts.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        if clients is not None and clients != len(data):
            raise ConfigError("data", f"found {len(data)} data sets for {clients} clients", hint="Give one for each")
        return [rc.ElementSpec(value=part) for part in data]
    count = 10 if clients is None else clients
    at_least_one("data", clients=count)
    shared = {"dataset": data, "partition": partition, "of": count}
    return [rc.ElementSpec(factory=shard, options={**shared, "index": index}) for index in range(count)]


def test_element(data: str | Dataset | Sequence[Dataset], test: str | Dataset | None) -> rc.ElementSpec | None:
    """Return the element for test data: what is given, the test part of a named data set, or nothing."""
    if test is None and isinstance(data, str):
        test = data
    if test is None:
        return None
    return rc.ElementSpec(factory=test_set, options={"dataset": test})


def _is_model(model: Any) -> bool:
    return all(hasattr(model, name) for name in ("fit", "evaluate", "parameters")) and not hasattr(model, "state_dict")


def divided(devices: int, cells: int) -> list[tuple[int, int]]:
    """Return the first and the last device (from 1) of each cell: in order, as evenly as can be."""
    if not 1 <= cells <= devices:
        raise ConfigError("hfl", f"{cells} cells for {devices} devices", hint="Give each cell a device")
    ends = [devices * cell // cells for cell in range(cells + 1)]
    return [(before + 1, end) for before, end in pairwise(ends)]


def federation(
    name: str, server: Mapping[str, rc.RoleSpec], trainers: Sequence[rc.RoleSpec], rounds: int, seed: int | None
) -> rc.App:
    """Return an application of a node `server`, with a coordinator, and a node for each trainer."""
    clients = {f"client{number}": {"trainer": spec} for number, spec in enumerate(trainers, 1)}
    return rc.App(
        name=name,
        parameters={"rounds": rounds},
        nodes={"server": rc.Node(), f"client[1-{len(trainers)}]": rc.Node()},
        roles={"server": server, **clients},
        relationships={"server": {"trainers": "client*/trainer"}},
        start="server/coordinator.run",
        seed=seed,
    )
