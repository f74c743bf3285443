"""What a user sees for each common mistake: who is at fault, why, and what to do."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import rolecall as rc
from rolecall.core.records import LogLine, Record
from rolecall.learn import load


class Store(rc.Role):
    """A role to be used wrongly."""

    numbers: list[int] = rc.element(default=list)

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.leave = anyio.Event()

    @rc.service
    async def add(self, numbers: list[int]) -> int:
        return sum(numbers)

    @rc.service
    async def keep(self, thing: Any) -> None: ...

    @rc.service
    async def hold(self, numbers: list[int]) -> None:
        self.entered.set()
        await self.leave.wait()

    @rc.service
    async def release(self) -> None:
        await self.entered.wait()
        self.leave.set()

    @rc.service
    async def divide(self, by: int) -> float:
        return 1 / by

    @rc.service
    async def sleep(self) -> None:
        await anyio.sleep_forever()

    @rc.service
    async def block(self) -> None:
        time.sleep(0.8)  # noqa: ASYNC251 - the mistake

    @rc.service(mailbox=1, overflow="fail")
    async def narrow(self) -> None:
        self.entered.set()
        await self.leave.wait()

    @rc.service
    async def ask_back(self) -> None: ...


class User(rc.Role):
    """Runs one of its routines."""

    store: Store = rc.one()

    def __init__(self, routine: str = "nothing") -> None:
        self.routine = routine

    async def main(self) -> None:
        await getattr(self, self.routine)()

    async def nothing(self) -> None: ...

    async def no_channel(self) -> None:
        await self.store.ad([1])  # type: ignore[attr-defined]

    async def wrong_argument(self) -> None:
        await self.store.add("12")  # type: ignore[arg-type]

    async def wrong_item(self) -> None:
        await self.store.add([1, "2"])  # type: ignore[list-item]

    async def too_many_arguments(self) -> None:
        await self.store.add([1], 2)  # type: ignore[call-arg]

    async def not_encodable(self) -> None:
        await self.store.keep({"callback": lambda: None})

    async def changed(self) -> None:
        numbers = [1, 2]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.store.hold, numbers)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            numbers.append(3)
            await self.store.release()

    async def raises(self) -> None:
        await self.store.divide(0)

    async def never_returns(self) -> None:
        with rc.deadline(0.01):
            await self.store.sleep()

    async def blocks(self) -> None:
        await self.store.block()
        await anyio.lowlevel.checkpoint()

    async def full(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(self.store.narrow)

    async def cycle(self) -> None:
        me: Any = self._host.proxy("store", rc.RoleId("a/caller"))
        await me.ask_back()


class Caller(Store):
    """Asks itself through another role."""

    other: Caller = rc.one()

    @rc.service
    async def ask_back(self) -> None:
        await self.other.ask_back()


def app(routine: str = "nothing", **changes: Any) -> rc.App:
    settings: dict[str, Any] = {
        "name": "mistakes",
        "nodes": {"a": rc.Node(), "b": rc.Node()},
        "roles": {
            "a": {"user": rc.RoleSpec(User, options={"routine": routine}), "caller": rc.RoleSpec(Caller)},
            "b": {"store": rc.RoleSpec(Store), "caller": rc.RoleSpec(Caller)},
        },
        "relationships": {"a": {"store": "b/store", "other": "b/caller"}, "b": {"other": "a/caller"}},
    }
    return rc.App(**{**settings, **changes})


async def seen(routine: str, **options: Any) -> str:
    """Return what a user reads when a routine fails."""
    with pytest.raises(rc.ApplicationFailed) as failure:
        await rc.run(app(routine), checked=True, **options)
    assert isinstance(failure.value.__cause__, Exception)
    return str(failure.value)


YAML = """\
name: mistakes
nodes: {server: {}, "client[1-2]": {}}
roles:
  server:
    coordinator:
      class: rolecall.architectures.fedavg:Coordinator
      options: {rounds: 1}
      elements: {model: {class: "rolecall.learn.models:MLP"}}
    selector: {class: "rolecall.architectures.fedavg:RandomSelector"}
    aggregator: {class: "rolecall.architectures.fedavg:Aggregator"}
  client*:
    trainer:
      class: rolecall.architectures.fedavg:Trainer
      elements:
        model: {class: "rolecall.learn.models:MLP"}
        data: {factory: "rolecall.learn.data:shard", options: {dataset: digits, index: $ordinal, of: $count}}
relationships:
  server: {trainers: client*/trainer}
start: server/coordinator.run
"""


def read(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """Return what a user reads for the application above with some text replaced."""
    text = YAML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "app.yaml"
    path.write_text(text)
    with pytest.raises(rc.CallerError) as error:
        rc.run_sync(path)
    return str(error.value)


# ---------------------------------------------------------------------------------------------- the application


def test_the_application_is_right_without_mistakes(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(YAML)
    assert rc.run_sync(tmp_path / "app.yaml").status == "ok"


def test_an_unknown_class(tmp_path: Path) -> None:
    message = read(tmp_path, ("fedavg:Trainer", "fedavg:Trainr"))
    assert re.search(r"app\.yaml:13.*roles\.client\*\.trainer\.class", message)
    assert "Trainr" in message and "Trainer" in message.split("Trainr")[-1]


def test_an_unknown_module(tmp_path: Path) -> None:
    message = read(tmp_path, ("rolecall.architectures.fedavg:Trainer", "rolecall.architectures.fedav:Trainer"))
    assert "app.yaml:13" in message and "fedavg" in message.split("fedav:Trainer")[-1]


def test_a_missing_element(tmp_path: Path) -> None:
    message = read(tmp_path, ('model: {class: "rolecall.learn.models:MLP"}\n        data', "data"))
    assert "trainer" in message and "'model'" in message and "elements" in message


def test_an_element_of_the_wrong_type(tmp_path: Path) -> None:
    right, wrong = 'model: {class: "rolecall.learn.models:MLP"}\n        data', "model: {value: 3}\n        data"
    message = read(tmp_path, (right, wrong))
    assert re.search(r"client\d/trainer: element 'model': int is no Model: it has no .*fit", message)


def test_two_roles_of_one_name(tmp_path: Path) -> None:
    again = 'trainer: {class: "rolecall.architectures.fedavg:Aggregator"}'
    message = read(tmp_path, ("  client*:\n", f"  client1:\n    {again}\n  client*:\n"))
    assert "client1" in message and "trainer" in message and "client*" in message


def test_a_relationship_to_nowhere(tmp_path: Path) -> None:
    message = read(tmp_path, ("client*/trainer}", "clint*/trainer}"))
    assert "app.yaml:18" in message and "relationships.server.trainers" in message and "clint*/trainer" in message


async def test_a_relationship_that_is_not_configured() -> None:
    with pytest.raises(rc.CallerError) as error:
        await rc.run(app("no_channel", relationships={}))
    assert "store" in str(error.value) and "user" in str(error.value)


# ---------------------------------------------------------------------------------------------- calling


async def test_a_call_to_something_that_is_no_channel() -> None:
    message = await seen("no_channel")
    assert "a/user failed in main: NotAChannel: 'ad' is not a channel of b/store (Store)." in message
    assert "Did you mean 'add'?" in message


async def test_a_wrong_argument() -> None:
    assert "Store.add: argument 'numbers' is str, not list[int]" in await seen("wrong_argument")
    assert "Store.add: too many positional arguments" in await seen("too_many_arguments")
    assert re.search(r"Store\.add: argument 'numbers' at \[1\]: expected int, found str", await seen("wrong_item"))


async def test_an_argument_that_cannot_be_encoded() -> None:
    message = await seen("not_encodable")
    assert re.search(r"Store\.keep: argument 'thing'.*callback.*function cannot travel", message)


async def test_a_value_changed_after_it_was_sent() -> None:
    with pytest.raises(rc.ApplicationFailed) as failure:
        await rc.run(app("changed"), checked=True)
    group = failure.value.__cause__
    assert isinstance(group, ExceptionGroup)
    message = str(group.exceptions[0])
    assert "b/store.hold: an argument was changed after it was handed over by a/user" in message
    assert "send a copy" in message


# ---------------------------------------------------------------------------------------------- handling


async def test_a_handler_that_raises() -> None:
    with pytest.raises(rc.ApplicationFailed, match="a/user failed in main: ZeroDivisionError") as failure:
        await rc.run(app("raises"), checked=True)
    assert failure.value.__cause__ is not None
    [note] = failure.value.__cause__.__notes__
    assert note.startswith("raised by b/store.divide; traceback there:") and "return 1 / by" in note


@pytest.mark.may_block("the handler blocks the loop on purpose")
async def test_a_handler_that_blocks_the_loop() -> None:
    records: list[Record] = []
    await rc.run(app("blocks"), observers=[records.append])
    warnings = [r for r in records if isinstance(r, LogLine) and r.level == "warning"]
    assert [w.source for w in warnings] == ["b/store.block"]
    assert "blocks the event loop" in warnings[0].text
    assert "test_bad_input.py" in warnings[0].text and "in block" in warnings[0].text
    assert "self.compute" in warnings[0].text


async def test_a_handler_that_never_returns_under_a_deadline() -> None:
    message = await seen("never_returns")
    assert "DeadlineExceeded: b/store.sleep did not answer within 0.01 s" in message


async def test_a_full_mailbox() -> None:
    with pytest.raises(rc.ApplicationFailed) as failure:
        await rc.run(app("full"), checked=True)
    group = failure.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert "The mailbox of b/store.narrow is full (1 messages" in str(group.exceptions[0])


async def test_a_call_cycle() -> None:
    message = await seen("cycle")
    assert "a/caller.ask_back -> b/caller.ask_back -> a/caller.ask_back" in message
    assert "concurrent=True" in message


# ---------------------------------------------------------------------------------------------- data


def idx_files(directory: Path, images: bytes) -> None:
    for part, count in (("train", 2), ("t10k", 2)):
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + bytes(count)
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03" + bytes(12), b"not idx at all, but text"])
def test_a_truncated_or_unreadable_data_file(tmp_path: Path, content: bytes) -> None:
    idx_files(tmp_path, content)
    with pytest.raises(rc.DataError) as error:
        load("fashion-mnist", data_dir=tmp_path)
    assert str(tmp_path) in str(error.value) and "images" in str(error.value)


def test_a_data_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(rc.DataError) as error:
        load("fashion-mnist", data_dir=tmp_path)
    assert str(tmp_path) in str(error.value) and "dataset-fashion-mnist" in str(error.value)
