"""Errors on their way to the caller: what stays, what is wrapped, and what becomes a dead letter."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import rolecall as rc


class Known(rc.RolecallError):
    """An error of an application, with a fact."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"above {limit}")
        self.limit = limit


class Denied(rc.Refused):
    """A refusal of an application."""


class Carrying(rc.RolecallError):
    """An error with facts, of which one cannot travel; the last is kept."""

    kept: Any = None

    def __init__(self) -> None:
        super().__init__("carrying")
        self.numbers, self.thing = [1, 2], object()
        Carrying.kept = self


class Foreign(ValueError):
    """An error that a caller elsewhere would not know."""


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")


class Abrupt(BaseException):
    """Something that is no `Exception`."""


ERRORS: dict[str, Any] = {
    "known": lambda: Known(3),
    "carrying": Carrying,
    "denied": lambda: Denied("not today"),
    "value": lambda: ValueError("plain"),
    "foreign": lambda: Foreign("mine"),
    "unshowable": Unshowable,
    "group": lambda: ExceptionGroup("several", [ValueError("one"), Foreign("two")]),
    "end": StopAsyncIteration,
    "abrupt": lambda: Abrupt("away"),
}


class Server(rc.Role):
    done = rc.Topic(int)

    @rc.service
    async def fail(self, kind: str) -> None:
        raise ERRORS[kind]()

    @rc.service
    async def fail_in_a_group(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.fail, "value")

    @rc.service
    async def fine(self) -> int:
        return 1

    @rc.service
    async def emit(self) -> None:
        await self.done.emit(1)

    @rc.service
    async def wrong_result(self) -> int:
        return "text"  # type: ignore[return-value]


class Middle(rc.Role):
    server: Server = rc.one()

    @rc.service
    async def relay(self, kind: str) -> None:
        await self.server.fail(kind)


class Client(rc.Role):
    server: Server = rc.one()
    middle: Middle = rc.one()

    def __init__(self, kind: str = "") -> None:
        self.kind = kind

    @rc.on("server", Server.done)
    async def on_done(self, source: rc.RoleId, item: int) -> None:
        if self.kind:
            raise ERRORS[self.kind]()


async def opened(w: Any, **options: Any) -> Client:
    await w.role("a/server", Server)
    await w.role("a/middle", Middle)
    return await w.role("a/client", Client, **options)


@pytest.mark.parametrize("checked", [True, False])
async def test_errors_of_rolecall_and_of_python_arrive_as_they_are(world, checked) -> None:
    async with world(checked=checked) as w:
        client = await opened(w)
        with pytest.raises(Known, match="above 3") as known:
            await client.server.fail("known")
        assert known.value.limit == 3
        with pytest.raises(ValueError, match="plain") as value:
            await client.server.fail("value")
        for error in (known.value, value.value):
            [note] = error.__notes__
            assert note.startswith("raised by a/server.fail")
            assert ("traceback there" in note) == checked  # as from another node
        assert w.letters == []


async def test_an_error_is_copied_as_if_it_came_from_another_node(world) -> None:
    async with world(checked=True) as w:
        client = await opened(w)
        with pytest.raises(Carrying) as carrying:
            await client.server.fail("carrying")
        assert carrying.value.facts == {"numbers": [1, 2]}  # and what cannot travel is missing
        assert carrying.value.numbers is not Carrying.kept.numbers
        assert carrying.value.__cause__ is None


async def test_an_error_that_passes_through_names_each_channel(world) -> None:
    async with world(checked=False) as w:
        client = await opened(w)
        with pytest.raises(Known) as known:
            await client.middle.relay("known")
        assert known.value.__notes__ == ["raised by a/server.fail", "raised by a/middle.relay"]


async def test_a_refusal_is_a_normal_answer(world) -> None:
    async with world() as w:
        client = await opened(w)
        with pytest.raises(Denied, match="not today") as denied:
            await client.server.fail("denied")
        assert not hasattr(denied.value, "__notes__")
        assert w.letters == []
        assert w.nodes["a"].errors == {}


@pytest.mark.parametrize(
    ("kind", "type_name", "message"),
    [
        ("foreign", "Foreign", "mine"),
        ("unshowable", "Unshowable", "(its message cannot be shown: RuntimeError)"),
        ("group", "ExceptionGroup", "several: ValueError: one; Foreign: two"),
        ("end", "StopAsyncIteration", ""),
        ("abrupt", "Abrupt", "away"),
    ],
)
async def test_other_errors_arrive_with_type_message_and_traceback(world, kind, type_name, message) -> None:
    async with world() as w:
        client = await opened(w)
        with pytest.raises(rc.RemoteError) as raised:
            await client.server.fail(kind)
        error = raised.value
        assert error.type_name.rpartition(".")[2] == type_name
        assert str(error) == f"{error.type_name} in a/server.fail: {message}"
        assert error.where == "a/server.fail"
        assert "in fail" in error.traceback
        assert await client.server.fine() == 1
        assert w.nodes["a"].errors == ({} if kind == "abrupt" else {"a/server.fail": 1})


async def test_an_error_of_a_task_group_names_what_failed_in_it(world) -> None:
    async with world() as w:
        client = await opened(w)
        with pytest.raises(rc.RemoteError, match=r"ExceptionGroup in a/server\.fail_in_a_group: .*: ValueError: plain"):
            await client.server.fail_in_a_group()


async def test_a_result_of_the_wrong_type_is_an_error_in_checked_runs(world) -> None:
    async with world() as w:
        client = await opened(w)
        with pytest.raises(rc.WrongType, match=r"a/server\.wrong_result: result: expected int, found str"):
            await client.server.wrong_result()


# ------------------------------------------------------------------------------------------------- dead letters


async def test_an_error_that_nobody_waits_for_is_a_dead_letter(world, settle) -> None:
    async with world() as w:
        client = await opened(w, kind="foreign")
        await client.server.emit()
        await settle()
        assert [(x.kind, x.role, x.channel) for x in w.letters] == [("event", "a/client", "on_done")]
        assert w.letters[0].reason.startswith("RemoteError: ")
        assert w.letters[0].reason.endswith("Foreign in a/client.on_done: mine")
        assert list(w.nodes["a"].dead_letters) == w.letters


async def test_refusing_an_event_is_no_dead_letter(world, settle) -> None:
    async with world() as w:
        client = await opened(w, kind="denied")
        await client.server.emit()
        await settle()
        assert w.letters == []
