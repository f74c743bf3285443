"""Fill the elements of a role: built off the loop, checked, shared on a node, saved and restored."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import msgspec

from rolecall.core.elements import ElementDeclaration, check_element
from rolecall.core.errors import ElementError, RolecallError, nearest
from rolecall.core.randomness import seed_for

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("ElementSource", "load_elements", "save_elements")


class ElementSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where an element comes from: `make(**options)`, then `initialize(value)`.

    `shared` is a key under which all roles of a node get the same object; None for an object of its own.
    `save` and `restore` are files the element's content is written to when the role ends and read from when
    it starts.
    """

    make: Callable[..., Any]
    options: Mapping[str, Any] = {}
    initialize: Callable[[Any], Any] | None = None
    shared: str | None = None
    save: str | None = None
    restore: str | None = None


async def load_elements(instance: RoleInstance) -> None:
    """Fill every element the class declares; the eager ones now, the others as what loads them.

    Raises:
        ElementError: one is missing, of the wrong type, or failed to load; or the configuration fills one
            that is not declared.
    """
    declared, sources = instance.declared.elements, instance.hosting.elements
    for name in sources:
        if name not in declared:
            raise ElementError(instance.id, name, f"the role declares no such element.{nearest(name, declared)}")
    for name, declaration in declared.items():
        setattr(instance.role, name, await _filled(instance, declaration, sources.get(name)))


async def _filled(instance: RoleInstance, declared: ElementDeclaration, source: ElementSource | None) -> Any:
    if source is None:
        source = _default(instance, declared)
    slot = Slot(instance, declared, source)
    if declared.load == "lazy":
        return slot.lazy
    if declared.load == "fresh":
        return slot.fresh
    return await slot.load()


def _default(instance: RoleInstance, declared: ElementDeclaration) -> ElementSource:
    if declared.default is not None:
        return ElementSource(make=declared.default)
    if declared.optional:
        return ElementSource(make=lambda: None)
    raise ElementError(
        instance.id, declared.name, "the configuration does not fill it",
        hint=f"Add `elements: {{{declared.name}: {{class: ...}}}}` to the role, or declare it optional",
    )  # fmt: skip


class Slot:
    """Loads one element of one role."""

    def __init__(self, instance: RoleInstance, declared: ElementDeclaration, source: ElementSource) -> None:
        self._instance, self._declared, self._source = instance, declared, source
        self._loading: asyncio.Future[Any] | None = None

    async def lazy(self) -> Any:
        """Return the element, loading it the first time; several askers share one loading."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self.load())
        return await asyncio.shield(self._loading)

    async def fresh(self, **options: Any) -> Any:
        """Return a new one."""
        return await self._in_thread(self._build, {**self._source.options, **options})

    async def load(self) -> Any:
        """Return the element: the node's shared one, or a new one."""
        key = self._source.shared
        if key is None:
            return await self._in_thread(self._build, dict(self._source.options))
        shared = self._instance.node.shared_elements
        if key not in shared:
            shared[key] = asyncio.ensure_future(self._in_thread(self._build, dict(self._source.options)))
        value = await asyncio.shield(shared[key])
        check_element(self._instance.id, self._declared, value)
        return value

    async def _in_thread(self, function: Callable[..., Any], options: dict[str, Any]) -> Any:
        return await anyio.to_thread.run_sync(function, options, limiter=self._instance.node.compute_limiter)

    def _build(self, options: dict[str, Any]) -> Any:
        source = self._source
        try:
            value = source.make(**self._with_seed(options))
            if source.initialize is not None:
                value = _initialized(source.initialize, value)
            if source.restore is not None:
                _restore(value, Path(source.restore))
        except RolecallError:
            raise
        except Exception as error:
            name = getattr(source.make, "__qualname__", repr(source.make))
            raise self._error(f"{name} failed: {type(error).__name__}: {error}") from error
        check_element(self._instance.id, self._declared, value)
        return value

    def _with_seed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Give a constructor that takes `seed` one that is common to all roles of the application."""
        if "seed" not in options and _takes_seed(self._source.make):
            return {**options, "seed": seed_for(self._instance.seed, "element", self._declared.name)}
        return options

    def _error(self, problem: str) -> ElementError:
        return ElementError(self._instance.id, self._declared.name, problem)


def _takes_seed(make: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(make).parameters
    except (TypeError, ValueError):  # some builtins have no signature to look at
        return False


def _initialized(initialize: Callable[[Any], Any], value: Any) -> Any:
    """Run an initialiser; what it returns, if anything, takes the value's place."""
    result = initialize(value)
    return value if result is None else result


# ---------------------------------------------------------------------------------------------- files


def _snapshot(value: Any) -> Any:
    for name in ("snapshot", "parameters"):
        if hasattr(value, name):
            return getattr(value, name)()
    return value


def _restore(value: Any, path: Path) -> None:
    from rolecall.wire.values import load_value

    content = load_value(path, Any)
    for name in ("restore", "load"):
        if hasattr(value, name):
            getattr(value, name)(content)
            return
    raise ElementError(str(path), type(value).__name__, "it has neither `restore(value)` nor `load(parameters)`")


def _save(path: Path, value: Any) -> None:
    from rolecall.wire.values import save_value

    save_value(path, _snapshot(value))


async def save_elements(instance: RoleInstance) -> None:
    """Write the elements that are configured with `save:`."""
    for name, source in instance.hosting.elements.items():
        if source.save is not None:
            value = getattr(instance.role, name)
            await anyio.to_thread.run_sync(_save, Path(source.save), value)
