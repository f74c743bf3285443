"""Devices, networks and paths of an application file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.fleet.modelling import device_of, network_of, pace_of
from rolecall.sim.profiles import DEVICES
from rolecall.wire.peers import Peer

FILE = """
name: modelled
parameters: {latency: 0.2}
seed: 7
nodes:
  server: {device: server, network: datacenter}
  client[1-3]: {device: edge-mixed, network: wan}
  far: {}
paths:
  - {between: [server, client1], network: lan, latency_s: "${latency}"}
  - {between: ["client*", far], bandwidth_bps: 8000}
"""


def loaded(directory: Path, text: str = FILE) -> rc.App:
    file = directory / "app.yaml"
    file.write_text(text)
    return rc.App.load(file).expanded()


def test_nodes_have_lines_and_pairs_have_paths(tmp_path: Path) -> None:
    network = network_of(loaded(tmp_path))
    assert network.round_trip_s("client1", "client2") == pytest.approx(0.080)
    assert network.round_trip_s("server", "client2") == pytest.approx(0.0401)
    assert network.round_trip_s("server", "client1") == pytest.approx(0.0401 + 0.4)
    assert network.round_trip_s("client1", "server") == pytest.approx(0.0401 + 0.4)
    arrived_s = network.deliver_at("far", "client3", 1_000, 0.0)
    assert arrived_s is not None
    assert 1.0 < arrived_s < 1.1
    assert network.deliver_at("far", "server", 1_000_000, 0.0) < 0.01  # type: ignore[operator]


def test_nodes_have_devices(tmp_path: Path) -> None:
    app = loaded(tmp_path)
    server, client, far = (device_of(app, name) for name in ("server", "client1", "far"))
    assert server is not None and server.profile == DEVICES["server"]
    assert client is not None and client.profile in DEVICES.values()
    assert device_of(app, "client1") is not client  # each life of a node has one of its own
    assert far is None


def test_real_links_are_as_slow_as_modelled_ones(tmp_path: Path) -> None:
    pace_to = pace_of(loaded(tmp_path), "client1")
    pace, now_s = pace_to(Peer("client2", 1)), time.monotonic()
    assert pace is not None
    assert 0.040 <= pace(1_000, now_s) - now_s < 1.0
    assert pace_to(Peer("conductor", 1)) is None


def test_they_are_written_and_read_again(tmp_path: Path) -> None:
    app = loaded(tmp_path)
    app.save(tmp_path / "again.yaml")
    again = rc.App.load(tmp_path / "again.yaml")
    assert (again.paths, again.nodes, again.shape) == (app.paths, app.nodes, False)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("device: server", "device: sever", r"app\.yaml:6.*no device profile 'sever'.*Did you mean 'server'"),
        ("network: wan", "network: wna", r"app\.yaml:7.*no network profile 'wna'.*Did you mean 'wan'"),
        ("network: lan", "network: lna", r"app\.yaml:10.*no network profile 'lna'.*Did you mean 'lan'"),
        ("[server, client1]", "[server]", r"app\.yaml:10.*found 1 names, expected two"),
        ("[server, client1]", "[server, clint1]", r"app\.yaml:10.*no node 'clint1'.*Did you mean 'client1'"),
        ("bandwidth_bps: 8000", "bandwidth_bps: 0", r"app\.yaml:11.*Path\.bandwidth_bps: it is 0"),
        ("bandwidth_bps: 8000", "bandwith_bps: 8000", r"app\.yaml:11.*unknown key 'bandwith_bps'.*'bandwidth_bps'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, FILE.replace(old, new, 1))


def test_without_any_profile_there_is_no_delay() -> None:
    app: Any = rc.App(name="plain", nodes={"a": rc.Node(), "b": rc.Node()}).expanded(seed=1)
    assert network_of(app).deliver_at("a", "b", 1_000_000, 5.0) == 5.0
    assert device_of(app, "a") is None
