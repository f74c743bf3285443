"""The engine `local`: what a role does to itself, to the native roles, and to the run."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.core.records import Record


def app(*classes: type[rc.Role], **settings: Any) -> rc.App:
    roles = {f"n{i}": {"role": rc.RoleSpec(cls)} for i, cls in enumerate(classes, 1)}
    return rc.App(name="local", nodes={name: rc.Node() for name in roles}, roles=roles, **settings)


class Reflexive(rc.Role):
    """Starts a task of its own."""

    @rc.task(progress=int)
    async def double(self, number: int) -> int:
        rc.progress(number)
        return await self.twice(number)

    @rc.task
    async def twice(self, number: int) -> int:
        return 2 * number

    @rc.task
    async def run(self) -> list[int]:
        handle = await self.double.start(4)
        return [await self.twice(3), await handle, *[report async for report in handle]]


async def test_a_role_starts_a_task_of_its_own() -> None:
    history = await rc.run(app(Reflexive, start="n1/role.run"), checked=True)
    assert history.returned == {"n1/role.run": [6, 8, 4]}


class Brief(rc.Role):
    """Leaves at once."""

    async def main(self) -> None:
        self.leave()
        await anyio.sleep_forever()

    async def teardown(self) -> None:
        self.log(torn_down=1)


class Watcher(rc.Role):
    """Ends when the other has left."""

    others: rc.Group[Brief] = rc.many()

    def __init__(self) -> None:
        self.alone = anyio.Event()

    @others.on_leave
    async def gone(self, who: rc.RoleId) -> None:
        self.log(gone=who)
        self.alone.set()

    async def main(self) -> None:
        await self.alone.wait()


async def test_a_role_that_leaves_is_torn_down_and_missed() -> None:
    history = await rc.run(app(Brief, Watcher, relationships={"n2": {"others": "n1/role"}}), checked=True)
    assert history.last("torn_down") == 1
    assert history.last("gone") == "n1/role"


class Supervisor(rc.Role):
    """Manages another node through its native role."""

    node: rc.NodeRole = rc.one("managed")

    @rc.task
    async def run(self) -> list[str]:
        before = [status.status for status in await self.node.roles() if status.role == "n2/role"]
        await self.node.stop(rc.RoleId("n2/role"))
        return [*before, *(status.role for status in await self.node.roles() if status.role == "n2/role")]


class Idle(rc.Role):
    """Does nothing."""


@pytest.mark.parametrize("managed_by", [{"n2": {"manager": "n1/role"}}, {"n2/node": {"manager": "n1/role"}}])
async def test_native_roles_are_reached_by_their_managers(managed_by: dict[str, Any]) -> None:
    relationships = {"n1": {"managed": "n2/node"}, **managed_by}
    history = await rc.run(app(Supervisor, Idle, relationships=relationships, start="n1/role.run"), checked=True)
    assert history.returned == {"n1/role.run": ["ready"]}


async def test_native_roles_refuse_others() -> None:
    relationships = {"n1": {"managed": "n2/node"}}
    with pytest.raises(rc.ApplicationFailed, match=r"n1/role may not call n2/node\.roles: it is open only to"):
        await rc.run(app(Supervisor, Idle, relationships=relationships, start="n1/role.run"))


class Count(msgspec.Struct):
    rounds: int = 0


class Steps(rc.Role):
    """Counts until it is told to stop, and then comes to the end of its step."""

    state = rc.State(Count)

    @rc.task(resumable=True)
    async def run(self) -> None:
        while True:
            await self.safe_point()
            self.state.rounds += 1
            self.log(round=self.state.rounds)


async def test_a_run_that_is_told_to_stop_ends_at_its_safe_points() -> None:
    stop = anyio.Event()

    def third(record: Record) -> None:
        if getattr(record, "values", {}).get("round") == 3:
            stop.set()

    history = await rc.run(app(Steps, start="n1/role.run"), observers=[third], stop=stop)
    assert history.status == "stopped"
    assert history.states["n1/role"].rounds >= 3


async def test_records_count_from_the_start_of_the_run() -> None:
    times: list[float] = []
    await rc.run(app(Reflexive, Idle, Idle, start="n1/role.run"), observers=[lambda r: times.append(r.time_s)])
    assert times == sorted(times) and times[0] >= 0


async def test_an_application_that_would_end_at_once_says_so() -> None:
    with pytest.raises(rc.ConfigError, match="nothing is started and no role has a main routine"):
        await rc.run(app(Idle))


async def test_until_seconds_ends_a_run_that_would_go_on() -> None:
    class Forever(rc.Role):
        async def main(self) -> None:
            await anyio.sleep_forever()

    history = await rc.run(app(Forever, until=rc.After(0.01)))
    assert history.status == "ok"


async def test_an_error_in_setup_that_is_the_users_own_is_raised_as_it_is() -> None:
    class Wrong(rc.Role):
        async def setup(self) -> None:
            raise rc.CallerError("this is wrong")

    with pytest.raises(rc.CallerError, match=r"^this is wrong$") as caught:
        await rc.run(app(Wrong, until="stopped"))
    assert caught.value.__cause__ is None
