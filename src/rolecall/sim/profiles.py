"""Named devices and networks, with their numbers; docs/simulation-models.md says where these come from.

A profile is one kind of line or device, or a mix of several: which of them a node gets is drawn from the seed and the
name of the node, so that it stays the same when other nodes are added.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from rolecall.core.errors import ConfigError, nearest
from rolecall.sim.devices import DeviceProfile, Throttle
from rolecall.sim.network import Access

__all__ = ("DEVICES", "MIXED_DEVICES", "MIXED_NETWORKS", "NETWORKS", "device_for", "devices", "network_for", "networks")

P = TypeVar("P")
GIB: Final = 1 << 30


def _line(rtt_ms: float, jitter_ms: float, down_mbps: float, up_mbps: float, loss: float = 0.0) -> Access:
    """Return a line; two nodes on such lines are a round trip of `rtt_ms` apart."""
    return Access(
        latency_s=rtt_ms / 4_000, jitter_s=jitter_ms / 1_000, down_bps=down_mbps * 1e6, up_bps=up_mbps * 1e6, loss=loss
    )


NETWORKS: Final[Mapping[str, Access]] = MappingProxyType(
    {
        "direct": Access(),
        "datacenter": _line(0.2, 0.02, 10_000, 10_000),
        "lan": _line(0.5, 0.1, 1_000, 1_000),
        "wifi": _line(4, 3, 100, 100, loss=0.001),
        "wan": _line(80, 2, 100, 100, loss=0.0001),
        "fibre": _line(4, 0.5, 20, 5),
        "cable": _line(28, 2, 5, 1, loss=0.0005),
        "dsl": _line(50, 4, 1.5, 0.384, loss=0.0005),
        "lte": _line(70, 10, 12, 12, loss=0.001),
        "4g": _line(170, 20, 9, 9, loss=0.001),
        "3g": _line(300, 40, 1.6, 0.768, loss=0.005),
        "satellite": _line(1_200, 40, 25, 5, loss=0.002),
    }
)
"""Lines by name: milliseconds of round trip between two such nodes, and of jitter; Mbit/s down and up; loss."""

MIXED_NETWORKS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "edge-mixed": {"wifi": 0.3, "cable": 0.3, "lte": 0.3, "3g": 0.1},
        "home-mixed": {"fibre": 0.3, "cable": 0.4, "dsl": 0.3},
    }
)
"""Mixes of lines, by name: the share of the nodes that have each."""

DEVICES: Final[Mapping[str, DeviceProfile]] = MappingProxyType(
    {
        "server": DeviceProfile(flops_per_s=40e9, cores=16, memory_bytes=64 * GIB),
        "gpu": DeviceProfile(flops_per_s=3e12, cores=1, memory_bytes=16 * GIB),
        "workstation": DeviceProfile(flops_per_s=30e9, cores=8, memory_bytes=32 * GIB),
        "laptop": DeviceProfile(flops_per_s=20e9, cores=4, memory_bytes=16 * GIB),
        "phone": DeviceProfile(
            flops_per_s=10e9, cores=4, memory_bytes=6 * GIB, throttle=Throttle(burst_s=180, baseline=0.5)
        ),
        "edge": DeviceProfile(flops_per_s=3e9, cores=4, memory_bytes=4 * GIB),
        "sensor": DeviceProfile(flops_per_s=0.3e9, cores=1, memory_bytes=GIB // 2),
        "burstable": DeviceProfile(
            flops_per_s=20e9, cores=2, memory_bytes=2 * GIB, throttle=Throttle(burst_s=1_800, baseline=0.2)
        ),
    }
)
"""Devices by name: sustained operations a second of each core, cores, memory, throttling."""

MIXED_DEVICES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {"edge-mixed": {"laptop": 0.2, "phone": 0.4, "edge": 0.3, "sensor": 0.1}}
)
"""Mixes of devices, by name: the share of the nodes that have each."""


def networks() -> list[str]:
    """Return the names of all networks, mixes included."""
    return [*NETWORKS, *MIXED_NETWORKS]


def devices() -> list[str]:
    """Return the names of all devices, mixes included."""
    return [*DEVICES, *MIXED_DEVICES]


def network_for(name: str, node: str, seed: int = 0) -> Access:
    """Return the line of a node that has a network of that name; raise `ConfigError` if there is none."""
    return _drawn("network", name, NETWORKS, MIXED_NETWORKS, node, seed)


def device_for(name: str, node: str, seed: int = 0) -> DeviceProfile:
    """Return the device of a node that has one of that name; raise `ConfigError` if there is none."""
    return _drawn("device", name, DEVICES, MIXED_DEVICES, node, seed)


def _drawn(
    kind: str, name: str, single: Mapping[str, P], mixed: Mapping[str, Mapping[str, float]], node: str, seed: int
) -> P:
    if name in mixed:
        shares = mixed[name]
        name = random.Random(f"{seed} {kind} {node}").choices(list(shares), list(shares.values()))[0]
    if name not in single:
        known = [*single, *mixed]
        raise ConfigError(
            f"node {node!r}: {kind} {name!r}",
            f"there is no such {kind} profile.{nearest(name, known)}",
            hint=f"Choose one of {', '.join(known)}",
        )
    return single[name]
