"""The course of a run: what was started, whose failure ends it, and what else does; the same for every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from rolecall.core.errors import ApplicationFailed, CallerError, ConfigError
from rolecall.core.ids import RoleId
from rolecall.fleet.app import After, App

__all__ = ("DRAIN_S", "Course", "Ending", "failure_of")

DRAIN_S = 10.0
"""How long main routines and resumable tasks may take to their next safe point when the run is stopped."""


class Ending(msgspec.Struct):
    """How a run ended: what the started calls returned and the state of every role."""

    status: str = "ok"
    returned: dict[str, Any] = {}
    states: dict[str, Any] = {}


class Course:
    """Counts the routines of a run, judges failures, and knows when the run is over.

    `say` takes level, source and text of what goes into the log. Setting `stop` ends the run in good order.
    """

    def __init__(self, app: App, say: Callable[[str, str, str], None], stop: anyio.Event) -> None:
        self._app, self._say, self.stop = app, say, stop
        self.failure: Exception | None = None
        self._routines = 0
        self.failed, self._quiet = anyio.Event(), anyio.Event()

    # ------------------------------------------------------------------------------------------ failures

    def tolerates(self, role: RoleId, policy: str | None = None) -> bool:
        """Say whether the application goes on without a role; `policy` is that of one that it does not name itself."""
        spec = self._app.roles.get(role.home, {}).get(role.name)  # none: the node's own role, or one assigned
        return (policy or (spec.on_failure if spec is not None else None) or self._app.on_failure) == "continue"

    def tolerates_node(self, node: str) -> bool:
        """Say whether the application goes on without a node: without each of its roles."""
        roles = self._app.roles.get(node, {})
        return all(self.tolerates(RoleId.of(node, name)) for name in roles) and (
            bool(roles) or self._app.on_failure == "continue"
        )

    def not_set_up(self, role: RoleId, error: Exception) -> None:
        """Log that a role could not be set up; raise what that means to the application, unless it goes on."""
        if not self.tolerates(role):
            raise failure_of(role, "setup", error)
        self._say("error", role, f"failed in setup: {error}")

    def fail(self, role: RoleId, phase: str, error: Exception, policy: str | None = None) -> None:
        """Take note that a routine of a role has failed."""
        if self.tolerates(role, policy):
            self._say("error", role, f"failed in {phase}: {type(error).__name__}: {error}")
        else:
            self.end(failure_of(role, phase, error))

    def end(self, failure: Exception) -> None:
        """End the run with an error; the first one counts."""
        if self.failure is None:
            self.failure = failure
            self.failed.set()

    # ------------------------------------------------------------------------------------------ routines

    def begin(self, routines: int) -> None:
        """Count the start calls and main routines.

        Raises:
            ConfigError: there are none, and the run would go on until they have returned.
        """
        self._routines = routines
        if self._app.until == "all-returned" and routines == 0:
            raise ConfigError(
                f"app {self._app.name!r}", "nothing is started and no role has a main routine, so it would end at once",
                hint="Give `start:`, or `until: stopped`",
            )  # fmt: skip

    def more(self, routines: int) -> None:
        """Count main routines of a node that has joined while others were at work."""
        self._routines += routines

    def routine_ended(self) -> None:
        """Take note that a start call or a main routine has ended."""
        self._routines -= 1
        if self._routines == 0:
            self._quiet.set()

    # ------------------------------------------------------------------------------------------ the end

    async def over(self) -> None:
        """Wait until the application ends, by itself, by its failure, or because it is stopped."""
        quiet = [self._quiet] if self._app.until == "all-returned" else []
        async with anyio.create_task_group() as waiting:
            ended = anyio.Event()
            for event in (self.stop, self.failed, *quiet):
                waiting.start_soon(_either, event, ended)
            if isinstance(self._app.until, After):
                waiting.start_soon(_after, self._app.until.seconds, ended)
            await ended.wait()
            waiting.cancel_scope.cancel()

    @property
    def stopped(self) -> bool:
        """Whether the run ends because it was told to, and so in good order."""
        return self.stop.is_set() and self.failure is None

    async def drained(self) -> None:
        """Wait until no routine is left, 10 s at most."""
        if self._routines:
            with anyio.move_on_after(DRAIN_S):
                await self._quiet.wait()


def failure_of(role: str, phase: str, error: Exception) -> Exception:
    """Return what to raise: what the user configured wrongly speaks for itself."""
    if isinstance(error, CallerError) and phase == "setup":
        return error
    failure = ApplicationFailed(role, phase, error)
    failure.__cause__ = error
    return failure


async def _either(event: anyio.Event, ends: anyio.Event) -> None:
    await event.wait()
    ends.set()


async def _after(seconds: float, ends: anyio.Event) -> None:
    await anyio.sleep(seconds)
    ends.set()
