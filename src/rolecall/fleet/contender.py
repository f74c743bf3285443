"""A packaged architecture on work that others share: the same data, model, devices and network for each."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from rolecall import architectures
from rolecall.architectures import CATALOGUE
from rolecall.core.errors import ConfigError, nearest
from rolecall.fleet import importing, yaml_tree
from rolecall.fleet.app import App, ElementSpec, Node, RoleSpec
from rolecall.learn.data import load
from rolecall.learn.partition import partition

__all__ = ("MODELS", "Workload", "contender", "dealt", "of_size", "packaged", "takes")

MODELS = {
    "mlp": "rolecall.learn.models:MLP",
    "lenet5": "rolecall.learn.models:LeNet5",
    "cnn": "rolecall.learn.models:CNN",
}
"""The models there are by name, each made for the data set."""

ENDLESS = 1_000_000
"""Rounds of a run that something else ends."""

_TESTER = ":Tester"
_RANGE = re.compile(r"(.*)\[1-(\d+)\]")


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What all contenders work on. Every client trains with `lr` and `batch_size`, and reads its data once a round."""

    dataset: str
    model: str
    clients: int
    partition: str
    device: str | None = None
    network: str | None = None
    lr: float = 0.1
    batch_size: int = 32


def packaged(name: str, where: str, what: str = "architecture") -> App:
    """Return the application that lies beside an architecture; raise `ConfigError` where there is no such `what`."""
    if name not in CATALOGUE:
        hint = f"{nearest(name, CATALOGUE).strip()} There are: {', '.join(CATALOGUE)}".strip()
        raise ConfigError(where, f"there is no {what} {name!r}", hint=hint)
    return App.load(Path(architectures.__file__).with_name(f"{name.replace('-', '_')}.yaml"))


def of_size(app: App, nodes: int) -> App:
    """Return an application with so many nodes of the kind that it has most of."""
    ranges = {key: int(found[2]) for key in app.nodes if (found := _RANGE.fullmatch(key)) is not None}
    most = max(ranges, key=lambda key: ranges[key], default=None)
    renamed = {_RANGE.sub(rf"\g<1>[1-{nodes}]", key) if key == most else key: node for key, node in app.nodes.items()}
    return structs.replace(app, nodes=renamed)


def dealt(work: Workload) -> int:
    """Return how many samples the clients hold together; raise `ConfigError` where they cannot be dealt so."""
    return sum(map(len, partition(work.partition, load(work.dataset).y, work.clients)))


def contender(name: str, work: Workload, sets: Sequence[str] = ()) -> App:
    """Return an architecture's application on this work, not expanded.

    `sets` (`KEY=VALUE`) override parameters of the application, or options of its roles. It trains without end, and
    without testing. Raises `ConfigError` for what is not known.
    """
    app = of_size(packaged(name, "rolecall compare"), work.clients)
    app = _given(app, _usual(name, app, work))
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}", f"found {text!r}, expected KEY=VALUE")
        if not _takes(app, key):
            known = [*app.parameters, *_options(app)]
            hint = f"{nearest(key, known).strip()} There are: {', '.join(dict.fromkeys(known))}".strip()
            raise ConfigError(f"--set {text}", f"{name} has no parameter or option {key!r}", hint=hint)
        app = _given(app, {key: yaml_tree.read(value, f"--set {text}").tree})
    nodes = {key: _placed(node, work) for key, node in app.nodes.items()}
    roles = {key: {role: _on(spec, work) for role, spec in of.items()} for key, of in app.roles.items()}
    return structs.replace(app, nodes=nodes, roles=roles)


def takes(name: str, key: str) -> bool:
    """Return whether an architecture knows a parameter or an option of that name."""
    return _takes(packaged(name, "rolecall compare"), key)


def _usual(name: str, app: App, work: Workload) -> dict[str, Any]:
    """Return what the contenders have in common, as far as an application knows it."""
    settings: dict[str, Any] = {
        "rounds": ENDLESS,
        "epochs": 1,
        "fraction": 0.4,
        "batch_size": work.batch_size,
        "lr": work.lr,
        "data": {"dataset": work.dataset, "partition": work.partition},
    }
    if name == "gossip":  # one pass over the data, as a client of the others makes in a round
        settings |= {"local_steps": math.ceil(dealt(work) / work.clients / work.batch_size), "test_every": 1}
    return {key: value for key, value in settings.items() if _takes(app, key)}


def _takes(app: App, key: str) -> bool:
    return key.partition(".")[0] in app.parameters or key in _options(app)


def _options(app: App) -> set[str]:
    """Return the options that constructors of the roles take."""
    return {option for of in app.roles.values() for spec in of.values() for option in _options_of(spec)}


def _options_of(spec: RoleSpec) -> list[str]:
    found = importing.find(spec.class_)
    return [name for name in inspect.signature(found).parameters if name != "self"]


def _given(app: App, settings: Mapping[str, Any]) -> App:
    """Return an application with parameters, or else options of its roles, set."""
    parameters, roles = dict(app.parameters), {key: dict(of) for key, of in app.roles.items()}
    for key, value in settings.items():
        group, _, member = key.partition(".")
        if group in parameters:
            parameters[group] = {**parameters[group], member: value} if member else value
            continue
        for of in roles.values():
            for role, spec in of.items():
                if key in _options_of(spec):
                    of[role] = structs.replace(spec, options={**spec.options, key: value})
    return structs.replace(app, parameters=parameters, roles=roles)


def _placed(node: Node, work: Workload) -> Node:
    return structs.replace(node, device=work.device, network=work.network)


def _on(spec: RoleSpec, work: Workload) -> RoleSpec:
    """Return a role with the model of the work, and without its tester."""
    extensions = [each for each in spec.extensions if not str(each).endswith(_TESTER)]
    elements = dict(spec.elements)
    if len(extensions) < len(spec.extensions):
        elements.pop("test_data", None)
    if "model" in elements:
        elements["model"] = ElementSpec(class_=_class_of(work.model), options={"dataset": work.dataset})
    return structs.replace(spec, extensions=extensions, elements=elements)


def _class_of(model: str) -> str:
    if model not in MODELS:
        hint = f"{nearest(model, MODELS).strip()} There are: {', '.join(MODELS)}".strip()
        raise ConfigError(f"--model {model}", f"there is no model {model!r}", hint=hint)
    return MODELS[model]
