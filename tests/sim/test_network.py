"""The modelled network: delays, queues, order, loss, cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.sim.network import Access, Network, Path

latencies = st.floats(0, 0.5)
bandwidths = st.none() | st.floats(1e3, 1e9)
paths = st.builds(
    Path, latency_s=latencies, jitter_s=st.floats(0, 0.1), bandwidth_bps=bandwidths, loss=st.floats(0, 0.3)
)
lines = st.builds(Access, latency_s=latencies, jitter_s=st.floats(0, 0.1), up_bps=bandwidths, down_bps=bandwidths)
sends = st.lists(
    st.tuples(st.sampled_from(["ab", "ac", "ba", "cb"]), st.floats(0, 1), st.integers(1, 1_000_000)), max_size=40
)


def test_a_chunk_takes_the_latency_and_its_size() -> None:
    network = Network(default=Path(latency_s=0.1, bandwidth_bps=8_000))
    assert network.deliver_at("a", "b", 1_000, 5.0) == pytest.approx(6.1)
    assert network.deliver_at("a", "b", 1_000, 5.0) == pytest.approx(7.1)  # waits for the one before
    assert network.deliver_at("b", "a", 1_000, 5.0) == pytest.approx(6.1)  # the other direction does not
    assert network.deliver_at("a", "c", 1_000, 5.0) == pytest.approx(6.1)  # nor another path
    assert network.round_trip_s("a", "b") == pytest.approx(0.2)


def test_a_line_is_shared_by_all_that_its_node_sends() -> None:
    network = Network()
    network.attach("a", Access(up_bps=8_000, latency_s=0.1))
    assert network.deliver_at("a", "b", 1_000, 0.0) == pytest.approx(1.1)
    assert network.deliver_at("a", "c", 1_000, 0.0) == pytest.approx(2.1)
    assert network.deliver_at("b", "a", 1_000_000, 0.0) == pytest.approx(0.1)


def test_a_line_is_shared_by_all_that_its_node_receives() -> None:
    network = Network()
    network.attach("a", Access(down_bps=8_000))
    assert network.deliver_at("b", "a", 1_000, 0.0) == pytest.approx(1.0)
    assert network.deliver_at("c", "a", 1_000, 0.0) == pytest.approx(2.0)


def test_stretches_pass_on_what_they_have() -> None:
    """A chunk does not wait at the second line until the first has all of it."""
    network = Network()
    network.attach("a", Access(up_bps=8_000))
    network.attach("b", Access(down_bps=8_000, latency_s=0.1))
    assert network.deliver_at("a", "b", 1_000, 0.0) == pytest.approx(1.1)


def test_a_line_may_come_later() -> None:
    network = Network()
    assert network.deliver_at("a", "b", 1_000, 0.0) == 0.0
    network.attach("b", Access(latency_s=0.5))
    assert network.deliver_at("a", "b", 1_000, 0.0) == 0.5
    network.set_path("a", "b", Path(latency_s=1.0), both=False)
    assert network.deliver_at("a", "b", 1_000, 0.0) == 1.5
    assert network.deliver_at("b", "a", 1_000, 0.0) == 0.5


def test_loss_is_delay() -> None:
    clean, lossy = Network(default=Path(latency_s=0.05)), Network(default=Path(latency_s=0.05, loss=0.1))
    late = [(lossy.deliver_at("a", "b", 1_000, 10.0 * n) or 0) - 10 * n - 0.05 for n in range(2_000)]
    assert clean.deliver_at("a", "b", 1_000, 0.0) == 0.05
    delayed = [late_s for late_s in late if late_s > 0.1]
    assert 0.08 < len(delayed) / 2_000 < 0.12  # one packet each
    assert min(delayed) == pytest.approx(0.2, abs=0.05)  # the timeout of TCP, and twice that if it is lost again
    assert any(late_s == pytest.approx(0.6, abs=0.05) for late_s in delayed)


def test_loss_limits_the_bandwidth() -> None:
    """1,460 bytes in each round trip of 0.1 s, times 1.22 through 0.1."""
    network = Network(default=Path(latency_s=0.05, loss=0.01, bandwidth_bps=1e9))
    arrived_s = network.deliver_at("a", "b", 1_000_000, 0.0)
    assert arrived_s is not None
    assert arrived_s >= 1_000_000 / (1_460 / 0.1 * 1.22 / 0.1)


def test_the_seed_decides() -> None:
    def run(seed: int) -> list[float | None]:
        network = Network(seed, Path(jitter_s=1.0, loss=0.2))
        return [network.deliver_at(src, "b", 1_000, now_s) for now_s in range(20) for src in "ac"]

    assert run(1) == run(1) != run(2)


def test_what_others_send_changes_nothing() -> None:
    quiet, busy = Network(3, Path(jitter_s=1.0)), Network(3, Path(jitter_s=1.0))
    for now_s in range(0, 100, 10):
        busy.deliver_at("c", "b", 10, now_s)
        assert quiet.deliver_at("a", "b", 10, now_s) == busy.deliver_at("a", "b", 10, now_s)


@given(paths, st.lists(lines, min_size=3, max_size=3), sends, st.integers(0, 5))
def test_order_and_speed(path: Path, attached: list[Access], sent: list[tuple[str, float, int]], seed: int) -> None:
    """Nothing overtakes on its pair, and nothing is faster than latency and bandwidth allow."""
    network, access = Network(seed, path), dict(zip("abc", attached, strict=True))
    for node, line in access.items():
        network.attach(node, line)
    now_s, last_s = 0.0, dict.fromkeys([pair for pair, _, _ in sent], 0.0)
    for pair, pause_s, size in sent:
        now_s += pause_s
        arrived_s = network.deliver_at(*pair, size, now_s)
        assert arrived_s is not None
        assert arrived_s >= last_s[pair]
        last_s[pair] = arrived_s
        out, into = access[pair[0]], access[pair[1]]
        narrowest = min(bps for bps in (out.up_bps, path.bandwidth_bps, into.down_bps, 1e18) if bps is not None)
        fastest_s = out.latency_s + path.latency_s + into.latency_s + size * 8 / narrowest
        assert arrived_s - now_s >= fastest_s - 1e-6


@given(st.lists(st.tuples(st.sampled_from("bcd"), st.integers(1, 100_000)), min_size=1, max_size=30))
def test_a_shared_line_carries_no_more_than_it_can(sent: list[tuple[str, int]]) -> None:
    network = Network(default=Path(jitter_s=0.0))
    network.attach("a", Access(up_bps=1e6))
    arrivals = [network.deliver_at("a", dst, size, 0.0) or 0.0 for dst, size in sent]
    for until_s in arrivals:
        carried = sum(size for (_, size), at_s in zip(sent, arrivals, strict=True) if at_s <= until_s)
        assert carried * 8 <= 1e6 * until_s + 1
    assert max(arrivals) == pytest.approx(sum(size for _, size in sent) * 8 / 1e6)  # and was never idle


# ---------------------------------------------------------------------------------------------------- severing


def reached(network: Network) -> set[str]:
    """Return the pairs that can send."""
    pairs = [a + b for a in "abc" for b in "abc" if a != b]
    return {pair for pair in pairs if network.deliver_at(*pair, 1, 0.0) is not None}


ALL = {"ab", "ac", "ba", "bc", "ca", "cb"}


def test_a_cut_in_one_direction_or_both() -> None:
    network = Network()
    one = network.cut("a", "b", both=False)
    assert reached(network) == ALL - {"ab"}
    network.cut("a", "b")
    assert reached(network) == ALL - {"ab", "ba"}
    network.mend(one)
    assert reached(network) == ALL - {"ab", "ba"}  # the other cut stays
    network.heal("b", "a")
    assert reached(network) == ALL
    network.mend(one)  # which is gone: nothing happens


def test_a_node_alone() -> None:
    network = Network()
    network.isolate("a")
    network.cut("b", "c", both=False)
    assert reached(network) == {"cb"}
    network.heal("a")
    assert reached(network) == ALL - {"bc"}


def test_a_partition() -> None:
    network = Network()
    token = network.partition([["a"], ["b"]])
    assert reached(network) == set()  # `c`, in no group, is one by itself
    network.heal("a", "b")
    assert reached(network) == set()
    network.mend(token)
    assert reached(network) == ALL
    network.partition([["a", "b"]])
    assert reached(network) == {"ab", "ba"}
    network.heal()
    assert reached(network) == ALL
    with pytest.raises(ConfigError, match="'a' is in two groups"):
        network.partition([["a"], ["a", "b"]])


@given(
    st.lists(st.tuples(st.sampled_from(["cut", "one-way", "isolate", "partition"]), st.permutations("abc")), max_size=8)
)
def test_healing_everything_heals_everything(done: list[tuple[str, list[str]]]) -> None:
    network = Network()
    tokens = []
    for what, (a, b, c) in done:
        if what == "isolate":
            tokens.append(network.isolate(a))
        elif what == "partition":
            tokens.append(network.partition([[a], [b, c]]))
        else:
            tokens.append(network.cut(a, b, both=what == "cut"))
        assert reached(network) < ALL
    for token in tokens:
        network.mend(token)
    assert reached(network) == ALL


@pytest.mark.parametrize("values", [{"latency_s": -1}, {"loss": 1.0}, {"jitter_s": float("nan")}, {"bandwidth_bps": 0}])
def test_a_path_that_is_none(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Path(**values)  # type: ignore[arg-type]


def test_a_line_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"Access\.up_bps"):
        Access(up_bps=-1.0)
