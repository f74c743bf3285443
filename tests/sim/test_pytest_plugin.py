"""The pytest plugin, in runs of pytest of its own: seeds, checks, replay lines, and living beside pytest-asyncio."""

from __future__ import annotations

import re
import shlex

import pytest

import rolecall.fleet.simulation  # here, since numpy cannot be loaded again by each run
import rolecall.sim.trying

LOADED = (rolecall.fleet.simulation, rolecall.sim.trying)
pytest_plugins = ["pytester"]

APP = """
    import anyio, pytest
    import rolecall as rc

    class Echo(rc.Role):
        @rc.service
        async def echo(self, number: int) -> int:
            return number

    class Caller(rc.Role):
        peers: rc.Group[Echo] = rc.many()

        def __init__(self) -> None:
            self.answers = []

        async def main(self) -> None:
            for number in range(10):
                await anyio.sleep(1)
                try:
                    self.answers += (await self.peers.within(deadline_s=0.5).call(Echo.echo, number)).values()
                except rc.QuorumMissed:
                    self.log(missed=number)

    def app():
        roles = {name: {"echo": rc.RoleSpec(class_=Echo)} for name in ("b", "c")}
        return rc.App(
            name="echoes", nodes={name: rc.Node() for name in "abc"},
            roles={"a": {"caller": rc.RoleSpec(class_=Caller)}, **roles},
            relationships={"a": {"peers": "*/echo"}}, on_failure="continue",
        )
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run pytest on some tests, with nothing but the plugins it names."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makeini("[pytest]\n")
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "rolecall.sim.pytest_plugin", "-p", "no:cacheprovider", *options)

    return run


SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")
TIMES = """
    import asyncio, anyio, pytest
    from rolecall.sim.loop import VirtualLoop

    @pytest.mark.simulation(seeds=3)
    async def test_marked(sim_seed, tmp_path):
        await anyio.sleep(1000)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop) and loop.seed == sim_seed and tmp_path.exists()

    class TestMethods:
        pytestmark = pytest.mark.simulation

        @pytest.mark.parametrize("number", [1, 2])
        async def test_in_a_class(self, number):
            await anyio.sleep(number)
            assert asyncio.get_running_loop().time() == number
"""


@pytest.mark.parametrize(
    "beside",
    [
        ["-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto", *SCOPE],
        ["-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=strict", *SCOPE],
        ["-p", "anyio.pytest_plugin", "-o", "anyio_mode=auto"],
        ["-p", "no:anyio"],
    ],
    ids=["asyncio-auto", "asyncio-strict", "anyio-auto", "alone"],
)
def test_marked_tests_run_in_virtual_time_beside_other_plugins(run, beside) -> None:  # type: ignore[no-untyped-def]
    result = run(TIMES, "--strict-markers", "-W", "error", *beside)
    result.assert_outcomes(passed=5)


def test_other_coroutine_tests_are_left_to_their_plugin(run) -> None:  # type: ignore[no-untyped-def]
    source = (
        TIMES + "\n    async def test_real():\n        assert not isinstance(asyncio.get_running_loop(), VirtualLoop)\n"
    )
    run(source, "-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto", *SCOPE).assert_outcomes(passed=6)


def test_the_command_line_chooses_seeds(run) -> None:  # type: ignore[no-untyped-def]
    run(TIMES, "--sim-seeds", "7").assert_outcomes(passed=7 + 14)
    result = run(TIMES, "--sim-seed", "41", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_marked?41? PASSED*"])


@pytest.mark.parametrize("many", ["0", "-1"])
def test_no_seeds_at_all_are_refused(run, many: str) -> None:  # type: ignore[no-untyped-def]
    result = run(TIMES, "--sim-seeds", many)
    assert result.ret != 0
    result.stdout.fnmatch_lines([f"*{many} seeds are none*"])


def test_a_wrong_marker_is_refused(run) -> None:  # type: ignore[no-untyped-def]
    source = "import pytest\n@pytest.mark.simulation(seed=3)\nasync def test_x():\n    pass\n"
    result = run(source)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*takes order, seeds, threads, by name only*"])


def test_a_run_that_cannot_be_replayed_is_found(run) -> None:  # type: ignore[no-untyped-def]
    source = """
        import itertools, anyio, pytest
        count = itertools.count(1)

        @pytest.mark.simulation
        async def test_depends_on_the_past():
            await anyio.sleep(next(count))
    """
    run(source).assert_outcomes(passed=1)
    result = run(source, "--sim-check")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Diverged: seed 0 gave two different runs*", "*replay: pytest *--sim-seed 0*"])
    run(source, "--sim-check", "--no-sim-check").assert_outcomes(passed=1)


FAILS = (
    APP
    + """
    @pytest.mark.simulation(seeds=2)
    @pytest.mark.parametrize("seam", ["fast"])
    async def test_all_answers_come(sim_seed, seam):
        async with rc.simulation(app(), seam=seam) as sim:
            sim.at(0.2).pause("b", for_s=0.01)
            sim.at(2.4).cut("b", "c", for_s=1.0)
            sim.at(3.9).crash("c", for_s=4.0)
            sim.at(8.0).skew("b", 5.0)
            await sim.finished()
            assert len(sim.role("a/caller").answers) == 20
"""
)


def test_a_failure_says_how_to_replay_it_with_few_faults(run) -> None:  # type: ignore[no-untyped-def]
    result = run(FAILS, "--sim-check")
    result.assert_outcomes(failed=2)
    line = next(line for line in result.outlines if "replay: pytest" in line and "--sim-seed 1" in line)
    command = shlex.split(line[line.index("pytest") :])
    assert re.search(r"test_all_answers_come\[", command[1])
    result.stdout.fnmatch_lines(["*1 of 4 faults are enough (*", "*crash c*"])
    assert "skew" not in line and "crash" in line
    again = run(FAILS, *command[1:])
    again.assert_outcomes(failed=1)
    again = run(FAILS, command[1], "--sim-seed", "1", "--sim-faults", "[]")
    again.assert_outcomes(passed=1)


def test_what_pytest_raises_for_a_test_can_be_replayed_too(run) -> None:  # type: ignore[no-untyped-def]
    source = (
        APP
        + """
    @pytest.mark.simulation
    async def test_an_error_comes():
        async with rc.simulation(app()) as sim:
            sim.at(3.9).crash("c", for_s=4.0)
            sim.at(8.0).skew("b", 5.0)
            await sim.finished()
            if "crash" in {event.kind for event in sim.events}:
                with pytest.raises(KeyError):
                    pass

    @pytest.mark.simulation
    async def test_another_day():
        pytest.skip("not now")
"""
    )
    result = run(source, "--sim-check")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*DID NOT RAISE*KeyError*", "*replay: pytest *--sim-seed 0 --sim-faults *crash*"])
    result.stdout.fnmatch_lines(["*1 of 2 faults are enough*"])


def test_the_replay_line_is_for_the_directory_it_was_printed_in(run, pytester, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (pytester.path / "below").mkdir()
    source = "import pytest\n@pytest.mark.simulation\nasync def test_x(sim_seed):\n    assert sim_seed\n"
    (pytester.path / "below" / "test_below.py").write_text(source)
    monkeypatch.chdir(pytester.path / "below")
    found = run("", "test_below.py").stdout.str()
    command = re.search(r"replay: pytest (.*)", found)
    assert command is not None and shlex.split(command[1])[0] == "test_below.py::test_x[0]", found
    run("", *shlex.split(command[1])).assert_outcomes(failed=1)


def test_each_seed_gives_the_same_run_twice(run) -> None:  # type: ignore[no-untyped-def]
    source = (
        APP
        + """
    @pytest.mark.simulation(seeds=5)
    @pytest.mark.parametrize("seam", ["fast", "grpc"])
    async def test_it_ends(sim_seed, seam):
        async with rc.simulation(app(), seam=seam, swarm="everything", swarm_s=10.0, spare=["a"]) as sim:
            await sim.finished()
"""
    )
    run(source, "--sim-check").assert_outcomes(passed=10)
