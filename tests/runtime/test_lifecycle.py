"""The life of a role: its statuses, its hooks, pausing and resuming, and how it ends."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.runtime.directory import Directory
from rolecall.runtime.node import Node


class Patient(rc.Role):
    """Notes its life."""

    peer: Patient = rc.one()

    def __init__(self, broken: str = "") -> None:
        self.events: list[Any] = []
        self.broken = broken
        self.gate = anyio.Event()

    async def setup(self) -> None:
        await self.hook("setup")

    async def main(self) -> None:
        await self.hook("main")

    async def teardown(self) -> None:
        await self.hook("teardown")

    async def hook(self, name: str) -> None:
        self.events.append(name)
        if self.broken == name:
            raise ValueError(f"broken {name}")
        if self.broken == f"slow {name}":
            await anyio.sleep(30)

    @rc.service(concurrent=True)
    async def work(self, number: int) -> int:
        self.events.append(number)
        await self.gate.wait()
        return number

    @rc.service
    async def echo(self, number: int) -> int:
        self.events.append(number)
        return number

    @rc.service
    async def there_and_back(self, number: int) -> int:
        await self.gate.wait()
        return await self.peer.back(number)

    @rc.service
    async def back(self, number: int) -> int:
        return await self.peer.echo(number)

    @rc.service
    async def stubborn(self, seconds: float) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)


class Client(rc.Role):
    patient: Patient = rc.one()
    walker: Walker = rc.one()


class Progress(msgspec.Struct):
    step: int = 0


class Walker(rc.Role):
    """Takes steps that survive a pause."""

    state = rc.State(Progress)

    def __init__(self) -> None:
        self.entered = self.mains = 0
        self.gate = anyio.Event()

    async def main(self) -> None:
        while True:
            self.mains += 1
            await self.safe_point()

    @rc.task(resumable=True, progress=int)
    async def walk(self, steps: int) -> int:
        self.entered += 1
        while self.state.step < steps:
            self.state.step += 1
            rc.progress(self.state.step)
            await anyio.lowlevel.checkpoint()
            await self.safe_point()
        return self.state.step

    @rc.task(resumable=True)
    async def walk_in_a_group(self, steps: int) -> int:
        self.entered += 1
        async with anyio.create_task_group():
            while self.state.step < steps:
                self.state.step += 1
                await anyio.lowlevel.checkpoint()
                await self.safe_point()
        return self.state.step

    @rc.task
    async def not_resumable(self) -> str:
        await self.gate.wait()
        await self.safe_point()
        return "went on"


async def opened(w: Any, **options: Any) -> tuple[Patient, Client]:
    return await w.role("a/patient", Patient, **options), await w.role("a/client", Client)


# ------------------------------------------------------------------------------------------------- start and stop


async def test_a_role_goes_through_its_statuses(world) -> None:
    async with world() as w:
        patient, client = await opened(w)
        instance = w.instance("a/patient")
        assert instance.status is rc.Status.READY
        assert await client.patient.echo(1) == 1
        await instance.pause()
        await instance.resume()
        await instance.stop()
        await instance.stop()
        assert patient.events == ["setup", 1, "teardown"]
        assert w.statuses("a/patient") == [
            "starting", "ready", "pausing", "paused", "resuming", "ready", "stopping", "stopped",
        ]  # fmt: skip


async def test_messages_wait_until_the_role_is_ready(world, settle) -> None:
    async with world() as w:
        instance = w.hosted("a/patient", Patient)
        client = await w.role("a/client", Client)
        answers = []

        async def call() -> None:
            answers.append(await client.patient.echo(1))

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            assert answers == []
            await instance.start()
        assert answers == [1]
        assert instance.role.events == ["setup", 1]


async def test_a_role_starts_once(world) -> None:
    async with world() as w:
        await opened(w)
        instance = w.instance("a/patient")
        with pytest.raises(rc.LifecycleError, match="a/patient cannot start: it is ready"):
            await instance.start()
        await instance.stop()
        with pytest.raises(rc.LifecycleError, match="a/patient cannot start: it is stopped"):
            await instance.start()


async def test_a_failure_in_setup_ends_the_role(world, settle) -> None:
    async with world() as w:
        instance = w.hosted("a/patient", Patient, broken="setup")
        client = await w.role("a/client", Client)
        errors = []

        async def call() -> None:
            try:
                await client.patient.echo(1)
            except rc.RoleLost as error:
                errors.append(error)

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            with pytest.raises(ValueError, match="broken setup"):
                await instance.start()
        assert instance.status is rc.Status.FAILED
        assert w.statuses("a/patient") == ["starting", "failed"]
        assert instance.role.events == ["setup"]  # no teardown of what was not set up
        assert [(str(error), error.effect) for error in errors] == [
            ("a/patient was lost: setup failed: broken setup (effect of the call: none).", "none")
        ]


async def test_stopping_a_role_that_is_setting_up_ends_its_setup(world, settle) -> None:
    async with world() as w:
        instance = w.hosted("a/patient", Patient, broken="slow setup")
        errors = []

        async def start() -> None:
            try:
                await instance.start()
            except rc.RoleLost as error:
                errors.append(error.effect)

        async with anyio.create_task_group() as starting:
            starting.start_soon(start)
            await settle()
            await instance.stop()
        assert errors == ["none"]
        assert w.statuses("a/patient") == ["starting", "stopping", "stopped"]
        assert instance.role.events == ["setup"]


async def test_a_role_that_never_started_can_stop(world) -> None:
    async with world() as w:
        instance = w.hosted("a/patient", Patient)
        await instance.stop()
        assert w.statuses("a/patient") == ["stopping", "stopped"]
        assert instance.role.events == []


async def test_a_failing_teardown_is_a_dead_letter(world) -> None:
    async with world() as w:
        await opened(w, broken="teardown")
        await w.instance("a/patient").stop()
        assert w.statuses("a/patient")[-1] == "stopped"
        assert [(x.kind, x.role, x.reason) for x in w.letters] == [
            ("teardown", "a/patient", "ValueError: broken teardown")
        ]


@pytest.mark.virtual_time
async def test_a_teardown_that_takes_too_long_is_cut(world) -> None:
    async with world() as w:
        await opened(w, broken="slow teardown")
        began = anyio.current_time()
        await w.instance("a/patient").stop()
        assert anyio.current_time() - began == pytest.approx(10)
        assert w.statuses("a/patient")[-1] == "stopped"
        assert w.letters[0].reason == "TimeoutError: it took more than 10 s and was cancelled"


@pytest.mark.virtual_time
async def test_who_stops_a_role_a_second_time_waits_for_the_first(world) -> None:
    async with world() as w:
        await opened(w, broken="slow teardown")
        instance = w.instance("a/patient")
        ends = []

        async def stop() -> None:
            await instance.stop()
            ends.append(instance.status)

        async with anyio.create_task_group() as stopping:
            stopping.start_soon(stop)
            stopping.start_soon(stop)
        assert ends == [rc.Status.STOPPED, rc.Status.STOPPED]


@pytest.mark.virtual_time
async def test_a_stop_that_has_begun_is_done(world) -> None:
    async with world() as w:
        await opened(w, broken="slow teardown")
        with anyio.move_on_after(1):
            await w.instance("a/patient").stop()
        assert w.statuses("a/patient")[-1] == "stopped"


async def test_the_end_of_a_role_ends_those_who_wait_for_it(world, settle) -> None:
    async with world(options={"mailbox": 1}) as w:
        _, client = await opened(w)
        errors = {}

        async def call(number: int) -> None:
            try:
                await client.patient.there_and_back(number)
            except rc.RoleLost as error:
                errors[number] = error

        async with anyio.create_task_group() as calls:
            for number in range(4):  # one runs, one waits, two are parked
                calls.start_soon(call, number)
            await settle()
            await w.instance("a/patient").stop()
        assert {number: error.effect for number, error in errors.items()} == {
            0: "unknown", 1: "none", 2: "none", 3: "none",
        }  # fmt: skip
        assert str(errors[0]) == "a/patient was lost: it has stopped (effect of the call: unknown)."
        assert w.letters == []
        with pytest.raises(rc.RoleLost) as raised:
            await client.patient.echo(1)
        assert raised.value.effect == "none"


@pytest.mark.virtual_time
async def test_a_stop_that_waits_says_for_what(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)

        async def call() -> None:
            with pytest.raises(rc.RoleLost):
                await client.patient.stubborn(5)

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            await w.instance("a/patient").stop()
        assert w.lines == ["warning a/patient: does not stop before a/patient.stubborn does, which was cancelled"]


async def test_a_new_role_may_take_the_name_of_one_that_ended(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        assert await client.patient.echo(1) == 1
        await w.instance("a/patient").stop()
        again = await w.role("a/patient", Patient)
        assert await client.patient.echo(2) == 2
        assert again.events == ["setup", 2]


async def test_nothing_can_be_asked_of_a_role_before_it_is_hosted() -> None:
    patient = Patient()
    with pytest.raises(rc.LifecycleError, match="This role is not on a node yet"):
        patient.id  # noqa: B018


# ------------------------------------------------------------------------------------------------- main


async def test_main_runs_beside_the_handlers_and_tells_its_end(world, settle) -> None:
    async with world() as w:
        ends = []
        for name, broken in (("fine", ""), ("broken", "main")):
            await w.role(f"a/{name}", Patient, broken=broken)
            w.instance(f"a/{name}").start_main(ends.append)
        await settle()
        assert ends[0] is None
        assert str(ends[1]) == "broken main"
        assert w.instance("a/fine").has_main


# ------------------------------------------------------------------------------------------------- pause and resume


async def test_a_pause_drains_what_runs_and_keeps_what_waits(world, settle) -> None:
    async with world() as w:
        patient, client = await opened(w)
        instance = w.instance("a/patient")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.patient.work, 1)
            await settle()
            tasks.start_soon(instance.pause)
            await settle()
            assert instance.status is rc.Status.PAUSING
            tasks.start_soon(client.patient.work, 2)
            tasks.start_soon(client.patient.echo, 3)
            await settle()
            patient.gate.set()
            await settle()
            assert instance.status is rc.Status.PAUSED
            assert patient.events == ["setup", 1]
            await instance.resume()
        assert patient.events == ["setup", 1, 2, 3]


async def test_a_pause_takes_in_what_a_running_handler_waits_for(world, settle) -> None:
    peers = {"a": "b/patient", "b": "a/patient"}
    async with world("a", "b", peer=peers, patient="a/patient", options={"mailbox": 1}) as w:
        other = await w.role("b/patient", Patient)
        patient, client = await opened(w)
        instance = w.instance("a/patient")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.patient.there_and_back, 7)
            await settle()
            tasks.start_soon(instance.pause)
            await settle()
            for number in (1, 2, 3):  # the mailbox is full, so that what is awaited must be parked
                tasks.start_soon(client.patient.echo, number)
            await settle()
            patient.gate.set()
            await settle()
            assert instance.status is rc.Status.PAUSED
            assert patient.events == ["setup", 7]
            await instance.resume()
        assert patient.events == ["setup", 7, 1, 2, 3]
        assert other.events == ["setup"]


async def test_a_pause_that_is_given_up_leaves_the_role_ready(world, settle) -> None:
    async with world() as w:
        patient, client = await opened(w)
        instance = w.instance("a/patient")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.patient.work, 1)
            await settle()
            with anyio.move_on_after(0.01):
                await instance.pause()
            assert instance.status is rc.Status.READY
            assert await client.patient.echo(2) == 2
            patient.gate.set()


async def test_a_role_stopped_while_it_pauses_stays_stopped(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        instance = w.instance("a/patient")
        lost = []

        async def losing(wait: Any, *args: Any) -> None:
            try:
                await wait(*args)
            except rc.RoleLost as error:
                lost.append(error.effect)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(losing, client.patient.work, 1)
            await settle()
            tasks.start_soon(losing, instance.pause)
            await settle()
            await instance.stop()
        assert w.statuses("a/patient")[-3:] == ["pausing", "stopping", "stopped"]
        assert sorted(lost) == ["none", "unknown"]


async def test_what_does_not_fit_the_status_is_refused(world) -> None:
    async with world() as w:
        await opened(w)
        instance = w.instance("a/patient")
        with pytest.raises(rc.LifecycleError, match="a/patient cannot resume: it is ready"):
            await instance.resume()
        await instance.pause()
        with pytest.raises(rc.LifecycleError, match="a/patient cannot pause: it is paused"):
            await instance.pause()


# ------------------------------------------------------------------------------------------------- safe points


@pytest.mark.parametrize("channel", ["walk", "walk_in_a_group"])
async def test_a_resumable_task_ends_at_its_safe_point_and_is_entered_again(world, settle, channel) -> None:
    async with world() as w:
        walker, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        instance = w.instance("a/walker")
        handle = await getattr(client.walker, channel).start(1000)
        for pauses in range(1, 4):
            await settle()
            await instance.pause()
            assert walker.entered == pauses
            reached = walker.state.step
            await settle()
            assert walker.state.step == reached < 1000
            await instance.resume()
        assert await handle == 1000
        assert walker.entered == 4


async def test_progress_of_a_resumed_task_goes_to_the_same_handle(world, settle) -> None:
    async with world() as w:
        _, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        handle = await client.walker.walk.start(50)
        await settle(5)
        await w.instance("a/walker").pause()
        await w.instance("a/walker").resume()
        assert [step async for step in handle] == list(range(1, 51))


async def test_a_task_put_back_can_be_cancelled(world, settle) -> None:
    async with world() as w:
        walker, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        handle = await client.walker.walk.start(10**6)
        await settle()
        await w.instance("a/walker").pause()
        assert await handle.cancel() is rc.Outcome.CANCELLED
        await w.instance("a/walker").resume()
        await settle()
        assert walker.entered == 1


async def test_a_task_may_be_cancelled_and_paused_at_once(world, settle) -> None:
    async with world() as w:
        _, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        handle = await client.walker.walk.start(10**6)
        await settle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(w.instance("a/walker").pause)
            tasks.start_soon(handle.cancel)
        assert handle.done
        assert w.instance("a/walker").status is rc.Status.PAUSED


async def test_a_task_that_is_not_resumable_goes_past_safe_points(world, settle) -> None:
    async with world() as w:
        walker, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        handle = await client.walker.not_resumable.start()
        await settle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(w.instance("a/walker").pause)
            await settle()
            walker.gate.set()
        assert await handle == "went on"


async def test_main_waits_at_its_safe_point_while_the_role_is_paused(world, settle) -> None:
    async with world() as w:
        walker = await w.role("a/walker", Walker)
        instance = w.instance("a/walker")
        instance.start_main(lambda error: None)
        await settle()
        await instance.pause()
        await settle()
        reached = walker.mains
        await settle()
        assert walker.mains == reached
        await instance.resume()
        await settle()
        assert walker.mains > reached


@pytest.mark.parametrize("paused", [True, False])
async def test_draining_ends_main_and_resumable_tasks_for_good(world, settle, paused) -> None:
    async with world() as w:
        walker, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        instance = w.instance("a/walker")
        ends: list[Any] = []
        instance.start_main(ends.append)
        handle = await client.walker.walk.start(10**6)
        await settle()
        if paused:
            await instance.pause()
            await settle()
        instance.drain()
        if paused:
            await instance.resume()
        with pytest.raises(rc.RoleLost, match="it is being stopped, and the task ended at its safe point"):
            await handle
        await settle()
        assert ends == [None]
        assert walker.state.step < 10**6


async def test_who_calls_a_task_that_is_drained_gets_an_error(world, settle) -> None:
    async with world() as w:
        _, client = await w.role("a/walker", Walker), await w.role("a/client", Client)
        errors = []

        async def call() -> None:
            try:
                await client.walker.walk(10**6)
            except rc.RoleLost as error:
                errors.append(error.effect)

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            w.instance("a/walker").drain()
        assert errors == ["unknown"]


# ------------------------------------------------------------------------------------------------- nodes


async def test_a_node_stops_its_roles_the_last_first(world) -> None:
    async with world() as w:
        for name in ("one", "two", "three"):
            await w.role(f"a/{name}", Patient)
        records = w.records
    order = [r.role.name for r in records if getattr(r, "status", "") == "stopped"]
    assert order == ["three", "two", "one"]


async def test_what_is_raised_inside_a_node_leaves_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Node("a"):
            raise KeyError("mine")


class Leaver(rc.Role):
    """Says goodbye to its peer, and is called by it until then."""

    peer: Leaver = rc.one()

    def __init__(self) -> None:
        self.events: list[str] = []

    @rc.service(concurrent=True)
    async def greet(self, word: str) -> str:
        self.events.append(word)
        return word

    @rc.service
    async def wait(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.events.append("cancelled")

    async def main(self) -> None:
        try:
            await self.peer.wait()
        except rc.RoleLost as error:
            self.events.append(f"lost {error.role}")
            raise

    async def teardown(self) -> None:
        if self.id == "a/two":
            await self.peer.greet("goodbye")


async def test_a_node_that_is_cancelled_ends_its_roles_in_order(world, settle) -> None:
    """The cancellation reaches the body; the roles live until they are stopped, one after the other."""
    with anyio.CancelScope() as scope:
        async with world(peer="a/one") as w:
            roles = [await w.role(f"a/{name}", Leaver) for name in ("one", "two")]
            w.instance("a/two").start_main(lambda error: None)
            await settle()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert roles[0].events == ["cancelled", "goodbye"]
    assert roles[1].events == []
    assert w.statuses("a/one")[-1] == w.statuses("a/two")[-1] == "stopped"


async def test_a_task_of_a_node_does_not_swallow_what_is_raised_inside() -> None:
    with pytest.raises(LookupError):
        async with Node("a") as node:
            node.spawn(anyio.sleep_forever, "a task that goes on")
            raise LookupError


async def test_a_node_that_nobody_wants_any_more_while_it_opens_is_closed() -> None:
    directory = Directory()
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with Node("a", directory):
            raise AssertionError
    assert scope.cancelled_caught
    assert (directory.nodes, list(directory)) == ({}, [])


async def test_two_nodes_of_one_name_are_refused() -> None:
    directory = Directory()
    async with Node("a", directory):
        with pytest.raises(rc.ConfigError, match="node 'a': there is already a node of this name"):
            async with Node("a", directory):
                pass
        assert "a" in directory.nodes


async def test_two_roles_of_one_name_are_refused(world) -> None:
    async with world() as w:
        await w.role("a/patient", Patient)
        with pytest.raises(rc.ConfigError, match="a/patient: there is already a role of this name"):
            await w.role("a/patient", Patient)


async def test_options_that_do_not_fit_are_named(world) -> None:
    async with world() as w:
        with pytest.raises(rc.ConfigError, match=r"a/patient: its options do not fit Patient: .* 'brocken'"):
            await w.role("a/patient", Patient, brocken="setup")
