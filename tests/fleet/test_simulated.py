"""The engine `sim` and the harness: the same results as in real time, faults, checks, and the same run every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.core.records import LogLine, Metric, Record
from rolecall.sim.checks import Violated
from rolecall.sim.errors import Stuck
from rolecall.sim.faults import Isolate, Slow
from rolecall.sim.network import Path as Way
from rolecall.sim.schedule import Schedule, Timed
from rolecall.sim.simulate import virtual_loop
from rolecall.sim.swarm import Swarm

from . import simulated_roles as roles

HERE = Path(__file__).parent
SOAK = os.environ.get("ROLECALL_SOAK") == "1"
WORKERS = ["w1", "w2", "w3"]


def training(device: str | None = None, seed: int = 5) -> rc.App:
    return rc.App(
        name="training",
        seed=seed,
        nodes={"lead": rc.Node(), **{name: rc.Node(device=device) for name in WORKERS}},
        roles={
            "lead": {"leader": rc.RoleSpec(class_=roles.Leader)},
            **{name: {"worker": rc.RoleSpec(class_=roles.Worker)} for name in WORKERS},
        },
        relationships={"lead": {"workers": "*/worker"}},
        start="lead/leader.run",
    )


def asking(times: int = 10, on_failure: str = "continue", main: type[rc.Role] = roles.Asker, **options: Any) -> rc.App:
    given = {"times": times} if main is roles.Asker else {}
    return rc.App(
        name="asking",
        nodes={name: rc.Node(**options) for name in ("a", "b", "c")},
        roles={
            "a": {"asker": rc.RoleSpec(class_=main, options=given)},
            **{name: {"echo": rc.RoleSpec(class_=roles.Echo)} for name in ("b", "c")},
        },
        relationships={"a": {"echoes": "*/echo"}},
        on_failure=on_failure,
    )


# ------------------------------------------------------------------------------------------ the engine


async def test_final_parameters_are_those_of_the_local_engine() -> None:
    local = await rc.run(training())
    records: list[Record] = []
    simulated = await rc.run(training(device="edge"), engine="sim", observers=[records.append])
    assert simulated.digest == local.digest
    assert simulated.returned == {"lead/leader.run": 3}
    assert [m.values for m in simulated.metrics] == [m.values for m in local.metrics]
    assert sum(isinstance(record, Metric) for record in records) == 3
    assert any(isinstance(record, LogLine) and "digest of events" in record.text for record in records)
    assert simulated.metrics[-1].time_s > 3 * 100 * 6e6 / 3e9  # three times a hundred samples on such a device


@pytest.mark.simulation
@pytest.mark.parametrize("seam", ["fast", "grpc"])
@pytest.mark.parametrize("checked", [True, False])
async def test_both_seams_give_the_same_parameters(sim_seed: int, seam: Any, checked: bool) -> None:
    async with rc.simulation(training(), seed=5, seam=seam, checked=checked) as sim:
        history = await sim.finished()
        assert history.digest == DIGESTS.setdefault("training", history.digest)
        assert [metric.values["step"] for metric in sim.metrics] == [0, 1, 2]


DIGESTS: dict[str, str] = {}


async def test_it_can_be_stopped() -> None:
    stop = anyio.Event()
    app = msgspec.structs.replace(asking(times=10**9), until="stopped")
    with anyio.move_on_after(0.5) as scope:
        await rc.run(app, engine="sim", stop=stop)
    assert scope.cancelled_caught  # it goes on for ever, and what is around it ends it
    stop.set()
    history = await rc.run(app, engine="sim", stop=stop)
    assert history.status == "stopped"


async def test_an_error_is_raised_as_on_other_engines() -> None:
    with pytest.raises(rc.ConfigError, match="nothing is started"):
        await rc.run(rc.App(name="empty", nodes={"a": rc.Node()}, roles={}), engine="sim")


async def test_a_run_that_waits_in_vain_says_for_what() -> None:
    with pytest.raises(Stuck, match=r"(?s)node a waits for an answer of 1 of node b.*b/echo\.never handles a"):
        await rc.run(asking(main=roles.Waiter), engine="sim")


APP = """
name: training
nodes: {lead: {}, "w[1-5]": {device: edge-mixed, network: edge-mixed}}
roles:
  lead: {leader: {class: "simulated_roles:Leader"}}
  w*: {worker: {class: "simulated_roles:Worker"}}
relationships: {lead: {workers: w*/worker}}
start: lead/leader.run
"""


@pytest.mark.skipif(
    not SOAK, reason="slow; `nox -s soak`, and test_two_processes_have_the_same_accidents, run the like"
)
def test_two_processes_give_the_same_lines(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(APP)
    found = []
    for hash_seed in ("1", "2"):
        command = ["run", "app.yaml", "--engine", "sim", "--seed", "7", "--format", "jsonl", "--runs-dir", hash_seed]
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-m", "rolecall", *command],
            capture_output=True,
            text=True,
            env=env,
            check=True,
            cwd=tmp_path,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for line in lines:
            line.pop("wall_s", None)
            line.pop("run_dir", None)
        found.append(lines)
    assert found[0] == found[1]
    assert found[0][-1]["status"] == "ok" and len(found[0]) > 20


# ------------------------------------------------------------------------------------------ the harness


@pytest.mark.simulation(seeds=2)
@pytest.mark.parametrize("seam", ["fast", "grpc"])
async def test_faults_happen_when_they_should(sim_seed: int, seam: Any) -> None:
    async with rc.simulation(asking(), seam=seam, trace=True) as sim:
        sim.at(3.5).crash("c", for_s=3.0)
        sim.at(7.8).pause("b", for_s=1.0)
        await sim.finished()
        assert 10 <= len(sim.role("a/asker").answers) < 20
        kinds = [(round(event.time_s, 1), event.kind) for event in sim.events if event.kind in ("crash", "restart")]
        assert kinds == [(3.5, "crash"), (6.5, "restart")]
        assert [event.node for event in sim.events if event.kind == "lost"] == ["a"]
        assert await sim.proxy("b/echo", of="c").echo(7) == 7
        assert {packet.src for packet in sim.packets} == {"a", "b", "c"}
    assert sim.time_s < 30


@pytest.mark.simulation
async def test_a_role_comes_back_with_its_state_or_without(sim_seed: int) -> None:
    async with rc.simulation(asking()) as sim:
        sim.at(4.5).crash("b", for_s=1.0)
        await sim.until(lambda: sim.time_s > 8)
        assert sim.role("b/echo").heard < 6
        assert sim.world.life("b").number == 2


@pytest.mark.simulation
async def test_a_node_whose_roles_must_live_ends_the_application(sim_seed: int) -> None:
    with pytest.raises(rc.ApplicationFailed, match="node b"):
        async with rc.simulation(asking(on_failure="fail")) as sim:
            sim.at(2.5).crash("b")
            await sim.finished()


@pytest.mark.simulation
async def test_what_must_hold_is_checked_all_the_time(sim_seed: int) -> None:
    reached: list[str] = []
    with pytest.raises(Violated, match=r"at 4\.\d+ s: few answers does not hold") as info:
        async with rc.simulation(asking()) as sim:
            sim.always(lambda: len(sim.role("a/asker").answers) < 8, "few answers")
            await sim.finished()
            reached.append("the end")
    assert reached == [] and info.value.time_s < 4.1


@pytest.mark.simulation
async def test_what_must_come_true_is_waited_for(sim_seed: int) -> None:
    async with rc.simulation(asking()) as sim:
        sim.eventually(lambda: len(sim.role("a/asker").answers) >= 6, within_s=5)
    assert 3 <= sim.time_s < 16

    def six_answers_of_nobody() -> None:
        assert not sim.events

    with pytest.raises(Violated, match=r"six answers of nobody has not come true: it had 2 s"):
        async with rc.simulation(asking()) as sim:
            sim.eventually(six_answers_of_nobody, within_s=2)


@pytest.mark.simulation
async def test_an_error_in_the_body_is_raised_as_it_is(sim_seed: int) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rc.simulation(asking()) as sim:
            await anyio.sleep(1)
            sim.now(Isolate("b"))
            raise ZeroDivisionError
    loop = virtual_loop()
    assert loop is not None and loop.agenda.on_advance == [] and loop.explain == []


@pytest.mark.simulation
async def test_faults_that_make_no_sense_are_refused(sim_seed: int) -> None:
    async with rc.simulation(asking()) as sim:
        with pytest.raises(rc.ConfigError, match="aa"):
            sim.at(1).crash("aa")
        with pytest.raises(rc.ConfigError, match="no device"):
            sim.world.slow("a", 2)
        with pytest.raises(rc.ConfigError, match=r"fault `1 s: slow a 2`: the node has no device"):
            sim.at(1).slow("a", 2)
        with pytest.raises(rc.ConfigError, match="the node has no device"):
            async with rc.simulation(asking(), faults=Schedule((Timed(1.0, Slow("b", 2.0)),))):
                pass
        with pytest.raises(rc.ConfigError, match=r"no seam 'fas'.*fast"):
            async with rc.simulation(asking(), seam="fas"):  # type: ignore[arg-type]
                pass


async def test_it_must_be_entered_in_virtual_time() -> None:
    with pytest.raises(rc.ConfigError, match=r"real time.*rc\.simulate"):
        async with rc.simulation(asking()):
            pass


@pytest.mark.simulation
async def test_slow_devices_and_ways_take_time(sim_seed: int) -> None:
    from rolecall.sim.network import Network

    async with rc.simulation(training(device="edge"), network=Network(1, Way(latency_s=0.2))) as sim:
        sim.at(0.0).slow("w2", 10.0)
        history = await sim.finished()
    step_s = 100 * 6e6 / 3e9
    assert history.metrics[-1].time_s == pytest.approx(3 * (2 * 0.2 + 10 * step_s) + 4 * 2 * 0.2, abs=0.5)


@pytest.mark.simulation(seeds=6)
async def test_a_node_without_a_device_is_never_drawn_to_be_slow(sim_seed: int) -> None:
    slow = Swarm(kinds={"slow": 1.0}, faults=8)
    async with rc.simulation(asking(), swarm=slow, swarm_s=5.0) as sim:
        await sim.finished()
        assert not sim.schedule.faults
    async with rc.simulation(asking(device="edge"), swarm=slow, swarm_s=5.0) as sim:
        await sim.finished()
        assert sim.schedule.faults


FAULTY = """
import sys
import rolecall as rc
from simulated_roles import Asker, Echo

app = rc.App(
    name="asking",
    nodes={name: rc.Node(network="edge-mixed") for name in "abc"},
    roles={"a": {"asker": rc.RoleSpec(Asker)}, **{name: {"echo": rc.RoleSpec(Echo)} for name in "bc"}},
    relationships={"a": {"echoes": "*/echo"}},
    on_failure="continue",
)


async def main():
    async with rc.simulation(app, seam=sys.argv[1], swarm="everything", swarm_s=10.0, spare=["a"]) as sim:
        await sim.finished()
    return sim.digest


if __name__ == "__main__":
    for seed in range(4):
        print(rc.simulate(main, seed=seed))
"""


@pytest.mark.parametrize("seam", ["fast", "grpc"])
def test_two_processes_have_the_same_accidents(tmp_path: Path, seam: str) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    found = []
    for hash_seed in ("3", "4"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        done = subprocess.run(
            [sys.executable, "faulty.py", seam], capture_output=True, text=True, env=env, check=True, cwd=tmp_path
        )
        found.append(done.stdout.split())
    assert found[0] == found[1]
    assert len(set(found[0])) == 4
