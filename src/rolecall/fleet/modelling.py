"""What an application says of its network and devices, as the models that the simulator and shaped links go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.patterns import matches, select

if TYPE_CHECKING:
    from rolecall.fleet.app import App, Between
    from rolecall.sim.devices import Device
    from rolecall.sim.network import Network, Path
    from rolecall.wire.pacing import Pace
    from rolecall.wire.peers import Peer

__all__ = ("check_models", "device_of", "network_of", "pace_of")


def check_models(app: App) -> None:
    """Raise `ConfigError` where an expanded application names a profile or node that is not, or a path that is none."""
    for name, node in app.nodes.items():
        for key, profile in (("device", node.device), ("network", node.network)):
            if profile is not None:
                _check_profile(app, key, profile, ("nodes", name, key))
    for index, between in enumerate(app.paths):
        _check_between(app, between, ("paths", index))


def _check_profile(app: App, kind: str, profile: str, path: tuple[str | int, ...]) -> None:
    from rolecall.sim import profiles

    known = profiles.devices() if kind == "device" else profiles.networks()
    if profile not in known:
        hint = f"{nearest(profile, known)} There are: {', '.join(known)}"
        raise app.marks.error(path, f"there is no {kind} profile {profile!r}", hint)


def _check_between(app: App, between: Between, path: tuple[str | int, ...]) -> None:
    if len(between.between) != 2:
        problem = f"found {len(between.between)} names, expected two nodes or patterns of nodes"
        raise app.marks.error((*path, "between"), problem, "Write between: [server, client*]")
    for name in between.between:
        if not select(name, app.nodes):
            raise app.marks.error((*path, "between"), f"there is no node {name!r}", nearest(name, app.nodes))
    if between.network is not None:
        _check_profile(app, "network", between.network, (*path, "network"))
    try:
        _path(between)
    except ConfigError as error:
        raise app.marks.error(path, str(error)) from None


def _path(between: Between) -> Path:
    """Return the path that is meant: that of a profile, as far as no numbers say otherwise."""
    from rolecall.sim.network import Path
    from rolecall.sim.profiles import NETWORKS, network_for

    line = network_for(between.network, "", 0) if between.network is not None else NETWORKS["direct"]
    given = {name: getattr(between, name) for name in ("latency_s", "jitter_s", "bandwidth_bps", "loss")}
    profile = {
        "latency_s": 2 * line.latency_s,
        "jitter_s": line.jitter_s,
        "bandwidth_bps": line.down_bps,
        "loss": line.loss,
    }
    return Path(**{**profile, **{name: value for name, value in given.items() if value is not None}})


def network_of(app: App) -> Network:
    """Return the network of an expanded application: the line of each node, and what lies between them."""
    from rolecall.sim.network import Network, Path
    from rolecall.sim.profiles import network_for

    rules = [(between.between[0], between.between[1], _path(between)) for between in app.paths]
    direct = Path()

    def path_between(src: str, dst: str) -> Path:
        for a, b, path in rules:
            if (matches(a, src) and matches(b, dst)) or (matches(a, dst) and matches(b, src)):
                return path
        return direct

    network = Network(app.seed or 0, path_between if rules else direct)
    for name, node in app.nodes.items():
        if node.network is not None:
            network.attach(name, network_for(node.network, name, app.seed or 0))
    return network


def pace_of(app: App, node: str) -> Callable[[Peer], Pace | None]:
    """Return what slows the real links of a node down to what the models of an expanded application say.

    The line of the other node is taken to be free: who else sends to it is not known here.
    """
    network, began_s = network_of(app), time.monotonic()

    def pace(peer: Peer) -> Pace | None:
        if peer.name not in app.nodes:
            return None
        deliver_at = network.pair(node, peer.name).deliver_at

        def arrives_at(size_bytes: int, now_s: float) -> float:
            at_s = deliver_at(size_bytes, now_s - began_s)
            return now_s if at_s is None else at_s + began_s  # nothing is cut here

        return arrives_at

    return pace


def device_of(app: App, node: str) -> Device | None:
    """Return a new device of the kind that an expanded application gives to a node; None if it says nothing."""
    from rolecall.sim.devices import Device
    from rolecall.sim.profiles import device_for

    name = app.nodes[node].device
    return Device(device_for(name, node, app.seed or 0)) if name is not None else None
