"""The role: one responsibility, written as a class; the unit of deployment."""

from __future__ import annotations

import logging
from abc import ABCMeta
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from rolecall.core.annotations import remember_scope
from rolecall.core.channels import Channel
from rolecall.core.errors import LifecycleError
from rolecall.core.ids import RoleId
from rolecall.core.randomness import generator, seed_for

if TYPE_CHECKING:
    import numpy as np

    from rolecall.core.host import Host

__all__ = ("Extension", "Role")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Unhosted:
    """Stands for the runtime until a role has one, to say so when it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise LifecycleError(
            "This role is not on a node yet: channels, relationships, `id`, `rng` and `log` work from "
            "`setup()` on, not in "
            "`__init__`. Run it as part of an application (`rc.run`)."
        )


def _keep_channels(cls: type) -> None:
    """Let an undecorated override of a channel stay that channel."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, Channel) and value.name != name:  # `collect = train`: one handler, two channels
            value = value.overridden(value.handler)
            value.__set_name__(cls, name)
            setattr(cls, name, value)
        inherited = next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)
        if isinstance(inherited, Channel) and callable(value) and not isinstance(value, Channel):
            channel = inherited.overridden(value)
            channel.__set_name__(cls, name)
            setattr(cls, name, channel)


class Role(metaclass=ABCMeta):  # noqa: B024 - abstract are the roles that leave a channel open
    """Base of all roles. Declare channels, elements, relationships and state in the class body.

    The options of the configuration are the keyword arguments of `__init__`. Override `setup`, `main` and
    `teardown` as needed; the channels of a role interleave at awaits on one event loop, so plain attributes
    need no locks.
    """

    _host: Host = _Unhosted()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        remember_scope(cls)
        _keep_channels(cls)

    @property
    def id(self) -> RoleId:
        """The permanent name of this role instance."""
        return self._host.id

    @property
    def logger(self) -> logging.Logger:
        """A logger that carries the role's name."""
        return self._host.logger

    async def setup(self) -> None:  # noqa: B027 - the default does nothing
        """Prepare; runs before any message is handled. An exception fails the application."""

    async def main(self) -> None:  # noqa: B027
        """Run beside the handlers, from the start of the application; the default does nothing."""

    async def teardown(self) -> None:  # noqa: B027
        """Clean up; runs after the last handler has ended."""

    def snapshot(self) -> Any:
        """Return what must move with the role besides its declared `State`; any value that can travel."""
        return None

    def restore(self, snapshot: Any) -> None:  # noqa: B027
        """Take back what `snapshot` returned; runs before `setup`."""

    async def compute(self, function: Callable[[*Ts], T], *args: *Ts, cost: float | None = None) -> T:
        """Run a function in a worker thread and return its result; for training and all else that is slow.

        Cancelling the wait cancels the work where it asks (`anyio.from_thread.check_cancelled()`, between
        batches); the wait ends when the thread has stopped.

        Args:
            cost: how much work it is, for the simulator's clock: samples, or `rc.Flops(...)`; without one it is a
                batch of 32 samples. Real engines ignore it.
        """
        result: T = await self._host.compute(function, args, cost)
        return result

    def rng(self, purpose: str, step: int = 0) -> np.random.Generator:
        """Return a generator that depends on the application's seed, the role, `purpose` and `step` alone."""
        return generator(self._host.seed, self._host.id, purpose, step)

    def seed(self, purpose: str, step: int = 0) -> int:
        """Return the seed that `rng` would use, for libraries that take one."""
        return seed_for(self._host.seed, self._host.id, purpose, step)

    def log(self, **values: float | int | str) -> None:
        """Record metrics: `self.log(round=r, accuracy=a)`."""
        self._host.record(values)

    def leave(self) -> None:
        """End this role: its handlers and main routine at their next await, then `teardown()`; others see it leave."""
        self._host.leave()

    async def safe_point(self) -> None:
        """Mark where a resumable task may be ended by a pause or a move, to be entered again later."""
        await self._host.safe_point()


class Extension(Role):
    """Base of classes that are added to a role by the configuration (`extensions:`), not deployed alone.

    An extension's channels, elements, relationships and handlers join the role's. Its `setup`, `main` and
    `teardown` run beside the role's own: they do not call `super()`. A plain role class may serve as a mixin
    as well; then the rules of Python's inheritance hold.
    """
