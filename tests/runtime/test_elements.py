from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.runtime.elements import ElementSource
from rolecall.runtime.instance import Hosting


class Model(Protocol):
    def parameters(self) -> rc.Tensors: ...
    def load(self, params: rc.Tensors) -> None: ...


class Planner(ABC):
    @abstractmethod
    def plan(self) -> int: ...


class Fixed(Planner):
    def __init__(self, value: int = 1, seed: int = 0) -> None:
        self.value, self.seed, self.thread = value, seed, threading.get_ident()

    def plan(self) -> int:
        return self.value


class Line:
    """A model of one array."""

    def __init__(self, size: int = 2) -> None:
        self.w = np.zeros(size, np.float32)

    def parameters(self) -> rc.Tensors:
        return rc.Tensors({"w": self.w})

    def load(self, params: rc.Tensors) -> None:
        self.w = np.array(params["w"])


class Count(msgspec.Struct):
    done: int = 0
    names: list[str] = []


class Counter:
    """Keeps itself with `snapshot` and `restore`."""

    def __init__(self) -> None:
        self.count = Count()

    def snapshot(self) -> Count:
        return self.count

    def restore(self, count: Count) -> None:
        self.count = count


class User(rc.Role):
    planner: Planner = rc.element()


class LazyUser(rc.Role):
    planner: rc.Lazy[Planner] = rc.element()


class FreshUser(rc.Role):
    planner: rc.Fresh[Planner] = rc.element()


class ModelUser(rc.Role):
    model: Model = rc.element()


class AnyUser(rc.Role):
    thing: Any = rc.element()


@pytest.fixture
def filled(world) -> Any:
    """A world in which a role can be given elements."""

    class Filled(world):
        async def __call__(self, id_: str, cls: type[Any], **elements: Any) -> Any:
            sources = {n: s if isinstance(s, ElementSource) else ElementSource(make=s) for n, s in elements.items()}
            instance = self.nodes["a"].host(Hosting(id=rc.RoleId(id_), role_class=cls, elements=sources))
            await instance.start()
            return instance.role

    return Filled


# ---------------------------------------------------------------------------------------------- filling


async def test_a_class_or_a_factory_fills_an_element_off_the_loop(filled) -> None:
    async with filled() as w:
        role = await w("a/one", User, planner=ElementSource(make=Fixed, options={"value": 3}))
        assert role.planner.plan() == 3
        assert role.planner.thread != threading.get_ident()
        role = await w("a/two", User, planner=lambda: Fixed(4))
        assert role.planner.plan() == 4


async def test_elements_are_there_in_setup_but_not_before(filled) -> None:
    class Early(User):
        def __init__(self) -> None:
            with pytest.raises(
                rc.ElementError, match=r"Early: element 'planner': is not loaded yet\. Elements are there"
            ):
                _ = self.planner

        async def setup(self) -> None:
            self.plan = self.planner.plan()

    async with filled() as w:
        assert (await w("a/early", Early, planner=Fixed)).plan == 1


async def test_an_initialiser_changes_or_replaces_the_value(filled) -> None:
    def raise_value(planner: Fixed) -> None:
        planner.value = 10

    async with filled() as w:
        role = await w("a/one", User, planner=ElementSource(make=Fixed, initialize=raise_value))
        assert role.planner.plan() == 10
        role = await w("a/two", User, planner=ElementSource(make=Fixed, initialize=lambda old: Fixed(old.value + 1)))
        assert role.planner.plan() == 2


async def test_default_and_optional_elements(filled) -> None:
    class Relaxed(rc.Role):
        planner: Planner = rc.element(default=Fixed)
        other: Planner | None = rc.element(optional=True)
        lazy: rc.Lazy[Planner] = rc.element(optional=True)
        numbers: list[int] = rc.element(default=lambda: [1, 2])

    async with filled() as w:
        role, second = await w("a/one", Relaxed), await w("a/two", Relaxed)
        assert role.planner.plan() == 1 and role.other is None and role.numbers == [1, 2]
        assert await role.lazy() is None
        assert role.numbers is not second.numbers
        given = await w("a/three", Relaxed, other=Fixed, numbers=lambda: [3])
        assert given.other.plan() == 1 and given.numbers == [3]


async def test_an_element_may_be_set_by_its_role(filled) -> None:
    async with filled() as w:
        role = await w("a/one", User, planner=Fixed)
        role.planner = Fixed(7)
        assert role.planner.plan() == 7


async def test_a_subclass_narrows_what_an_element_is(filled) -> None:
    class Narrow(User):
        planner: Fixed = rc.element()

    class Other(Planner):
        def plan(self) -> int:
            return 0

    async with filled() as w:
        assert (await w("a/one", Narrow, planner=Fixed)).planner.value == 1
        with pytest.raises(rc.ElementError, match="it is of type Other, but the role declares Fixed"):
            await w("a/two", Narrow, planner=Other)


# ---------------------------------------------------------------------------------------------- what is wrong


async def test_a_missing_element_says_what_to_write(filled) -> None:
    async with filled() as w:
        with pytest.raises(rc.ElementError) as error:
            await w("a/one", User)
        assert str(error.value) == (
            "a/one: element 'planner': the configuration does not fill it. "
            "Add `elements: {planner: {class: ...}}` to the role, or declare it optional."
        )


async def test_an_unknown_element_says_which_there_is(filled) -> None:
    async with filled() as w:
        with pytest.raises(
            rc.ElementError, match=r"'plannr': the role declares no such element\. Did you mean 'planner'\?$"
        ):
            await w("a/one", User, plannr=Fixed)


@pytest.mark.parametrize(
    ("cls", "name", "make", "message"),
    [
        (User, "planner", Line, "it is of type Line, but the role declares Planner"),
        (User, "planner", lambda: None, "it is of type None, but the role declares Planner"),
        (ModelUser, "model", Fixed, "Fixed is no Model: it has no load, parameters"),
        (User, "planner", Planner, "Planner failed: TypeError: Can't instantiate abstract class Planner"),
        (User, "planner", lambda: 1 / 0, "<lambda> failed: ZeroDivisionError: division by zero"),
        (
            User,
            "planner",
            functools.partial(Fixed, speed=3),
            "failed: TypeError: .*unexpected keyword argument 'speed'",
        ),
    ],
)
async def test_a_wrong_element_fails_the_start(filled, cls, name, make, message) -> None:
    async with filled() as w:
        with pytest.raises(rc.ElementError, match=f"^a/one: element '{name}': .*{message}"):
            await w("a/one", cls, **{name: make})
        assert w.statuses("a/one")[-1] == "failed"


@pytest.mark.parametrize("hint", [Planner | None, Planner | Line, "Planner | int", Any, list[int] | Planner])
async def test_unions_are_checked_by_their_members(filled, hint) -> None:
    class Either(rc.Role):
        __annotations__ = {"thing": hint}
        thing: Any = rc.element()

    Either.__annotations__["thing"] = hint
    async with filled() as w:
        assert (await w("a/one", Either, thing=Fixed)).thing.plan() == 1
        if hint is not Any:
            with pytest.raises(rc.ElementError, match="it is of type Counter, but the role declares"):
                await w("a/two", Either, thing=Counter)


async def test_a_coroutine_function_is_no_factory(filled) -> None:
    async def build() -> Fixed:
        return Fixed()

    async def prepare(planner: Fixed) -> None: ...

    async with filled() as w:
        with pytest.raises(rc.ElementError, match="build is a coroutine function, but elements are built in a worker"):
            await w("a/one", User, planner=build)
        with pytest.raises(rc.ElementError, match="prepare is a coroutine function"):
            await w("a/two", User, planner=ElementSource(make=Fixed, initialize=prepare))


def test_lazy_must_say_of_what() -> None:
    from rolecall.core.declarations import declarations

    class Vague(rc.Role):
        planner: rc.Lazy = rc.element()  # type: ignore[type-arg]

    with pytest.raises(rc.DeclarationError, match=r"Vague\.planner: rc\.Lazy does not say of what"):
        declarations(Vague)


# ---------------------------------------------------------------------------------------------- lazy and fresh


class Gate:
    """A factory that waits for leave, counts, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.leave, self.calls, self.failures = threading.Event(), 0, failures

    def __call__(self, value: int = 1) -> Fixed:
        assert self.leave.wait(10)
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError("not now")
        return Fixed(value)


async def test_a_lazy_element_is_loaded_once_when_asked_for(filled, settle) -> None:
    gate = Gate()
    async with filled() as w:
        role = await w("a/one", LazyUser, planner=gate)
        assert gate.calls == 0
        found: list[Any] = []

        async def ask() -> None:
            found.append(await role.planner())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
            await settle()
            gate.leave.set()
        assert gate.calls == 1 and len({id(planner) for planner in found}) == 1
        assert await role.planner() is found[0]


async def test_who_stops_waiting_for_a_lazy_element_does_not_stop_it(filled) -> None:
    gate = Gate()
    async with filled() as w:
        role = await w("a/one", LazyUser, planner=gate)
        with anyio.move_on_after(0.01):
            await role.planner()
        gate.leave.set()
        assert (await role.planner()).plan() == 1
        assert gate.calls == 1


async def test_a_lazy_element_that_failed_is_tried_again(filled) -> None:
    gate = Gate(failures=1)
    gate.leave.set()
    async with filled() as w:
        role = await w("a/one", LazyUser, planner=gate)
        with pytest.raises(rc.ElementError, match=r"a/one: element 'planner': .*OSError: not now"):
            await role.planner()
        assert (await role.planner()).plan() == 1


async def test_a_role_that_ends_waits_for_its_lazy_element_and_nothing_is_left(filled, settle) -> None:
    gate = Gate()
    async with filled() as w:
        role = await w("a/one", LazyUser, planner=gate)
        with anyio.move_on_after(0.01):
            await role.planner()
        gate.leave.set()
        await w.instance("a/one").stop()


async def test_a_lazy_element_of_the_wrong_type_is_found_when_asked_for(filled) -> None:
    async with filled() as w:
        role = await w("a/one", LazyUser, planner=Line)
        with pytest.raises(rc.ElementError, match="declares Planner"):
            await role.planner()


async def test_a_fresh_element_is_built_at_each_call(filled) -> None:
    async with filled() as w:
        role = await w("a/one", FreshUser, planner=ElementSource(make=Fixed, options={"value": 3}))
        one, two = await role.planner(), await role.planner(value=5)
        assert (one.plan(), two.plan()) == (3, 5)
        with pytest.raises(rc.ElementError, match="unexpected keyword argument 'speed'"):
            await role.planner(speed=1)


# ---------------------------------------------------------------------------------------------- shared, seeds


async def test_roles_of_a_node_may_share_an_element(filled, settle) -> None:
    gate = Gate()
    async with filled() as w:
        shared = ElementSource(make=gate, shared="planner")
        roles: dict[str, Any] = {}

        async def start(name: str, cls: type[rc.Role]) -> None:
            roles[name] = await w(f"a/{name}", cls, planner=shared)

        async with anyio.create_task_group() as tasks:
            for name, cls in (("one", User), ("two", User), ("lazy", LazyUser)):
                tasks.start_soon(start, name, cls)
            await settle()
            gate.leave.set()
        assert gate.calls == 1
        assert roles["one"].planner is roles["two"].planner is await roles["lazy"].planner()
        with pytest.raises(rc.ElementError, match=r"a/three: element 'model': Fixed is no Model"):
            await w("a/three", ModelUser, model=shared)


async def test_a_shared_element_that_failed_is_tried_again(filled) -> None:
    gate = Gate(failures=1)
    gate.leave.set()
    async with filled() as w:
        shared = ElementSource(make=gate, shared="planner")
        with pytest.raises(rc.ElementError, match="not now"):
            await w("a/one", User, planner=shared)
        assert (await w("a/two", User, planner=shared)).planner.plan() == 1


async def test_a_constructor_that_takes_a_seed_gets_one_common_to_all_roles(filled) -> None:
    async def seeds(seed: int) -> list[int]:
        async with filled(options={"seed": seed}) as w:
            one = await w("a/one", User, planner=Fixed)
            two = await w("a/two", User, planner=ElementSource(make=Fixed, options={"value": 2}))
            own = await w("a/own", User, planner=ElementSource(make=Fixed, options={"seed": 5}))
            return [one.planner.seed, two.planner.seed, own.planner.seed]

    first, again, other = await seeds(7), await seeds(7), await seeds(8)
    assert first == again and first[0] == first[1] != other[0]
    assert first[2] == other[2] == 5


# ---------------------------------------------------------------------------------------------- files


async def test_a_model_is_saved_and_restored(filled, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    file = str(tmp_path / "model.safetensors")
    source = ElementSource(make=Line, save=file)
    async with filled() as w:
        role = await w("a/one", ModelUser, model=source)
        role.model.w[:] = [1.5, 2.5]
    assert [tensor.tolist() for tensor in load_file(file).values()] == [[1.5, 2.5]]
    async with filled() as w:
        role = await w("a/again", ModelUser, model=ElementSource(make=Line, restore=file))
        assert role.model.w.tolist() == [1.5, 2.5]
        role.model.w[:] = 0  # its own


async def test_what_has_a_snapshot_is_saved_as_that(filled, tmp_path: Path) -> None:
    file = str(tmp_path / "counter")
    async with filled() as w:
        role = await w("a/one", AnyUser, thing=ElementSource(make=Counter, save=file))
        role.thing.count.done = 3
        role.thing.count.names.append("x")
    async with filled() as w:
        role = await w("a/two", AnyUser, thing=ElementSource(make=Counter, restore=file))
        assert role.thing.count == Count(3, ["x"])


@pytest.mark.parametrize("value", [{"a": [1, 2.5]}, rc.Tensors({"w": np.arange(3)}), [1, "two"], Count(2), "text"])
async def test_a_plain_value_is_saved_and_takes_the_place_of_what_was_made(filled, tmp_path: Path, value: Any) -> None:
    file = str(tmp_path / "value")
    async with filled() as w:
        role = await w("a/one", AnyUser, thing=ElementSource(make=lambda: None, save=file))
        role.thing = value
    async with filled() as w:
        empty = type(value)() if not isinstance(value, rc.Tensors) else rc.Tensors({})
        role = await w("a/two", AnyUser, thing=ElementSource(make=lambda: empty, restore=file))
        assert role.thing == value


async def test_a_torch_module_is_saved_by_its_state_dict(filled, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = str(tmp_path / "module")
    async with filled() as w:
        role = await w("a/one", AnyUser, thing=ElementSource(make=lambda: torch.nn.Linear(2, 1), save=file))
        before = {name: tensor.clone() for name, tensor in role.thing.state_dict().items()}
    async with filled() as w:
        role = await w("a/two", AnyUser, thing=ElementSource(make=lambda: torch.nn.Linear(2, 1), restore=file))
        after = role.thing.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


async def test_a_lazy_element_is_saved_if_it_was_loaded(filled, tmp_path: Path) -> None:
    class LazyModelUser(rc.Role):
        model: rc.Lazy[Model] = rc.element()

    used, unused = tmp_path / "used", tmp_path / "unused"
    async with filled() as w:
        role = await w("a/one", LazyModelUser, model=ElementSource(make=Line, save=str(used)))
        await w("a/two", LazyModelUser, model=ElementSource(make=Line, save=str(unused)))
        (await role.model()).w[:] = 3
    assert (used.exists(), unused.exists()) == (True, False)
    async with filled() as w:
        role = await w("a/one", LazyModelUser, model=ElementSource(make=Line, restore=str(used)))
        assert (await role.model()).w.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("cls", "source", "message"),
    [
        (AnyUser, {"make": Counter, "restore": "missing"}, "element 'thing': .*missing: cannot be read"),
        (AnyUser, {"make": Counter, "restore": "damaged"}, "element 'thing': .*damaged: holds no value"),
        (AnyUser, {"make": dict, "restore": "model"}, "element 'thing': .*model: expected dict, found"),
        (AnyUser, {"make": object, "save": "x"}, "element 'thing': object: a value of type object cannot travel"),
        (AnyUser, {"make": dict, "save": "nowhere/x"}, "element 'thing': .*x: there is no directory .*nowhere"),
        (FreshUser, {"make": Fixed, "save": "x"}, "element 'planner': it is built anew at each call"),
    ],
)
async def test_files_that_cannot_be_are_found_at_the_start(filled, tmp_path: Path, cls, source, message) -> None:
    (tmp_path / "damaged").write_bytes(b"nothing of the kind")
    async with filled() as w:
        await w("a/model", AnyUser, thing=ElementSource(make=Line, save=str(tmp_path / "model")))
        await w.instance("a/model").stop()
        files = {key: str(tmp_path / value) for key, value in source.items() if key != "make"}
        [name] = cls.__annotations__ or {"thing": None}
        with pytest.raises(rc.ElementError, match=message):
            await w("a/one", cls, **{name: ElementSource(make=source["make"], **files)})


async def test_what_cannot_be_saved_in_the_end_is_a_dead_letter_and_the_others_are(filled, tmp_path: Path) -> None:
    class Two(rc.Role):
        one: Any = rc.element()
        two: Any = rc.element()

    first, second = (ElementSource(make=dict, save=str(tmp_path / name)) for name in ("one", "two"))
    async with filled() as w:
        role = await w("a/role", Two, one=first, two=second)
        role.one["thing"] = object()
        role.two["thing"] = 3
        await w.instance("a/role").stop()
        [letter] = w.letters
        assert (letter.kind, letter.role, letter.channel) == ("element", "a/role", "one")
    assert not (tmp_path / "one").exists() and (tmp_path / "two").exists()
