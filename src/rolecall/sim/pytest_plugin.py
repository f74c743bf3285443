"""The pytest plugin: coroutine tests marked `simulation` run in virtual time, once for each seed.

It makes plain functions of them when they are collected, so that plugins for coroutine tests leave them alone.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, Final, cast

import pytest

__all__ = ("SEED",)

SEED: Final = "sim_seed"
_MARK: Final = "simulation"
_OPTIONS: Final = frozenset({"seeds", "order", "threads"})
_RUNS_MAX: Final = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("rolecall", "tests in virtual time (rolecall)")
    group.addoption("--sim-seeds", type=int, metavar="N", help="Run each simulation with seeds 0 to N-1.")
    group.addoption("--sim-seed", type=int, metavar="SEED", help="Run each simulation with this seed only.")
    group.addoption("--sim-faults", metavar="JSON", help="Have these faults happen, and no others.")
    group.addoption(
        "--sim-check",
        action="store_true",
        default=bool(os.environ.get("CI")),
        help="Run each seed twice, and fail if the runs differ; on where CI is set.",
    )
    group.addoption("--no-sim-check", action="store_false", dest="sim_check", help="Run each seed once.")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "simulation(seeds=1, order='shuffled', threads='inline'): run the coroutine test in virtual time, for each "
        "seed; --sim-seeds replaces how many.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Put a plain function in the place of a coroutine test that is to be simulated."""
    if not inspect.iscoroutinefunction(obj) or not collector.istestfunction(obj, name):
        return
    marks = [*getattr(obj, "pytestmark", ()), collector.get_closest_marker(_MARK)]
    mark = next((mark for mark in marks if mark is not None and mark.name == _MARK), None)
    if mark is not None:
        setattr(collector.obj, name, _simulated(obj, mark, name))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have one test for each seed."""
    mark = metafunc.definition.get_closest_marker(_MARK)
    if mark is None:
        return
    if SEED not in metafunc.fixturenames:
        metafunc.fixturenames.append(SEED)
    metafunc.parametrize(SEED, _seeds(metafunc.config, mark), indirect=True, ids=str)


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the simulation."""
    return int(getattr(request, "param", 0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tell the function which seed is its."""
    if isinstance(item, pytest.Function) and (run := _run_of(item)) is not None:
        run.seed = cast(int, item.callspec.params.get(SEED, 0)) if hasattr(item, "callspec") else 0
        run.config = item.config
        run.node = _named_from_here(item)


def _named_from_here(item: pytest.Function) -> str:
    """Return the id of a test as the directory in which pytest was called knows it: node ids begin at the rootdir."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    return file.replace(os.sep, "/") + "::" + item.nodeid.partition("::")[2]


def _seeds(config: pytest.Config, mark: pytest.Mark) -> list[int]:
    one, many = config.getoption("--sim-seed"), config.getoption("--sim-seeds")
    if one is not None:
        return [one]
    count = many if many is not None else mark.kwargs.get("seeds", 1)
    if count < 1:
        raise pytest.UsageError(f"{count} seeds are none: a test would pass without having run. Give 1 or more.")
    return list(range(count))


class _Run:
    """Of which test a function is at the moment."""

    seed = 0
    node = ""
    config: pytest.Config


def _run_of(item: pytest.Function) -> _Run | None:
    return cast("_Run | None", getattr(item.obj, "_rolecall_run", None))


def _simulated(test: Callable[..., Any], mark: pytest.Mark, name: str) -> Callable[..., None]:
    """Return a function that runs a coroutine test in virtual time."""
    unknown = sorted(set(mark.kwargs) - _OPTIONS)
    if unknown or mark.args:
        raise pytest.UsageError(f"{name}: @pytest.mark.simulation takes {', '.join(sorted(_OPTIONS))}, by name only")
    run = _Run()

    @functools.wraps(test)
    def simulated(*args: Any, **given: Any) -> None:
        from rolecall.sim.trying import Trial

        Trial(
            functools.partial(test, *args, **given),
            seed=run.seed,
            order=mark.kwargs.get("order", "shuffled"),
            threads=mark.kwargs.get("threads", "inline"),
            node=run.node,
            twice=run.config.getoption("sim_check"),
            faults=run.config.getoption("--sim-faults"),
            runs_max=_RUNS_MAX,
            failure=pytest.fail.Exception,
        ).run()

    simulated._rolecall_run = run  # type: ignore[attr-defined]
    return simulated
