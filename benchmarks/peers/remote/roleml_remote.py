"""RoleML (`roleml-ai`): actors in processes of their own with its default messaging, gRPC."""

from __future__ import annotations

import itertools
import logging
import threading
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import numpy as np
from harness import IN_FLIGHT, LARGE_VALUES, SUBSCRIBERS, TENSOR_VALUES, time_rounds
from peers.remote.children import Children, free_port
from peers.roleml_peer import actor_of

CALLER = "caller"


class RoleMLRemotePeer:
    """A caller here, a worker and ten subscribers each in another process."""

    name = "RoleML"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 10
    idioms: ClassVar[dict[str, str]] = {"calls": "tasks, since services have no call without waiting"}

    def open(self) -> None:
        """Start the actors."""
        from roleml.core.actor.base import BaseActor
        from roleml.core.context import RoleInstanceID

        names = [CALLER, "worker", *(f"subscriber{number}" for number in range(SUBSCRIBERS))]
        addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
        self._actor = build_actor(CALLER, addresses)
        self._caller = declare_roles().Caller()
        self._actor.add_role("caller", self._caller)
        BaseActor.run(self._actor)  # all of `Actor.run` but the loop that sends heartbeats until the end
        self._children = Children()
        self._connections = {name: self._children.start(run_actor, name, addresses) for name in names[1:]}
        self._worker = RoleInstanceID("worker", "worker")

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the methods below."""
        return time_rounds(getattr(self, f"_{workload}"), operations, rounds)

    def close(self) -> None:
        """Stop the actors and their threads."""
        self._children.close()
        self._actor.stop()
        self._actor.thread_manager._executor.shutdown()

    def _call(self, operations: int) -> None:
        for number in range(operations):
            self._caller.call(self._worker, "echo", {"value": number})

    def _calls(self, operations: int) -> None:
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            pending = [self._caller.call_task(self._worker, "work", {"value": number}) for number in range(count)]
            for invocation in pending:
                invocation.result()

    def _event(self, operations: int) -> None:
        listeners = [self._connections[f"subscriber{number}"] for number in range(SUBSCRIBERS)]
        for connection in listeners:
            connection.send(operations)
            connection.recv()
        for number in range(operations):
            self._caller.ticked.emit({"value": number})
        for connection in listeners:
            connection.recv()

    def _tensor(self, operations: int) -> None:
        self._send(np.zeros(TENSOR_VALUES, np.float32), operations)

    def _large(self, operations: int) -> None:
        self._send(np.zeros(LARGE_VALUES, np.float32), operations)

    def _send(self, tensor: np.ndarray[Any, Any], operations: int) -> None:
        for _ in range(operations):
            assert self._caller.call(self._worker, "weigh", payloads={"value": tensor}) == tensor.nbytes


def run_actor(connection: Connection, name: str, addresses: dict[str, str]) -> None:
    """Be an actor, until killed; tell when as many events have come as were announced."""
    from roleml.core.actor.base import BaseActor
    from roleml.core.context import RoleInstanceID

    actor = build_actor(name, addresses)
    role = declare_roles().Worker() if name == "worker" else declare_roles().Subscriber()
    actor.ctx.relationships.add_to_relationship("caller", RoleInstanceID(CALLER, "caller"))
    actor.add_role("worker" if name == "worker" else "subscriber", role)
    BaseActor.run(actor)
    connection.send("ready")
    while True:
        role.expected = connection.recv()
        role.count, role.complete = itertools.count(1), threading.Event()
        connection.send("counting")
        role.complete.wait()
        connection.send("complete")


def build_actor(name: str, addresses: dict[str, str]) -> Any:
    """Return an actor that knows where the others are."""
    from roleml.core.context import ActorProfile, Context
    from roleml.extensions.messaging.comb.grpc.component import GRPCMessagingComponent

    logging.getLogger("roleml").setLevel(logging.CRITICAL)
    profiles = {other: ActorProfile(other, address) for other, address in addresses.items()}
    context = Context.build(profiles[name], workdir=".", seed=1, initial_contacts=list(profiles.values()))
    messaging = GRPCMessagingComponent(name, addresses[name], context.contacts)
    return actor_of(context, messaging)


def declare_roles() -> Any:
    """Return a namespace with the role classes; a function since they need RoleML to be installed."""
    import roleml.essentials as rml

    class Roles:
        class Caller(rml.Role):
            ticked = rml.Event()

        class Worker(rml.Role):
            @rml.Service(expand=True)
            def echo(self, caller: Any, value: Any) -> Any:
                return value

            @rml.Service(expand=True)
            def weigh(self, caller: Any, value: Any) -> Any:
                return value.nbytes

            @rml.Task(expand=True)
            def work(self, caller: Any, value: Any) -> Any:
                return value

        class Subscriber(rml.Role):
            expected = 0

            @rml.EventHandler("caller", "ticked", expand=True)
            def on_ticked(self, source: Any, value: Any) -> None:
                if next(self.count) == self.expected:
                    self.complete.set()

    return Roles
