"""Fill the elements of a role: built off the loop, checked, and shared on a node where that is wanted."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from rolecall.core.elements import ElementDeclaration, check_element
from rolecall.core.errors import ElementError, RolecallError, nearest
from rolecall.core.randomness import seed_for
from rolecall.runtime.element_files import require_savable, restored, save

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("ElementSource", "built", "load_elements", "save_elements")

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]], str], None]


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


def built(source: ElementSource, seed: int) -> Any:
    """Return a new element outside any role, with the seed that roles get; what it restores from is left alone."""
    options = dict(source.options)
    if "seed" not in options and _takes_seed(source.make):
        options["seed"] = seed
    value = source.make(**options)
    initialized = None if source.initialize is None else source.initialize(value)
    return value if initialized is None else initialized


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
        source = sources.get(name) or _default(instance, declaration)
        setattr(instance.role, name, await _filled(instance, declaration, source))


async def save_elements(instance: RoleInstance) -> None:
    """Write the elements that are configured with `save:`; what cannot be written becomes a dead letter."""
    for name, source in instance.hosting.elements.items():
        if source.save is None:
            continue
        value = getattr(instance.role, name)
        if isinstance(value, _Lazy):
            if not value.loaded:
                continue  # what was never asked for is what it was
            value = await value()
        try:
            await instance.node.computing.save(instance.id, save, (source.save, value))
        except Exception as error:
            instance.node.bury("element", instance.id, name, error)


async def _filled(instance: RoleInstance, declared: ElementDeclaration, source: ElementSource) -> Any:
    builder = _Builder(instance, declared, source)
    if declared.load == "lazy":
        return _Lazy(builder, instance.spawn)
    if declared.load == "fresh":
        if source.save is not None:
            problem = "it is built anew at each call, so there is nothing that could be saved"
            raise ElementError(instance.id, declared.name, problem, hint="Leave out `save:`")
        return builder.fresh
    return await builder.load()


def _default(instance: RoleInstance, declared: ElementDeclaration) -> ElementSource:
    if declared.default is not None:
        return ElementSource(make=declared.default)
    if declared.optional:
        return ElementSource(make=lambda: None)
    raise ElementError(
        instance.id,
        declared.name,
        "the configuration does not fill it",
        hint=f"Add `elements: {{{declared.name}: {{class: ...}}}}` to the role, or declare it optional",
    )


class _Once:
    """Something that is loaded once, whoever asks first; a failure is told to those who wait, and tried again."""

    def __init__(self, load: Callable[[], Coroutine[Any, Any, Any]], spawn: Spawn, name: str) -> None:
        self._load, self._spawn, self._name = load, spawn, name
        self._loading: asyncio.Future[Any] | None = None

    @property
    def loaded(self) -> bool:
        """Whether it is there."""
        loading = self._loading
        return loading is not None and loading.done() and not loading.cancelled() and loading.exception() is None

    async def get(self) -> Any:
        """Return it; several askers share one loading."""
        if self._loading is None or (self._loading.done() and not self.loaded):
            self._loading = asyncio.get_running_loop().create_future()
            self._spawn(partial(self._run, self._loading), self._name)
        return await asyncio.shield(self._loading)

    async def _run(self, loading: asyncio.Future[Any]) -> None:
        try:
            loading.set_result(await self._load())
        except Exception as error:
            loading.set_exception(error)
            loading.exception()  # those who asked may have left
        finally:
            loading.cancel()


class _Lazy:
    """What fills an element declared `rc.Lazy[...]`."""

    def __init__(self, builder: _Builder, spawn: Spawn) -> None:
        self._once = _Once(builder.load, spawn, builder.where)

    @property
    def loaded(self) -> bool:
        """Whether it has been asked for and is there."""
        return self._once.loaded

    async def __call__(self) -> Any:
        return await self._once.get()


class _Builder:
    """Builds one element of one role."""

    def __init__(self, instance: RoleInstance, declared: ElementDeclaration, source: ElementSource) -> None:
        self._instance, self._declared, self._source = instance, declared, source
        self.where = f"{instance.id}: element {declared.name}"

    async def fresh(self, **options: Any) -> Any:
        """Return a new one."""
        return await self._build(**options)

    async def load(self) -> Any:
        """Return the element: the node's shared one, or a new one."""
        key, node = self._source.shared, self._instance.node
        if key is None:
            return await self._build()
        if key not in node.shared_elements:
            node.shared_elements[key] = _Once(self._build, node.spawn, self.where)
        value = await node.shared_elements[key].get()
        check_element(self._instance.id, self._declared, value)
        return value

    async def _build(self, **options: Any) -> Any:
        given = {**self._source.options, **options}
        return await self._instance.node.computing.load(self._instance.id, self._make, (given,))

    def _make(self, options: dict[str, Any]) -> Any:
        """Make, initialise, restore and check; runs in a worker thread."""
        source = self._source
        value = self._called(source.make, **self._with_seed(options))
        if source.initialize is not None:
            initialized = self._called(source.initialize, value)
            value = value if initialized is None else initialized
        try:
            if source.restore is not None:
                value = restored(source.restore, value)
            check_element(self._instance.id, self._declared, value)
            if source.save is not None:
                require_savable(source.save, value)
        except ElementError:
            raise
        except RolecallError as error:
            raise self._error(str(error)) from error
        return value

    def _called(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        name = getattr(function, "__qualname__", repr(function))
        try:
            value = function(*args, **options)
        except Exception as error:
            raise self._error(f"{name} failed: {type(error).__name__}: {error}") from error
        if inspect.iscoroutine(value):
            value.close()
            raise self._error(f"{name} is a coroutine function, but elements are built in a worker thread")
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
