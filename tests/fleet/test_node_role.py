"""What roles have nodes do, on every engine: assign, relate, pause, stop, and who learns of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.records import LogLine, Metric, Record
from rolecall.fleet.access import Access
from rolecall.fleet.standing_node import StandingNode, StandingNodeConfig

HERE = Path(__file__).parent
NAMES = ("lead", "w1", "w2")
ENGINES = ("local", "processes", "nodes")
DIGEST = "58b4f5f80d7b5e3fb4911fd9a48cf067"
"""Of what the assigned roles hold at the end, on every engine."""

Runner = Callable[..., Coroutine[Any, Any, rc.History]]

SEEN = [
    "w1/worker", "w1/worker", "w2/worker", "11", "1",
    "w2 knows w1/worker, lead/lead", "w2 knows w1/worker, w2/worker", "w1 knows lead/lead",
    "ConfigError: w1/worker: there is already a role of this name. Choose another name.",
    "ConfigError: assign w1/no/name: roles.w1.no/name: 'no/name' cannot name a node or a role: use up to 100 letters, "
    "digits, '_', '-' and '.'.",
    "ConfigError: w1/other: its options do not fit Adder: Adder.__init__() got an unexpected keyword argument 'begin'.",
    "ConfigError: assign w1/other: roles.w1.other.class: the module managing_roles has no 'Ader'. "
    "Did you mean 'Adder'?",
    "ValueError: no luck",
    "w1/worker managing_roles:Adder ready",
    "w1/unlucky failed: setup failed: no luck",
    "managing", "1",
    "16", "left", "w2/worker", "21", "w1/worker, w2/worker, w1/worker",
    "starting, ready, pausing, paused, resuming, ready, stopping, stopped, starting, ready",
]  # fmt: skip


def managing(lead: str, **options: Any) -> rc.App:
    """Return an application of a role that manages two nodes without roles."""
    known: dict[str, Any] = {"nodes": "w*/node"} | ({"workers": rc.Later("w*/worker")} if lead == "Lead" else {})
    return rc.App(
        name="managing",
        seed=1,
        nodes={name: rc.Node() for name in NAMES},
        roles={"lead": {"lead": rc.RoleSpec(f"managing_roles:{lead}", options=options)}},
        relationships={
            "lead/lead": known,
            "*/node": {"manager": "lead/lead"},
        },
        start="lead/lead.run",
        import_from=[str(HERE)],
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Runner:
    """Return what runs an application on an engine; for `nodes`, the nodes are here and join."""
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("what all nodes of this test know")
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(secret))

    async def run(app: rc.App, engine: str, **options: Any) -> rc.History:
        if engine != "nodes":
            return await rc.run(app, engine=engine, **options)
        async with AsyncExitStack() as stack:
            addresses = [await opened(stack, name, Access(secret_file=secret)) for name in app.nodes]
            placed = {name: rc.Node(address=at) for name, at in zip(app.nodes, addresses, strict=True)}
            return await rc.run(rc.App(**{**fields(app), "nodes": placed}), engine="nodes", **options)

    return run


def fields(app: rc.App) -> dict[str, Any]:
    return {name: getattr(app, name) for name in app.__struct_fields__ if name != "is_expanded"}


async def opened(stack: AsyncExitStack, name: str, access: Access) -> str:
    """Start a standing node in this process; return where it listens."""
    listening: list[str] = []
    heard, stop = anyio.Event(), anyio.Event()

    def announce(address: str | None) -> None:
        listening.append(address or "")
        heard.set()

    config = StandingNodeConfig(name=name, listen="127.0.0.1:0", access=access, packages=("managing_roles",))
    tasks = await stack.enter_async_context(anyio.create_task_group())
    tasks.start_soon(StandingNode(config, announce).serve, stop)
    stack.callback(stop.set)
    await heard.wait()
    return listening[0]


@pytest.mark.may_block("nodes in this process read their secret, which is a small file")
@pytest.mark.parametrize("name", ENGINES)
async def test_a_role_manages_nodes(engine: Runner, name: str) -> None:
    history = await engine(managing("Lead"), name)
    assert history.returned["lead/lead.run"] == SEEN
    assert [record.values["begun"] for record in history.metrics] == [10, 0, 20]
    assert set(history.states) == {"w1/worker", "w2/worker"}
    assert history.digest == DIGEST


@pytest.mark.parametrize("name", ["local", "processes"])
async def test_a_role_that_was_assigned_and_fails_ends_the_run(engine: Runner, name: str) -> None:
    with pytest.raises(rc.ApplicationFailed, match=r"w1/worker failed in main: .*no luck in main"):
        await engine(managing("Hirer", fails="main"), name)


@pytest.mark.parametrize("name", ["local", "processes"])
async def test_unless_its_specification_says_otherwise(engine: Runner, name: str) -> None:
    records: list[Record] = []
    app = managing("Hirer", fails="main", on_failure="continue")
    history = await engine(app, name, observers=[records.append])
    assert history.returned["lead/lead.run"] == "went on"
    lines = [record.text for record in records if isinstance(record, LogLine) and record.level == "error"]
    assert len(lines) == 1 and lines[0].startswith("failed in main") and lines[0].endswith("no luck in main")


async def test_a_node_imports_what_its_operator_allows(engine: Runner) -> None:
    with pytest.raises(rc.ApplicationFailed, match=r"node 'w1' does not import 'os:system', only .*managing_roles"):
        await engine(managing("Hirer", role="os:system"), "processes")


async def test_a_class_of_one_process_does_not_travel(engine: Runner) -> None:
    history = await engine(managing("Picky"), "processes")
    assert history.returned["lead/lead.run"] == (
        "assign: roles.node.role.class: it is class Picky.run.<locals>.Local, which other processes cannot get. Put it "
        "into a module of its own and name it in the application, or run with the engine `local`."
    )
    assert (await engine(managing("Picky"), "local")).returned["lead/lead.run"] == "assigned"


async def test_nodes_say_whom_they_know(engine: Runner) -> None:
    history = await engine(managing("Census"), "processes")
    assert history.returned["lead/lead.run"] == [
        "conductor", "lead", "w2", "linked", "conductor", "lead",
        "w1 met elsewhere at 127.0.0.1:1", "conductor", "elsewhere", "lead", "w2",
    ]  # fmt: skip
    with pytest.raises(rc.ApplicationFailed, match="node 'w1' has no links: its nodes are all in one process"):
        await engine(managing("Census"), "local")


async def test_others_may_not_assign(engine: Runner) -> None:
    app = rc.App(**{**fields(managing("Hirer")), "relationships": {"lead": {"nodes": "w*/node"}}})
    with pytest.raises(rc.ApplicationFailed, match=r"lead/lead may not call w1/node\.assign"):
        await engine(app, "local")


async def test_values_are_recorded_where_a_role_was_assigned(engine: Runner) -> None:
    records: list[Record] = []
    await engine(managing("Hirer"), "processes", observers=[records.append])
    assert ("w1/worker", {"begun": 0}) in [(r.role, r.values) for r in records if isinstance(r, Metric)]
