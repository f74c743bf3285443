"""The engine `local`: every node of an application in this process, in real time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import anyio

from rolecall.core.errors import RolecallError
from rolecall.core.ids import RoleId
from rolecall.core.records import Audited, LogLine, Observer
from rolecall.fleet.access import CONDUCTOR
from rolecall.fleet.app import Call
from rolecall.fleet.course import Course, Ending
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.management import Management, OnManagement, require_joiner
from rolecall.fleet.node_role import NodeRole
from rolecall.fleet.structure import calls, first_nodes
from rolecall.fleet.values import imported
from rolecall.runtime.auditing import facts_of
from rolecall.runtime.directory import Directory
from rolecall.runtime.endpoints import RoleProxy, start_task
from rolecall.runtime.instance import RoleInstance
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.watchdog import Blockage, Watchdog

__all__ = ("LocalEngine",)


class LocalEngine:
    """Runs one application."""

    def __init__(
        self,
        deployed: Deployment,
        observers: Sequence[Observer],
        *,
        checked: bool,
        stop: anyio.Event,
        on_management: OnManagement | None = None,
    ) -> None:
        self._deployed, self._observers, self._checked = deployed, list(observers), checked
        self._on_management = on_management
        self._nodes: dict[str, Node] = {}
        self._app = deployed.app
        self._directory = Directory()
        self._began_s = anyio.current_time()
        self._course = Course(self._app, self._say, stop)
        self._ending = Ending(returned={}, states={})
        self._hosted: list[RoleInstance] = []

    async def run(self) -> Ending:
        """Run the application until it ends, is stopped or fails.

        Raises:
            ApplicationFailed: a role failed; its error is the cause.
            CallerError: the application does not fit together.
        """
        async with anyio.create_task_group() as self._tasks:
            try:
                for name in first_nodes(self._app):
                    await self._open(name)
                if self._on_management is not None:
                    self._on_management(self._management())
                with Watchdog(self._report_blockage):
                    await self._deploy()
                    await self._work()
                    self._keep_states()
            except Exception as error:  # raised again below: a task group would wrap it
                self._course.failure = error
            finally:
                await self._close()
        if self._course.failure is not None:
            raise self._course.failure
        self._raise_violations()
        return self._ending

    def _management(self) -> Management:
        def native(name: str) -> NodeRole:
            node = self._nodes[name]
            return cast(NodeRole, RoleProxy(node.native, node.native_id, NodeRole))

        return Management(
            lambda: self._app.name,
            lambda: list(self._nodes),
            native,
            observers=self._observers,
            stop=self._course.stop,
            join=self._join,
            audit=self._audit,
        )

    # ------------------------------------------------------------------------------------------ nodes

    async def _open(self, name: str) -> Node:
        """Open a node in a task of its own, so that the scopes of nodes do not nest."""
        native = (NodeRole, {"app": self._app, "on_failed": self._assigned_failed})
        node = Node(name, self._directory, self._options(name), self._observers, began_s=self._began_s, native=native)
        opened = anyio.Event()

        async def keep() -> None:
            async with node:
                opened.set()
                await node.closing.wait()

        self._tasks.start_soon(keep, name=f"node {name}")
        await opened.wait()
        node.observers = self._observers  # those added later as well
        self._nodes[name] = node
        return node

    async def _join(self, name: str) -> None:
        """Open a node that joins later, and have its roles at work."""
        require_joiner(self._app, name, self._nodes)
        hosted = self._host([await self._open(name)])
        self._came(name)
        errors = await self._set_up(hosted)
        if errors:
            self._say("error", name, f"could not join: {errors[0][1]}")
            raise errors[0][1]
        self._begin_mains(hosted)
        self._say("info", name, f"has joined: {', '.join(instance.id.name for instance in hosted) or 'no role'}")

    def _begin_mains(self, hosted: Iterable[RoleInstance]) -> None:
        """Run the main routines of roles that have come while the application runs."""
        mains = [instance for instance in hosted if instance.has_main]
        self._course.more(len(mains))
        for instance in mains:
            instance.start_main(self._main_ended(instance))

    def _came(self, name: str) -> None:
        """Have the others know of the roles of a node that has come; here they have one directory."""

    def _options(self, name: str) -> NodeOptions:
        limits = self._app.limits
        return NodeOptions(
            seed=self._app.seed or 0,
            checked=self._checked,
            compute_threads=limits.compute_threads,
            mailbox=limits.mailbox_messages,
            mailbox_bytes=limits.mailbox_bytes,
            role_relationships=self._deployed.relationships[name],
        )

    async def _close(self) -> None:
        nodes = list(self._nodes.values())
        self._directory.closing = True
        with anyio.CancelScope(shield=True):
            await self._stop_roles(nodes)
            for node in nodes:
                node.closing.set()

    async def _stop_roles(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            for instance in reversed(node.instances):
                if instance is not node.native:
                    await instance.stop()

    def _report_blockage(self, blockage: Blockage) -> None:
        next(iter(self._nodes.values())).say("warning", blockage.task, str(blockage))

    # ------------------------------------------------------------------------------------------ roles

    async def _deploy(self) -> None:
        """Host every role and start them side by side; return when all are ready."""
        for instance, error in await self._set_up(self._host(self._nodes.values())):
            self._course.not_set_up(instance.id, error)

    def _host(self, nodes: Iterable[Node]) -> list[RoleInstance]:
        with self._directory.bulk():
            hosted = [node.host(hosting) for node in nodes for hosting in self._deployed.hostings[node.name]]
        self._hosted += hosted
        return hosted

    async def _set_up(self, hosted: Iterable[RoleInstance]) -> list[tuple[RoleInstance, Exception]]:
        """Start roles side by side; return those that could not be."""
        errors: list[tuple[RoleInstance, Exception]] = []

        async def start(instance: RoleInstance) -> None:
            try:
                await self._start(instance)
            except Exception as error:
                errors.append((instance, error))

        async with anyio.create_task_group() as starting:
            for instance in hosted:
                starting.start_soon(start, instance)
        return errors

    async def _start(self, instance: RoleInstance) -> None:
        """Set a role up."""
        await instance.start()

    # ------------------------------------------------------------------------------------------ work

    async def _work(self) -> None:
        """Start what is to be started and wait for the end the application asks for."""
        living = [instance for instance in self._hosted if self._directory.get(instance.id) is instance]
        started, mains = calls(self._app), [instance for instance in living if instance.has_main]
        self._course.begin(len(started) + len(mains))
        async with anyio.create_task_group() as tasks:
            for call in started:
                tasks.start_soon(self._call, call, name=f"start {call.call}")
            for instance in mains:
                instance.start_main(self._main_ended(instance))
            await self._course.over()
            if self._course.stopped:
                await self._drain()
            tasks.cancel_scope.cancel()

    async def _call(self, call: Call) -> None:
        """Make one of the application's start calls, in the name of the node that holds the role."""
        role = RoleId(call.role)
        caller = self._directory.find(role).node.native
        try:
            dispatcher = caller.node.local_dispatcher(role, call.channel)
            handle = await start_task(caller, dispatcher, (), self._arguments(call))
            self._ending.returned[call.call] = await handle.result()
        except RolecallError as error:
            if not self._course.stop.is_set():
                self._course.fail(role, call.channel, error)
        except Exception as error:
            self._course.fail(role, call.channel, error)
        finally:
            self._course.routine_ended()

    def _arguments(self, call: Call) -> dict[str, Any]:
        given: dict[str, Any] = imported(call.with_, f"start {call.call}", tuple(self._app.import_from))
        return given

    def _assigned_failed(self, role: RoleId, policy: str | None, error: Exception) -> None:
        self._course.fail(role, "main", error, policy)

    def _main_ended(self, instance: RoleInstance) -> Callable[[Exception | None], None]:
        async def fail(error: Exception) -> None:
            await instance.fail(f"its main routine failed: {type(error).__name__}: {error}")
            self._course.routine_ended()

        def ended(error: Exception | None) -> None:
            if error is None:
                self._course.routine_ended()
            else:
                self._course.fail(instance.id, "main", error)
                self._tasks.start_soon(fail, error, name=f"fail {instance.id}")

        return ended

    # ------------------------------------------------------------------------------------------ the end

    async def _drain(self) -> None:
        """Let main routines and resumable tasks end at their next safe point."""
        self._ending.status = "stopped"
        for instance in self._directory:
            instance.drain()
        await self._course.drained()

    def _keep_states(self) -> None:
        for instance in self._directory:
            state = instance.state_value()
            if state is not None:
                self._ending.states[instance.id] = state

    def _raise_violations(self) -> None:
        for node in self._nodes.values():
            if node.checker is not None:
                node.checker.look()
                for violation in node.checker.violations:
                    raise violation

    def _audit(self, event: str, **what: Any) -> None:
        """Take note of what nobody's node knows of, such as who was not let in to manage them."""
        record = Audited(anyio.current_time() - self._began_s, CONDUCTOR.home, event, facts_of(what))
        for observer in self._observers:
            observer(record)

    def _say(self, level: str, source: str, text: str) -> None:
        for observer in self._observers:
            observer(LogLine(anyio.current_time() - self._began_s, level, source, text))
