"""RoleML (`roleml-ai`): a coordinator that does what that of its federated learning example does, and its EpochTrainer.

In a round the coordinator has every trainer apply the global parameters and train an epoch, as tasks of a group, then
averages the updates and tests the average. Actors are processes, with RoleML's default messaging.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any

from peers.remote.children import Children, free_port
from peers.rounds.work import BATCH_SIZE, CLIENTS, LR, lenet, share

SERVER = "server"


def rounds(count: int) -> list[float]:
    """Run so many rounds after a first one, and return the seconds of each."""
    names = [SERVER, *(f"client{number}" for number in range(CLIENTS))]
    addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
    children = Children()
    try:
        for number, name in enumerate(names[1:]):
            children.start(run_client, name, number, addresses)
        server = children.start(run_server, addresses)
        server.send(count)
        took_s: list[float] = server.recv()
        return took_s
    finally:
        children.close()


def run_client(connection: Connection, name: str, number: int, addresses: dict[str, str]) -> None:
    """Be a client, until killed."""
    import torch
    from roleml.core.actor.base import BaseActor
    from roleml.core.role.elements import ElementImplementation
    from roleml.library.roles.trainer.epoch import EpochTrainer

    torch.set_num_threads(1)
    actor = build_actor(name, addresses)
    actor.add_role("trainer", EpochTrainer())
    actor.implement_element("trainer", "model", ElementImplementation(impl=model_class()()))
    actor.implement_element("trainer", "dataset", ElementImplementation(impl=Batches(number)))
    BaseActor.run(actor)
    connection.send("ready")
    connection.recv()


def run_server(connection: Connection, addresses: dict[str, str]) -> None:
    """Coordinate as many rounds as we are told, and tell their times."""
    import torch
    from roleml.core.actor.base import BaseActor

    torch.set_num_threads(1)
    actor = build_actor(SERVER, addresses)
    coordinator = coordinator_class()()
    actor.add_role("coordinator", coordinator)
    BaseActor.run(actor)
    connection.send("ready")
    connection.send(coordinator.rounds(connection.recv() + 1)[1:])
    connection.recv()


class Batches:
    """The batches of a share, in order."""

    def __init__(self, index: int) -> None:
        import torch

        data = share(index)
        x, y = torch.from_numpy(data.x.copy()), torch.from_numpy(data.y.copy())
        self._batches = list(zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True))
        self._samples = len(y)

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Any:
        return iter(self._batches)


def model_class() -> Any:
    """Return RoleML's torch template around the same network as everyone's; a function since it needs RoleML."""
    import torch
    from roleml.library.workload.models.templates.torch.classification import SimpleTorchXYModel

    class LeNet(SimpleTorchXYModel):
        def build_model(self, **options: Any) -> Any:
            module = lenet().module
            return module, torch.optim.SGD(module.parameters(), lr=LR), torch.nn.CrossEntropyLoss()

    return LeNet


def coordinator_class() -> Any:
    """Return the coordinator; a function since it needs RoleML."""
    import roleml.essentials as rml
    from roleml.core.context import RoleInstanceID

    class Coordinator(rml.Role):
        def rounds(self, count: int) -> list[float]:
            trainers = [RoleInstanceID(f"client{number}", "trainer") for number in range(CLIENTS)]
            model, tested = model_class()(), Batches(CLIENTS)
            took_s = []
            for _ in range(count):
                began = time.perf_counter()
                for _ in self.call_group(trainers, "apply_update", payloads={"update": model.get_params()}):
                    pass
                pending = [self.call_task(trainer, "train", {"num_epochs": 1}) for trainer in trainers]
                updates = [invocation.result() for invocation in pending]
                mean = {name: sum(update[name] for update in updates) / CLIENTS for name in updates[0]}
                model.set_params(mean)
                model.test(tested)
                took_s.append(time.perf_counter() - began)
            return took_s

    return Coordinator


def build_actor(name: str, addresses: dict[str, str]) -> Any:
    """Return an actor that knows where the others are."""
    from peers.remote.roleml_remote import build_actor as build

    return build(name, addresses)
