"""RoleML (`roleml-ai`): an actor of its default kind, its roles called within the node.

Service calls run in the caller's thread, tasks and event handlers in the actor's thread pool, as RoleML
does it. The messaging component is the one for nodes without neighbours: nothing measured here leaves the
node.
"""

from __future__ import annotations

import itertools
import logging
import threading
from typing import Any, ClassVar

import numpy as np
from harness import IN_FLIGHT, MEMBERS, SUBSCRIBERS, TENSOR_VALUES, time_rounds

DELIVERY_TIMEOUT_S = 60


class RoleMLPeer:
    """One actor with a caller, a worker, ten subscribers and a hundred members."""

    name = "RoleML"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {"group": "one after the other, which is quicker than its threads"}

    def open(self) -> None:
        """Build and start the actor."""
        from roleml.core.actor.base import BaseActor

        logging.getLogger("roleml").setLevel(logging.CRITICAL)
        roles = declare_roles()
        self._actor = build_actor()
        self._caller = roles.Caller()
        self._subscribers = [roles.Subscriber() for _ in range(SUBSCRIBERS)]
        self._actor.add_role("caller", self._caller)
        self._actor.add_role("worker", roles.Worker())
        for number, subscriber in enumerate(self._subscribers):
            self._actor.add_role(f"subscriber{number}", subscriber)
        for number in range(MEMBERS):
            self._actor.add_role(f"member{number}", roles.Worker())
        BaseActor.run(self._actor)  # all of `Actor.run` but the loop that sends heartbeats until the end

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the methods below."""
        return time_rounds(getattr(self, f"_{workload}"), operations, rounds)

    def close(self) -> None:
        """Stop the actor and its threads."""
        self._actor.stop()
        self._actor.thread_manager._executor.shutdown()

    def _service(self, operations: int) -> None:
        call = self._caller.call
        for number in range(operations):
            call("worker", "echo", {"value": number})

    def _task(self, operations: int) -> None:
        call_task = self._caller.call_task
        for number in range(operations):
            call_task("worker", "work", {"value": number}).result()

    def _tasks(self, operations: int) -> None:
        call_task = self._caller.call_task
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            pending = [call_task("worker", "work", {"value": number}) for number in range(count)]
            for invocation in pending:
                invocation.result()

    def _event(self, operations: int) -> None:
        arrivals = Arrivals(operations * SUBSCRIBERS)
        for subscriber in self._subscribers:
            subscriber.arrivals = arrivals
        emit = self._caller.ticked.emit
        for number in range(operations):
            emit({"value": number})
        arrivals.wait()

    def _group(self, operations: int) -> None:
        from roleml.core.context import RoleInstanceID

        members = [RoleInstanceID("bench", f"member{number}") for number in range(MEMBERS)]
        for number in range(operations):
            replies = list(self._caller.call_group(members, "echo", {"value": number}))
            assert len(replies) == MEMBERS

    def _tensor(self, operations: int) -> None:
        tensor = np.zeros(TENSOR_VALUES, np.float32)
        call = self._caller.call
        for _ in range(operations):
            call("worker", "echo", payloads={"value": tensor})


class Arrivals:
    """Counts deliveries from several threads, and tells when all have come."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._count = itertools.count(1)  # its next() is atomic
        self._complete = threading.Event()

    def add(self) -> None:
        """Count one."""
        if next(self._count) == self._expected:
            self._complete.set()

    def wait(self) -> None:
        """Wait for the last; raise TimeoutError when it does not come."""
        if not self._complete.wait(DELIVERY_TIMEOUT_S):
            raise TimeoutError(f"{next(self._count) - 1} of {self._expected} deliveries came")


def build_actor() -> Any:
    """Return an actor with no neighbours."""
    from roleml.core.context import ActorProfile, Context
    from roleml.core.messaging.null import MessagingComponentDisabled

    profile = ActorProfile("bench", "127.0.0.1:0")
    context = Context.build(profile, workdir=".", seed=1)
    messaging = MessagingComponentDisabled(profile.name, profile.address, context.contacts)
    return actor_of(context, messaging)


def actor_of(context: Any, messaging: Any) -> Any:
    """Return an actor of RoleML's default kind that sends and receives by `messaging`."""
    from roleml.core.actor.default.impl import Actor
    from roleml.core.actor.group.impl.sequential import SequentialCollectiveImplementor

    return Actor(
        context.profile,
        context=context,
        procedure_invoker=messaging,
        procedure_provider=messaging,
        collective_implementor=SequentialCollectiveImplementor(),
    )


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

            @rml.Task(expand=True)
            def work(self, caller: Any, value: Any) -> Any:
                return value

        class Subscriber(rml.Role):
            arrivals: Arrivals

            @rml.EventHandler("caller", "ticked", expand=True)
            def on_ticked(self, source: Any, value: Any) -> None:
                self.arrivals.add()

    return Roles
