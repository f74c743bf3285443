"""Named devices and networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rolecall.core.errors import ConfigError
from rolecall.sim.network import Network
from rolecall.sim.profiles import (
    DEVICES,
    MIXED_DEVICES,
    MIXED_NETWORKS,
    NETWORKS,
    device_for,
    devices,
    network_for,
    networks,
)


@pytest.mark.parametrize("name", networks())
def test_every_network_has_lines(name: str) -> None:
    network = Network()
    for node in ("a", "b"):
        network.attach(node, network_for(name, node))
    arrived_s = network.deliver_at("a", "b", 1_000, 0.0)
    assert arrived_s is not None
    assert arrived_s < 5.0


@pytest.mark.parametrize("name", devices())
def test_every_device_works(name: str) -> None:
    assert 0 < device_for(name, "a").work_s(32.0) < 10.0


def test_a_round_trip_is_what_the_table_says() -> None:
    network = Network()
    network.attach("a", network_for("wan", "a"))
    network.attach("b", network_for("wan", "b"))
    assert network.round_trip_s("a", "b") == pytest.approx(0.080)


def test_a_mix_is_drawn_by_seed_and_node() -> None:
    nodes = [f"client{number}" for number in range(1_000)]
    drawn = [network_for("edge-mixed", node, 7) for node in nodes]
    assert drawn == [network_for("edge-mixed", node, 7) for node in nodes]
    assert drawn != [network_for("edge-mixed", node, 8) for node in nodes]
    names = Counter(next(name for name, line in NETWORKS.items() if line == access) for access in drawn)
    for name, share in MIXED_NETWORKS["edge-mixed"].items():
        assert names[name] / 1_000 == pytest.approx(share, abs=0.05)


def test_mixes_are_of_what_there_is() -> None:
    for mixed, single in ((MIXED_NETWORKS, NETWORKS), (MIXED_DEVICES, DEVICES)):
        for shares in mixed.values():
            assert set(shares) <= set(single)
            assert sum(shares.values()) == pytest.approx(1.0)


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"node 'a': network 'edge-mixd': .* Did you mean 'edge-mixed'\?"):
        network_for("edge-mixd", "a")
    with pytest.raises(ConfigError, match=r"node 'a': device 'fone': .* Did you mean 'phone'\?.*Choose one of server"):
        device_for("fone", "a")


def test_the_documentation_has_the_numbers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulation-models.md").read_text()
    for name, line in NETWORKS.items():
        down, up = (f"{bps / 1e6:,g}" if bps else "any" for bps in (line.down_bps, line.up_bps))
        loss = f"{line.loss * 100:g} %" if line.loss else "0"
        row = f"| `{name}` | {line.latency_s * 4_000:,g} | {line.jitter_s * 1_000:g} | {down} | {up} | {loss} |"
        assert row in page
    for name, device in DEVICES.items():
        memory = (device.memory_bytes or 0) / (1 << 30)
        assert f"| `{name}` | {device.flops_per_s / 1e9:,g} | {device.cores} | {memory:g} |" in page
    for mixes in (MIXED_NETWORKS, MIXED_DEVICES):
        for name, shares in mixes.items():
            mix = ", ".join(f"{share * 100:g} % `{kind}`" for kind, share in shares.items())
            assert f"| `{name}` | {mix} |" in page
