from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec
import pytest

import rolecall as rc
from rolecall.core.declarations import combined, declarations


class Event(msgspec.Struct, frozen=True):
    loss: float


class Source(rc.Role):
    done = rc.Topic(Event)


class Base(rc.Role):
    box = rc.Inbox(int)
    sources: rc.Group[Source] = rc.many()
    friend: Source = rc.one("best")
    planner: Any = rc.element()

    @rc.service(concurrent=3)
    async def work(self, amount: int) -> int:
        return amount

    @rc.task
    @abstractmethod
    async def later(self) -> None: ...

    @sources.on(Source.done, where={"loss__lt": 1})
    @rc.on("friend", Source.done)
    async def on_done(self, source: rc.RoleId, event: Event) -> None: ...

    @sources.on_join
    async def joined(self, who: rc.RoleId) -> None: ...


class Sub(Base):
    topic = rc.Topic(int)

    async def work(self, amount: int) -> int:
        return 2 * amount

    async def later(self) -> None: ...

    async def on_done(self, source: rc.RoleId, event: Event) -> None: ...


# ---------------------------------------------------------------------------------------------- what is declared


def test_everything_is_gathered_from_all_bases() -> None:
    found = declarations(Sub)
    assert sorted(found.channels) == ["later", "work"]
    assert (list(found.topics), list(found.inboxes), list(found.elements)) == (["topic"], ["box"], ["planner"])
    assert {k: (v.name, v.many, v.role_class) for k, v in found.relationships.items()} == {
        "sources": ("sources", True, Source),
        "friend": ("best", False, Source),
    }
    assert sorted(found.names) == ["box", "later", "topic", "work"]


def test_an_undecorated_override_keeps_what_it_overrides() -> None:
    found = declarations(Sub)
    assert found.channels["work"].options.concurrent == 3 and found.channels["work"].kind == "service"
    assert found.channels["later"].kind == "task"
    assert sorted((mark.relationship, mark.what) for mark in found.handlers["on_done"]) == [
        ("friend", "done"),
        ("sources", "done"),
    ]
    assert [(m.relationship, m.what, m.membership) for m in found.handlers["joined"]] == [("sources", "join", True)]


def test_a_marked_override_replaces_the_marks() -> None:
    class Other(Base):
        @rc.on("friend", Source.done, capacity=3)
        async def on_done(self, source: rc.RoleId, event: Event) -> None: ...

    assert [(m.relationship, m.capacity) for m in declarations(Other).handlers["on_done"]] == [("friend", 3)]


def test_what_is_overridden_by_something_else_is_gone() -> None:
    class Mute(Sub):
        topic = None  # type: ignore[assignment]
        on_done = None  # type: ignore[assignment]

    found = declarations(Mute)
    assert not found.topics and "on_done" not in found.handlers


def test_the_abstract_is_abstract_until_it_is_implemented() -> None:
    assert Base.__abstractmethods__ == {"later"}
    assert not Sub.__abstractmethods__


# ---------------------------------------------------------------------------------------------- what is wrong


def test_a_handler_of_an_unknown_relationship() -> None:
    class Deaf(rc.Role):
        sources: rc.Group[Source] = rc.many()

        @rc.on("sorces", Source.done)
        async def on_done(self, source: rc.RoleId, event: Event) -> None: ...

    with pytest.raises(rc.DeclarationError) as error:
        declarations(Deaf)
    assert str(error.value) == (
        "Deaf.on_done: it listens to the relationship 'sorces', which the role does not declare. "
        "Did you mean 'sources'?"
    )


def test_a_condition_on_an_unknown_field() -> None:
    class Picky(rc.Role):
        sources: rc.Group[Source] = rc.many()

        @sources.on(Source.done, where={"los__lt": 1})
        async def on_done(self, source: rc.RoleId, event: Event) -> None: ...

    with pytest.raises(rc.DeclarationError, match=r"^Picky\.on_done: condition 'los__lt': Event has no field 'los'"):
        declarations(Picky)


def define(body: str) -> Any:
    """Return a class `Made` with this body."""
    names: dict[str, Any] = {"rc": rc, "Source": Source, "Event": Event, "Any": Any}
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    exec(f"from __future__ import annotations\nclass Made(rc.Role):\n{lines}", names)
    return names["Made"]


HEAR = "sources: rc.Group[Source] = rc.many()\n@sources.on(Source.done{options})\n{handler}"
ON_DONE = "async def on_done(self, source: rc.RoleId, event: Event) -> None: ..."


@pytest.mark.parametrize(
    ("options", "handler", "message"),
    [
        (", overflow='fail'", ON_DONE, "overflow='fail' would make one slow subscriber fail the role that emits"),
        (", overflow='lastest'", ON_DONE, r"overflow='lastest'\. Give 'wait', 'drop_oldest' or 'latest'\."),
        (", capacity=0", ON_DONE, "capacity=0: at least one event must be able to wait"),
        ("", ON_DONE.removeprefix("async "), "it must be a coroutine function: `async def on_done"),
        ("", "async def on_done(self, event) -> None: ...", "cannot be called with source and event: too many"),
        ("", "async def on_done(self, source, event, more) -> None: ...", "missing a required argument: 'more'"),
    ],
)
def test_a_handler_that_cannot_work_is_refused_where_it_is_written(options: str, handler: str, message: str) -> None:
    with pytest.raises(rc.DeclarationError, match=f"^Made.on_done: .*{message}"):
        define(HEAR.format(options=options, handler=handler))


@pytest.mark.parametrize("what", ["on_join", "on_leave"])
def test_a_handler_of_changes_takes_a_role(what: str) -> None:
    with pytest.raises(rc.DeclarationError, match=r"^Made\.changed: it cannot be called with source"):
        define(f"sources: rc.Group[Source] = rc.many()\n@sources.{what}\nasync def changed(self): ...")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("@rc.service\ndef work(self) -> None: ...", "handler of a service must be an `async def`"),
        ("@rc.task\nasync def work(self):\n    yield 1", "handler of a task must be an `async def` without `yield`"),
        ("@rc.stream\nasync def work(self) -> int: ...", "handler of a stream must be an `async def` that yields"),
        ("@rc.service(concurrent=0)\nasync def work(self) -> None: ...", "concurrent=0: give True, False or a number"),
        ("@rc.service(mailbox=0)\nasync def work(self) -> None: ...", "mailbox and mailbox_bytes must be at least 1"),
        ("@rc.service(overflow='none')\nasync def work(self) -> None: ...", "overflow='none': give 'wait', 'fail'"),
    ],
)
def test_a_channel_that_cannot_work_is_refused_where_it_is_written(body: str, message: str) -> None:
    with pytest.raises(rc.DeclarationError, match=f"work: .*{message}"):
        define(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("friend = rc.one()", r"it has no annotation\. Write `friend: SomeRole = rc\.one\(\)`"),
        ("friend: int = rc.one()", r"its annotation is int\. Write `friend: SomeRole"),
        (
            "friend: Source = rc.many()",
            r"its annotation is Source\. Write `friend: rc\.Group\[SomeRole\] = rc\.many\(\)`",
        ),
        ("friend: rc.Group[int] = rc.many()", r"its annotation is Group\[int\]"),
        ("friend: rc.Group[Source] = rc.one()", r"its annotation is Group\[Source\]\. Write `friend: SomeRole"),
    ],
)
def test_a_relationship_says_what_its_members_are(body: str, message: str) -> None:
    with pytest.raises(rc.DeclarationError, match=rf"^Made\.friend: {message}"):
        declarations(define(body))


@pytest.mark.parametrize(
    "body",
    [
        "@rc.service\nasync def log(self) -> None: ...",
        "@rc.task\nasync def main(self) -> None: ...",
        "id = rc.Topic(int)",
        "seed: int = rc.element()",
        "rng: Source = rc.one()",
        "compute = rc.Inbox(int)",
    ],
)
def test_names_that_every_role_has_are_taken(body: str) -> None:
    with pytest.raises(rc.DeclarationError, match=r"^Made\.(\w+): every role has a '\1' of its own"):
        declarations(define(body))


# ---------------------------------------------------------------------------------------------- extensions


class Steps(rc.Role):
    """Notes what runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def setup(self) -> None:
        self.ran.append("role")


class First(rc.Extension):
    @rc.service
    async def first(self) -> int:
        return 1

    async def setup(self) -> None:
        self.ran.append("first")  # type: ignore[attr-defined]


class Second(rc.Extension):
    probed = rc.Topic(int)

    async def setup(self) -> None:
        self.ran.append("second")  # type: ignore[attr-defined]


class Mixin(Steps):
    async def setup(self) -> None:
        self.ran.append("before")
        await super().setup()
        self.ran.append("after")


async def test_extensions_add_channels_and_run_beside() -> None:
    made = combined(Steps, (First, Second))
    found = declarations(made)
    assert list(found.channels) == ["first"] and list(found.topics) == ["probed"]
    assert made.__name__ == "Steps+First+Second" and issubclass(made, Steps)
    role: Any = made()
    await role.setup()
    assert role.ran == ["role", "first", "second"]


@pytest.mark.parametrize("extensions", [(Mixin, First), (First, Mixin)])
async def test_a_mixin_leads_to_the_role_by_super(extensions: Any) -> None:
    role: Any = combined(Steps, extensions)()
    await role.setup()
    assert role.ran == ["before", "role", "after", "first"]


def test_a_class_is_combined_once() -> None:
    assert combined(Steps, (First,)) is combined(Steps, (First,))
    assert combined(Steps, ()) is Steps


def test_a_routine_that_nobody_has_is_not_invented() -> None:
    made = combined(Steps, (First,))
    assert made.main is rc.Role.main and made.teardown is rc.Role.teardown


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ((int,), "the extension <class 'int'> is no role class"),
        ((First, First), "Steps: it cannot be combined into Steps.First.First: .*duplicate base class"),
    ],
)
def test_what_cannot_be_combined(extensions: Any, message: str) -> None:
    with pytest.raises(rc.DeclarationError, match=message):
        combined(Steps, extensions)


def test_elements_and_relationships_that_are_overridden_are_gone() -> None:
    class Settled(Sub):
        planner = "by hand"
        friend = None

        on_done = None  # type: ignore[assignment]

    found = declarations(Settled)
    assert not found.elements and list(found.relationships) == ["sources"]
