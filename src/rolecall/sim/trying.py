"""One test with one seed: run it, run it again to compare, and if it fails say how to have that again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from typing import Any

from rolecall.sim.attempt import ATTEMPT, Attempt
from rolecall.sim.errors import Diverged
from rolecall.sim.inline import Threads
from rolecall.sim.schedule import Schedule
from rolecall.sim.shrink import Shrunk, shrink
from rolecall.sim.simulate import simulate

__all__ = ("Trial",)


class Trial:
    """A test with a seed; `node` is how pytest names it, `faults` what is to happen in place of what it asks for.

    It fails by an `Exception`, or by what `failure` names: what pytest raises itself is none.
    """

    def __init__(
        self,
        test: Callable[[], Coroutine[Any, Any, None]],
        *,
        seed: int,
        order: str,
        threads: Threads,
        node: str,
        twice: bool,
        faults: str | None,
        runs_max: int,
        failure: type[BaseException] = Exception,
    ) -> None:
        self._test, self._seed, self._order, self._threads, self._node = test, seed, order, threads, node
        self._twice, self._runs_max, self._failures = twice, runs_max, (Exception, failure)
        self._faults = Schedule.from_json(faults, "--sim-faults") if faults is not None else None

    def run(self) -> None:
        """Run the test; what it raises says how to replay it, with as few faults as still make it fail.

        Raises:
            Diverged: it was to be run twice, and the runs differ.
        """
        attempt = Attempt(forced=self._faults)
        try:
            self._once(attempt)
        except self._failures as error:
            error.add_note(self._told(attempt, error))
            raise
        if self._twice:
            self._compare(attempt)

    def _once(self, attempt: Attempt) -> None:
        token = ATTEMPT.set(attempt)
        try:
            simulate(self._test, seed=self._seed, order=self._order, threads=self._threads)
        finally:
            ATTEMPT.reset(token)

    def _compare(self, first: Attempt) -> None:
        second = Attempt(forced=self._faults)
        try:
            self._once(second)
        except self._failures as error:
            error.add_note("It is raised the second time only: the test, or what it tests, keeps something.")
            raise
        if first.digests != second.digests:
            diverged = Diverged(self._seed, " + ".join(first.digests), " + ".join(second.digests))
            diverged.add_note(self._replay(None))
            raise diverged

    # ------------------------------------------------------------------------------------------ failures

    def _told(self, attempt: Attempt, error: BaseException) -> str:
        """Return what to say of a failure: the command that has it again."""
        faults = [schedule for schedule in attempt.schedules if schedule.faults]
        if not faults:
            return self._replay(self._faults)
        if len(attempt.schedules) != 1:
            return self._replay(self._faults) + "\n(it has several simulations, so its faults were not shrunk)"
        found = shrink(faults[0], lambda schedule: self._fails(schedule, error), runs_max=self._runs_max)
        return f"{self._replay(found.schedule)}\n{_listed(found, len(faults[0].faults))}"

    def _fails(self, schedule: Schedule, error: BaseException) -> bool:
        """Say whether the test fails in the same way with other faults."""
        try:
            self._once(Attempt(forced=schedule))
        except type(error):
            return True
        except self._failures:
            return False
        return False

    def _replay(self, faults: Schedule | None) -> str:
        command = ["pytest", self._node, "--sim-seed", str(self._seed)]
        if faults is not None:
            command += ["--sim-faults", faults.to_json()]
        return f"replay: {shlex.join(command)}"


def _listed(found: Shrunk, before: int) -> str:
    count = len(found.schedule.faults)
    lines = "".join(f"\n  {timed}" for timed in found.schedule.faults) or "\n  (it fails without any)"
    minimal = "" if found.is_minimal else ", and there may be fewer"
    return f"{count} of {before} faults are enough ({found.runs} runs{minimal}):{lines}"
