"""Modelled devices: how long a computation takes on them, and what fits into their memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from rolecall.core.costs import Flops
from rolecall.core.errors import ConfigError, RolecallError
from rolecall.core.ids import RoleId
from rolecall.sim.courier import Timeline
from rolecall.sim.disk import Disk
from rolecall.sim.inline import run_inline
from rolecall.wire import size_bytes

__all__ = (
    "DEFAULT_COST",
    "SAMPLE_FLOPS",
    "Core",
    "Device",
    "DeviceProfile",
    "ModelledComputing",
    "OutOfMemory",
    "Throttle",
    "footprint",
)

SAMPLE_FLOPS: Final = 6e6
"""What a sample costs: forward and backward through a million parameters, at 6 operations for each of them."""
DEFAULT_COST: Final = 32.0
"""Samples that a computation counts as which says nothing of its cost: one batch."""


class Throttle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Full speed while there is credit, and a share of it without: a hot phone, or a burstable virtual machine.

    A core that works spends a second of credit each second and earns `baseline` of one, working or not, up to
    `burst_s`, which it begins with.
    """

    burst_s: float
    baseline: float

    def __post_init__(self) -> None:
        if not (self.burst_s >= 0 and 0 < self.baseline < 1):
            given = f"burst_s={self.burst_s:g}, baseline={self.baseline:g}"
            raise ConfigError("Throttle", given, hint="Give burst_s from 0 on, and a baseline between 0 and 1")


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a device can do: sustained operations a second of each core, cores, memory, and whether it throttles."""

    flops_per_s: float
    cores: int = 1
    memory_bytes: int | None = None
    throttle: Throttle | None = None

    def __post_init__(self) -> None:
        if not (self.flops_per_s > 0 and self.cores >= 1 and (self.memory_bytes is None or self.memory_bytes > 0)):
            raise ConfigError("DeviceProfile", f"{self!r} is no device", hint="Give numbers above 0")

    def work_s(self, cost: float | None) -> float:
        """Return how long a computation takes on one core at full speed."""
        if cost is None:
            cost = DEFAULT_COST
        flops = cost if isinstance(cost, Flops) else cost * SAMPLE_FLOPS
        return max(flops, 0.0) / self.flops_per_s


class OutOfMemory(RolecallError):
    """Raised when something does not fit into the memory of a modelled device."""

    def __init__(self, where: str, wanted: int, held: int, memory: int) -> None:
        super().__init__(
            f"{where}: {wanted:,} bytes do not fit into the memory of its device, which has {memory:,} bytes and "
            f"holds {held:,} already. Give the node a device with more memory, or load less."
        )


class Core:
    """One core of a device, with its credit."""

    __slots__ = ("_as_of_s", "_credit_s", "_throttle")

    def __init__(self, throttle: Throttle | None) -> None:
        self._throttle = throttle
        self._credit_s = throttle.burst_s if throttle is not None else 0.0
        self._as_of_s = 0.0

    def takes_s(self, work_s: float, now_s: float) -> float:
        """Return how long work takes that begins now, and would take `work_s` at full speed."""
        throttle = self._throttle
        if throttle is None:
            return work_s
        earned_s = max(now_s - self._as_of_s, 0.0) * throttle.baseline
        self._credit_s, self._as_of_s = min(self._credit_s + earned_s, throttle.burst_s), now_s
        fast_s = min(work_s, self._credit_s / (1 - throttle.baseline))
        return fast_s + (work_s - fast_s) / throttle.baseline

    def worked(self, now_s: float) -> None:
        """Pay for the work that began when `takes_s` was asked, and ends now, at its end or before."""
        if self._throttle is not None:
            spent_s = (now_s - self._as_of_s) * (1 - self._throttle.baseline)
            self._credit_s, self._as_of_s = max(self._credit_s - spent_s, 0.0), now_s


class Device:
    """One device: its cores, who waits for them, and its memory."""

    __slots__ = ("_free", "_waiting", "claimed_bytes", "profile", "slow")

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self.slow = 1.0
        """How many times longer than it should what begins now takes."""
        self.claimed_bytes = 0
        """Memory in use."""
        self._free = [Core(profile.throttle) for _ in range(profile.cores)]
        self._waiting: deque[asyncio.Future[Core]] = deque()

    async def core(self) -> Core:
        """Return a core, to be given back by `release`; who waits for one gets it in turn."""
        if self._free:
            return self._free.pop(0)
        waiter: asyncio.Future[Core] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            else:
                self._waiting.remove(waiter)
            raise

    def release(self, core: Core) -> None:
        """Give a core back."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(core)
                return
        self._free.append(core)

    def claim(self, where: str, wanted: int) -> None:
        """Take memory for something; raise `OutOfMemory` when there is not enough."""
        memory = self.profile.memory_bytes
        if memory is not None and self.claimed_bytes + wanted > memory:
            raise OutOfMemory(where, wanted, self.claimed_bytes, memory)
        self.claimed_bytes += wanted


class ModelledComputing:
    """Runs what roles compute in no time, at the end of the time it takes on a device: cut short, it never ran."""

    def __init__(self, device: Device, timeline: Timeline, node: str, disk: Disk | None = None) -> None:
        self.device, self._timeline, self._node = device, timeline, node
        self._disk = disk or Disk()

    async def run(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None) -> Any:
        """Wait for a core and for the end of the work, and do it then."""
        core = await self.device.core()
        try:
            await self._work(core, cost)
            return run_inline(partial(function, *args))
        finally:
            self.device.release(core)

    async def _work(self, core: Core, cost: float | None) -> None:
        timeline, device = self._timeline, self.device
        begin_s = timeline.now_s()
        took_s = core.takes_s(device.profile.work_s(cost) * device.slow, begin_s)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = timeline.at(begin_s + took_s, self._node, _end, over)
        try:
            await over
        finally:
            timer.cancel()
            core.worked(timeline.now_s())

    async def load(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Do it at once; what it makes takes memory, where its size is known."""
        made = run_inline(partial(function, *args))
        self.device.claim(str(role), footprint(made))
        return made

    async def save(self, role: RoleId, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Do it at once; raise `OSError` when the disk of the node is full."""
        self._disk.charge(footprint(args[-1]) if args else 0)
        run_inline(partial(function, *args))


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def footprint(value: Any) -> int:
    """Return about how many bytes an element takes, as far as it says: an array, or a model's parameters."""
    parameters = getattr(value, "parameters", None)
    return size_bytes(parameters() if callable(parameters) else value)
