"""What a run was worth: how good its models are, how far apart, and what the same nodes learn alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from itertools import combinations
from statistics import fmean
from typing import Any

import msgspec

from rolecall.core.ids import RoleId
from rolecall.core.randomness import seed_for
from rolecall.core.tensors import Tensors
from rolecall.fleet.deployment import deployment
from rolecall.fleet.run import History
from rolecall.learn import Dataset, Scorable, Trainable
from rolecall.runtime.elements import ElementSource, built
from rolecall.runtime.instance import Hosting

__all__ = ("Outcome", "models", "models_in", "outcome", "samples_trained")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The worth of a run; a value is None where the run does not say enough to find it.

    Attributes:
        accuracy: on the test data, the mean over the models there are.
        consensus: the largest distance between two of them; 0 for one.
        solo: the mean accuracy of the models that the trainers would have had alone: each trained on its own data,
            from the same weights, on as many samples as it read in the run.
    """

    accuracy: float | None = None
    consensus: float | None = None
    solo: float | None = None


def outcome(history: History) -> Outcome:
    """Judge a run.

    A node's model is the field `params` of a role's declared state. The test data is an element `test_data`, the model
    to test with an element `model` of any role. Trainers are the roles that log `trained`, the samples they have read;
    they have elements `model` and `data`, and options `batch_size` and `lr`.
    """
    found = list(models(history))
    seed = history.app.seed or 0
    hostings = _hostings(history)
    model, test = _first(hostings, "model", seed), _first(hostings, "test_data", seed)
    consensus = max((one.distance(other) for one, other in combinations(found, 2)), default=0.0) if found else None
    if not isinstance(model, Scorable) or not isinstance(test, Dataset):
        return Outcome(consensus=consensus)
    accuracy = fmean(model.evaluate(params, test).accuracy for params in found) if found else None
    alone = [model.evaluate(params, test).accuracy for params in _alone(history, hostings, seed)]
    return Outcome(accuracy=accuracy, consensus=consensus, solo=fmean(alone) if alone else None)


def models(history: History) -> Iterator[Tensors]:
    """Yield the model of each role that holds one, in order of their names."""
    for role in sorted(history.states):
        yield from models_in(history.states[role])


def samples_trained(history: History) -> dict[RoleId, int]:
    """Return how many samples each role has trained on, each as often as it was read."""
    counts: dict[RoleId, int] = {}
    for metric in history.metrics:
        if isinstance(trained := metric.values.get("trained"), int):
            counts[metric.role] = counts.get(metric.role, 0) + trained
    return counts


def models_in(state: Any) -> Iterator[Tensors]:
    """Yield the field `params` of a state; the states of a role and its extensions are fields of one struct."""
    parts = [state, *(getattr(state, name) for name in getattr(state, "__struct_fields__", ()))]
    for part in parts:
        params = getattr(part, "params", None) if isinstance(part, msgspec.Struct) else None
        if isinstance(params, Tensors):
            yield params


def _hostings(history: History) -> dict[RoleId, Hosting]:
    return {hosting.id: hosting for of in deployment(history.app).hostings.values() for hosting in of}


def _first(hostings: dict[RoleId, Hosting], slot: str, seed: int) -> Any:
    source = next((hosting.elements[slot] for hosting in hostings.values() if slot in hosting.elements), None)
    return None if source is None else _element(source, slot, seed)


def _element(source: ElementSource, slot: str, seed: int) -> Any:
    return built(source, seed_for(seed, "element", slot))


def _alone(history: History, hostings: dict[RoleId, Hosting], seed: int) -> Iterable[Tensors]:
    """Yield what each trainer's model would be, had it trained alone."""
    for role, samples in samples_trained(history).items():
        hosting = hostings.get(role)
        if hosting is None or samples < 1 or not {"model", "data"} <= set(hosting.elements):
            continue
        model, data = (_element(hosting.elements[slot], slot, seed) for slot in ("model", "data"))
        if isinstance(model, Trainable):
            settings = _settings(hosting, data)
            epochs = max(1, round(samples / len(data)))
            alone = model.fit(model.parameters(), data, epochs=epochs, seed=seed_for(seed, role, "alone"), **settings)
            yield alone.params


def _settings(hosting: Hosting, data: Dataset) -> dict[str, Any]:
    """Return batch size and learning rate as the role was configured, or as its class has them by default."""
    parameters = inspect.signature(hosting.role_class).parameters
    defaults = {name: parameters[name].default for name in ("batch_size", "lr") if name in parameters}
    given = {**defaults, **{name: hosting.options[name] for name in defaults if name in hosting.options}}
    if "batch_size" in given:
        given["batch_size"] = min(given["batch_size"] or len(data), len(data))
    return given
