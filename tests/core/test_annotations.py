from __future__ import annotations

import collections.abc as cabc
import functools
import typing
from typing import Annotated, Any, Literal, NamedTuple, Optional

import numpy as np
import numpy.typing as npt
import pytest

import rolecall as rc
from rolecall.core.annotations import class_hint, function_hints, type_name
from rolecall.core.declarations import declarations


class Model:
    """A global of a name that a local class has too."""


class Holder(rc.Role):
    model: Model = rc.element()
    late: Late = rc.element()

    @rc.service
    async def take(self, model: Model, late: Late | None = None) -> Late: ...


class Late:
    """Defined after the class that names it."""


# ---------------------------------------------------------------------------------------------- resolving


def test_names_are_resolved_when_they_are_needed() -> None:
    assert class_hint(Holder, "late") is Late
    hints = function_hints(Holder.take.channel.handler, Holder)
    assert hints == {"model": Model, "late": Late | None, "return": Late}


def test_a_class_local_to_a_function_may_name_itself_and_its_neighbours() -> None:
    import collections as box

    class Neighbour(rc.Role):
        """Another."""

    Pairs = list[tuple[int, str]]

    class Gossip(rc.Role):
        peers: rc.Group[Gossip] = rc.many()
        other: Neighbour = rc.one()
        pairs: Pairs = rc.element()

        @rc.service
        async def take(self, pairs: Pairs, ring: box.OrderedDict[str, int]) -> Gossip: ...

    found = declarations(Gossip)
    assert found.relationships["peers"].role_class is Gossip
    assert found.relationships["other"].role_class is Neighbour
    assert found.elements["pairs"].type == list[tuple[int, str]]
    hints = function_hints(found.channels["take"].handler, Gossip)
    assert hints == {"pairs": Pairs, "ring": box.OrderedDict[str, int], "return": Gossip}


def test_only_what_annotations_name_is_kept() -> None:
    large = bytes(1000)

    class Frugal(rc.Role):
        size: int = rc.element()

        @rc.service
        async def take(self, count: int) -> int:
            return count + len(large)

    assert large not in vars(Frugal)["__rolecall_scope__"].values()


def test_a_local_class_hides_a_global_one() -> None:
    class Model:
        """The nearer."""

    class Near(rc.Role):
        model: Model = rc.element()

        @rc.service
        async def take(self, model: Model) -> None: ...

    assert class_hint(Near, "model") is Model
    assert function_hints(Near.take.channel.handler, Near)["model"] is Model


def test_what_a_base_names_is_resolved_where_the_base_is() -> None:
    class Model:
        """Means nothing to the base."""

    class Sub(Holder):
        own: Model = rc.element()

    assert class_hint(Sub, "own") is Model
    assert class_hint(Sub, "model") is globals()["Model"]
    assert function_hints(Sub.take.channel.handler, Sub)["model"] is globals()["Model"]


def test_a_subclass_with_the_name_of_a_global_does_not_hide_it() -> None:
    sub = type(Holder)("Model", (Holder,), {})
    assert class_hint(sub, "model") is Model


def test_code_that_is_in_no_module() -> None:
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    code = "\n".join(
        [
            "import rolecall as rc",
            "class One(rc.Role):",
            "    two: Two = rc.one()",
            "class Two(rc.Role):",
            "    ones: rc.Group[One] = rc.many()",
        ]
    )
    exec(compile(f"from __future__ import annotations\n{code}", "cell", "exec"), namespace)
    one, two = namespace["One"], namespace["Two"]
    assert declarations(one).relationships["two"].role_class is two
    assert declarations(two).relationships["ones"].role_class is one


def test_a_wrapped_handler_keeps_the_names_of_its_module() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    class Wrapped(rc.Role):
        @rc.service
        @logged
        async def take(self, model: Model) -> int:
            return 1

    signature = Wrapped.take.channel.signature(Wrapped)
    assert [(p.name, p.hint) for p in signature.parameters] == [("model", Model)]


def test_names_that_lead_nowhere_are_named() -> None:
    class Lost(rc.Role):
        @rc.service
        async def take(self, model: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        rc.DeclarationError, match=r"^Lost\.take: its annotations cannot be resolved: name 'Nowhere'.*TYPE_CHECKING"
    ):
        declarations(Lost)

    class Stray(rc.Role):
        other: Nowhere = rc.one()  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(rc.DeclarationError, match=r"^Stray\.other: its annotation cannot be resolved: name 'Nowhere'"):
        declarations(Stray)

    class Bare(rc.Role):
        thing: Nowhere = rc.element()  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(rc.DeclarationError, match=r"^Bare\.thing: its annotation cannot be resolved"):
        declarations(Bare)


# ---------------------------------------------------------------------------------------------- names


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (int, "int"),
        (None, "None"),
        (type(None), "None"),
        (Any, "Any"),
        (Late, "Late"),
        (Pair, "Pair"),
        (rc.Tensors, "Tensors"),
        (rc.Tensors | None, "Tensors | None"),
        (Optional[Late], "Late | None"),  # noqa: UP045
        (list[rc.Tensors], "list[Tensors]"),
        (dict[str, list[Late | int]], "dict[str, list[Late | int]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (typing.List[int], "list[int]"),  # noqa: UP006
        (Annotated[Late, "x"], "Late"),
        (Literal["a", 1], "Literal['a', 1]"),
        (cabc.Callable[[int], str], "collections.abc.Callable[[int], str]"),
        (rc.Group[Holder], "Group[Holder]"),
        (rc.Lazy[Model], "Lazy[Model]"),
        (npt.NDArray[np.float32], "ndarray[tuple[Any, ...], dtype[float32]]"),
    ],
)
def test_types_are_written_as_a_person_would(hint: Any, name: str) -> None:
    assert type_name(hint) == name


def test_a_local_class_is_written_without_its_function() -> None:
    class Inner:
        class Deeper:
            """Inside."""

    assert type_name(Inner) == "Inner" and type_name(Inner.Deeper) == "Inner.Deeper"
